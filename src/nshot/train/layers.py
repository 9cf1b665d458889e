"""A small tower's layers on the processor's cores: ``layers.cpp``, built here once for this processor.

A call takes one core and lets go of the interpreter, so that as many run at once as there are threads.
Against torch's own operations, one core each: 1.5 times as fast at a width of 128, 1.1 at 256, 0.9 at 512.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import torch
from torch import Tensor

from nshot.paths import cache_dir

_FLAGS = ["-std=c++17", "-O3", "-march=native", "-shared", "-fPIC"]
_FLAGS += ["-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math"]
if platform.machine() in ("x86_64", "AMD64"):
    _FLAGS += ["-mprefer-vector-width=512"]
_LANES = 16  # numbers in a vector of the widest kind: sizes are multiples
_WIDEST = 256  # beyond, torch's own products are as fast


class Layers:
    """Some of a tower's layers as one function of float32[n,t,w].

    ``refresh`` must follow whenever the parameters have changed.

    Args:
        library: ``layers.cpp``, built.
        layers: transformers' CLIPEncoderLayer modules, one at least, of whole vectors of float32.
        quick: their activation is quick_gelu, not gelu.
        causal: no position sees a later one.
    """

    def __init__(self, library: ctypes.CDLL, layers: Sequence[Any], *, quick: bool, causal: bool) -> None:
        self._library = library
        self._parameters = [_parameters(layer) for layer in layers]
        first = layers[0]
        self._shape = _Shape(
            layers=len(layers),
            width=first.self_attn.embed_dim,
            heads=first.self_attn.num_heads,
            inner=first.mlp.fc1.out_features,
            quick=quick,
            causal=causal,
            epsilon=first.layer_norm1.eps,
        )
        self._spare: list[Tensor] = []  # memory that the system has given already
        self.refresh()

    def refresh(self) -> None:
        """Take the parameters as they are now."""
        with torch.no_grad():
            self._held = [
                [_Held(self._library, weight, bias) for weight, bias in _pairs(layer)]
                for layer in self._parameters
            ]

    def __call__(self, x: Tensor) -> Tensor:
        """float32[n,t,w] -> float32[n,t,w]; several threads may call at once."""
        every = [parameter for layer in self._parameters for parameter in layer]
        result: Tensor = _Pass.apply(self, torch.is_grad_enabled(), x, *every)
        return result

    def forward(self, x: Tensor, keep: bool) -> tuple[Tensor, Tensor | None]:
        """The values behind the layers and, if it is to be kept, what the way back needs."""
        n, length, _ = x.shape
        y = x.detach().clone(memory_format=torch.contiguous_format)
        kept = self._space(n, length) if keep else None
        self._library.nshot_forward(
            ctypes.byref(self._shape), self._described(), n, length, _address(y), _address(kept)
        )
        return y, kept

    def backward(self, gradient: Tensor, kept: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The gradient before the layers, and the parameters' own in their order."""
        n, length, _ = gradient.shape
        before = gradient.clone(memory_format=torch.contiguous_format)
        learnt = [
            [(torch.zeros_like(h.weight), torch.zeros_like(h.bias)) for h in held] for held in self._held
        ]
        self._library.nshot_backward(
            ctypes.byref(self._shape), self._described(learnt), n, length, _address(before), _address(kept)
        )
        self._spare.append(kept)
        return before, [each for layer in learnt for each in _apart(layer)]

    def _described(self, learnt: list[list[tuple[Tensor, Tensor]]] | None = None) -> ctypes.Array[_Layer]:
        described = (_Layer * len(self._held))()
        for number, held in enumerate(self._held):
            gradients = learnt[number] if learnt else [(None, None)] * len(held)
            parts = [each.described(*pair) for each, pair in zip(held, gradients, strict=True)]
            described[number] = _Layer(*parts)
        return described

    def _space(self, n: int, length: int) -> Tensor:
        """What so many sequences need for the way back, or more, of any content."""
        per_row = self._library.nshot_kept_per_row(ctypes.byref(self._shape), length)
        size = self._shape.layers * n * length * per_row
        try:
            spare = self._spare.pop()
        except IndexError:
            return torch.empty(size)
        return spare if len(spare) >= size else torch.empty(size)


def taken_over(layers: Sequence[Any], activation: str, causal: bool) -> Layers | None:
    """These layers in C++; None where that cannot be or would not be faster.

    Args:
        layers: transformers' CLIPEncoderLayer modules.
        activation: as a checkpoint's ``hidden_act`` names it.
        causal: no position sees a later one.
    """
    if not layers or activation not in ("gelu", "quick_gelu"):
        return None
    first = layers[0]
    width = first.self_attn.embed_dim
    sizes = (width, first.self_attn.head_dim, first.mlp.fc1.out_features)
    parameters = [each for layer in layers for each in layer.parameters()]
    if width > _WIDEST or any(size % _LANES for size in sizes):
        return None
    if any(each.device.type != "cpu" or each.dtype != torch.float32 for each in parameters):
        return None
    library = built()
    return Layers(library, layers, quick=activation == "quick_gelu", causal=causal) if library else None


