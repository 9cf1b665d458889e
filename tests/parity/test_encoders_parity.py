"""Vectors of both towers, against transformers' CLIPModel."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nshot import encoders
from nshot.errors import DeviceError
from nshot.models.checkpoint import find
from nshot.types import Floats, Pixels, Tokens

torch = pytest.importorskip("torch", reason="the [torch] extra is not installed")
transformers = pytest.importorskip("transformers", reason="the [torch] extra is not installed")
pytestmark = pytest.mark.parity

SMALL = {"num_hidden_layers": 2, "num_attention_heads": 4, "projection_dim": 40}
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "the convention of 2021": ({"eos_token_id": 2, "bos_token_id": 0}, {}),
    "an end token that has not the largest id": ({"eos_token_id": 7}, {}),
    "gelu": ({"hidden_act": "gelu"}, {"hidden_act": "gelu"}),
    "patches of 14, an odd image": ({}, {"image_size": 45, "patch_size": 14}),
    "another context and epsilon": (
        {"max_position_embeddings": 20, "layer_norm_eps": 1e-3},
        {"layer_norm_eps": 1e-3},
    ),
}


@pytest.fixture(scope="module", params=list(KINDS.values()), ids=list(KINDS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint that transformers itself made, with weights large enough to matter."""
    text, vision = request.param
    config = transformers.CLIPConfig(
        text_config=SMALL
        | {"hidden_size": 48, "intermediate_size": 96, "vocab_size": 300, "eos_token_id": 299}
        | {"bos_token_id": 298, "pad_token_id": 299}
        | text,
        vision_config=SMALL
        | {"hidden_size": 64, "intermediate_size": 128, "image_size": 48, "patch_size": 16}
        | vision,
        projection_dim=40,
    )
    torch.manual_seed(0)
    model = transformers.CLIPModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    folder = tmp_path_factory.mktemp("clip")
    model.save_pretrained(folder)
    side = config.vision_config.image_size
    transformers.CLIPImageProcessorPil(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    ).save_pretrained(folder)
    (folder / "tokenizer.json").write_text("{}")  # not read here
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NSHOT_CACHE", str(tmp_path))


def inputs(folder: Path, rows: int = 7) -> tuple[Pixels, Tokens]:
    config: Any = find(folder).config
    random = np.random.default_rng(0)
    side, context = config.vision.image_size, config.text.context
    tokens = random.integers(0, 298, (rows, context))
    end = 299 if config.text.eos_token_id == 2 else config.text.eos_token_id
    for row in range(rows):
        tokens[row, min(row + 2, context - 1) :] = end
    return random.integers(0, 256, (rows, 3, side, side), np.uint8), tokens


def reference(folder: Path, pixels: Pixels, tokens: Tokens) -> tuple[Floats, Floats]:
    model = transformers.CLIPModel.from_pretrained(folder).eval()
    checkpoint = find(folder)
    mean, std = (
        np.array(values, np.float32).reshape(3, 1, 1)
        for values in (checkpoint.image_mean, checkpoint.image_std)
    )
    values = torch.tensor((pixels.astype(np.float32) / 255 - mean) / std)
    with torch.inference_mode():
        images = model.get_image_features(pixel_values=values).pooler_output
        texts = model.get_text_features(input_ids=torch.tensor(tokens)).pooler_output
    unit = torch.nn.functional.normalize
    return unit(images, dim=-1).numpy(), unit(texts, dim=-1).numpy()


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_f32_vectors_are_those_of_transformers(folder: Path, runtime: encoders.Runtime) -> None:
    pixels, tokens = inputs(folder)
    encoder = encoders.load(find(folder), device="cpu", precision="f32", runtime=runtime)
    images, texts = reference(folder, pixels, tokens)
    np.testing.assert_allclose(encoder.encode_images(pixels), images, rtol=0, atol=2e-6)
    np.testing.assert_allclose(encoder.encode_tokens(tokens), texts, rtol=0, atol=2e-6)
    assert abs(images[0] - images[1]).max() > 0.01
    assert abs(texts[0] - texts[1]).max() > 0.01


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_a_batch_of_one_equals_a_batch_of_many(folder: Path, runtime: encoders.Runtime) -> None:
    pixels, tokens = inputs(folder, rows=19)
    encoder = encoders.load(find(folder), device="cpu", precision="f32", runtime=runtime)
    images = np.concatenate([encoder.encode_images(pixels[i : i + 1]) for i in range(19)])
    texts = np.concatenate([encoder.encode_tokens(tokens[i : i + 1]) for i in range(19)])
    np.testing.assert_allclose(images, encoder.encode_images(pixels), rtol=0, atol=1e-6)
    np.testing.assert_allclose(texts, encoder.encode_tokens(tokens), rtol=0, atol=1e-6)


