"""Token ids, against transformers' CLIPTokenizer."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from nshot.models.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers", reason="the [torch] extra is not installed")
pytestmark = pytest.mark.parity

REAL = Path(__file__).parents[2].parent / "shared" / "data" / "clip-vit-base-patch32"
FILES = {
    "tokenizer.json": ("tokenizer.json",),
    "vocab.json and merges.txt": ("vocab.json", "merges.txt"),
}
PIECES = [
    *(
        "a photo of",
        "cat",
        "DOG",
        "naïve",
        "nai\u0308ve",
        "ＦＵＬＬ",
        "ﬁ",
        "İstanbul",
        "ß",
        "Σίσυφος",
        "it's",
        "they'RE",
    ),
    *(
        "<|endoftext|>",
        "<|startoftext|>",
        "<|ENDOFTEXT|>",
        "<|endof",
        "text|>",
        "</w>",
        "<|",
        "cat</w>",
        "[PAD]",
        "!",
    ),
    *(
        "🐈",
        "👩‍👩‍👧‍👦",
        "🏳️‍🌈",
        "漢字",
        "東京タワー",
        "한국어",
        "हिन्दी",
        "عربى",
        "ไทย",
        "\U00010348",
        "\u200b",
        "\ufeff",
    ),
    *(
        " ",
        "  ",
        "\t",
        "\n",
        "\r\n",
        "\u00a0",
        "\u3000",
        "\u2028",
        "\x00",
        "\x07",
        "\x1b",
        "\x7f",
        "\x85",
        "\ufffd",
    ),
    *(
        "0",
        "12345",
        "3.14",
        "½",
        "Ⅷ",
        "٣",
        "...",
        "?!",
        "--",
        "'",
        "''s",
        '"',
        "&amp;",
        "$€",
        "_",
        "x_y",
        "CamelCase",
    ),
]


def fuzzed(count: int) -> list[str]:
    """Strings of known troublemakers and of characters from everywhere, none near the limit."""
    chance = random.Random(7)

    def anything() -> str:
        code = chance.choice(
            (chance.randrange(0x250), chance.randrange(0xD800), chance.randrange(0xE000, 0x110000))
        )
        return chr(code)

    def piece() -> str:
        return chance.choice(PIECES) if chance.random() < 0.7 else anything()

    return [
        "",
        " ",
        *PIECES,
        *("".join(piece() for _ in range(chance.randrange(1, 7))) for _ in range(count)),
    ]


@pytest.mark.parametrize("pad", ["<|endoftext|>", "!"])
@pytest.mark.parametrize("files", FILES.values(), ids=FILES)
def test_ids_equal_those_of_transformers_for_any_text(
    tmp_path: Path, files: tuple[str, ...], pad: str
) -> None:
    if not REAL.exists():
        pytest.skip(f"the real tokenizer's files are not at {REAL}")
    for name in (*files, "tokenizer_config.json"):
        shutil.copy(REAL / name, tmp_path / name)
    config = tmp_path / "tokenizer_config.json"
    settings = json.loads(config.read_text()) | {"pad_token": pad}
    config.unlink()  # the copy is as read-only as its source
    config.write_text(json.dumps(settings))
    theirs = transformers.CLIPTokenizer.from_pretrained(tmp_path)
    paths = {
        name: tmp_path / name if name in files else None
        for name in ("tokenizer.json", "vocab.json", "merges.txt")
    }
    ours = Tokenizer.from_files(*paths.values(), context=128)

    texts = fuzzed(3000)
    wanted = theirs(texts, padding="max_length", max_length=128, return_tensors="np")["input_ids"]
    found = ours.encode(texts)
    different = [text for text, a, b in zip(texts, found, wanted, strict=True) if not np.array_equal(a, b)]
    assert not different
