"""The files of a checkpoint, as the layouts of the Hub name them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nshot.errors import CorruptCheckpoint
from nshot.models.family import Get, TokenizerFiles


def read_json(path: Path) -> dict[str, Any]:
    """A table of settings.

    Raises:
        CorruptCheckpoint: it is not one.
    """
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise CorruptCheckpoint(f"{path} is not JSON: {error}. Fetch it again.") from error
    if not isinstance(content, dict):
        raise CorruptCheckpoint(f"{path} should be a table of settings.")
    return content


def image_processor(get: Get) -> Mapping[str, Any] | None:
    """The image processor's settings. As transformers does: of the two files, the newer form counts."""
    newer = get("processor_config.json")
    if newer is not None and isinstance(settings := read_json(newer).get("image_processor"), dict):
        return settings
    older = get("preprocessor_config.json")
    return None if older is None else read_json(older)


def vocabulary(get: Get) -> TokenizerFiles | None:
    """The tokenizer's files."""
    get("tokenizer_config.json")  # for the tokenizer, which looks beside its own file
    if tokenizer_json := get("tokenizer.json"):
        return TokenizerFiles(tokenizer_json=tokenizer_json, vocab=None, merges=None)
    vocab, merges = get("vocab.json"), get("merges.txt")
    return TokenizerFiles(tokenizer_json=None, vocab=vocab, merges=merges) if vocab and merges else None
