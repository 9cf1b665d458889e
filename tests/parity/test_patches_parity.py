"""Patches: torch against OpenVINO, and MaskCLIP's value path written out with transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from checkpoints import tiny_checkpoint
from layouts import tiny_siglip

from nshot import encoders
from nshot.models.checkpoint import find

torch = pytest.importorskip("torch", reason="the [torch] extra is not installed")
transformers = pytest.importorskip("transformers", reason="the [torch] extra is not installed")
pytestmark = pytest.mark.parity


@pytest.mark.parametrize("make", [tiny_checkpoint, tiny_siglip], ids=["CLIP", "SigLIP"])
def test_both_runtimes_give_the_same_patches_and_keep_their_vectors(make: object, tmp_path: Path) -> None:
    checkpoint = find(make(tmp_path / "m"))  # type: ignore[operator]
    side = checkpoint.config.vision.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, side, side), np.uint8)
    one, other = (
        encoders.load(checkpoint, device="cpu", precision="f32", runtime=runtime)
        for runtime in ("openvino", "torch")
    )
    for encoder in (one, other):
        np.testing.assert_array_equal(encoder.encode_patches(pixels)[0], encoder.encode_images(pixels))
    np.testing.assert_allclose(
        one.encode_patches(pixels)[1], other.encode_patches(pixels)[1], rtol=0, atol=2e-6
    )


def test_a_patch_is_its_value_in_the_last_attention(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path)
    model = transformers.CLIPModel.from_pretrained(folder).eval()
    checkpoint = find(folder)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32), np.uint8)
    mean, std = (
        np.array(each, np.float32).reshape(3, 1, 1) for each in (checkpoint.image_mean, checkpoint.image_std)
    )
    with torch.no_grad():
        vision = model.vision_model
        states = vision(
            torch.tensor((pixels / np.float32(255) - mean) / std), output_hidden_states=True
        ).hidden_states
        last = vision.encoder.layers[-1]
        value = last.self_attn.out_proj(last.self_attn.v_proj(last.layer_norm1(states[-2])))
        wanted = model.visual_projection(vision.post_layernorm(value))[:, 1:]
        wanted = (wanted / wanted.norm(dim=-1, keepdim=True)).numpy()
    found = encoders.load(checkpoint, precision="f32", runtime="openvino").encode_patches(pixels)[1]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-6)
