"""A small vocabulary of one's own, in CLIP's form: learnt from captions, and able to spell any text."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

START, END = "<|startoftext|>", "<|endoftext|>"
_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def learn(captions: Iterable[str], *, merges: int = 2048) -> Any:
    """A lowercasing byte-level BPE as CLIP's, learnt from captions.

    Words that occur in the captions become one token each while ``merges`` last; what does not occur is spelt
    in bytes, so no text is ever out of vocabulary.

    Returns:
        a ``tokenizers.Tokenizer`` that adds the start and end tokens, the last two of its vocabulary.
    """
    from tokenizers import models, pre_tokenizers, trainers

    draft = _pipeline(models.BPE(end_of_word_suffix="</w>"))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=2 * len(alphabet) + merges,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    draft.train_from_iterator(captions, trainer)
    learnt = [tuple(pair) for pair in json.loads(draft.to_str())["model"]["merges"]]
    pieces = [*alphabet, *(letter + "</w>" for letter in alphabet), *(a + b for a, b in learnt)]
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys([*pieces, START, END]))}
    finished = _pipeline(models.BPE(vocab, learnt, end_of_word_suffix="</w>", unk_token=END))
    finished.add_special_tokens([START, END])
    return finished


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
