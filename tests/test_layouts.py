"""Checkpoints in other layouts than CLIPModel's: found, read, encoded, scored, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import tiny_checkpoint
from layouts import OPEN_CLIP_TINY, SIGLIP, sentence_transformers, tiny_open_clip, tiny_siglip, write
from PIL import Image

import nshot
from nshot import encoders
from nshot.errors import CheckpointError, CheckpointNotFound, CorruptCheckpoint, UnsupportedArchitecture
from nshot.images.preprocess import Preprocessor
from nshot.models import hub
from nshot.models.checkpoint import find
from nshot.models.cleaning import canonical, repaired_lower


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NSHOT_CACHE", str(tmp_path / "cache"))


def pixels(side: int, rows: int = 5) -> np.ndarray[Any, np.dtype[np.uint8]]:
    coarse = np.random.default_rng(0).integers(0, 256, (rows, 3, 4, 4), np.uint8)
    return np.ascontiguousarray(coarse.repeat(-(-side // 4), 2).repeat(-(-side // 4), 3)[:, :, :side, :side])


def with_tokens(model: dict[str, Any], **text: Any) -> dict[str, Any]:
    return model | {"text_cfg": model["text_cfg"] | text}


def with_vision(model: dict[str, Any], **vision: Any) -> dict[str, Any]:
    return model | {"vision_cfg": model["vision_cfg"] | vision}


OPEN_CLIP_KINDS = {
    "plain": OPEN_CLIP_TINY,
    "quick gelu": OPEN_CLIP_TINY | {"quick_gelu": True},
    "custom text": OPEN_CLIP_TINY | {"custom_text": True},
    "CLIPA": with_tokens(
        with_vision(OPEN_CLIP_TINY, no_ln_pre=True, pool_type="avg", final_ln_after_pool=True),
        no_causal_mask=True,
        pool_type="last",
        context_length=32,
    ),
    "mean of normed patches": with_vision(OPEN_CLIP_TINY, pool_type="avg"),
    "a projection with a bias": with_tokens(OPEN_CLIP_TINY, proj_bias=True),
    "no projection of texts": with_tokens(
        OPEN_CLIP_TINY | {"custom_text": True, "embed_dim": 32}, proj_type="none"
    ),
    "heads of 24": with_vision(OPEN_CLIP_TINY, head_width=24, mlp_ratio=3.5),
    "sigmoid": OPEN_CLIP_TINY | {"init_logit_bias": -10, "custom_text": True},
}


@pytest.mark.parametrize("kind", OPEN_CLIP_KINDS)
def test_open_clip_s_files_load_and_encode(tmp_path: Path, kind: str) -> None:
    model = OPEN_CLIP_KINDS[kind]
    checkpoint = find(tiny_open_clip(tmp_path / "m", model=model))
    encoder = encoders.load(checkpoint, device="cpu", precision="f32")
    images = encoder.encode_images(pixels(32))
    texts = encoder.encode_tokens(checkpoint.tokenizer().encode(["a cat", "a photo of the dog", "C++"]))
    assert images.shape == (5, model["embed_dim"])
    assert texts.shape == (3, model["embed_dim"])
    np.testing.assert_allclose(np.linalg.norm(images, axis=1), 1, atol=1e-6)
    assert abs(images[0] - images[1]).max() > 0.01
    assert abs(texts[0] - texts[1]).max() > 0.01
    alone = np.concatenate([encoder.encode_images(row[None]) for row in pixels(32)])
    np.testing.assert_allclose(alone, images, atol=1e-6)


def test_the_vectors_of_a_tower_depend_on_each_of_its_switches(tmp_path: Path) -> None:
    seen = set()
    for number, model in enumerate(OPEN_CLIP_KINDS.values()):
        checkpoint = find(tiny_open_clip(tmp_path / str(number), model=model))
        encoder = encoders.load(checkpoint, device="cpu", precision="f32")
        image = encoder.encode_images(pixels(32, 1))
        text = encoder.encode_tokens(checkpoint.tokenizer().encode(["a cat"]))
        seen.add((image.round(4).tobytes(), text.round(4).tobytes()))
    assert len(seen) == len(OPEN_CLIP_KINDS)


def test_an_open_clip_config_of_the_first_days_is_read_as_one_of_today(tmp_path: Path) -> None:
    old = find(tiny_open_clip(tmp_path / "old"))
    new = find(tiny_open_clip(tmp_path / "new", preprocess={}))
    assert old.config == new.config
    assert old.preprocessor == new.preprocessor
    assert old.image_mean == pytest.approx((0.48145466, 0.4578275, 0.40821073))


@pytest.mark.parametrize(
    ("preprocess", "size", "expected"),
    [
        ({}, (96, 32), "crop"),
        ({"resize_mode": "squash", "interpolation": "bilinear"}, (96, 32), "squash"),
        ({"resize_mode": "longest", "fill_color": 255}, (96, 32), "pad"),
    ],
)
def test_an_image_becomes_square_as_the_checkpoint_says(
    tmp_path: Path, preprocess: dict[str, Any], size: tuple[int, int], expected: str
) -> None:
    checkpoint = find(tiny_open_clip(tmp_path / "m", preprocess=preprocess))
    image = Image.new("RGB", size)
    image.paste((255, 0, 0), (0, 0, 10, 32))  # a red edge on the left
    square = Preprocessor.from_config(checkpoint.preprocessor)(image)
    red = (square[0] > 100) & (square[1] < 100)
    if expected == "crop":
        assert not red.any()
    elif expected == "squash":
        assert red[:, :2].all()
    else:
        assert (square[:, 0] == 255).all(), "white above"
        assert red[16, :2].all()


def test_the_person_s_own_choice_of_a_square_counts(tmp_path: Path) -> None:
    folder = tiny_siglip(tmp_path / "siglip")
    config = find(folder).preprocessor
    image = Image.new("RGB", (108, 36))
    image.paste((255, 0, 0), (0, 0, 30, 36))
    own, squash, crop = (
        Preprocessor.from_config(config, fit=fit)(image) for fit in ("own", "squash", "crop")
    )
    np.testing.assert_array_equal(own, squash)
    assert own[0, 18, 4] > 200
    assert crop[0, 18, 4] < 50, "the middle only"


def test_siglip_in_transformers_layout(tmp_path: Path) -> None:
    checkpoint = find(tiny_siglip(tmp_path / "siglip"))
    assert (checkpoint.config.family.name, checkpoint.config.activation) == ("SigLIP", "sigmoid")
    assert checkpoint.logit_scale == pytest.approx(np.exp(4.7), rel=1e-6)
    assert checkpoint.logit_bias == -12.5
    assert checkpoint.image_mean == checkpoint.image_std == (0.5, 0.5, 0.5)
    encoder = encoders.load(checkpoint, device="cpu", precision="f32")
    vectors = encoder.encode_images(pixels(36))
    beyond = pixels(36)
    beyond[:, :, 32:] = 0
    np.testing.assert_array_equal(encoder.encode_images(beyond), vectors)  # no whole patch: not seen


def test_siglip_s_texts_are_canonical_padded_and_ended(tmp_path: Path) -> None:
    tokenizer = find(tiny_siglip(tmp_path / "siglip")).tokenizer()
    rows = tokenizer.encode(["A Cat!", "hot_dog", "t-shirt", "a photo of a photo of a cat"])
    assert rows[0].tolist() == [3, 6] + [1] * 14
    assert rows[1].tolist()[:3] == [10, 7, 1], "hot dog, not hotdog"
    assert rows[3].tolist()[:9] == [3, 4, 5, 3, 4, 5, 3, 6, 1], "the file's own truncation is not followed"
    assert rows.shape == (4, 16)


def test_what_follows_a_siglip_text_changes_its_vector(tmp_path: Path) -> None:
    checkpoint = find(tiny_siglip(tmp_path / "siglip"))
    encoder = encoders.load(checkpoint, device="cpu", precision="f32")
    rows = checkpoint.tokenizer().encode(["a cat"])
    other = rows.copy()
    other[0, 9] = 0
    assert abs(encoder.encode_tokens(rows) - encoder.encode_tokens(other)).max() > 1e-3


def test_the_token_table_stays_out_of_the_graph(tmp_path: Path) -> None:
    from nshot.encoders.openvino_graph import text_tower

    checkpoint = find(tiny_siglip(tmp_path / "siglip"))
    text, tensors = checkpoint.config.text, checkpoint.tensors()
    graph = text_tower(text, tensors)
    sizes = [list(node.get_output_shape(0)) for node in graph.get_ops() if node.get_type_name() == "Constant"]
    assert list(tensors[text.table].shape) not in sizes


def test_zero_shot_with_siglip_scores_each_label_by_itself(tmp_path: Path) -> None:
    clip = nshot.load(tiny_siglip(tmp_path / "siglip"))
    one = nshot.zero_shot(clip, ["cat"])
    two = nshot.zero_shot(clip, ["cat", "dog"])
    assert two.activation == "sigmoid"
    vectors = clip.embed([Image.new("RGB", (40, 50), "red")]).vectors
    cosine = two.cosines(vectors)[0, 0]
    expected = 1 / (1 + np.exp(-(clip.logit_scale * cosine - 12.5)))
    assert two.scores(vectors)[0, 0] == pytest.approx(expected, rel=1e-6)
    assert one.scores(vectors)[0, 0] == two.scores(vectors)[0, 0]


def test_a_siglip_config_that_is_silent_means_siglip_base(tmp_path: Path) -> None:
    config = {"model_type": "siglip", "text_config": {"vocab_size": 60}}
    folder = tiny_siglip(tmp_path / "siglip", preprocessor={})
    write(folder / "config.json", config)
    found: Any = find(folder).config
    assert (found.vision.patch_size, found.vision.image_size, found.text.context) == (16, 224, 64)
    assert (found.text.activation, found.vision.layer_norm_eps, found.dimension) == ("gelu_tanh", 1e-6, 768)
    assert Preprocessor.from_config(find(folder).preprocessor).size == 224


def test_a_preprocessor_that_crops_because_it_says_so_does(tmp_path: Path) -> None:
    given = {"do_center_crop": True, "crop_size": 36, "size": {"shortest_edge": 40}}
    found = Preprocessor.from_config(find(tiny_siglip(tmp_path / "siglip", preprocessor=given)).preprocessor)
    assert (found.edge, found.crop, found.size) == (40, True, 36)


def test_a_sentence_transformers_folder_is_the_clip_inside_of_it(tmp_path: Path) -> None:
    outer = find(sentence_transformers(tmp_path / "st"))
    inner = find(tmp_path / "st" / "0_CLIPModel")
    assert outer.digest == inner.digest
    assert outer.tokenizer().encode(["a cat"]).tolist() == inner.tokenizer().encode(["a cat"]).tolist()


def test_half_precision_variants_are_taken_where_there_is_no_other(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "half", dtype="float16")
    (folder / "model.safetensors").rename(folder / "model.fp16.safetensors")
    assert find(folder).weights == (folder / "model.fp16.safetensors",)


def test_gelu_new_is_the_form_by_tanh(tmp_path: Path) -> None:
    found: Any = find(tiny_checkpoint(tmp_path / "m", activation="gelu_new")).config
    assert found.vision.activation == found.text.activation == "gelu_tanh"


def test_local_dir_names_a_folder_and_never_the_hub(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "m")
    assert find(f"local-dir:{folder}").digest == find(folder).digest
    with pytest.raises(CheckpointNotFound, match="no such folder"):
        find("local-dir:openai/clip-vit-base-patch32")


@pytest.mark.parametrize(
    ("text", "name", "revision"),
    [
        ("https://huggingface.co/google/siglip2-base-patch16-224", "google/siglip2-base-patch16-224", None),
        ("https://huggingface.co/timm/PE-Core-B-16/tree/main", "timm/PE-Core-B-16", "main"),
        ("huggingface.co/a/b/", "a/b", None),
        ("https://hf.co/a/b/blob/v1.0/config.json", "a/b", "v1.0"),
        ("https://huggingface.co/a/b/tree/refs%2Fpr%2F1?not-for-all=1", "a/b", "refs/pr/1"),
        ("https://huggingface.co/a/b?library=transformers", "a/b", None),
        ("hf-hub:timm/ViT-B-16-SigLIP", "timm/ViT-B-16-SigLIP", None),
        ("hf://a/b", "a/b", None),
        ("openai/clip-vit-base-patch32", "openai/clip-vit-base-patch32", None),
    ],
)
def test_a_page_s_address_names_a_model(text: str, name: str, revision: str | None) -> None:
    assert hub.named(text) == (name, revision)


def test_an_image_processor_that_makes_other_squares_than_the_model_takes_is_refused(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "m")
    config = json.loads((folder / "preprocessor_config.json").read_text())
    write(folder / "preprocessor_config.json", config | {"crop_size": 48})
    with pytest.raises(
        CheckpointError, match=r"squares of 48 pixels, and the model takes 32\. Set crop_size"
    ):
        find(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "siglip2", "architectures": ["Siglip2Model"]}, "NaFlex .* google/siglip2-base"),
        ({"architectures": ["CLIPForImageClassification"]}, "Take the CLIPModel .* nshot fit"),
        ({"architectures": ["CLIPVisionModelWithProjection"]}, "one tower of two"),
        ({"model_type": "owlvit", "architectures": ["OwlViTForObjectDetection"]}, "detector of objects"),
        ({"model_type": "chinese_clip", "architectures": ["ChineseCLIPModel"]}, "ChineseCLIPModel"),
        (
            {"model_type": None, "architectures": None, "architecture": "vit_base_patch16_224"},
            "timm's vit_base",
        ),
    ],
)
def test_what_is_not_known_is_named_with_what_to_do(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    folder = tiny_checkpoint(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text()) | change
    write(folder / "config.json", {key: value for key, value in config.items() if value is not None})
    with pytest.raises(UnsupportedArchitecture, match=message):
        find(folder)


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (with_vision(OPEN_CLIP_TINY, timm_model_name="convnext_base"), "convnext_base"),
        (with_vision(OPEN_CLIP_TINY, timm_model_name="eva02_base_patch16_clip_224"), "eva02_base"),
        (with_vision(OPEN_CLIP_TINY, timm_model_name="vitamin_large_256"), "vitamin_large_256"),
        (with_vision(OPEN_CLIP_TINY, layers=[3, 4, 6, 3]), "ResNet"),
        (with_vision(OPEN_CLIP_TINY, attentional_pool=True), "attentional_pool"),
        (with_vision(OPEN_CLIP_TINY, qk_norm=True), "qk_norm"),
        (with_tokens(OPEN_CLIP_TINY, hf_model_name="xlm-roberta-base"), "xlm-roberta-base"),
        (OPEN_CLIP_TINY | {"multimodal_cfg": {}}, "CoCa"),
    ],
)
def test_open_clip_s_other_towers_are_refused_by_name(
    tmp_path: Path, model: dict[str, Any], named: str
) -> None:
    folder = tiny_open_clip(tmp_path / "m")
    write(folder / "open_clip_config.json", model)
    with pytest.raises(UnsupportedArchitecture, match=named):
        find(folder)


@pytest.mark.parametrize(
    ("file", "named"), [("flax_model.msgpack", "Flax"), ("tf_model.h5", "TensorFlow"), ("model.onnx", "ONNX")]
)
def test_weights_in_another_form_are_named(tmp_path: Path, file: str, named: str) -> None:
    folder = tiny_checkpoint(tmp_path / "m")
    (folder / "model.safetensors").rename(folder / file)
    with pytest.raises(CheckpointNotFound, match=rf"has no model\.safetensors.*files of {named}"):
        find(folder)


def test_transformers_layout_counts_where_both_are_whole(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "m")
    write(folder / "open_clip_config.json", OPEN_CLIP_TINY)
    assert find(folder).config.family.name == "CLIP"
    (folder / "model.safetensors").rename(folder / "open_clip_model.safetensors")
    assert find(folder).config.family.name == "open_clip"


def test_a_timm_config_beside_open_clip_s_is_passed_over(tmp_path: Path) -> None:
    folder = tiny_open_clip(tmp_path / "m")
    write(folder / "config.json", {"architecture": "vit_base_patch16_siglip_224", "num_classes": 0})
    assert find(folder).config.family.name == "open_clip"


def test_a_damaged_open_clip_config_is_said(tmp_path: Path) -> None:
    folder = tiny_open_clip(tmp_path / "m")
    write(folder / "open_clip_config.json", {"model_cfg": {"embed_dim": 24}})
    with pytest.raises(CorruptCheckpoint, match="lacks embed_dim, vision_cfg or text_cfg"):
        find(folder)
    write(folder / "open_clip_config.json", with_vision(OPEN_CLIP_TINY, width="wide"))
    with pytest.raises(CorruptCheckpoint, match="not the config of an open_clip model"):
        find(folder)


def test_siglip_without_its_head_is_refused(tmp_path: Path) -> None:
    folder = tiny_siglip(tmp_path / "m")
    write(
        folder / "config.json",
        SIGLIP | {"vision_config": {**SIGLIP["vision_config"], "vision_use_head": False}},
    )
    with pytest.raises(UnsupportedArchitecture, match="pooling head"):
        find(folder)


def test_the_two_ways_of_cleaning() -> None:
    assert canonical(" Hot_Dog,  C++ ‘x’ ") == "hot dog c ‘x’"
    assert repaired_lower("Caf\u00c3\u00a9  &amp;amp;  MEN’s") == "café & men's"


def test_a_slip_in_a_short_name_is_met_with_the_right_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for slip, meant in (
        ("sketchbok", "sketchbook"),
        ("siglip2-b-16", "siglip2-b16"),
        ("clipb32", "clip-b32"),
    ):
        with pytest.raises(CheckpointError, match=rf"did you mean {meant}\?"):
            find(slip)


def test_the_fingerprint_of_the_newer_families_knows_the_vocabulary_and_the_rules(tmp_path: Path) -> None:
    one = encoders.load(find(tiny_siglip(tmp_path / "one")), device="cpu", precision="f32")
    other_folder = tiny_siglip(tmp_path / "other")
    tokenizer = json.loads((other_folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] = {word[::-1]: number for word, number in tokenizer["model"]["vocab"].items()}
    write(other_folder / "tokenizer.json", tokenizer)
    other = encoders.load(find(other_folder), device="cpu", precision="f32")
    assert one.fingerprint != other.fingerprint, "the same text has other vectors"
    assert find(tiny_checkpoint(tmp_path / "clip")).rules == (), "CLIP's stored vectors stay good"


RECORDED: dict[str, dict[str, list[float]]]
RECORDED = json.loads(Path(__file__).with_name("families.json").read_text())
"""What transformers' SiglipModel and open_clip's own forward made of these very weights: six components."""


@pytest.mark.parametrize("kind", RECORDED)
def test_vectors_are_those_that_the_reference_gave(tmp_path: Path, kind: str) -> None:
    if kind == "siglip":
        folder, side, ids = tiny_siglip(tmp_path / "m"), 36, np.arange(16)[None]
    else:
        model = OPEN_CLIP_KINDS[kind]
        folder = tiny_open_clip(tmp_path / "m", model=model, preprocess={"mean": [0.5] * 3, "std": [0.5] * 3})
        side, ids = 32, np.zeros((1, model["text_cfg"].get("context_length", 77)), np.int64)
        ids[0, :6] = [551, 40, 41, 300, 7, 552]
    encoder = encoders.load(find(folder), device="cpu", precision="f32")
    for found, part in (
        (encoder.encode_images(pixels(side, 1)), "image"),
        (encoder.encode_tokens(ids), "text"),
    ):
        np.testing.assert_allclose(found[0, :6], RECORDED[kind][part], rtol=0, atol=1e-5, err_msg=part)
