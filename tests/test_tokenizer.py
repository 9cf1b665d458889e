from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoints import tiny_checkpoint
from fuzz.test_models import charsmap, sentencepiece

from nshot.errors import CorruptCheckpoint, LabelError
from nshot.models.checkpoint import find
from nshot.models.files import TokenizerFiles
from nshot.models.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("tokenizer"))


def single(folder: Path, context: int = 77) -> Tokenizer:
    return Tokenizer.from_files(folder / "tokenizer.json", None, None, context=context)


def pair(folder: Path, context: int = 77) -> Tokenizer:
    return Tokenizer.from_files(None, folder / "vocab.json", folder / "merges.txt", context=context)


def ids(folder: Path) -> tuple[int, int]:
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    return vocabulary["<|startoftext|>"], vocabulary["<|endoftext|>"]


def test_a_text_stands_between_start_and_end_and_is_padded_with_the_end(folder: Path) -> None:
    start, end = ids(folder)
    (row,) = single(folder, context=8).encode(["a cat"])
    assert row.dtype == "int64"
    assert row.tolist()[0] == start
    assert row.tolist()[3:] == [end] * 5


def test_an_empty_text_is_start_and_end(folder: Path) -> None:
    start, end = ids(folder)
    assert single(folder, context=4).encode([""]).tolist() == [[start, end, end, end]]


def test_no_texts_give_no_rows(folder: Path) -> None:
    assert single(folder).encode([]).shape == (0, 77)


@pytest.mark.parametrize(
    "text", ["a photo of a cat", "<|endoftext|> dog", "CAT\t\n dog", "naïve 🐈 東京", "it's", "\x00", ""]
)
def test_both_forms_of_the_files_give_the_same_ids(folder: Path, text: str) -> None:
    assert single(folder).encode([text]).tolist() == pair(folder).encode([text]).tolist()


def test_case_runs_of_space_and_composed_accents_do_not_matter(folder: Path) -> None:
    plain, shouted, spaced = single(folder).encode(["a cat", "A CAT", " a \n\t cat "]).tolist()
    assert plain == shouted == spaced
    composed, decomposed = single(folder).encode(["\u00e9", "e\u0301"]).tolist()
    assert composed == decomposed


def test_a_text_of_the_whole_context_fits_and_one_token_more_is_an_error_that_names_it(folder: Path) -> None:
    tokenizer = single(folder, context=5)
    assert tokenizer.encode(["cat cat cat"]).shape == (1, 5)
    with pytest.raises(LabelError, match=r"'cat dog cat dog' is 6 tokens long.* at most 5: make it shorter"):
        tokenizer.encode(["cat", "cat dog cat dog"])


