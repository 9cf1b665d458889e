"""Features of a supervised ResNet, against transformers' own model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nshot.errors import CheckpointNotFound
from nshot.evaluation.supervised import Supervised

torch = pytest.importorskip("torch", reason="the [torch] extra is not installed")
transformers = pytest.importorskip("transformers", reason="the [torch] extra is not installed")

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resnet")
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic", num_labels=3
    )
    transformers.ResNetForImageClassification(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        '{"image_processor_type": "ConvNextImageProcessor", "do_resize": true, "size": {"shortest_edge": 64},'
        ' "crop_pct": 0.875, "resample": 3, "do_rescale": true, "rescale_factor": 0.00392156862745098,'
        ' "do_normalize": true, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}'
    )
    return folder


def images(count: int) -> list[Image.Image]:
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 255, (70, 90, 3), dtype=np.uint8)) for _ in range(count)]


def test_features_are_what_the_head_would_see_whatever_the_batches(resnet: Path) -> None:
    network = Supervised(str(resnet))
    many = network.features(images(20))
    assert many.shape == (20, 12)
    assert many.dtype == np.float32
    whole = transformers.AutoModelForImageClassification.from_pretrained(resnet).eval()
    head = whole.classifier[-1]
    shown = transformers.AutoImageProcessor.from_pretrained(resnet, backend="pil")(
        images=images(20), return_tensors="pt"
    )
    with torch.inference_mode():
        logits = whole(**shown).logits.numpy()
    mine = many @ head.weight.detach().numpy().T + head.bias.detach().numpy()
    assert np.allclose(mine, logits, atol=1e-4)


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound, match="nowhere"):
        Supervised(str(tmp_path / "nowhere"))