def test_torch_autocast_stays_close_and_has_a_fingerprint_of_its_own(folder: Path) -> None:
    pixels, tokens = inputs(folder)
    exact, fast = (
        encoders.load(find(folder), device="cpu", precision=precision, runtime="torch")
        for precision in ("f32", "bf16")
    )
    assert fast.precision == "bf16"
    assert exact.fingerprint != fast.fingerprint
    images, texts = fast.encode_images(pixels), fast.encode_tokens(tokens)
    assert images.dtype == texts.dtype == np.float32
    assert (images * exact.encode_images(pixels)).sum(axis=1).min() > 0.999
    assert (texts * exact.encode_tokens(tokens)).sum(axis=1).min() > 0.999
    np.testing.assert_allclose(np.linalg.norm(images, axis=1), 1, atol=1e-6)


def test_the_runtimes_have_fingerprints_of_their_own(folder: Path) -> None:
    checkpoint = find(folder)
    found = {
        encoders.load(checkpoint, device="cpu", precision="f32", runtime=runtime).fingerprint
        for runtime in ("openvino", "torch")
    }
    assert len(found) == 2


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_an_error_that_says_what_is(
    folder: Path, device: encoders.Device
) -> None:
    backend = torch.cuda if device == "cuda" else torch.backends.mps
    if backend.is_available():
        pytest.skip(f"this machine has {device}")
    with pytest.raises(DeviceError, match=f"sees no {device} device here: it has .*cpu"):
        encoders.load(find(folder), device=device)


def test_auto_on_a_machine_that_only_seems_to_have_a_gpu_is_openvino(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("this machine has a GPU")
    monkeypatch.setattr("nshot.encoders._may_have_gpu", lambda: True)
    assert type(encoders.load(find(folder))).__name__ == "OpenVINOEncoder"


def test_loading_prints_no_progress_bar(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pixels, _ = inputs(folder)
    encoders.load(find(folder), device="cpu", runtime="torch").encode_images(pixels)
    assert capfd.readouterr().err == ""


def test_batches_are_halved_where_memory_is_short_and_nothing_is_lost(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels, tokens = inputs(folder, rows=19)
    plain = encoders.load(find(folder), device="cpu", runtime="torch")
    encoder = encoders.load(find(folder), device="cpu", runtime="torch")
    tower, tried = find(folder).config.vision, []

    def short(ops: Any, weights: Any, x: Any) -> Any:
        tried.append(len(x))
        if len(x) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return tower(ops, weights, x)

    monkeypatch.setattr(encoder, "_tower", short)
    found = encoder.encode_images(pixels)
    np.testing.assert_allclose(found, plain.encode_images(pixels), rtol=0, atol=1e-6)
    assert tried == [16, 8, 4, 4, 4, 4, 3]
    encoder.encode_images(pixels)
    assert max(tried[7:]) == 4  # it stays so
    assert encoder.encode_tokens(tokens).shape == (len(tokens), encoder.dimension)


def test_a_device_without_room_for_one_image_is_an_error_and_other_errors_pass(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels, _ = inputs(folder)
    encoder = encoders.load(find(folder), device="cpu", runtime="torch")
    said = ["MPS backend out of memory (allocated: 9 GB)"]

    def full(*_: Any) -> Any:
        raise RuntimeError(said[0])

    monkeypatch.setattr(encoder, "_tower", full)
    with pytest.raises(DeviceError, match="too short for one image"):
        encoder.encode_images(pixels)
    said[0] = "expected scalar type Half"
    with pytest.raises(RuntimeError, match="expected scalar type Half"):
        encoder.encode_images(pixels)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles with g++ here")
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_a_compiled_tower_gives_the_same_vectors_by_any_number(folder: Path) -> None:
    pixels, _ = inputs(folder, rows=19)
    plain = encoders.load(find(folder), device="cpu", precision="f32")
    fast = encoders.load(find(folder), device="cpu", precision="f32", runtime="torch", compiled=True)
    np.testing.assert_allclose(fast.encode_images(pixels), plain.encode_images(pixels), rtol=0, atol=3e-6)
    np.testing.assert_allclose(
        fast.encode_images(pixels[:1]), plain.encode_images(pixels[:1]), rtol=0, atol=3e-6
    )
    other = encoders.load(find(folder), device="cpu", precision="f32", runtime="torch")
    assert fast.fingerprint != other.fingerprint
