"""Checkpoints in folders: what is read from them, and what is said of those that cannot be."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import random_tensors, tiny_checkpoint, to_dtype, write_safetensors

from nshot.errors import CheckpointNotFound, CorruptCheckpoint, UnsupportedArchitecture
from nshot.models import checkpoint


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NSHOT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_checkpoint(tmp_path / "tiny")


def edit(path: Path, **changes: Any) -> None:
    """Change entries of a JSON file; None takes one out."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def edit_tensors(folder: Path, **changes: Any) -> None:
    """Write the seed's tensors anew with some replaced, or left out where None."""
    config = json.loads((folder / "config.json").read_text())
    tensors: dict[str, Any] = {**random_tensors(config, seed=0), **changes}
    kept = {name: value for name, value in tensors.items() if value is not None}
    write_safetensors(folder / "model.safetensors", kept)


def test_a_folder_gives_its_config_and_files(folder: Path) -> None:
    found = checkpoint.find(folder)
    assert (found.name, found.folder, found.revision) == (str(folder), folder, None)
    assert found.weights == (folder / "model.safetensors",)
    assert found.vocabulary == {
        "tokenizer_json": folder / "tokenizer.json",
        "vocab": None,
        "merges": None,
    }
    assert found.config.dimension == 24
    text: Any = found.config.text
    vision: Any = found.config.vision
    assert (text.hidden_size, text.intermediate_size, text.layers, text.heads) == (32, 128, 2, 4)
    assert (text.context, text.eos_token_id, text.activation, text.layer_norm_eps) == (
        77,
        2,
        "quick_gelu",
        1e-5,
    )
    assert (vision.image_size, vision.patch_size, vision.positions) == (32, 16, 5)
    assert found.image_mean == (0.48145466, 0.4578275, 0.40821073)
    assert found.image_std == (0.26862954, 0.26130258, 0.27577711)
    assert found.logit_scale == pytest.approx(100, rel=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("format", ["safetensors", "sharded", "bin"])
def test_every_form_of_weights_gives_the_same_float32_tensors(
    tmp_path: Path, format: str, dtype: str
) -> None:
    folder = tiny_checkpoint(tmp_path / "tiny", format=format, dtype=dtype, position_ids=True)
    expected = random_tensors(json.loads((folder / "config.json").read_text()), seed=0)
    tensors = checkpoint.find(folder).tensors()
    assert tensors.keys() == expected.keys()
    rounding = {"float32": 0, "float16": 2**-11, "bfloat16": 2**-8}[dtype]
    for name, value in tensors.items():
        assert value.dtype == np.float32
        assert not value.flags.writeable
        wanted = np.asarray(4.6052) if name == "logit_scale" else expected[name]
        np.testing.assert_allclose(value, wanted, rtol=rounding or 1e-7, atol=1e-7)


def test_float32_tensors_are_mapped_and_not_copied(folder: Path) -> None:
    tensors = checkpoint.find(folder).tensors()
    name = "text_model.embeddings.token_embedding.weight"
    assert np.shares_memory(tensors[name], tensors[name])


def test_names_may_stand_behind_a_prefix(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    prefixed = {f"clip.{name}": value for name, value in random_tensors(config, seed=0).items()}
    write_safetensors(folder / "model.safetensors", prefixed)
    assert "logit_scale" in checkpoint.find(folder).tensors()


def test_safetensors_are_preferred_to_a_pickle(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"never opened")
    assert checkpoint.find(folder).weights == (folder / "model.safetensors",)


def test_the_tokenizer_may_be_a_vocabulary_and_merges(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    files = checkpoint.find(folder).vocabulary
    assert files == {"tokenizer_json": None, "vocab": folder / "vocab.json", "merges": folder / "merges.txt"}


def test_the_newer_form_of_the_preprocessor_counts(folder: Path) -> None:
    newer = {"image_processor": {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]}}
    (folder / "processor_config.json").write_text(json.dumps(newer))
    found = checkpoint.find(folder)
    assert found.preprocessor == newer["image_processor"]
    assert found.image_mean == (0.5, 0.5, 0.5)
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": "CLIPProcessor"}))
    assert checkpoint.find(folder).preprocessor["crop_size"] == 32


def test_without_normalisation_values_stay_between_0_and_1(folder: Path) -> None:
    edit(folder / "preprocessor_config.json", do_normalize=False)
    found = checkpoint.find(folder)
    assert (found.image_mean, found.image_std) == ((0, 0, 0), (1, 1, 1))


class TestConfig:
    """What config.json may leave out, say twice, or ask for."""

    def test_a_silent_config_means_vit_b_32(self, folder: Path) -> None:
        edit(folder / "preprocessor_config.json", size=None, crop_size=None)
        (folder / "config.json").write_text(json.dumps({"model_type": "clip"}))
        config: Any = checkpoint.find(folder).config
        assert (config.text.hidden_size, config.text.layers, config.text.heads) == (512, 12, 8)
        assert (config.vision.hidden_size, config.vision.layers, config.vision.patch_size) == (768, 12, 32)
        assert (config.dimension, config.text.eos_token_id, config.text.vocab_size) == (
            512,
            49407,
            49408,
        )
        assert len(config.tensors()) == 398

    def test_a_config_dict_replaces_the_config_beside_it(self, folder: Path) -> None:
        edit(folder / "config.json", vision_config_dict={"hidden_act": "gelu", "patch_size": 14})
        edit(folder / "preprocessor_config.json", size=None, crop_size=None)
        vision: Any = checkpoint.find(folder).config.vision
        assert (vision.activation, vision.patch_size) == ("gelu", 14)
        assert vision.hidden_size == 768, "the default, not what vision_config says"

    def test_sizes_may_be_lists(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        edit(folder / "config.json", vision_config=config["vision_config"] | {"image_size": [48, 48]})
        edit(folder / "preprocessor_config.json", size=48, crop_size=48)
        assert checkpoint.find(folder).config.vision.image_size == 48

    @pytest.mark.parametrize("eos_token_id", [2, None])
    def test_both_conventions_for_the_end_of_a_text_are_kept(
        self, tmp_path: Path, eos_token_id: int | None
    ) -> None:
        folder = tiny_checkpoint(tmp_path / "tiny", eos_token_id=eos_token_id)
        text: Any = checkpoint.find(folder).config.text
        assert text.eos_token_id == (eos_token_id or text.vocab_size - 1)

    @pytest.mark.parametrize(
        ("model_type", "architecture"),
        [
            ("siglip2", "Siglip2Model"),
            ("blip", "BlipForConditionalGeneration"),
            ("chinese_clip", "ChineseCLIPModel"),
            ("altclip", "AltCLIP"),
            ("bert", "BertModel"),
            ("resnet", "ResNetForImageClassification"),
            ("clip_text_model", "CLIPTextModel"),
            ("clip", "CLIPForImageClassification"),
            (None, "CLIP"),
            ("dinov2", None),
            (None, None),
        ],
    )
    def test_another_architecture_is_refused_by_name(
        self, folder: Path, model_type: str | None, architecture: str | None
    ) -> None:
        architectures = [architecture] if architecture else None
        edit(folder / "config.json", model_type=model_type, architectures=architectures)
        with pytest.raises(
            UnsupportedArchitecture, match=architecture or model_type or "without a name"
        ) as refusal:
            checkpoint.find(folder)
        assert "nshot reads CLIPModel" in str(refusal.value)

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"hidden_act": "relu"}, UnsupportedArchitecture, "relu"),
            ({"num_channels": 1}, UnsupportedArchitecture, "1 channels"),
            ({"image_size": [32, 48]}, UnsupportedArchitecture, "32 x 48"),
            ({"num_attention_heads": 5}, CorruptCheckpoint, "5 heads"),
            ({"num_hidden_layers": 0}, CorruptCheckpoint, "cannot be"),
            ({"hidden_size": "wide"}, CorruptCheckpoint, r"config\.json"),
        ],
    )
    def test_what_cannot_be_computed_is_refused(
        self, folder: Path, change: dict[str, Any], error: type[Exception], message: str
    ) -> None:
        config = json.loads((folder / "config.json").read_text())
        edit(folder / "config.json", vision_config=config["vision_config"] | change)
        with pytest.raises(error, match=message):
            checkpoint.find(folder)


