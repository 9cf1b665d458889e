"""spiece.model, a sentencepiece model of the unigram kind -> a tokenizer of the tokenizers package.

The file is a protocol buffer: fields of a number and a kind each, of which few matter here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nshot.bounded import read_bytes
from nshot.errors import NONSENSE, CorruptCheckpoint, UnsupportedArchitecture, brief
from nshot.models.files import spelling

if TYPE_CHECKING:
    import tokenizers

_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3  # of the model
_TEXT, _SCORE, _TYPE = 1, 2, 3  # of a piece
_UNIGRAM, _UNKNOWN, _CONTROL = 1, 2, 3
_MODEL_TYPE, _BYTE_FALLBACK = 3, 35  # of the trainer
_CHARSMAP = 2  # of the normaliser


def read_sentencepiece(path: Path) -> tokenizers.Tokenizer:
    """A tokenizer of the file's pieces, which puts nothing around a text.

    Raises:
        CorruptCheckpoint: the file is damaged.
        UnsupportedArchitecture: it is not of the unigram kind.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

    pieces: list[tuple[str, float]] = []
    control: list[str] = []
    unknown, kind, charsmap, fallback = None, _UNIGRAM, b"", False
    try:
        for number, value in _fields(read_bytes(path)):
            if number == _PIECES and isinstance(value, bytes):
                piece = dict(_fields(value))
                text = bytes(piece[_TEXT]).decode()  # type: ignore[arg-type]
                score = piece.get(_SCORE, 0.0)
                if piece.get(_TYPE) == _UNKNOWN:
                    unknown = len(pieces)
                if piece.get(_TYPE) == _CONTROL:
                    control.append(text)
                pieces.append((text, float(score)))
            elif number == _TRAINER and isinstance(value, bytes):
                trainer = dict(_fields(value))
                kind = int(trainer.get(_MODEL_TYPE, _UNIGRAM))
                fallback = bool(trainer.get(_BYTE_FALLBACK, 0))
            elif number == _NORMALIZER and isinstance(value, bytes):
                charsmap = bytes(dict(_fields(value)).get(_CHARSMAP, b""))  # type: ignore[arg-type]
        if not pieces or unknown is None:
            raise ValueError("it holds no pieces")
    except (*NONSENSE, OSError, struct.error) as error:
        raise CorruptCheckpoint(f"{path} is damaged: {brief(error)}. Fetch it again.") from error
    if kind != _UNIGRAM:
        raise UnsupportedArchitecture(
            f"{path} is a sentencepiece model of another kind than unigram: nshot reads its tokenizer.json."
        )
    with spelling(path):
        tokenizer = Tokenizer(models.Unigram(pieces, unknown, byte_fallback=fallback))
        steps: list[Any] = [normalizers.Precompiled(charsmap)] if charsmap else []
        steps += [normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(" {2,}"), " ")]
        tokenizer.normalizer = normalizers.Sequence(steps)
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
        tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in control])
        return tokenizer


def _fields(data: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """The fields of a message: whole numbers, fractions of 32 or 64 bits, or bytes."""
    at = 0
    while at < len(data):
        tag, at = _number(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _number(data, at)
            yield number, value
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            yield number, struct.unpack("<d" if wire == 1 else "<f", data[at : at + size])[0]
            at += size
        elif wire == 2:
            size, at = _number(data, at)
            if at + size > len(data):
                raise ValueError("it is cut off")
            yield number, data[at : at + size]
            at += size
        else:
            raise ValueError("it is not a protocol buffer")


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A whole number, seven bits per byte, the lowest first."""
    result = shift = 0
    while True:
        byte = data[at]
        result |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return result, at
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
