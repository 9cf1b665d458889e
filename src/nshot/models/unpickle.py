"""pytorch_model.bin -> tensors, without running anything that is in it.

Since torch 1.6 such a file is a zip: ``data.pkl`` describes the tensors, ``data/0``, ``data/1`` ... hold
their raw values, stored and not compressed. A pickle is a program for a stack machine, and may call any
function of Python. The machine below is not Python's: it knows the few operations that describe tensors and
calls nothing of what the pickle names, so there is nothing to get around.
"""

from __future__ import annotations

import mmap
import pickletools
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nshot.errors import CorruptCheckpoint, UnsafeCheckpoint, brief
from nshot.images.archives import directory_of

_MOST_STEPS = 500_000  # that of a ViT-L/14 has twenty thousand
_MOST_AXES = 8
_LARGEST_REPEATED = 16 << 20  # bytes of one tensor of repeated values, in a file that is smaller
_LARGEST_DIRECTORY = 16 << 20  # bytes of the zip's table of contents: a hundred for a tensor
_LARGEST_PICKLE = 64 << 20  # bytes; that of a ViT-L/14 has a tenth of a megabyte

# numpy has no bfloat16: its bits are handed on as uint16, a type that no checkpoint's weights have
_STORAGES: dict[str, np.dtype[Any]] = {
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype("<u2"),
    "DoubleStorage": np.dtype("<f8"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
_CALLS = {
    "collections.OrderedDict",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
}


class _Global(NamedTuple):
    """A name in the pickle: never imported, only compared."""

    name: str


class _Storage(NamedTuple):
    data: memoryview
    dtype: np.dtype[Any]


_MARK = object()

# whatever reading nonsense can end in
_DAMAGE = (
    *(zipfile.BadZipFile, struct.error, EOFError, NotImplementedError, RecursionError, MemoryError, OSError),
    *(ValueError, LookupError, TypeError, ArithmeticError),
)


def read_bin(path: Path) -> dict[str, NDArray[Any]]:
    """The tensors of a ``pytorch_model.bin``: read-only views into the mapped file, bfloat16 as uint16.

    A tensor of repeated values (``Tensor.expand``) stays a view with strides of 0.

    Raises:
        UnsafeCheckpoint: the pickle names anything but tensors.
        CorruptCheckpoint: the file is damaged, or from before torch 1.6 (2020), which had another format.
    """
    try:
        with path.open("rb") as file:
            if directory_of(file)[0] > _LARGEST_DIRECTORY:
                raise ValueError("its table of contents is too large")
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            root = _Machine(path, archive, mapped).run()
    except _DAMAGE as error:
        if not zipfile.is_zipfile(path):
            raise CorruptCheckpoint(_not_a_zip(path)) from error
        raise CorruptCheckpoint(f"{path} is damaged: {brief(error)}. Fetch it again.") from error
    if not isinstance(root, dict):
        raise CorruptCheckpoint(f"{path} does not hold a table of tensors.")
    return {
        key: value for key, value in root.items() if isinstance(key, str) and isinstance(value, np.ndarray)
    }


def _not_a_zip(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(16)
    if start[:1] == b"\x80":
        return (
            f"{path} has the format of torch before 1.6, which nshot does not read. Save it again with "
            "a newer torch (torch.save(torch.load(path), path)), or use a model.safetensors of this model."
        )
    return f"{path} is not a torch checkpoint, or is incomplete. Fetch it again."


class _Machine:
    """Pickle's stack machine, reduced to what describes tensors."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, mapped: mmap.mmap) -> None:
        self.path = path
        self.mapped = mapped
        self.entries = {entry.filename: entry for entry in archive.infolist()}
        pickles = [name for name in self.entries if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise ValueError("no data.pkl in it")
        self.folder = pickles[0].removesuffix("data.pkl")
        self.pickle = self._bytes("data.pkl")
        if len(self.pickle) > _LARGEST_PICKLE:
            raise ValueError("its data.pkl is too large")
        order = f"{self.folder}byteorder"
        if order in self.entries and bytes(self._bytes("byteorder")) != b"little":
            raise ValueError("its numbers are not little-endian")
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.steps = _MOST_STEPS
        # all tensors of a file may be transposed, but not one of them many times over
        self.copied = 2 * len(mapped) + _LARGEST_REPEATED

    def _bytes(self, name: str) -> memoryview:
        """The bytes of a member, as a view into the mapped file."""
        entry = self.entries[self.folder + name]
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise ValueError(f"{name} is compressed or encrypted, which torch never does")
        # the local header repeats the name and may have other extra fields (torch pads with them)
        start = entry.header_offset
        header = self.mapped[start : start + 30]
        if header[:4] != b"PK\x03\x04":
            raise ValueError(f"{name} is not where the table of contents says")
        start += 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        if start + entry.file_size > len(self.mapped):
            raise ValueError(f"{name} ends before it should")
        return memoryview(self.mapped)[start : start + entry.file_size]

    def run(self) -> Any:
        with warnings.catch_warnings():  # of escapes in texts, which torch never writes
            warnings.simplefilter("ignore", DeprecationWarning)
            return self._run()

    def _run(self) -> Any:
        stack, memo = self.stack, self.memo
        argument: Any
        for opcode, argument, _ in pickletools.genops(bytes(self.pickle)):
            self._spend(1)
            match opcode.name:
                case "PROTO" | "FRAME":
                    pass
                case "STOP":
                    return stack.pop()
                case "MARK":
                    stack.append(_MARK)
                case "NONE":
                    stack.append(None)
                case "NEWTRUE" | "NEWFALSE":
                    stack.append(opcode.name == "NEWTRUE")
                case (
                    "BININT"
                    | "BININT1"
                    | "BININT2"
                    | "LONG1"
                    | "BINFLOAT"
                    | "BINUNICODE"
                    | "SHORT_BINUNICODE"
                ):
                    stack.append(argument)
                case "EMPTY_DICT":
                    stack.append({})
                case "EMPTY_LIST":
                    stack.append([])
                case "EMPTY_TUPLE":
                    stack.append(())
                case "TUPLE1" | "TUPLE2" | "TUPLE3":
                    count = int(opcode.name[-1])
                    stack[-count:] = [tuple(stack[-count:])]
                case "TUPLE":
                    stack.append(tuple(self._since_mark()))
                case "APPEND":
                    value = stack.pop()
                    self._top(list).append(value)
                case "APPENDS":
                    values = self._since_mark()
                    self._top(list).extend(values)
                case "SETITEM":
                    key, value = stack.pop(-2), stack.pop()
                    self._top(dict)[_key(key)] = value
                case "SETITEMS":
                    values = self._since_mark()
                    table = self._top(dict)
                    for key, value in zip(values[::2], values[1::2], strict=True):
                        table[_key(key)] = value
                case "BINPUT" | "LONG_BINPUT":
                    memo[argument] = stack[-1]
                case "MEMOIZE":
                    memo[len(memo)] = stack[-1]
                case "BINGET" | "LONG_BINGET":
                    stack.append(memo[argument])
                case "GLOBAL":
                    stack.append(self._global(str(argument).replace(" ", ".", 1)))
                case "STACK_GLOBAL":
                    module, name = stack.pop(-2), stack.pop()
                    if not (isinstance(module, str) and isinstance(name, str)):
                        raise TypeError("its pickle names something by what is no text")
                    stack.append(self._global(f"{module}.{name}"))
                case "BINPERSID":
                    stack.append(self._storage(stack.pop()))
                case "REDUCE":
                    function, arguments = stack.pop(-2), stack.pop()
                    stack.append(self._call(function, arguments))
                case "BUILD":  # attributes of the table itself, such as _metadata: nothing that nshot needs
                    stack.pop()
                case name:
                    raise UnsafeCheckpoint(
                        f"{self.path} is refused: its pickle uses {name}, which no tensor needs."
                    )
        raise ValueError("its pickle has no end")

    def _spend(self, steps: int) -> None:
        self.steps -= steps
        if self.steps < 0:
            raise ValueError("its pickle takes more steps than any table of tensors")

    def _since_mark(self) -> list[Any]:
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
        values = self.stack[at + 1 :]
        del self.stack[at:]
        return values

    def _top(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise TypeError(f"its pickle fills a {kind.__name__} where there is none")
        return self.stack[-1]

    def _global(self, name: str) -> _Global:
        if name in _CALLS or (name.startswith("torch.") and name.removeprefix("torch.") in _STORAGES):
            return _Global(name)
        shown = name if len(name) <= 100 else f"{name[:100]}..."
        raise UnsafeCheckpoint(
            f"{self.path} is refused: its pickle asks for {shown!r}, and nshot runs nothing from a "
            "checkpoint. Use a model.safetensors of the same model."
        )

    def _call(self, function: Any, arguments: Any) -> Any:
        if (
            not isinstance(function, _Global)
            or function.name not in _CALLS
            or not isinstance(arguments, tuple)
        ):
            raise UnsafeCheckpoint(
                f"{self.path} is refused: its pickle calls what is not a function of tensors."
            )
        if function.name == "collections.OrderedDict":
            if not arguments:
                return {}
            (pairs,) = arguments
            if not isinstance(pairs, list):
                raise TypeError("its pickle makes a table of what is no list")
            self._spend(len(pairs))  # one list may be used again and again
            return {_key(key): value for key, value in pairs}
        if function.name == "torch._utils._rebuild_parameter":
            return arguments[0]
        view = _view(*arguments[:4], most=max(len(self.mapped), _LARGEST_REPEATED))
        if view.flags.c_contiguous or view.nbytes > arguments[0].data.nbytes:
            return (
                view  # what repeats its values stays a view, so that tensors nobody asks for take no memory
            )
        self.copied -= view.nbytes
        if self.copied < 0:
            raise ValueError("its tensors take more memory than the file")
        copied = np.ascontiguousarray(view)  # a transposed matrix: no runtime takes it as it lies
        copied.flags.writeable = False
        return copied

    def _storage(self, identifier: Any) -> _Storage:
        if not isinstance(identifier, tuple) or len(identifier) != 5:
            raise ValueError("its pickle refers to something that is not a storage")
        kind, storage_type, key, _, count = identifier
        usual = isinstance(kind, str) and isinstance(key, (str, int)) and type(count) is int
        if not usual or kind != "storage" or not isinstance(storage_type, _Global):
            raise ValueError("its pickle refers to something that is not a storage")
        dtype = _STORAGES[storage_type.name.removeprefix("torch.")]
        data = self._bytes(f"data/{key}")
        if not 0 <= count <= len(data) // dtype.itemsize:
            raise ValueError(f"data/{key} has {len(data)} bytes, too few for {count} values")
        return _Storage(data[: count * dtype.itemsize], dtype)


def _key(value: Any) -> str | int:
    """A key of a table. Anything deeper would be hashed, and deep enough nesting ends the process."""
    if not isinstance(value, (str, int)):
        raise TypeError("its pickle has a table whose keys are no names")
    return value


def _view(
    storage: Any, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *, most: int
) -> NDArray[Any]:
    """A tensor of a storage; the strides count values, not bytes, and 0 repeats (``Tensor.expand``)."""
    lists = (
        isinstance(shape, tuple) and isinstance(strides, tuple) and len(shape) == len(strides) <= _MOST_AXES
    )
    if (
        not lists
        or not isinstance(storage, _Storage)
        or not all(isinstance(n, int) for n in (offset, *shape, *strides))
    ):
        raise TypeError("its pickle describes a tensor in an unknown way")
    if min((offset, *shape, *strides), default=0) < 0:
        raise ValueError("a tensor reaches outside its storage")
    size = storage.dtype.itemsize
    # numpy checks that the last value lies inside, and makes the view read-only as the mapped file is
    view: NDArray[Any] = np.ndarray(
        shape, storage.dtype, storage.data, offset * size, [stride * size for stride in strides]
    )
    if view.nbytes > max(most, storage.data.nbytes):
        raise ValueError("a tensor repeats its values, and would take more memory than the file")
    return view
