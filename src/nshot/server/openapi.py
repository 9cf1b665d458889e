"""The OpenAPI document of the endpoint, by hand: a test holds it to the routes."""

from __future__ import annotations

from typing import Any

from nshot.server.bounds import Bounds

_TEXT = {"type": "string"}
_TEXTS = {"type": "array", "items": _TEXT, "minItems": 1}
_LABELS = {
    "description": "Names, or names with their synonyms.",
    "oneOf": [_TEXTS, {"type": "object", "additionalProperties": _TEXTS}],
}
_ONE_OR_MORE = {"oneOf": [_TEXT, _TEXTS]}
_IMAGE = {
    "description": "Base64, a data URI, or an object; a URL only where the server has --allow-urls.",
    "oneOf": [
        _TEXT,
        {"type": "object", "properties": {"image": _TEXT, "name": _TEXT}, "required": ["image"]},
    ],
}
_SCORES = {
    "type": "array",
    "items": {"type": "object", "properties": {"label": _TEXT, "score": {"type": "number"}}},
}
_VECTORS = {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}


def document(bounds: Bounds) -> dict[str, Any]:
    """The document, as a dict."""
    from nshot import __version__

    hugging_face = _body(
        {
            "type": "object",
            "properties": {
                "inputs": {**_ONE_OR_MORE, "description": "One image in base64; without labels, texts."},
                "parameters": {
                    "type": "object",
                    "properties": {"candidate_labels": _TEXTS, "hypothesis_template": _TEXT},
                },
            },
            "required": ["inputs"],
            "example": {"inputs": "<base64>", "parameters": {"candidate_labels": ["cat", "dog"]}},
        }
    )
    classify = {
        "type": "object",
        "properties": {
            "images": {"type": "array", "items": _IMAGE, "minItems": 1, "maxItems": bounds.items},
            "labels": _LABELS,
            "classifier": {**_TEXT, "description": "The name of a saved classifier, instead of labels."},
            "templates": _TEXTS,
            "top_k": {"type": "integer", "minimum": 1, "default": 5},
            "stream": {"type": "boolean", "default": False, "description": "JSON lines, one per image."},
        },
        "required": ["images"],
        "additionalProperties": False,
        "example": {"images": [{"name": "a.jpg", "image": "<base64>"}], "labels": ["cat", "dog"]},
    }
    form = {
        "type": "object",
        "properties": {
            "images": {"type": "array", "items": {"type": "string", "format": "binary"}},
            "labels": {**_TEXT, "description": "Separated by commas."},
            "classifier": _TEXT,
        },
        "required": ["images"],
    }
    record = {
        "type": "object",
        "description": "The record of `nshot classify`, with the image's index and a status of its own.",
        "properties": {
            "index": {"type": "integer"},
            "status": {"enum": ["ok", "error"]},
            "label": {"type": ["string", "null"]},
            "score": {"type": "number"},
            "stage": {**_TEXT, "description": "Of a cascade: the model that answered."},
            "error": {"type": "object", "properties": {"type": _TEXT, "message": _TEXT}},
        },
        "required": ["index", "status"],
    }
    results = {
        "type": "object",
        "properties": {
            "model": _TEXT,
            "results": {"type": "array", "items": record},
            "promise": {**_TEXT, "description": "Of a cascade: how often it answers as its last model."},
        },
    }
    embeddings = {
        "type": "object",
        "properties": {
            "input": {**_ONE_OR_MORE, "description": "Texts, and images as data URIs."},
            "model": _TEXT,
            "encoding_format": {"enum": ["float", "base64"], "default": "float"},
        },
        "required": ["input"],
        "example": {"model": "clip", "input": ["a photo of a cat", "data:image/jpeg;base64,..."]},
    }
    scored = {"oneOf": [_SCORES, _VECTORS]}
    model = {"name": "model", "in": "path", "required": True, "schema": _TEXT}
    plain = {"type": "object", "properties": {"status": _TEXT}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "nshot",
            "version": __version__,
            "description": f"Bodies up to {bounds.body:,} bytes, {bounds.items} images per request.",
        },
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "responses": {name: _error(text) for name, text in _ERRORS.items()},
        },
        "security": [{}, {"token": []}],
        "paths": {
            "/": {"post": _post("Zero-shot classification, Hugging Face's form.", hugging_face, scored)},
            "/models/{model}": {
                "parameters": [model],
                "post": _post("The same, by the model's name.", hugging_face, scored),
            },
            "/embed": {
                "post": _post(
                    "Vectors of texts, in the form of text-embeddings-inference.",
                    _body({"type": "object", "properties": {"inputs": _ONE_OR_MORE}, "required": ["inputs"]}),
                    _VECTORS,
                )
            },
            "/v1/embeddings": {
                "post": _post(
                    "Vectors of texts and images, OpenAI's form.", _body(embeddings), {"type": "object"}
                )
            },
            "/v1/classify": {
                "post": _post(
                    "Several images, a status for each.", _body(classify, form), results, lines=record
                )
            },
            "/health": {"get": _get("Whether the process is alive.", plain)},
            "/ready": {"get": _get("Whether images are answered now.", plain, unready=True)},
            "/metrics": {"get": _get("Figures for Prometheus.", None)},
            "/openapi.json": {"get": _get("This document.", {"type": "object"})},
        },
    }


_ERRORS = {
    "400": "The request is wrong; or its only image is.",
    "401": "The token is missing or wrong.",
    "403": "A page of another origin asked.",
    "404": "No model or classifier of that name.",
    "408": "The body did not arrive in time.",
    "413": "Too many bytes or images.",
    "421": "The server has another name.",
    "429": "Too much waits: ask again after Retry-After seconds.",
    "503": "The model is being loaded.",
}


def _error(text: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"error": {}}, "required": ["error"]}
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _body(schema: dict[str, Any], form: dict[str, Any] | None = None) -> dict[str, Any]:
    content = {"application/json": {"schema": schema}}
    if form is not None:
        content["multipart/form-data"] = {"schema": form}
    return {"required": True, "content": content}


def _post(
    summary: str, body: dict[str, Any], answer: dict[str, Any], lines: dict[str, Any] | None = None
) -> dict[str, Any]:
    content = {"application/json": {"schema": answer}}
    if lines is not None:
        content["application/x-ndjson"] = {"schema": lines}
    errors = {name: {"$ref": f"#/components/responses/{name}"} for name in _ERRORS}
    return {
        "summary": summary,
        "requestBody": body,
        "responses": {"200": {"description": "The answer.", "content": content}, **errors},
    }


def _get(summary: str, answer: dict[str, Any] | None, unready: bool = False) -> dict[str, Any]:
    content = (
        {"text/plain": {"schema": _TEXT}} if answer is None else {"application/json": {"schema": answer}}
    )
    responses: dict[str, Any] = {"200": {"description": summary, "content": content}}
    if unready:
        responses["503"] = {"description": "Not now.", "content": {"application/json": {"schema": answer}}}
    for name in ("401", "403", "421"):
        responses[name] = {"$ref": f"#/components/responses/{name}"}
    return {"summary": summary, "responses": responses}
