"""pytorch_model.bin: tensors come out, nothing runs, and nonsense is refused in words."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import tensor_opcodes, to_dtype, write_bin, write_zip

from nshot.errors import CorruptCheckpoint, UnsafeCheckpoint
from nshot.models.unpickle import read_bin

ONE = np.arange(6, dtype="<f4").tobytes()


def named(opcodes: bytes) -> bytes:
    """A pickled table with one entry, "x"."""
    return b"\x80\x02}X\x01\x00\x00\x00x" + opcodes + b"s."


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pytorch_model.bin"


def test_tensors_come_out_as_they_were_put_in(path: Path) -> None:
    tensors: dict[str, Any] = {
        "matrix": np.arange(12, dtype=np.float32).reshape(3, 4),
        "scalar": np.asarray(2.5, np.float32),
        "half": np.linspace(-1, 1, 5, dtype=np.float16),
        "brain": to_dtype(np.asarray([1.0, -3.5]), "bfloat16"),
        "position_ids": np.arange(77, dtype=np.int64)[None],
        "empty": np.empty((0, 4), np.float32),
    }
    write_bin(path, tensors)
    found = read_bin(path)
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        np.testing.assert_array_equal(found[name], value, strict=True)
        assert not found[name].flags.writeable


def test_offsets_and_strides_are_honoured(path: Path) -> None:
    write_zip(path, named(tensor_opcodes("FloatStorage", "0", 6, 1, (2, 2), (1, 3))), [ONE])
    found = read_bin(path)["x"]
    np.testing.assert_array_equal(found, [[1, 4], [2, 5]])
    assert found.flags.c_contiguous
    assert not found.flags.writeable


def test_an_expanded_tensor_is_read_as_torch_reads_it(path: Path) -> None:
    write_zip(path, named(tensor_opcodes("FloatStorage", "0", 6, 1, (4, 3), (0, 2))), [ONE])
    found = read_bin(path)["x"]
    np.testing.assert_array_equal(found, [[1, 3, 5]] * 4)
    assert not found.flags.writeable
    write_zip(path, named(tensor_opcodes("FloatStorage", "0", 6, 0, (1 << 20, 1 << 20), (0, 0))), [ONE])
    with pytest.raises(CorruptCheckpoint, match="more memory than the file"):
        read_bin(path)


def test_a_list_that_is_made_a_table_again_and_again_is_refused(path: Path) -> None:
    """A few bytes for each table, and each of them as much work as the list is long."""
    pairs = b"]q\x01(" + b"X\x01\x00\x00\x00aK\x01\x86q\x02" + b"h\x02" * 50_000 + b"e"
    table = (
        b"\x80\x02" + pairs + b"\x85q\x03ccollections\nOrderedDict\nq\x04" + b"h\x04h\x03R" * 20_000 + b"."
    )
    write_zip(path, table, [ONE])
    with pytest.raises(CorruptCheckpoint, match="more steps"):
        read_bin(path)


def test_a_matrix_that_is_transposed_a_thousand_times_is_refused(path: Path) -> None:
    """A few bytes for each tensor, and each of them a copy of the whole storage."""
    side = 1024
    storage = np.zeros(side * side, "<f4").tobytes()
    tensor = tensor_opcodes("FloatStorage", "0", side * side, 0, (side, side), (1, side))
    write_zip(path, b"\x80\x02](" + tensor * 1000 + b"e.", [storage])
    with pytest.raises(CorruptCheckpoint, match="more memory than the file"):
        read_bin(path)


def test_tensors_that_share_a_storage_share_its_bytes(path: Path) -> None:
    pair = b"\x80\x02}(X\x01\x00\x00\x00x" + tensor_opcodes("FloatStorage", "0", 6, 0, (6,), (1,))
    pair += b"X\x01\x00\x00\x00y" + tensor_opcodes("FloatStorage", "0", 6, 3, (3,), (1,)) + b"u."
    write_zip(path, pair, [ONE])
    found = read_bin(path)
    assert found["y"].ctypes.data == found["x"][3:].ctypes.data


def test_parameters_and_attributes_of_the_table_are_read_past(path: Path) -> None:
    tensor = tensor_opcodes("FloatStorage", "0", 6, 0, (6,), (1,))
    parameter = b"ctorch._utils\n_rebuild_parameter\n(" + tensor + b"\x88ccollections\nOrderedDict\n)RtR"
    metadata = b"}X\x09\x00\x00\x00_metadata}sb"
    write_zip(
        path,
        b"\x80\x02ccollections\nOrderedDict\n)R(X\x01\x00\x00\x00x" + parameter + b"u" + metadata + b".",
        [ONE],
    )
    np.testing.assert_array_equal(read_bin(path)["x"], np.arange(6))


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def test_a_crafted_pickle_is_refused_and_nothing_runs(path: Path, tmp_path: Path) -> None:
    proof = tmp_path / "it-ran"
    harmful = (
        Malicious(os.system, f"touch {proof}"),
        Malicious(eval, f"open({str(proof)!r}, 'w')"),
        Malicious(exec, f"open({str(proof)!r}, 'w')"),
        Malicious(getattr, proof, "touch"),
        Malicious(proof.touch),
        Malicious(open, str(proof), "w"),
    )
    for content in harmful:
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            write_zip(path, pickle.dumps({"x": content}, protocol), [])
            with pytest.raises(UnsafeCheckpoint, match=r"pytorch_model\.bin is refused"):
                read_bin(path)
    assert not proof.exists()


@pytest.mark.parametrize(
    "opcodes",
    [
        b"cos\nsystem\n(X\x02\x00\x00\x00lstR",
        b"\x8c\x02os\x8c\x06system\x93(X\x02\x00\x00\x00lstR",
        b"cbuiltins\ngetattr\n(ccollections\nOrderedDict\nX\x05\x00\x00\x00clearsR",
        b"ctorch._utils\n_rebuild_tensor_v2 \n(tR",
        b"ctorch\nFloatStorage.from_buffer\n(tR",
        b"ccollections\nOrderedDict.fromkeys\n(tR",
        b"(ios\nsystem\n",
        b"(cos\nsystem\nX\x02\x00\x00\x00lso",
        b"ccollections\nOrderedDict\n)\x81",
        b"\x82\x01",
        b"ctorch\nFloatStorage\n)R",
        b"X\x02\x00\x00\x00ls)R",
    ],
)
def test_no_other_operation_or_name_is_known(path: Path, opcodes: bytes) -> None:
    write_zip(path, named(opcodes), [])
    with pytest.raises(UnsafeCheckpoint, match="refused"):
        read_bin(path)


@pytest.mark.parametrize(
    "opcodes",
    [
        tensor_opcodes("FloatStorage", "0", 6, 0, (7,), (1,)),
        tensor_opcodes("FloatStorage", "0", 6, 5, (2,), (1,)),
        tensor_opcodes("FloatStorage", "0", 6, 0, (2, 2), (1, 5)),
        tensor_opcodes("FloatStorage", "0", 7, 0, (6,), (1,)),
        tensor_opcodes("FloatStorage", "0", 2**62, 0, (2**62,), (1,)),
        tensor_opcodes("FloatStorage", "0", 6, 2**70, (1,), (1,)),
        tensor_opcodes("FloatStorage", "0", 6, 0, (1,), (2**70,)),
        tensor_opcodes("FloatStorage", "0", 6, 0, (0, 2**70), (1, 1)),
        tensor_opcodes("FloatStorage", "1", 6, 0, (6,), (1,)),
        tensor_opcodes("FloatStorage", "0", 6, 0, (2**20, 6), (0, 1)),
        tensor_opcodes("FloatStorage", "../version", 1, 0, (1,), (1,)),
        tensor_opcodes("FloatStorage", "0", 6, 0, (6,), (1, 1)),
        tensor_opcodes("DoubleStorage", "0", 6, 0, (6,), (1,)),
        tensor_opcodes("FloatStorage", "0", 6, 0, (6,), (1,)).replace(
            b"J\x06\0\0\0tQ", b"J\xfa\xff\xff\xfftQ"
        ),
        tensor_opcodes("FloatStorage", "0", 6, 0, (6,), (1,)).replace(b"J\0\0\0\0(", b"J\xff\xff\xff\xff("),
        tensor_opcodes("FloatStorage", "0", 6, 0, (6,), (1,)).replace(b"tQ", b"t"),
        b"ctorch._utils\n_rebuild_tensor_v2\n)R",
        b"h\x07",
        b"t",
        b"Q",
        b"]}s",
        b"N" + b"0" * 3,
    ],
)
def test_a_tensor_that_cannot_be_is_refused(path: Path, opcodes: bytes) -> None:
    write_zip(path, named(opcodes), [ONE])
    with pytest.raises((CorruptCheckpoint, UnsafeCheckpoint), match=r"pytorch_model\.bin"):
        read_bin(path)


def test_compressed_members_are_refused(path: Path) -> None:
    write_bin(path, {"x": np.zeros(6, np.float32)}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(CorruptCheckpoint, match="compressed"):
        read_bin(path)


def test_a_truncated_file_is_said_to_be_incomplete(path: Path) -> None:
    write_bin(path, {"x": np.zeros(600, np.float32)})
    whole = path.read_bytes()
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CorruptCheckpoint, match=r"incomplete|damaged"):
            read_bin(path)


def test_no_damage_ends_in_another_error(path: Path) -> None:
    write_bin(path, {"x": np.zeros(3, np.float32), "y": np.ones((2, 2), np.float16)})
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        broken = bytearray(whole)
        for at in random.integers(len(whole), size=random.integers(1, 4)):
            broken[at] = random.integers(256)
        path.write_bytes(broken)
        try:
            read_bin(path)
        except (CorruptCheckpoint, UnsafeCheckpoint):
            refused += 1
    assert refused > 100


def test_the_format_before_torch_1_6_is_refused_with_advice(path: Path) -> None:
    path.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2))
    with pytest.raises(CorruptCheckpoint, match=r"torch before 1\.6.*Save it again"):
        read_bin(path)


def test_another_zip_is_not_a_checkpoint(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme", "hello")
    with pytest.raises(CorruptCheckpoint, match=r"no data\.pkl"):
        read_bin(path)
