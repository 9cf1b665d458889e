"""Where nshot keeps what it may lose: compiled models, digests of weights, vectors."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_dir() -> Path:
    """The folder for nshot's own files: ``$NSHOT_CACHE``, else the platform's place for caches.

    The folder may not exist yet; whoever writes creates it. Everything in it can be deleted at any time.
    """
    if own := os.environ.get("NSHOT_CACHE"):
        return Path(own).expanduser()
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg).expanduser() / "nshot"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "nshot"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "nshot" / "cache"
    return Path.home() / ".cache" / "nshot"
