"""OWLv2 against transformers: the square, the towers, the heads, the answers; on both runtimes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import tiny_checkpoint
from PIL import Image

import nshot

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from safetensors.torch import save_file  # noqa: E402
from transformers import Owlv2Config, Owlv2ForObjectDetection  # noqa: E402
from transformers.models.owlv2.image_processing_pil_owlv2 import Owlv2ImageProcessorPil  # noqa: E402

from nshot.regions.padded import Padded  # noqa: E402

pytestmark = pytest.mark.parity

TEXTS = ["a photo of a cat", "a photo of a dog", "a red bus", "the diagram"]


def owlv2(folder: Path, *, side: int, layers: int) -> tuple[Path, Any]:
    """A checkpoint of the published widths with random weights, and transformers' model of it."""
    tiny_checkpoint(folder)
    vocabulary = json.loads((folder / "config.json").read_text())["text_config"]["vocab_size"]
    for name in ("config.json", "model.safetensors", "preprocessor_config.json"):
        (folder / name).unlink()
    text = {"vocab_size": vocabulary, "num_hidden_layers": layers, "bos_token_id": 0, "eos_token_id": 1}
    vision = {"image_size": side, "patch_size": 16, "num_hidden_layers": layers}
    config = Owlv2Config(text_config=text, vision_config=vision)
    torch.manual_seed(0)
    model = Owlv2ForObjectDetection(config).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim == 1:  # no bias is zero, and no norm's weight one, in a trained model
                value += 0.02 * torch.randn_like(value)
            elif "head" in name:
                value *= 0.03  # transformers' own start has logits of thousands
    config.save_pretrained(folder)
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    settings = {"size": {"height": side, "width": side}, "do_pad": True, "resample": 2}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder, model


def picture(width: int, height: int) -> Image.Image:
    coarse = np.random.default_rng(0).integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
    "size", [(640, 480), (480, 640), (960, 960), (1500, 1100), (97, 131), (2000, 2000), (31, 900)]
)
def test_the_square_is_that_of_transformers_processor(size: tuple[int, int]) -> None:
    processor = Owlv2ImageProcessorPil()
    image = picture(*size)
    wanted = np.asarray(processor(image)["pixel_values"][0])
    found = Padded(960, tuple(processor.image_mean), tuple(processor.image_std)).normalised(image)
    assert abs(found - wanted).max() < 1e-5


@pytest.mark.parametrize(("side", "layers"), [(240, 12), (960, 1)])
@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_boxes_logits_and_labels_are_those_of_transformers(
    runtime: Any, side: int, layers: int, tmp_path: Path
) -> None:
    folder, model = owlv2(tmp_path, side=side, layers=layers)
    detector = nshot.load_detector(folder, precision="f32", runtime=runtime, device="cpu")
    image = picture(640, 480)
    found, size = detector.detect(image)
    queries = detector.embed_texts(TEXTS)
    tokens = detector.tokenizer.encode(TEXTS)
    processor = Owlv2ImageProcessorPil(size={"height": side, "width": side})
    pixels = torch.tensor(np.asarray(processor(image)["pixel_values"]))
    with torch.no_grad():
        wanted = model(
            input_ids=torch.tensor(tokens), pixel_values=pixels, attention_mask=torch.ones(tokens.shape)
        )
    np.testing.assert_allclose(found.boxes[0], wanted.pred_boxes[0].numpy(), rtol=0, atol=1e-5)
    logits = wanted.logits[0].numpy()
    np.testing.assert_allclose(found.logits(queries)[0], logits, rtol=0, atol=1e-4)
    objectness = wanted.objectness_logits[0].numpy()
    np.testing.assert_allclose(found.objectness[0], objectness, rtol=0, atol=1e-4)
    assert (found.logits(queries)[0].argmax(axis=1) == logits.argmax(axis=1)).all()
    assert size == (640, 480)

    # the answers, in pixels: what the store's float16 leaves of them
    (located,) = detector.locate(image, TEXTS, templates=["{}"], threshold=0.0)
    assert isinstance(located, nshot.Located)
    (result,) = processor.post_process_object_detection(wanted, threshold=0.0, target_sizes=[(480, 640)])
    order = result["scores"].argsort(descending=True)
    boxes = result["boxes"][order].numpy().clip(0, [640, 480, 640, 480])
    inside = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    scores, boxes = result["scores"][order].numpy()[inside], boxes[inside]
    np.testing.assert_allclose([each.score for each in located.boxes], scores, rtol=0, atol=2e-3)
    x, y, width, height = np.array([each.box for each in located.boxes]).T
    both = [np.sort(np.stack(each, 1).sum(axis=1)) for each in ((x, y, x + width, y + height), boxes.T)]
    np.testing.assert_allclose(both[0], both[1], rtol=0, atol=0.05)


def test_boxes_by_an_example_image_are_those_of_transformers(tmp_path: Path) -> None:
    folder, model = owlv2(tmp_path, side=240, layers=2)
    detector = nshot.load_detector(folder, precision="f32", runtime="openvino", device="cpu")
    image, example = picture(640, 480), picture(200, 260)
    processor = Owlv2ImageProcessorPil(size={"height": 240, "width": 240})
    with torch.no_grad():
        wanted = model.image_guided_detection(
            pixel_values=torch.tensor(np.asarray(processor(image)["pixel_values"])),
            query_pixel_values=torch.tensor(np.asarray(processor(example)["pixel_values"])),
        )
    found, _ = detector.detect(image)
    of_example, _ = detector.detect(example)
    query = of_example.classes[0, of_example.objectness[0].argmax()][None]
    np.testing.assert_allclose(found.logits(query)[0], wanted.logits[0].numpy(), rtol=0, atol=1e-4)
    (located,) = detector.locate_like(image, {"it": example}, threshold=0.0, nms=0.3)
    assert isinstance(located, nshot.Located)
    best = float(torch.sigmoid(wanted.logits.max()))
    assert located.boxes[0].score == pytest.approx(best, abs=2e-3)
