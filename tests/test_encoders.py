from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest
from checkpoints import tiny_checkpoint

from nshot import encoders
from nshot.encoders import Encoder, Precision
from nshot.encoders.openvino import OpenVINOEncoder
from nshot.errors import DeviceError, MissingExtra
from nshot.models.checkpoint import find
from nshot.types import Floats, Pixels, Tokens

RANDOM = np.random.default_rng(0)
PIXELS: Pixels = RANDOM.integers(0, 256, (37, 3, 32, 32), np.uint8)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("encoders"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NSHOT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "compiled"


def openvino(folder: Path, precision: Precision = "f32") -> Encoder:
    return encoders.load(find(folder), runtime="openvino", precision=precision)


def tokens(folder: Path, rows: int = 5) -> Tokens:
    """Texts of 3 to 3 + rows tokens, the end token behind them."""
    text = find(folder).config.text
    ids = np.random.default_rng(1).integers(0, text.vocab_size - 2, (rows, text.context))
    for row in range(rows):
        ids[row, row + 3 :] = text.vocab_size - 1
    return ids


def has_bf16() -> bool:
    import openvino as ov

    return "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def no_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, only a compiled graph that is in the cache can be used."""

    def build(*_: object, **__: object) -> None:
        raise AssertionError("a graph was built")

    monkeypatch.setattr("nshot.encoders.openvino_graph.image_tower", build)
    monkeypatch.setattr("nshot.encoders.openvino_graph.text_tower", build)


# --- vectors ----------------------------------------------------------------------------------------------


def test_vectors_are_float32_of_unit_norm(folder: Path) -> None:
    encoder = openvino(folder)
    for vectors in (encoder.encode_images(PIXELS), encoder.encode_tokens(tokens(folder))):
        assert vectors.dtype == np.float32
        assert vectors.shape[1] == encoder.dimension == 24
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 16, 20])
def test_a_vector_depends_on_nothing_else_in_its_batch(folder: Path, size: int) -> None:
    encoder = openvino(folder)
    whole = encoder.encode_images(PIXELS)
    parts = [encoder.encode_images(PIXELS[start : start + size]) for start in range(0, len(PIXELS), size)]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-6)
    assert abs(whole[0] - whole[1]).max() > 0.01  # and different images have different vectors


def test_a_text_s_vector_depends_on_no_other_text(folder: Path) -> None:
    encoder = openvino(folder)
    ids = tokens(folder)
    one_by_one = np.concatenate([encoder.encode_tokens(ids[row : row + 1]) for row in range(len(ids))])
    np.testing.assert_allclose(one_by_one, encoder.encode_tokens(ids), atol=1e-6)
    assert abs(one_by_one[0] - one_by_one[1]).max() > 0.01


@pytest.mark.parametrize("eos_token_id", [2, None], ids=["of 2021", "its own"])
def test_what_follows_a_text_s_end_does_not_matter(tmp_path: Path, eos_token_id: int | None) -> None:
    folder = tiny_checkpoint(tmp_path, eos_token_id=eos_token_id)
    encoder, ids = openvino(folder), tokens(folder)
    padded = ids.copy()
    for row in range(len(ids)):
        padded[row, row + 4 :] = 0  # another padding than the end token
    np.testing.assert_allclose(encoder.encode_tokens(padded), encoder.encode_tokens(ids), atol=1e-6)
    padded[0, 1] += 1
    assert abs(encoder.encode_tokens(padded) - encoder.encode_tokens(ids))[0].max() > 0.01


def test_no_rows_give_no_vectors(folder: Path) -> None:
    encoder = openvino(folder)
    assert encoder.encode_images(PIXELS[:0]).shape == (0, 24)
    assert encoder.encode_tokens(tokens(folder)[:0]).shape == (0, 24)


