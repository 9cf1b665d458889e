"""open_clip and timm as references: imported with torchvision, or what of it there is.

The builds of torchvision on PyPI do not load their compiled operations beside a CPU build of torch, and then
break transformers as well. None of these operations is needed here, so they are declared and left empty;
`make parity` keeps torchvision out of transformers' sight, in a folder "apart" of the environment.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the [torch] extra is not installed")


def load() -> tuple[Any, Any]:
    """(open_clip, timm), or the test is skipped."""
    transformers = pytest.importorskip("transformers", reason="the [torch] extra is not installed")
    _ = transformers.CLIPModel  # before torchvision can be seen
    if importlib.util.find_spec("torchvision") is None:
        sys.path.append(str(Path(sys.prefix) / "apart"))
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        pytest.skip("torchvision, which open_clip needs, is not installed")
    if "torchvision" not in sys.modules:
        text = Path(spec.origin).with_name("_meta_registrations.py").read_text()
        names = set(re.findall(r'register_fake\("torchvision::(\w+)"\)|register_meta\("(\w+)"', text))
        library = torch.library.Library("torchvision", "DEF")
        for pair in names:
            if not hasattr(torch.ops.torchvision, "".join(pair)):
                library.define(f"{''.join(pair)}(Tensor x) -> Tensor")
        sys.modules["nshot_torchvision_operations"] = library  # it must live as long as the process
    reason = "open_clip is not installed"
    return pytest.importorskip("open_clip", reason=reason), pytest.importorskip("timm", reason=reason)
