"""Texts -> token ids, as a model was trained on them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nshot.errors import CorruptCheckpoint, LabelError
from nshot.models.cleaning import Clean, repaired_lower
from nshot.models.files import LARGEST, TokenizerFiles, read_json, spelling
from nshot.models.sentencepiece import read_sentencepiece
from nshot.types import Tokens

if TYPE_CHECKING:
    import tokenizers

_START, _END = "<|startoftext|>", "<|endoftext|>"
_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_WORDS = rf"<\|startoftext\|>|<\|endoftext\|>|{_SPLIT}"
_OPENAI_SPECIALS = re.compile("(<start_of_text>|<end_of_text>)")  # open_clip's names of the two
_SHOWN = 60  # characters of a text that a message repeats
_PER_TOKEN = 1000  # characters, more than any token has: blanks among them


class Tokenizer:
    """Made by one of the functions below, each of which gives the ids of its own reference.

    Args:
        tokenizer: makes ids of a cleaned text.
        context: length of the rows of ids.
        padding: the id that fills them up.
        clean: what is done to a text first.
        around: ids before and after the text's own, where the tokenizer itself does not put them.
        dropped: an id that becomes 0.
        specials: texts that stand for an id of their own, by a pattern with one group, and the ids.
        file: what it was made from, for messages.
    """

    def __init__(
        self,
        tokenizer: tokenizers.Tokenizer,
        context: int,
        padding: int,
        *,
        clean: Clean | None = None,
        around: tuple[list[int], list[int]] | None = None,
        dropped: int | None = None,
        specials: tuple[re.Pattern[str], dict[str, int]] | None = None,
        file: Path | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self.context = context
        self.padding = padding
        self._clean = clean
        self._around = around
        self._dropped = dropped
        self._specials = specials
        self._file = file
        self._ids_of_model: int | None = None
        self._end: int | None = None
        self._settings: Path | None = None

    def fitting(self, ids: int, end: int | None, settings: Path) -> Tokenizer:
        """The same tokenizer, whose ids are looked at before a model gets them.

        Args:
            ids: how many the model has vectors for.
            end: one that every text must hold, as its place is where the model reads the text's vector.
            settings: the file that says both, for messages.
        """
        self._ids_of_model, self._end, self._settings = ids, end, settings
        return self

    @classmethod
    def from_files(
        cls, tokenizer_json: Path | None, vocab: Path | None, merges: Path | None, *, context: int
    ) -> Tokenizer:
        """CLIP's, with the ids of transformers' CLIPTokenizer.

        A tokenizer_config.json in the same folder may name another padding token than the end token.

        Args:
            tokenizer_json: both vocabulary and merges.
            vocab: token -> id, where there is no tokenizer.json.
            merges: the byte pairs, in the order of merging.
            context: length of the rows of ids.

        Raises:
            CorruptCheckpoint: a file is missing or damaged.
        """
        from tokenizers import Regex, normalizers, processors

        files = TokenizerFiles(tokenizer_json=tokenizer_json, vocab=vocab, merges=merges)
        tokenizer, file = _read(files)
        start, end = _clip_ends(tokenizer, file)
        # Like transformers, which takes from the file no more than the vocabulary and the merges. A file may
        # also bring a truncation along, which would hide that a text is too long.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
        )
        tokenizer.pre_tokenizer = _byte_pairs(_WORDS)
        tokenizer.post_processor = processors.RobertaProcessing(
            (_END, end), (_START, start), trim_offsets=False, add_prefix_space=False
        )
        padding = _named(file, "pad_token") or _END
        pad = tokenizer.token_to_id(padding)
        if pad is None:  # a model has no vector for it
            padding, pad = _END, end
        tokenizer.add_special_tokens([_START, _END, padding])
        return cls(tokenizer, context, pad, file=file)

    @classmethod
    def of_open_clip(cls, files: TokenizerFiles, *, context: int, clean: Clean = repaired_lower) -> Tokenizer:
        """CLIP's, with the ids of open_clip's own tokenizer: repaired first, padded with 0.

        Raises:
            CorruptCheckpoint: a file is missing or damaged, or not CLIP's.
        """
        from tokenizers import Tokenizer as Plain

        stored, file = _read(files)
        start, end = _clip_ends(stored, file)
        tokenizer = Plain(stored.model)
        tokenizer.pre_tokenizer = _byte_pairs(f"(?i:{_SPLIT})", again=False)
        specials = {"<start_of_text>": start, "<end_of_text>": end}
        return cls(
            tokenizer,
            context,
            0,
            clean=clean,
            around=([start], [end]),
            specials=(_OPENAI_SPECIALS, specials),
            file=file,
        )

    @classmethod
    def as_stored(
        cls,
        files: TokenizerFiles,
        *,
        context: int,
        clean: Clean | None = None,
        only_end: bool = False,
        without_separator: bool = False,
    ) -> Tokenizer:
        """The stored tokenizer as it is; the padding is the one that its settings name.

        Args:
            files: a tokenizer.json, or a spiece.model.
            context: length of the rows of ids.
            clean: what is done to a text first.
            only_end: put the end token behind the text and nothing before it, whatever the file says.
            without_separator: replace the separator, which ends a text, by 0.

        Raises:
            CorruptCheckpoint: a file is missing or damaged.
        """
        tokenizer, file = _read(files)
        tokenizer.no_truncation()
        stored = tokenizer.padding or {}
        tokenizer.no_padding()

        def token_id(kind: str, *usual: str) -> int | None:
            for token in (_named(file, kind), *usual):
                if token is not None and (number := tokenizer.token_to_id(token)) is not None:
                    return int(number)
            return None

        padding = token_id("pad_token", *([stored["pad_token"]] if stored else []), "<pad>", "[PAD]")
        around: tuple[list[int], list[int]] | None = None
        if only_end:
            end = token_id("eos_token", "<eos>", "</s>")
            if end is None:
                raise CorruptCheckpoint(f"{file} has no end token. Fetch it again.")
            around = ([], [end])
            padding = end if padding is None else padding
        if padding is None:
            raise CorruptCheckpoint(f"{file} has no padding token. Fetch it again.")
        dropped = token_id("sep_token", "[SEP]") if without_separator else None
        return cls(tokenizer, context, padding, clean=clean, around=around, dropped=dropped, file=file)

    def encode(self, texts: Sequence[str], *, cut: bool = False) -> Tokens:
        """Token ids of each text, with what starts and ends it, padded: int64[n, context].

        Args:
            texts: the texts.
            cut: shorten a text that is longer than the context, its last token kept, instead of refusing it.

        Raises:
            LabelError: a text is longer than the model's context, or is not Unicode.
            CorruptCheckpoint: the tokenizer's file turns out to be damaged.
        """
        for text in texts:
            if not _is_unicode(text):
                raise LabelError(f"the text {_short(text)} holds half a character: it is not valid Unicode.")
        most = _PER_TOKEN * self.context  # megabytes of text take seconds, and gigabytes of memory
        if not cut and (long := next((text for text in texts if len(text) > most), None)) is not None:
            raise LabelError(
                f"the text {_short(long)} has {len(long):,} characters, and the model reads at most "
                f"{self.context} tokens, start and end included: make it shorter."
            )
        texts = [text[:most] for text in texts]
        rows = np.full((len(texts), self.context), self.padding, np.int64)
        for row, text, ids in zip(rows, texts, self._ids(texts), strict=True):
            if len(ids) > self.context and cut:
                ids = [*ids[: self.context - 1], ids[-1]]
            if len(ids) > self.context:
                raise LabelError(
                    f"the text {_short(text)} is {len(ids)} tokens long, start and end included, and the "
                    f"model reads at most {self.context}: make it shorter."
                )
            row[: len(ids)] = ids
        if self._dropped is not None:
            rows[rows == self._dropped] = 0
        self._check(rows)
        return rows

    def _check(self, rows: Tokens) -> None:
        """Refuse ids that the model cannot read: it would end, or give each text the same vector."""
        wrong = None
        if self._ids_of_model is not None and rows.max(initial=0) >= self._ids_of_model:
            wrong = f"makes the token id {rows.max()}, and by {self._settings} there are {self._ids_of_model}"
        elif self._end is not None and not (rows == self._end).any(axis=1).all():
            wrong = f"does not end texts with the id {str(self._end)[:20]}, as {self._settings} has it"
        if wrong is not None:
            raise CorruptCheckpoint(
                f"{self._file or 'the tokenizer'} {wrong}: they are not of one model. Fetch both again."
            )

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        cleaned = [self._clean(text) for text in texts] if self._clean else list(texts)
        with spelling(self._file or "the tokenizer"):  # a table in it may lead outside of itself
            if self._around is None:
                return [encoding.ids for encoding in self._tokenizer.encode_batch(cleaned)]
            before, after = self._around
            return [[*before, *self._own(text), *after] for text in cleaned]

    def _own(self, text: str) -> list[int]:
        """The ids of a text, nothing around them."""
        pattern, named = self._specials or (None, {})
        parts = pattern.split(text) if pattern else [text]
        ids: list[int] = []
        for part in parts:
            if part in named:
                ids.append(named[part])
            elif part:
                ids += self._tokenizer.encode(part, add_special_tokens=False).ids
        return ids


def _read(files: TokenizerFiles) -> tuple[tokenizers.Tokenizer, Path]:
    """The stored tokenizer, and the file that messages name."""
    from tokenizers import Tokenizer, models

    if "spiece" in files:
        return read_sentencepiece(files["spiece"]), files["spiece"]
    tokenizer_json, vocab, merges = files["tokenizer_json"], files["vocab"], files["merges"]
    file = tokenizer_json or vocab
    if file is None or (tokenizer_json is None and merges is None):
        raise CorruptCheckpoint("a tokenizer needs its tokenizer.json, or its vocab.json and merges.txt.")
    with spelling(file if tokenizer_json else f"{vocab} or {merges}"):
        for path in (tokenizer_json, vocab, merges):
            if path is not None and path.stat().st_size > LARGEST:
                raise ValueError(f"{path} has more than {LARGEST:,} bytes")
        if tokenizer_json:
            return Tokenizer.from_file(str(tokenizer_json)), file
        model = models.BPE.from_file(str(vocab), str(merges), end_of_word_suffix="</w>", unk_token=_END)
        return Tokenizer(model), file


def _clip_ends(tokenizer: tokenizers.Tokenizer, file: Path) -> tuple[int, int]:
    start, end = tokenizer.token_to_id(_START), tokenizer.token_to_id(_END)
    if start is None or end is None:
        raise CorruptCheckpoint(f"{file} is not CLIP's tokenizer: it has no {_START} and {_END}.")
    return start, end


def _byte_pairs(words: str, *, again: bool = True) -> Any:
    """Words by a pattern, each as bytes; ``again``: split by GPT-2's pattern too, as transformers does."""
    from tokenizers import Regex, pre_tokenizers

    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=again),
        ]
    )


def _named(file: Path, kind: str) -> str | None:
    """A token that the tokenizer_config.json beside a file names, written as a token or as a table."""
    config = file.with_name("tokenizer_config.json")
    if not config.exists():
        return None
    named = read_json(config).get(kind)
    content = named.get("content") if isinstance(named, dict) else named
    return content if isinstance(content, str) and content and _is_unicode(content) else None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate: bytes of a file name or a terminal in another encoding
        return False
    return True


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")