def test_a_text_of_megabytes_is_refused_before_it_is_looked_at(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = single(folder, context=5)
    asked: list[int] = []

    def ids(_: object, texts: list[str]) -> list[list[int]]:
        asked.extend(map(len, texts))
        return [[0, 1, 2]] * len(texts)

    monkeypatch.setattr(type(tokenizer), "_ids", ids)
    with pytest.raises(LabelError, match=r"'cat cat .* has 4,000,000 characters.* at most 5 tokens"):
        tokenizer.encode(["cat " * 1_000_000])
    tokenizer.encode(["cat " * 1_000_000], cut=True)
    assert asked == [5000]


def test_a_very_long_text_is_named_by_its_beginning(folder: Path) -> None:
    with pytest.raises(LabelError) as caught:
        single(folder).encode(["cat " * 5000])
    assert "'cat cat " in str(caught.value)
    assert len(str(caught.value)) < 250


def test_a_truncation_and_a_padding_in_the_file_are_left_out(folder: Path, tmp_path: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    content["truncation"] = {
        "direction": "Right",
        "max_length": 5,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    content["padding"] = {
        "strategy": {"Fixed": 9},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "!",
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    tokenizer = single(tmp_path, context=6)
    assert tokenizer.encode(["cat"]).tolist() == single(folder, context=6).encode(["cat"]).tolist()
    with pytest.raises(LabelError):
        tokenizer.encode(["cat dog cat dog cat"])


@pytest.mark.parametrize("written", ["!", {"content": "!", "__type": "AddedToken"}])
def test_another_padding_token_is_taken_from_tokenizer_config(
    folder: Path, tmp_path: Path, written: object
) -> None:
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"pad_token": written}))
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    (row,) = single(tmp_path, context=5).encode(["cat"]).tolist()
    assert row[3:] == [vocabulary["!"]] * 2


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("tokenizer.json", lambda c: c["model"]["vocab"].update({"cat</w>": 10**6}), "token id 1000000"),
        (
            "config.json",
            lambda c: c["text_config"].update(eos_token_id=5),
            "does not end texts with the id 5",
        ),
    ],
)
def test_a_tokenizer_and_settings_that_are_not_of_one_model_are_refused(
    tmp_path: Path, file: str, change: Callable[[Any], None], said: str
) -> None:
    """The first ended in a traceback, and the second gave every text the same vector."""
    tiny_checkpoint(tmp_path)
    content = json.loads((tmp_path / file).read_text(encoding="utf-8"))
    change(content)
    (tmp_path / file).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(CorruptCheckpoint, match=said):
        find(tmp_path).tokenizer().encode(["a cat"])


def test_half_a_character_is_an_error_and_not_a_crash(folder: Path) -> None:
    with pytest.raises(LabelError, match="not valid Unicode"):
        single(folder).encode(["caf\udce9"])


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"version": "1.0"}'])
def test_a_damaged_or_missing_file_is_named(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        for name in ("tokenizer.json", "vocab.json", "merges.txt"):
            (tmp_path / name).write_text(content)
    with pytest.raises(CorruptCheckpoint, match=r"tokenizer\.json"):
        single(tmp_path)
    with pytest.raises(CorruptCheckpoint, match=r"vocab\.json"):
        pair(tmp_path)


def test_a_tokenizer_without_files_says_which_it_needs() -> None:
    with pytest.raises(CorruptCheckpoint, match=r"vocab\.json and merges\.txt"):
        Tokenizer.from_files(None, None, None, context=77)


def test_the_tokenizer_of_another_model_is_refused(folder: Path, tmp_path: Path) -> None:
    content = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    (tmp_path / "vocab.json").write_text(json.dumps({k: v for k, v in content.items() if "|" not in k}))
    (tmp_path / "merges.txt").write_bytes((folder / "merges.txt").read_bytes())
    with pytest.raises(CorruptCheckpoint, match="not CLIP's"):
        pair(tmp_path)


def spiece(path: Path, data: bytes) -> Tokenizer:
    path.write_bytes(data)
    files = TokenizerFiles(tokenizer_json=None, vocab=None, merges=None, spiece=path)
    return Tokenizer.as_stored(files, context=8, only_end=True)


@pytest.mark.parametrize(("at", "units"), [(0, bytes(4)), (4, b"\xff" * 4), (4, b"\xff\xff\xff\x7f")])
def test_a_sentencepiece_model_whose_table_of_letters_leads_nowhere_is_named(
    tmp_path: Path, at: int, units: bytes
) -> None:
    """The library that reads it panics, for some tables only when a text is encoded."""
    whole, path = sentencepiece(), tmp_path / "spiece.model"
    assert spiece(path, whole).encode(["a CAT"]).tolist() == spiece(path, whole).encode(["a cat"]).tolist()
    at += whole.index(charsmap())
    with pytest.raises(CorruptCheckpoint, match=r"spiece\.model"):
        spiece(path, whole[:at] + units + whole[at + 4 :]).encode(["a CAT"])


def test_a_sentencepiece_model_of_one_endless_number_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(CorruptCheckpoint, match="more than 64 bits"):
        spiece(tmp_path / "spiece.model", b"\x80" * 2_000_000)