@functools.cache
def built() -> ctypes.CDLL | None:
    """``layers.cpp`` for this processor, None where it cannot be built.

    Built at the first call on a machine, in some three seconds, by ``$CXX`` or ``c++``; kept in the cache
    folder under a name that says which source, compiler and processor's instructions it is of.
    """
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        return None
    source = files(__package__).joinpath("layers.cpp").read_bytes()
    try:
        # a compiler's own macros name it, and each kind of instruction it may use
        macros = _run([compiler, *_FLAGS, "-dM", "-E", "-x", "c++", os.devnull])
        name = hashlib.sha256(b"\0".join([source, macros, *map(str.encode, _FLAGS)])).hexdigest()[:16]
        path = cache_dir() / f"layers-{name}.so"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_suffix(f".{os.getpid()}.part")
            _run([compiler, *_FLAGS, "-x", "c++", "-", "-o", str(unfinished)], source)
            unfinished.replace(path)
        return _signed(ctypes.CDLL(str(path)))
    except (OSError, subprocess.CalledProcessError):
        return None


def _run(command: list[str], given: bytes = b"") -> bytes:
    return subprocess.run(command, input=given, check=True, capture_output=True).stdout


class _Shape(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int) for name in ("layers", "width", "heads", "inner", "quick", "causal")),
        ("epsilon", ctypes.c_float),
    )


class _Norm(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_void_p) for name in ("gain", "bias", "gain_gradient", "bias_gradient"))


class _Linear(ctypes.Structure):
    _fields_ = (
        ("outputs", ctypes.c_int),
        ("inputs", ctypes.c_int),
        *(
            (name, ctypes.c_void_p)
            for name in ("forward", "backward", "bias", "weight_gradient", "bias_gradient")
        ),
    )


class _Layer(ctypes.Structure):
    _fields_ = (
        ("first", _Norm),
        ("asked", _Linear),
        ("mixed", _Linear),
        ("second", _Norm),
        ("widened", _Linear),
        ("narrowed", _Linear),
    )


class _Held:
    """A norm's or a linear map's parameters, as they were when they were taken."""

    def __init__(self, library: ctypes.CDLL, weight: Tensor, bias: Tensor) -> None:
        self.weight, self.bias = weight, bias
        self._packed = []
        if weight.ndim == 2:
            outputs, inputs = weight.shape
            self._packed = [torch.empty(weight.numel()) for _ in range(2)]
            forward, backward = map(_address, self._packed)
            library.nshot_pack(inputs, outputs, _address(weight), 1, inputs, forward)
            library.nshot_pack(outputs, inputs, _address(weight), inputs, 1, backward)

    def described(self, weight_gradient: Tensor | None, bias_gradient: Tensor | None) -> _Norm | _Linear:
        learnt = _address(weight_gradient), _address(bias_gradient)
        if not self._packed:
            return _Norm(_address(self.weight), _address(self.bias), *learnt)
        return _Linear(*self.weight.shape, *map(_address, self._packed), _address(self.bias), *learnt)


class _Pass(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, layers: Layers, graph: bool, x: Tensor, *parameters: Tensor) -> Tensor:
        y, ctx.kept = layers.forward(x, keep=graph and any(ctx.needs_input_grad))
        ctx.layers = layers
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        kept, ctx.kept = ctx.kept, None
        if kept is None:
            raise RuntimeError("these layers go back once: their memory is used again")
        before, learnt = ctx.layers.backward(gradients[0], kept)
        return None, None, before, *learnt


def _parameters(layer: Any) -> list[Tensor]:
    attention, mlp = layer.self_attn, layer.mlp
    three = (attention.q_proj, attention.k_proj, attention.v_proj)
    found: list[Tensor] = [layer.layer_norm1.weight, layer.layer_norm1.bias]
    found += [each.weight for each in three] + [each.bias for each in three]
    for each in (attention.out_proj, layer.layer_norm2, mlp.fc1, mlp.fc2):
        found += [each.weight, each.bias]
    return found


def _pairs(parameters: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """(weight, bias) in the order of ``_Layer``; queries, keys and values are one map."""
    gain, bias, *rest = (each.detach() for each in parameters)
    flat = [gain, bias, torch.cat(rest[:3]), torch.cat(rest[3:6]), *rest[6:]]
    return list(zip(flat[::2], flat[1::2], strict=True))


def _apart(pairs: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """The inverse of ``_pairs``."""
    gain, bias, asked, asked_bias, *rest = (each for pair in pairs for each in pair)
    width = len(gain)
    return [gain, bias, *asked.split(width), *asked_bias.split(width), *rest]


def _address(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def _signed(library: ctypes.CDLL) -> ctypes.CDLL:
    """Say what the functions take."""
    shape, number, longer, memory = ctypes.POINTER(_Shape), ctypes.c_int, ctypes.c_long, ctypes.c_void_p
    library.nshot_pack.argtypes = [number, number, memory, longer, longer, memory]
    library.nshot_kept_per_row.argtypes, library.nshot_kept_per_row.restype = [shape, number], longer
    for each in (library.nshot_forward, library.nshot_backward):
        each.argtypes = [shape, ctypes.POINTER(_Layer), number, number, memory, memory]
    for each in (library.nshot_pack, library.nshot_forward, library.nshot_backward):
        each.restype = None
    return library
