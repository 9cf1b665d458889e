"""pyarrow, where it is installed."""

from __future__ import annotations

from typing import Any

from nshot.errors import MissingExtra


def pyarrow() -> Any:
    """The module, with what reading and writing Parquet takes.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import pyarrow.compute
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra('Parquet needs pyarrow: pip install "nshot[data]"') from error
    return pyarrow
