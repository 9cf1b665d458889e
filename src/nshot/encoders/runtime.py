"""OpenVINO, imported in one place, and without its converter of models.

``import openvino`` ends by importing its converter (``openvino.tools.ovc``, with command-line parsers,
telemetry and an HTTP client), which takes two thirds of the whole import. nshot builds its graphs itself: the
converter is imported when somebody else in the process asks for ``openvino.convert_model``.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

_CONVERTER = "openvino.tools.ovc"


def _import() -> Any:
    if "openvino" in sys.modules or _CONVERTER in sys.modules:
        return import_module("openvino")
    sys.modules[_CONVERTER] = None  # type: ignore[assignment]  # how Python says: there is no such module
    try:
        openvino = import_module("openvino")
    finally:
        del sys.modules[_CONVERTER]

    def later(name: str) -> Any:
        if name == "convert_model":
            return import_module(_CONVERTER).convert_model
        raise AttributeError(f"module 'openvino' has no attribute {name!r}")

    if "convert_model" not in vars(openvino) and "__getattr__" not in vars(openvino):
        vars(openvino)["__getattr__"] = later
    return openvino


ov: Any = _import()
op: Any = ov.opset15
