"""A small vocabulary of one's own, in CLIP's form: learnt from captions, and able to spell any text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

START, END = "<|startoftext|>", "<|endoftext|>"
_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_LAST = "</w>"  # ends a word's last piece


def learn(captions: Iterable[str], *, words: int = 4096) -> Any:
    """A lowercasing byte-level BPE as CLIP's, in which the captions' most frequent words are one token each.

    All else is spelt in pieces of such words and in bytes, so no text is ever out of vocabulary. The same
    captions give the same vocabulary.

    Returns:
        a ``tokenizers.Tokenizer`` that adds the start and end tokens, the last two of its vocabulary.
    """
    from tokenizers import models, pre_tokenizers

    draft = _pipeline(models.BPE())
    counts: Counter[str] = Counter()
    for caption in captions:
        text = draft.normalizer.normalize_str(caption)
        counts.update(piece for piece, _ in draft.pre_tokenizer.pre_tokenize_str(text))
    frequent = sorted(counts, key=lambda word: (-counts[word], word))[:words]
    merges = _merges(frequent)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*alphabet, *(letter + _LAST for letter in alphabet), *(a + b for a, b in merges), START, END]
    vocab = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    finished = _pipeline(models.BPE(vocab, merges, end_of_word_suffix=_LAST, unk_token=END))
    finished.add_special_tokens([START, END])
    return finished


def _merges(words: Iterable[str]) -> list[tuple[str, str]]:
    """Merges that make each word one piece.

    A word is first put together as far as the merges before it go, so those still do the same to it; what is
    left of it is then merged from the left.
    """
    ranks: dict[tuple[str, str], int] = {}
    for word in words:
        pieces = [*word[:-1], word[-1] + _LAST]
        while len(pieces) > 1:
            pairs = list(pairwise(pieces))
            best = min(pairs, key=lambda pair: ranks.get(pair, len(ranks)))  # the first of equals
            ranks.setdefault(best, len(ranks))
            place = pairs.index(best)
            pieces[place : place + 2] = ["".join(best)]
    return list(ranks)


def _pipeline(model: Any) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    start, end = tokenizer.token_to_id(START), tokenizer.token_to_id(END)
    if start is not None and end is not None:
        tokenizer.post_processor = processors.RobertaProcessing(
            (END, end), (START, start), trim_offsets=False, add_prefix_space=False
        )
    return tokenizer
