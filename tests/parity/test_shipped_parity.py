"""The shipped checkpoint in nshot and in transformers: the same vectors."""

from __future__ import annotations

import numpy as np
import pytest

import nshot
from nshot import sketchbook
from nshot.models.checkpoint import find

torch = pytest.importorskip("torch", reason="needs the [torch] extra")
transformers = pytest.importorskip("transformers", reason="needs the [torch] extra")
pytestmark = pytest.mark.parity


def test_its_vectors_are_those_of_transformers() -> None:
    folder = find("sketchbook").folder
    clip = nshot.load("sketchbook", precision="f32")
    images = [sketchbook.draw(exhibit.scene) for exhibit in sketchbook.exhibition()]
    texts = [f"a picture of a {exhibit.label}" for exhibit in sketchbook.exhibition()]

    model = transformers.CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    processor = transformers.CLIPProcessor(
        transformers.CLIPImageProcessorPil.from_pretrained(folder),
        transformers.AutoTokenizer.from_pretrained(folder),
    )
    with torch.inference_mode():
        given = processor(text=texts, images=images, return_tensors="pt", padding=True)
        seen = model.get_image_features(pixel_values=given["pixel_values"]).pooler_output
        read = model.get_text_features(
            input_ids=given["input_ids"], attention_mask=given["attention_mask"]
        ).pooler_output
    ours = np.stack([e.vector for e in clip.embed_images(images) if isinstance(e, nshot.Embedded)])
    for mine, theirs in ((ours, seen), (clip.embed_texts(texts), read)):
        unit = torch.nn.functional.normalize(theirs, dim=-1).numpy()
        assert np.abs(mine - unit).max() < 1e-5