def test_many_threads_may_encode_at_once(folder: Path) -> None:
    encoder = openvino(folder)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(encoder.encode_images, [PIXELS[i : i + 3] for i in range(34)]))
    whole = encoder.encode_images(PIXELS)
    for i, vectors in enumerate(found):
        np.testing.assert_allclose(vectors, whole[i : i + 3], atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_weights_are_widened(folder: Path, tmp_path: Path, dtype: str) -> None:
    half = openvino(tiny_checkpoint(tmp_path / dtype, dtype=dtype)).encode_images(PIXELS)
    cosines = (half * openvino(folder).encode_images(PIXELS)).sum(axis=1)
    assert cosines.min() > 0.999
    assert cosines.min() < 0.9999999


@pytest.mark.parametrize("format", ["sharded", "bin"])
def test_the_vectors_do_not_depend_on_the_files_form(folder: Path, tmp_path: Path, format: str) -> None:
    other = openvino(tiny_checkpoint(tmp_path / format, format=format))
    np.testing.assert_array_equal(other.encode_images(PIXELS), openvino(folder).encode_images(PIXELS))


def test_read_only_and_strided_arrays_will_do(folder: Path) -> None:
    encoder = openvino(folder)
    strided = PIXELS[::-2, ::-1].view()
    strided.flags.writeable = False
    np.testing.assert_array_equal(encoder.encode_images(strided), encoder.encode_images(strided.copy()))


def test_arrays_of_another_form_are_refused(folder: Path) -> None:
    encoder = openvino(folder)
    wrong: list[tuple[Callable[..., Floats], object]] = [
        (encoder.encode_images, PIXELS[:, :, :16]),
        (encoder.encode_images, PIXELS.astype(np.float32)),
        (encoder.encode_tokens, tokens(folder)[:, :9]),
        (encoder.encode_tokens, tokens(folder).astype(np.int32)),
    ]
    for encode, rows in wrong:
        with pytest.raises(ValueError, match="expected"):
            encode(rows)


# --- precision and fingerprint ----------------------------------------------------------------------------


def test_f32_is_f32_and_auto_is_what_the_processor_has(folder: Path) -> None:
    assert openvino(folder, "f32").precision == "f32"
    wanted = "bf16" if has_bf16() else "f32"
    assert openvino(folder, "auto").precision == openvino(folder, "bf16").precision == wanted


def test_bf16_vectors_are_close_to_those_of_f32(folder: Path) -> None:
    if not has_bf16():
        pytest.skip("this processor has no native bf16")
    exact, fast = openvino(folder, "f32"), openvino(folder, "bf16")
    assert (exact.encode_images(PIXELS) * fast.encode_images(PIXELS)).sum(axis=1).min() >= 0.999
    ids = tokens(folder)
    assert (exact.encode_tokens(ids) * fast.encode_tokens(ids)).sum(axis=1).min() >= 0.999


def test_the_fingerprint_is_of_all_that_changes_a_vector(folder: Path, tmp_path: Path) -> None:
    first = openvino(folder).fingerprint
    assert openvino(folder).fingerprint == first
    assert openvino(tiny_checkpoint(tmp_path / "weights", seed=1)).fingerprint != first
    other = tiny_checkpoint(tmp_path / "mean")
    config = other / "preprocessor_config.json"
    config.write_text(config.read_text().replace("0.48145466", "0.5"))
    assert openvino(other).fingerprint != first


def test_small_weights_give_nearly_the_same_vectors_from_a_third_of_the_file(cache: Path) -> None:
    checkpoint = find("sketchbook")
    side = checkpoint.config.vision.image_size
    pixels = np.repeat(
        np.repeat(RANDOM.integers(0, 256, (20, 3, 8, 8), np.uint8), side // 8, 2), side // 8, 3
    )
    ids = checkpoint.tokenizer().encode(["a red circle", "two blue squares"])
    exact, small = (encoders.load(checkpoint, precision=name) for name in ("f32", "f32-small"))
    assert small.precision == "f32-small"
    assert small.fingerprint != exact.fingerprint
    for mine, theirs in (
        (small.encode_images(pixels), exact.encode_images(pixels)),
        (small.encode_tokens(ids), exact.encode_tokens(ids)),
    ):
        assert (mine * theirs).sum(axis=1).min() > 0.9999
        assert not np.array_equal(mine, theirs)
    sizes = {path.name.split("-", 1)[1].rpartition("-")[0]: path.stat().st_size for path in cache.iterdir()}
    assert sizes.keys() == {
        "images-f32",
        "texts-f32",
        "images-f32small",
        "texts-f32small",
    }  # all of them stay
    assert sizes["images-f32small"] < 0.4 * sizes["images-f32"]


def test_small_weights_are_for_the_cpu_and_say_so(folder: Path) -> None:
    with pytest.raises(DeviceError, match="f32-small"):
        encoders.load(find(folder), device="cuda", precision="f32-small")


# --- when graphs are built, and their cache ---------------------------------------------------------------


def test_a_tower_is_built_when_it_is_first_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nshot.encoders import openvino_graph

    built: list[str] = []
    for name in ("image_tower", "text_tower"):
        real = getattr(openvino_graph, name)

        def build(
            *arguments: object, name: str = name, real: Callable[..., object] = real, **named: object
        ) -> object:
            built.append(name)
            return real(*arguments, **named)

        monkeypatch.setattr(openvino_graph, name, build)
    encoder = openvino(folder)
    assert built == []
    encoder.encode_images(PIXELS)
    encoder.encode_images(PIXELS)
    assert built == ["image_tower"]
    encoder.encode_tokens(tokens(folder))
    assert built == ["image_tower", "text_tower"]


def test_the_text_tower_leaves_memory_when_the_images_begin_and_comes_back_when_asked(folder: Path) -> None:
    encoder = OpenVINOEncoder(find(folder), "f32")
    there = []
    texts = encoder.encode_tokens(tokens(folder))
    there.append(encoder._texts.started)
    encoder.encode_images(PIXELS)
    there.append(encoder._texts.started)
    np.testing.assert_array_equal(encoder.encode_tokens(tokens(folder)), texts)
    encoder.encode_images(PIXELS)
    there.append(encoder._texts.started)
    assert there == [True, False, True]  # whoever asks for both in turn keeps both


def test_importing_the_runtime_leaves_openvino_s_converter_until_it_is_asked_for() -> None:
    program = (
        "import sys; import nshot.encoders.openvino; assert 'openvino.tools.ovc' not in sys.modules\n"
        "import openvino; from openvino import convert_model; assert callable(openvino.convert_model)\n"
        "assert callable(convert_model); assert not hasattr(openvino, 'no_such_thing')"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


def test_the_next_encoder_takes_the_compiled_graphs_from_the_cache(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = openvino(folder)
    images, texts = first.encode_images(PIXELS), first.encode_tokens(tokens(folder))
    assert len(list(cache.iterdir())) == 2
    no_compiling(monkeypatch)
    second = openvino(folder)
    np.testing.assert_array_equal(second.encode_images(PIXELS), images)
    np.testing.assert_array_equal(second.encode_tokens(tokens(folder)), texts)


def test_other_weights_and_another_normalisation_are_another_cache_entry(
    folder: Path, tmp_path: Path, cache: Path
) -> None:
    other = tiny_checkpoint(tmp_path / "mean")
    config = other / "preprocessor_config.json"
    config.write_text(config.read_text().replace("0.48145466", "0.0"))
    found = [
        openvino(path).encode_images(PIXELS)
        for path in (folder, tiny_checkpoint(tmp_path / "weights", seed=1), other)
    ]
    assert abs(found[0] - found[1]).max() > 0.01
    assert abs(found[0] - found[2]).max() > 1e-4


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4096])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def replace(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [truncate, empty, zero, flip, replace])
def test_a_damaged_cache_is_found_out_and_the_graph_compiled_again(
    folder: Path, cache: Path, damage: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = openvino(folder).encode_images(PIXELS)
    (entry,) = cache.iterdir()
    damage(entry)
    np.testing.assert_array_equal(openvino(folder).encode_images(PIXELS), vectors)
    if damage is not replace:  # and the next one finds a whole one
        no_compiling(monkeypatch)
        np.testing.assert_array_equal(openvino(folder).encode_images(PIXELS), vectors)


def test_a_cache_that_cannot_be_written_costs_no_answer(folder: Path, cache: Path) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text("not a folder")
    assert openvino(folder).encode_images(PIXELS).shape == (37, 24)


def test_what_a_killed_run_or_another_version_left_is_cleared_away(folder: Path, cache: Path) -> None:
    openvino(folder).encode_images(PIXELS)
    (entry,) = cache.iterdir()
    (cache / f"{entry.name}.killed").write_bytes(b"half")
    (cache / f"{entry.name.rpartition('-')[0]}-0123456789abcdef.blob").write_bytes(b"old")
    (cache / "another-images-f32-0123456789abcdef.blob").write_bytes(b"not ours")
    entry.unlink()
    openvino(folder).encode_images(PIXELS)
    assert {path.name for path in cache.iterdir()} == {entry.name, "another-images-f32-0123456789abcdef.blob"}


def test_two_processes_may_compile_at_once(folder: Path, cache: Path) -> None:
    program = (
        "import sys, numpy as np; from nshot import encoders; from nshot.models.checkpoint import find\n"
        "encoder = encoders.load(find(sys.argv[1]), precision='f32')\n"
        "print(encoder.encode_images(np.zeros((1, 3, 32, 32), np.uint8)).tobytes().hex())"
    )
    command = [sys.executable, "-c", program, str(folder)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)
    ]
    found = {process.communicate(timeout=60)[0] for process in running}
    assert [process.returncode for process in running] == [0, 0]
    assert len(found) == 1
    assert len(list(cache.iterdir())) <= 1


# --- the selector -----------------------------------------------------------------------------------------


def test_on_a_machine_without_a_gpu_auto_is_openvino_on_the_cpu(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nshot.encoders._may_have_gpu", lambda: False)
    encoder = encoders.load(find(folder))
    assert type(encoder).__name__ == "OpenVINOEncoder"
    assert encoder.device == "cpu"
    assert encoder.streams >= 1
    assert encoder.batch >= 1


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """As if these packages were not installed."""
    real = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name in names else real(name, package)

    monkeypatch.setattr("importlib.util.find_spec", find_spec)


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_gpu_without_the_extra_names_the_command_that_installs_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, device: encoders.Device
) -> None:
    without(monkeypatch, "torch")
    with pytest.raises(MissingExtra, match=r'pip install "nshot\[torch\]"'):
        encoders.load(find(folder), device=device)
    with pytest.raises(MissingExtra, match=r'pip install "nshot\[torch\]"'):
        encoders.load(find(folder), runtime="torch")


def test_without_openvino_the_message_names_the_command_that_installs_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "openvino")
    with pytest.raises(MissingExtra, match="pip install openvino"):
        encoders.load(find(folder), device="cpu")


def test_openvino_on_a_gpu_is_refused(folder: Path) -> None:
    with pytest.raises(DeviceError, match="OpenVINO runs on the CPU"):
        encoders.load(find(folder), device="cuda", runtime="openvino")


@pytest.mark.parametrize("option", ["device", "precision", "runtime"])
def test_an_unknown_choice_is_refused_with_the_known_ones(folder: Path, option: str) -> None:
    with pytest.raises(DeviceError, match=f"no {option} is called 'abacus': choose one of auto"):
        encoders.load(find(folder), **{option: "abacus"})  # type: ignore[arg-type]


def test_int8_without_a_form_names_the_command_that_makes_it(folder: Path) -> None:
    with pytest.raises(DeviceError, match="nshot quantise"):
        encoders.load(find(folder), precision="int8")


def test_quantising_without_the_extra_names_the_command_that_installs_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nshot.encoders import int8

    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(MissingExtra, match=r'pip install "nshot\[int8\]"'):
        int8.quantise(find(folder), PIXELS)
