"""Texts -> token ids, as CLIP was trained on: lower case, byte pairs, a start and an end token."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nshot.errors import CorruptCheckpoint, LabelError
from nshot.types import Tokens

if TYPE_CHECKING:
    import tokenizers

_START, _END = "<|startoftext|>", "<|endoftext|>"
_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_SHOWN = 60  # characters of a text that a message repeats


class Tokenizer:
    """CLIP's tokenizer; its ids are those of transformers' CLIPTokenizer. Build it with ``from_files``."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, context: int, padding: int) -> None:
        self._tokenizer = tokenizer
        self.context = context
        self.padding = padding

    @classmethod
    def from_files(
        cls, tokenizer_json: Path | None, vocab: Path | None, merges: Path | None, *, context: int
    ) -> Tokenizer:
        """Read a tokenizer.json or, where there is none, a vocab.json and a merges.txt.

        A tokenizer_config.json in the same folder may name another padding token than the end token.

        Args:
            tokenizer_json: both vocabulary and merges.
            vocab: token -> id.
            merges: the byte pairs, in the order of merging.
            context: length of the rows of ids.

        Raises:
            CorruptCheckpoint: a file is missing or damaged.
        """
        from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

        file = tokenizer_json or vocab
        if file is None or (tokenizer_json is None and merges is None):
            raise CorruptCheckpoint("a tokenizer needs its tokenizer.json, or its vocab.json and merges.txt.")
        try:
            if tokenizer_json:
                tokenizer = Tokenizer.from_file(str(tokenizer_json))
            else:
                model = models.BPE.from_file(
                    str(vocab), str(merges), end_of_word_suffix="</w>", unk_token=_END
                )
                tokenizer = Tokenizer(model)
        except Exception as error:  # tokenizers knows no narrower one
            raise CorruptCheckpoint(f"{file} is missing or damaged: {error}. Fetch it again.") from error
        start, end = tokenizer.token_to_id(_START), tokenizer.token_to_id(_END)
        if start is None or end is None:
            raise CorruptCheckpoint(f"{file} is not CLIP's tokenizer: it has no {_START} and {_END}.")

        # Like transformers, which takes from the file no more than the vocabulary and the merges. A file may
        # also bring a truncation along, which would hide that a text is too long.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
        tokenizer.post_processor = processors.RobertaProcessing(
            (_END, end), (_START, start), trim_offsets=False, add_prefix_space=False
        )
        padding = _padding_token(file.with_name("tokenizer_config.json"))
        pad = tokenizer.token_to_id(padding)
        if pad is None:  # a model has no vector for it
            padding, pad = _END, end
        tokenizer.add_special_tokens([_START, _END, padding])
        return cls(tokenizer, context, pad)

    def encode(self, texts: Sequence[str]) -> Tokens:
        """Token ids of each text, with start and end, padded: int64[n, context].

        Raises:
            LabelError: a text is longer than the model's context, or is not Unicode.
        """
        for text in texts:
            if not _is_unicode(text):
                raise LabelError(f"the text {_short(text)} holds half a character: it is not valid Unicode.")
        rows = np.full((len(texts), self.context), self.padding, np.int64)
        for row, text, encoding in zip(rows, texts, self._tokenizer.encode_batch(list(texts)), strict=True):
            ids = encoding.ids
            if len(ids) > self.context:
                raise LabelError(
                    f"the text {_short(text)} is {len(ids)} tokens long, start and end included, and the "
                    f"model reads at most {self.context}: make it shorter."
                )
            row[: len(ids)] = ids
        return rows


def _padding_token(config: Path) -> str:
    """The padding token that a tokenizer_config.json names, which may be written as a token or as a table."""
    try:
        named = json.loads(config.read_bytes()).get("pad_token")
    except FileNotFoundError:
        return _END
    except (ValueError, AttributeError) as error:
        raise CorruptCheckpoint(f"{config} is not a table of settings in JSON. Fetch it again.") from error
    content = named.get("content") if isinstance(named, dict) else named
    return content if isinstance(content, str) and content else _END


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate: bytes of a file name or a terminal in another encoding
        return False
    return True


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")
