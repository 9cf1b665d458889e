"""Contrastive training: matching images and texts brought together, all others pushed apart.

    from nshot.train import Options, train

    train([("a.jpg", "a red star"), ("b.jpg", "a blue fish")], "my-clip", options=Options(epochs=30))

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (2021). Needs the
[train] extra; what it writes is read without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nshot.errors import MissingExtra
from nshot.train.options import Options

if TYPE_CHECKING:
    from nshot.train.run import Report, train

__all__ = ["Options", "Report", "train"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise MissingExtra('training needs torch and transformers: pip install "nshot[train]"') from error
    from nshot.train import run

    return getattr(run, name)
