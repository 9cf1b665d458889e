"""A run's figures, step by step: a CSV beside the model, and TensorBoard where it is asked for."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from nshot.atomic import writing
from nshot.errors import MissingExtra

_COLUMNS = ("step", "loss", "learning_rate", "scale", "held_out", "images_per_s")


class Log:
    """Rows of figures; a resumed run goes on behind the step that it starts at.

    Args:
        path: the CSV.
        board: the folder for TensorBoard's events; None: none are written.
        start: steps done; rows of later ones, of the run that was killed, are dropped.

    Raises:
        MissingExtra: TensorBoard is asked for and not installed.
        OutputError: the file cannot be written.
    """

    def __init__(self, path: Path, board: Path | None, start: int) -> None:
        self._path = path
        self._board: Any = None if board is None else _writer(board, start)
        with writing(path):
            rows: list[list[str]] = []
            if start and path.exists():
                with path.open(newline="") as file:
                    rows = [row for row in list(csv.reader(file))[1:] if row and int(row[0]) <= start]
            with path.open("w", newline="") as file:
                csv.writer(file).writerows([_COLUMNS, *rows])

    def write(self, step: int, **figures: float | None) -> None:
        """A row; a figure that was not measured is None."""
        values = [figures.get(name) for name in _COLUMNS[1:]]
        with writing(self._path), self._path.open("a", newline="") as file:
            csv.writer(file).writerow([step, *("" if x is None else f"{x:.6g}" for x in values)])
        if self._board is not None:
            for name, value in figures.items():
                if value is not None:
                    self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Nothing more will come."""
        if self._board is not None:
            self._board.close()


def _writer(folder: Path, start: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtra('TensorBoard logs need tensorboard: pip install "nshot[train]"') from error
    return SummaryWriter(str(folder), purge_step=start + 1)