@pytest.mark.parametrize(
    "name", ["./my-checkpoint", "/x/y", "~/nothing-here", "a/b/c", "models/", "..\\clip"]
)
def test_what_looks_like_a_path_is_not_asked_of_the_hub(name: str) -> None:
    with pytest.raises(CheckpointNotFound, match="no such folder"):
        checkpoint.find(name)


def test_neither_a_path_nor_a_name_is_said(folder: Path) -> None:
    with pytest.raises(CheckpointNotFound, match="neither a folder nor a name"):
        checkpoint.find("a photo of a cat")
    with pytest.raises(CheckpointNotFound, match="no such folder"):
        checkpoint.find(Path("relative"))
    with pytest.raises(CheckpointNotFound, match="is a file: give the folder"):
        checkpoint.find(folder / "model.safetensors")
    with pytest.raises(CheckpointNotFound, match="has no revisions"):
        checkpoint.find(folder, "main")


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_a_missing_file_is_named(folder: Path, file: str) -> None:
    (folder / file).unlink()
    with pytest.raises(CheckpointNotFound, match=f"has no {file}"):
        checkpoint.find(folder)


def test_a_missing_tokenizer_or_shard_is_named(folder: Path, tmp_path: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "merges.txt").unlink()
    with pytest.raises(CheckpointNotFound, match=r"vocab\.json and merges\.txt"):
        checkpoint.find(folder)
    sharded = tiny_checkpoint(tmp_path / "sharded", format="sharded")
    (sharded / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointNotFound, match="model-00002-of-00002"):
        checkpoint.find(sharded)


