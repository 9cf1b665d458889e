"""What a run needs to go on after it was killed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from nshot.errors import RequestError

_NAME = "state.pt"


def save(folder: Path, *, step: int, recipe: str, model: Any, optimizer: Any) -> None:
    """Keep the run's state: whole or, if killed meanwhile, the one before."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{_NAME}.part"
    with part.open("wb") as file:
        torch.save(
            {
                "step": step,
                "recipe": recipe,
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
            },
            file,
        )
        file.flush()
        os.fsync(file.fileno())
    part.replace(folder / _NAME)


def restore(folder: Path, *, recipe: str, model: Any, optimizer: Any) -> int:
    """Put a kept state back; returns the steps done, 0 where nothing was kept.

    Raises:
        RequestError: the state is of a run with other options or data.
    """
    path = folder / _NAME
    if not path.exists():
        return 0
    saved = torch.load(path, weights_only=True, map_location=next(model.parameters()).device)
    if saved["recipe"] != recipe:
        raise RequestError(
            f"{path} is of another run ({saved['recipe']}), not of this one ({recipe}): resume with the same "
            "options and data, or leave --resume out to begin anew"
        )
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    return int(saved["step"])
