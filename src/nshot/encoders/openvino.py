"""A model on a CPU with OpenVINO; no torch, no onnx."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nshot.encoders import Detections, Precision, blobs, digest_of, forks, openvino_graph
from nshot.encoders.runtime import ov
from nshot.encoders.tower import Tower
from nshot.images.budget import usable_cores
from nshot.models.owlv2 import BoxTower
from nshot.paths import cache_dir
from nshot.types import Floats, Pixels, Tokens

if TYPE_CHECKING:
    from nshot.models.checkpoint import Checkpoint
    from nshot.models.weights import Tensors

_BATCH = 16  # rows in one inference: more are no faster, and take more memory
_PATCHES = (
    1024  # in one inference of images: many patches per image make fewer images as fast, in less memory
)
_STEP = 8  # texts are cut to a multiple of so many tokens
_MOST_STREAMS = 8  # each holds a batch and its activations


class OpenVINOEncoder:
    """Both towers of a checkpoint, each built when it is first used; see ``nshot.encoders.Encoder``.

    A vector does not depend on what else is in its batch, nor on the size of the batch.

    Args:
        checkpoint: from ``nshot.models.checkpoint.find``.
        precision: "auto" and "bf16" are bf16 where the processor has it natively, else f32. (Elsewhere
            OpenVINO would emulate bf16, thirty times slower than f32 and less exact.) "f32-small" computes in
            f32 too, and holds the weights in 8 bits. "int8" computes the images in 8 bits, by a form that
            was made before (``nshot.encoders.int8``), and texts in f32.
        threads: the most to compute with; all cores of this process by default.

    Raises:
        DeviceError: "int8", and there is no such form.
    """

    device = "cpu"
    batch = _BATCH

    def __init__(
        self, checkpoint: Checkpoint, precision: Precision = "auto", *, threads: int | None = None
    ) -> None:
        with forks.gate:
            core = forks.core()
            capabilities = sorted(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
            processor = f"{core.get_property('CPU', 'FULL_DEVICE_NAME')} {capabilities}"
        native = "bf16" if "BF16" in capabilities else "f32"
        self.precision: str = native if precision in ("auto", "bf16") else precision
        own: tuple[str, ...] = ()  # digest of an int8 form
        if self.precision == "int8":
            from nshot.encoders import int8  # seldom wanted

            own = (int8.required(checkpoint)["digest"],)
        self.fingerprint = digest_of(checkpoint, "openvino", openvino_graph.VERSION, self.precision, *own)
        self.dimension = checkpoint.config.dimension
        self.streams = min(threads or usable_cores(), _MOST_STREAMS)
        version = (openvino_graph.VERSION, openvino_graph.FORM, ov.get_version(), *own)
        key = digest_of(checkpoint, *version, processor)[:16]

        form = self.precision.replace("-", "")  # a dash would end the part by which old files are found

        def tower(
            name: str,
            build: Callable[[Tensors], ov.Model],
            streams: int,
            rows: int,
            *more: tuple[int, int],
            shapes: tuple[tuple[int, ...], ...] | None = None,
        ) -> Tower:
            path = cache_dir() / "compiled" / f"{checkpoint.digest[:16]}-{name}-{form}-{key}.blob"

            def compiling() -> ov.CompiledModel:
                # A mapping of the files of its own: its pages leave memory once they are read.
                tensors = checkpoint.open_tensors()
                with blobs.LettingGo(*tensors.maps()):
                    graph = build(tensors)
                    compiled = forks.core().compile_model(graph, "CPU", options | {"NUM_STREAMS": streams})
                    blobs.write(compiled, path)
                    return compiled

            return Tower(
                compiling,
                lambda blob: forks.core().import_model(blob, "CPU", options | {"NUM_STREAMS": streams}),
                path,
                shapes=shapes or ((self.dimension,), *more),
                streams=streams,
                rows=rows,
            )

        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "bf16" if self.precision == "bf16" else "f32"}
        ops = None
        if self.precision == "f32-small":
            ops = openvino_graph.SmallOps()
            options["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = 0  # nothing but the weights is in 8 bits
        if threads is not None:  # OpenVINO reads no OMP_NUM_THREADS
            options["INFERENCE_NUM_THREADS"] = threads
        vision, text = checkpoint.config.vision, checkpoint.config.text
        mean, std = checkpoint.image_mean, checkpoint.image_std
        # Images come from several threads at once, each of which takes a core; texts come from one.
        at_once = _images_at_once(vision.image_size, getattr(vision, "patch_size", None))
        self._images = tower(
            "images",
            lambda tensors: (
                int8.read(checkpoint)
                if own
                else openvino_graph.image_tower(vision, tensors, mean, std, ops=ops)
            ),
            self.streams,
            at_once,
        )
        self._patches = tower(
            "patches",
            lambda tensors: openvino_graph.image_tower(vision, tensors, mean, std, patches=True, ops=ops),
            self.streams,
            at_once,
            (vision.grid**2, self.dimension),
        )
        self._texts = tower("texts", lambda tensors: openvino_graph.text_tower(text, tensors, ops), 1, _BATCH)
        self._checkpoint = checkpoint
        self._boxes: Tower | None = None
        if isinstance(vision, BoxTower):
            count = vision.grid**2
            # all cores on one image: each takes seconds, and hundreds of megabytes
            self._boxes = tower(
                "boxes" if ops is None else "smallboxes",  # in f32 until now
                lambda tensors: openvino_graph.box_tower(vision, tensors, ops),
                1,
                1,
                shapes=((count, 4), (count, 1), (count, vision.dimension), (count, 1), (count, 1)),
            )

    def detect(self, pixels: Floats) -> Detections:
        """float32[n,3,s,s], normalised as the checkpoint says -> what is in each."""
        assert self._boxes is not None
        side = self._checkpoint.config.vision.image_size
        _check(pixels, np.float32, (3, side, side))
        return Detections.of(self._boxes(len(pixels), lambda part: [pixels[part]]))

    @property
    def compiled(self) -> Path:
        """Where the compiled image tower is kept, once it is."""
        return self._images.path

    def encode_images(self, pixels: Pixels) -> Floats:
        """uint8[n,3,s,s] (RGB, not normalised) -> float32[n,d], unit norm."""
        side = self._checkpoint.config.vision.image_size
        _check(pixels, np.uint8, (3, side, side))
        if not self._images.started:
            self._texts.leave()  # the labels are known now; what is asked later reads the text tower again
        return self._images(len(pixels), lambda part: [pixels[part]])[0]

    def encode_patches(self, pixels: Pixels) -> tuple[Floats, Floats]:
        """uint8[n,3,s,s] -> float32[n,d] and float32[n,p,d], both of unit norm."""
        side = self._checkpoint.config.vision.image_size
        _check(pixels, np.uint8, (3, side, side))
        vectors, patches = self._patches(len(pixels), lambda part: [pixels[part]])
        return vectors, patches

    def encode_tokens(self, tokens: Tokens) -> Floats:
        """int64[n,context] -> float32[n,d], unit norm."""
        text, tensors = self._checkpoint.config.text, self._checkpoint.tensors()
        _check(tokens, np.int64, (text.context,))
        ends = text.ends(tokens)
        rounded = _bfloat16 if self.precision == "bf16" else np.asarray  # as a table in the graph would be
        lengths = np.full(len(tokens), text.context)
        if text.causal:
            # What follows a text's end changes nothing, and is most of the row: texts of about one length go
            # together, each cut to its own, so that a vector does not depend on its company.
            lengths = (ends // _STEP + 1) * _STEP
        vectors = np.empty((len(tokens), self.dimension), np.float32)
        for length in np.unique(lengths):
            alike = np.flatnonzero(lengths == length)

            def inputs(part: slice, rows: NDArray[np.intp] = alike, to: int = length) -> list[NDArray[Any]]:
                cut = np.ascontiguousarray(tokens[rows[part], :to])
                return [rounded(tensors.rows(text.table, cut)), ends[rows[part]]]

            vectors[alike] = self._texts(len(alike), inputs)[0]
        return vectors


def _images_at_once(side: int, patch: int | None) -> int:
    """Images in one inference: a power of 2 from 2 to the batch, so that their patches stay about as many.

    A ViT-B/16 takes as much processor time by 4 as by 16 (23.6 and 23.3 s for 64 images), and 130 MB less.
    """
    if patch is None:
        return _BATCH
    most = _PATCHES // (side // patch) ** 2
    return min(_BATCH, max(2, 1 << max(0, most.bit_length() - 1)))


def _bfloat16(values: Floats) -> Floats:
    """Rounded to the nearest bfloat16, of two equally near ones to the even one."""
    bits = values.view(np.uint32)
    return ((bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) & np.uint32(0xFFFF0000)).view(np.float32)


def _check(rows: NDArray[Any], dtype: DTypeLike, row: tuple[int, ...]) -> None:
    if rows.dtype != dtype or rows.shape[1:] != row:
        wanted = ", ".join(map(str, ("n", *row)))
        raise ValueError(f"expected {np.dtype(dtype)}[{wanted}], not {rows.dtype}{list(rows.shape)}")