def test_an_index_cannot_point_out_of_its_folder(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "sharded", format="sharded")
    edit(folder / "model.safetensors.index.json", weight_map={"logit_scale": "../other.safetensors"})
    with pytest.raises(CorruptCheckpoint, match="beside it"):
        checkpoint.find(folder)


def test_broken_json_is_named(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    with pytest.raises(CorruptCheckpoint, match=r"config\.json is not JSON"):
        checkpoint.find(folder)


def test_a_missing_or_misshapen_tensor_is_named(folder: Path) -> None:
    edit_tensors(folder, **{"text_projection.weight": None})
    with pytest.raises(CorruptCheckpoint, match=r"text_projection\.weight is missing"):
        checkpoint.find(folder).tensors()
    edit_tensors(folder, **{"text_projection.weight": np.zeros((24, 31), np.float32)})
    with pytest.raises(
        CorruptCheckpoint, match=r"text_projection\.weight has the shape \(24, 31\).*\(24, 32\)"
    ):
        checkpoint.find(folder).tensors()


def test_damaged_weights_are_said(folder: Path) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    damaged = [whole[:length] for length in (0, 5, 500, len(whole) - 1)]
    damaged += [b"\xff" * 8 + whole[8:], whole.replace(b'"data_offsets": [0,', b'"data_offsets": [4,', 1)]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(CorruptCheckpoint, match="damaged or incomplete"):
            checkpoint.find(folder).tensors()


def test_a_git_lfs_pointer_is_told_from_weights(folder: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 605157884\n"
    (folder / "model.safetensors").write_text(pointer)
    with pytest.raises(CorruptCheckpoint, match="git lfs pull"):
        checkpoint.find(folder).tensors()


class TestDigest:
    """One number for weights and config, computed once."""

    def test_it_changes_with_the_weights_and_with_the_config(self, folder: Path) -> None:
        seen = {checkpoint.find(folder).digest}
        edit_tensors(folder, logit_scale=np.asarray(1, np.float32))
        seen.add(checkpoint.find(folder).digest)
        edit(folder / "config.json", projection_dim=25)
        seen.add(checkpoint.find(folder).digest)
        assert len(seen) == 3
        assert all(len(digest) == 64 for digest in seen)

    def test_it_does_not_depend_on_the_folder(self, folder: Path, tmp_path: Path) -> None:
        other = tiny_checkpoint(tmp_path / "other")
        assert checkpoint.find(other).digest == checkpoint.find(folder).digest

    def test_an_unchanged_file_is_not_read_again(self, folder: Path) -> None:
        path = folder / "model.safetensors"
        digest, status = checkpoint.find(folder).digest, path.stat()
        path.write_bytes(
            bytes(status.st_size)
        )  # other bytes of the same size and time: only reading would tell
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert checkpoint.find(folder).digest == digest
        os.utime(path)
        assert checkpoint.find(folder).digest != digest

    def test_a_cache_that_cannot_be_written_does_no_harm(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv("NSHOT_CACHE", str(tmp_path / "file"))
        assert len(checkpoint.find(folder).digest) == 64


def test_brain_floats_round_as_the_helper_says() -> None:
    assert to_dtype(np.asarray([1.0, -2.0], np.float32), "bfloat16").tolist() == [0x3F80, 0xC000]
