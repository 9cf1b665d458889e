"""Configs and pickled weights are read as transformers and torch read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nshot.models.clip import Clip
from nshot.models.unpickle import read_bin

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch", reason="needs the [torch] extra")
transformers = pytest.importorskip("transformers", reason="needs the [torch] extra")

NAMES = {
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "activation": "hidden_act",
    "layer_norm_eps": "layer_norm_eps",
    "context": "max_position_embeddings",
    "vocab_size": "vocab_size",
    "eos_token_id": "eos_token_id",
    "image_size": "image_size",
    "patch_size": "patch_size",
}


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"text_config": None, "vision_config": None},
        {"text_config": {"hidden_size": 768, "num_attention_heads": 12, "eos_token_id": 2}},
        {
            "projection_dim": 1024,
            "vision_config": {"image_size": 336, "patch_size": 14, "layer_norm_eps": 1e-6},
        },
        {
            "text_config": {"hidden_size": 768},
            "text_config_dict": {"hidden_act": "gelu"},
            "vision_config": {"hidden_size": 1280, "image_size": 336},
            "vision_config_dict": {"hidden_size": 1280, "num_attention_heads": 16, "patch_size": 14},
        },
    ],
)
def test_a_config_means_what_transformers_makes_of_it(config: dict[str, Any]) -> None:
    config = {"model_type": "clip"} | config
    reference = transformers.CLIPConfig(**json.loads(json.dumps(config)))
    found = Clip().read(config, "config.json")
    assert found.dimension == reference.projection_dim
    for tower, part in ((found.text, reference.text_config), (found.vision, reference.vision_config)):
        for ours, theirs in NAMES.items():
            if hasattr(tower, ours):
                assert getattr(tower, ours) == getattr(part, theirs), ours


def test_the_tensors_are_those_of_the_model() -> None:
    reference = transformers.CLIPConfig(
        text_config={"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2},
        vision_config={"hidden_size": 48, "num_attention_heads": 4, "num_hidden_layers": 3, "patch_size": 16},
    )
    model = transformers.CLIPModel(reference)
    places = Clip().read(reference.to_dict(), "config.json").tensors()
    shapes = {place.name: place.shape for place in places.values()}
    assert shapes == {name: tuple(value.shape) for name, value in model.state_dict().items()}


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_torch_file_is_read_as_torch_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))
    tensors = {
        "contiguous": base,
        "transposed": base.T,
        "slice": base[1:3, ::2],
        "scalar": torch.tensor(4.6052),
        "parameter": torch.nn.Parameter(base + 1),
        "half": base.half(),
        "int": torch.arange(77)[None],
        **model.state_dict(),
    }
    torch.save(tensors, path)
    found = read_bin(path)
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        np.testing.assert_array_equal(found[name], value.detach().numpy(), strict=True)
    torch.save(model.state_dict(), path)  # an OrderedDict with attributes of its own
    assert read_bin(path).keys() == model.state_dict().keys()
