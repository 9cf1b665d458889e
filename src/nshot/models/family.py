"""What differs from one kind of model to the next, and nothing else.

A ``Family`` is a kind: it knows its own checkpoints, and reads them into a ``ModelConfig``, which holds two
towers, where their tensors stand, how texts and images are prepared, and how a cosine becomes a score.
A new family is a new file, and a line in ``nshot.models.checkpoint``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

from nshot.models.files import Files, TokenizerFiles
from nshot.models.ops import Node, Ops
from nshot.types import Activation, Floats, Tokens

if TYPE_CHECKING:
    from nshot.models.tokenizer import Tokenizer

Tensors: TypeAlias = Mapping[str, Floats]

Shapes: TypeAlias = dict[str, tuple[int, ...]]


class Place(NamedTuple):
    """Where a tensor stands in the files.

    Attributes:
        shape: as the towers want it.
        name: as it is stored.
        rows: the part of the stored tensor's first axis that is meant; all of it if None.
        transpose: whether it is stored the other way round.
    """

    shape: tuple[int, ...]
    name: str
    rows: tuple[int, int] | None = None
    transpose: bool = False


class ImageTower(Protocol):
    """Images -> vectors."""

    @property
    def image_size(self) -> int:
        """Side of the square image that it takes, in pixels."""

    def shapes(self) -> Shapes:
        """The tensors that it needs, by nshot's names."""

    def prepare(self, tensors: Tensors) -> Mapping[str, Floats]:
        """The weights of the graph: the tensors, or what is made of them beforehand."""

    def __call__(self, ops: Ops, weights: Mapping[str, Any], x: Node) -> Node:
        """float[n,3,s,s], normalised -> float[n,d], of any length."""

    @property
    def grid(self) -> int:
        """How many patches ``dense`` gives along each side of the image."""

    @property
    def seen(self) -> float:
        """The share of the image's side that the patches cover, from the upper left, in (0, 1]."""

    def dense(self, ops: Ops, weights: Mapping[str, Any], x: Node) -> tuple[Node, Node]:
        """What calling it gives, from the same operations, and float[n,grid*grid,d], a vector per patch.

        A patch's vector can be compared with texts, as the image's can. Patches go row by row from the top.
        """


class TextTower(Protocol):
    """Texts -> vectors. The rows of the token table are looked up outside: it may be larger than the rest."""

    @property
    def context(self) -> int:
        """Tokens in a row."""

    @property
    def table(self) -> str:
        """Name of the token table, float[vocabulary, width]."""

    @property
    def vocab_size(self) -> int:
        """Rows of the table."""

    @property
    def hidden_size(self) -> int:
        """Width of the table."""

    @property
    def causal(self) -> bool:
        """Whether a token sees only what precedes it, so that what follows a text's end may be cut off."""

    def ends(self, tokens: Tokens) -> Tokens:
        """int64[n,context] -> int64[n]: the position that becomes the text's vector."""

    def shapes(self) -> Shapes:
        """The tensors that it needs, the table among them, by nshot's names."""

    def prepare(self, tensors: Tensors) -> Mapping[str, Floats]:
        """The weights of the graph, without the table."""

    def __call__(self, ops: Ops, weights: Mapping[str, Any], x: Node, ends: Node) -> Node:
        """float[n,t,width] of the table's rows, int64[n] -> float[n,d], of any length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """One checkpoint, as its settings describe it.

    Attributes:
        family: name of the kind that read it.
        vision: the image tower.
        text: the text tower.
        dimension: length d of the vectors.
        activation: how logits become scores: "softmax" over the labels, or each by "sigmoid".
        has_bias: whether the checkpoint has a ``logit_bias`` beside its ``logit_scale``.
        places: where tensors stand that do not stand under nshot's own name.
        settings: what the family itself wants to know again.
    """

    family: Family
    vision: ImageTower
    text: TextTower
    dimension: int
    activation: Activation = "softmax"
    has_bias: bool = False
    places: Mapping[str, Place] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def tensors(self) -> dict[str, Place]:
        """Every tensor of the model, by nshot's name, and where it stands."""
        shapes: Shapes = {"logit_scale": ()}
        if self.has_bias:
            shapes["logit_bias"] = ()
        shapes |= self.text.shapes() | self.vision.shapes()
        return {name: Place(shape, name) for name, shape in shapes.items()} | dict(self.places)


class Family(Protocol):
    """A kind of model."""

    name: str
    """As messages call it."""

    version: str
    """To be raised by whatever the family changes in a vector; a part of every fingerprint unless empty."""

    weights: tuple[str, ...]
    """Names of the file of weights, the first one that is there is taken; each may be sharded."""

    def claims(self, config: Mapping[str, Any]) -> bool:
        """Whether a checkpoint with this config.json is one of this kind."""

    def read(self, config: Mapping[str, Any], where: str) -> ModelConfig:
        """Read the settings; ``where`` names their file in messages.

        Raises:
            UnsupportedArchitecture: a model of this kind with parts that nshot does not know.
            CorruptCheckpoint: sizes that are not there or do not fit.
        """

    def preprocessor(self, files: Files, config: ModelConfig) -> Mapping[str, Any] | None:
        """The image processor's settings, in the form of transformers; None where there are none."""

    def vocabulary(self, files: Files, config: ModelConfig) -> TokenizerFiles | None:
        """The tokenizer's files; None where there are none."""

    def tokenizer(self, files: TokenizerFiles, config: ModelConfig) -> Tokenizer:
        """Texts -> tokens: canonicalised, padded to the context, with the tokens that start and end them."""
