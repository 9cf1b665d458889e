"""The bodies that clients send: Hugging Face's, OpenAI's, and nshot's own; no HTTP in here."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

from nshot.errors import ForbiddenAddress, ImageTooLarge, RequestError, UndecodableImage
from nshot.images.fetch import fetch
from nshot.labels.prompts import DEFAULT_TEMPLATE, Labels
from nshot.server.batching import Reading
from nshot.types import Limits

HF_TEMPLATE = "This is a photo of {}."  # what transformers uses where no template comes
MOST_LABELS = 1000
MOST_TEXT = 10_000  # characters; a model's context is far shorter
MOST_PROMPTS = 10_000  # labels, times their synonyms, times templates


@dataclass(frozen=True, slots=True)
class Given:
    """One image as it was sent.

    Attributes:
        content: a string: base64, a data URI or a URL; or a file, perhaps on disk, whose bytes they are.
        name: what the client calls it.
    """

    content: BinaryIO | str
    name: str | None = None

    def read(self, limits: Limits, urls: bool) -> Reading:
        """How its encoded bytes are read."""
        if isinstance(self.content, str) and self.content[:8].lower().startswith(("http://", "https://")):
            if not urls:
                return Reading(_refused)
            read = partial(
                fetch, self.content, max_bytes=limits.max_bytes, allow_private=limits.allow_private
            )
            return Reading(read, far=True)
        size = 3 * len(self.content) if isinstance(self.content, str) else _size(self.content)
        return Reading(partial(_bytes, self.content, limits.max_bytes), size=size)


@dataclass(frozen=True, slots=True)
class Asked:
    """Images and what is asked of them: labels or the name of a classifier."""

    images: Sequence[Given]
    labels: Labels | None = None
    templates: Sequence[str] = (DEFAULT_TEMPLATE,)
    classifier: str | None = None
    top_k: int = 5
    stream: bool = False


def classify(body: Any) -> Asked:
    """Nshot's own form: ``{"images": [...], "labels": [...] | "classifier": "name", ...}``.

    Raises:
        RequestError: something is missing or has another type; the message names it.
    """
    body = _object(body)
    unknown = set(body) - {"images", "labels", "templates", "classifier", "top_k", "stream"}
    if unknown:
        raise RequestError(f"unknown: {', '.join(sorted(unknown))}")
    images = body.get("images")
    if not isinstance(images, list) or not images:
        raise RequestError("images must be a list of at least one image")
    labels, classifier = body.get("labels"), body.get("classifier")
    if (labels is None) == (classifier is None):
        raise RequestError("give either labels or classifier")
    if classifier is not None and not isinstance(classifier, str):
        raise RequestError("classifier must be the name of a classifier")
    templates = body.get("templates", [DEFAULT_TEMPLATE])
    if isinstance(templates, str):
        templates = [templates]
    top_k, stream = body.get("top_k", 5), body.get("stream", False)
    if type(top_k) is not int or top_k < 1:
        raise RequestError("top_k must be a whole number of at least 1")
    if not isinstance(stream, bool):
        raise RequestError("stream must be true or false")
    found, templates = None if labels is None else _labels(labels), _strings(templates, "templates", 100)
    words = sum(map(len, found.values())) if isinstance(found, Mapping) else len(found or ())
    if words * len(templates) > MOST_PROMPTS:
        raise RequestError(f"more than {MOST_PROMPTS:,} prompts: fewer labels, synonyms or templates")
    return Asked(
        [_image(each) for each in images],
        found,
        templates,
        classifier,
        top_k,
        stream,
    )


def zero_shot(body: Any) -> Asked | list[str]:
    """Hugging Face's form: zero-shot-image-classification, or the texts of feature-extraction.

    Raises:
        RequestError: it is neither.
    """
    body = _object(body)
    inputs, parameters = body.get("inputs"), body.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise RequestError("parameters must be an object")
    labels = parameters.get("candidate_labels")
    if isinstance(inputs, dict):  # an older form
        labels = inputs.get("candidateLabels", inputs.get("candidate_labels", labels))
        inputs = inputs.get("image")
    if labels is None:
        return texts(body)
    if isinstance(labels, str):
        labels = [label.strip() for label in labels.split(",")]
    template = parameters.get("hypothesis_template")
    if not isinstance(inputs, str):
        raise RequestError("inputs must be an image, in base64")
    if template is not None and not isinstance(template, str):
        raise RequestError("hypothesis_template must be a string")
    found = _labels(labels)
    return Asked([Given(inputs)], found, [template or HF_TEMPLATE], top_k=len(found))


def texts(body: Any) -> list[str]:
    """The texts of feature-extraction: ``{"inputs": "text" | ["text", ...]}``."""
    inputs = _object(body).get("inputs")
    if isinstance(inputs, str):
        inputs = [inputs]
    return _strings(inputs, "inputs", MOST_LABELS)


def embeddings(body: Any) -> tuple[list[Given | str], str | None, bool]:
    """OpenAI's form; data URIs, and objects with ``image``, are images, everything else is a text.

    Returns:
        The inputs in order, the model that was asked for, and whether the answer is to be base64.

    Raises:
        RequestError: something is missing or has another type.
    """
    body = _object(body)
    inputs, model = body.get("input"), body.get("model")
    form = body.get("encoding_format") or "float"
    if form not in ("float", "base64"):
        raise RequestError("encoding_format must be float or base64")
    if body.get("dimensions") is not None:
        raise RequestError("dimensions cannot be chosen: leave it out")
    if model is not None and not isinstance(model, str):
        raise RequestError("model must be a string")
    if isinstance(inputs, (str, dict)):
        inputs = [inputs]
    if not isinstance(inputs, list) or not inputs:
        raise RequestError("input must be a string, or a list of at least one")
    every = body.get("modality") == "image"
    return [_input(each, every) for each in inputs], model, form == "base64"


def _input(value: Any, image: bool) -> Given | str:
    if isinstance(value, dict):
        if isinstance(value.get("text"), str):
            value = value["text"]
        else:
            return _image(value)
    if not isinstance(value, str):
        raise RequestError("input must hold strings; tokens are not taken")
    if image or value[:5].lower() == "data:":
        return Given(value)
    return _strings([value], "input", 1)[0]


def _image(value: Any) -> Given:
    """A string, or an object: ``image`` (or ``url``), and perhaps ``name``."""
    if isinstance(value, Given):  # a file of a form
        return value
    if isinstance(value, dict):
        name, content = value.get("name"), value.get("image", value.get("url"))
        if isinstance(content, dict):  # {"image_url": {"url": ...}}-like
            content = content.get("url")
        if isinstance(content, str) and (name is None or isinstance(name, str)):
            return Given(content, name)
    elif isinstance(value, str):
        return Given(value)
    raise RequestError('an image must be base64, a data URI, or {"image": ..., "name": ...}')


def _labels(value: Any) -> Labels:
    if isinstance(value, str):
        value = [label.strip() for label in value.split(",")]
    if isinstance(value, Mapping):
        if len(value) > MOST_LABELS:
            raise RequestError(f"more than {MOST_LABELS} labels")
        return {
            label: _strings([words] if isinstance(words, str) else words, "synonyms", 100, least=0)
            for label, words in value.items()
        }
    return _strings(value, "labels", MOST_LABELS)


def _strings(value: Any, name: str, most: int, least: int = 1) -> list[str]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(each, str) for each in value):
        raise RequestError(f"{name} must be a list of strings")
    if not least <= len(value) <= most:
        raise RequestError(f"{name} must hold {least} to {most} strings, not {len(value)}")
    if any(len(each) > MOST_TEXT for each in value):
        raise RequestError(f"{name}: a text of more than {MOST_TEXT:,} characters")
    if any("\ud800" <= sign <= "\udfff" for each in value for sign in each):
        raise RequestError(f"{name}: half a character (a lone surrogate)")
    return list(value)


def _object(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise RequestError("the request is not a JSON object")
    return body


def _refused() -> bytes:
    raise ForbiddenAddress("this server fetches no URLs (--allow-urls lets it): send the image itself")


def _size(file: BinaryIO) -> int:
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    return size


def _bytes(content: BinaryIO | str, most: int) -> bytes:
    if not isinstance(content, str):
        return content.read()
    if content[:5].lower() == "data:":
        head, comma, content = content.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise UndecodableImage("a data URI of an image must be base64")
    if len(content) > most // 3 * 4 + 4:
        raise ImageTooLarge(f"more than the limit of {most:,} bytes")
    try:
        return base64.b64decode("".join(content.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise UndecodableImage(f"not base64 ({error})") from error
