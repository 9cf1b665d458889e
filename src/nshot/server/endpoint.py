"""The endpoint: routes that Hugging Face's and OpenAI's clients know, and one of nshot's own."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any, TypeAlias, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from nshot.bounded import parsed
from nshot.classifier.cascade import Cascade, CascadeClassifier
from nshot.classifier.classifier import Classifier
from nshot.embedder import Embedder
from nshot.errors import ImageError, NshotError, RequestError
from nshot.server import shapes
from nshot.server.batching import Batcher, Busy, Kept, Reading, Vector
from nshot.server.bounds import Bodies, Bounds, Held, read_json
from nshot.server.forms import read_form
from nshot.server.known import Known, UnknownClassifier
from nshot.server.observe import Metrics
from nshot.server.openapi import document
from nshot.server.shapes import Asked, Given
from nshot.types import Embedded, Failure, Floats

log = logging.getLogger("nshot")

T = TypeVar("T")
Coming: TypeAlias = "Future[Vector] | asyncio.Future[Vector]"
Handler = Callable[[Request], Awaitable[Response]]

_RECENT = 5.0  # seconds for which an answer proves that there are answers
_PROBE = 5.0  # seconds that such a proof may take
_RETRY = {"Retry-After": "1"}


class Endpoint:
    """The routes of an endpoint, over one model.

    Args:
        model: gives the loaded model; None while it is being loaded.
        classifiers: the folder of classifiers that can be asked for by name.
        bounds: what a request may take.
        allow_urls: fetch images by their URLs, from public addresses unless the model's limits say otherwise.
        first: loads the first model of a saved cascade, whose last one is the model here.
    """

    def __init__(
        self,
        model: Callable[[], Embedder | None],
        *,
        classifiers: Path | None = None,
        bounds: Bounds = Bounds(),  # noqa: B008  (frozen)
        allow_urls: bool = False,
        first: Callable[[CascadeClassifier], Embedder] | None = None,
    ) -> None:
        self._load_first = first
        self._first: dict[str, Batcher] = {}  # by the space and the precision of a first model
        self._loading = Lock()
        self.metrics = Metrics()
        self.stopping = False
        self._get = model
        self._folder = classifiers
        self._bounds = bounds
        self._urls = allow_urls
        self._bodies = Bodies(bounds)
        self._parts: tuple[Embedder, Batcher, Known] | None = None
        self._lock = Lock()
        self._requests = 0
        self._page: Cascade | None = None

    def routes(self) -> list[Route]:
        """What is answered."""
        post = ["POST"]
        return [
            Route("/", self._told(self._hugging_face), methods=post),
            Route("/models/{model:path}", self._told(self._hugging_face), methods=post),
            Route("/embed", self._told(self._embed), methods=post),
            Route("/v1/embeddings", self._told(self._embeddings, openai=True), methods=post),
            Route("/v1/classify", self._told(self._classify), methods=post),
            Route("/health", self._health),
            Route("/ready", self._ready),
            Route("/metrics", self._metrics),
            Route("/openapi.json", self._openapi),
        ]

    def stop(self) -> None:
        """Readiness is over; what is under way is answered."""
        self.stopping = True

    def close(self) -> None:
        """Stop the threads."""
        if self._parts is not None:
            self._parts[1].close()
            self._parts[2].close()
        for each in self._first.values():
            each.close()

    def prepare(self) -> None:
        """Load the first models of the cascades that can be asked for by name; what goes wrong is logged."""
        known = self._there()[2]
        for name in known.names():
            try:
                classifier = known.named(name)
                if isinstance(classifier, CascadeClassifier):
                    self._batcher_of(classifier)
            except NshotError as error:
                log.warning("the classifier %r cannot be asked: %s", name, error)

    # what is answered

    async def _hugging_face(self, request: Request) -> Response:
        model, _, _ = self._there()
        self._check_model(request.path_params.get("model"), model)
        body = await read_json(request)
        asked = shapes.zero_shot(body)
        if isinstance(asked, list):
            return await self._texts(asked)
        classifier, (answer,) = await self._within(self._answer(request, asked))
        if isinstance(answer, Failure):
            raise HTTPException(400, answer.message)
        records = next(iter(classifier.stream([answer], top_k=asked.top_k)))
        return JSONResponse([{"label": p.label, "score": p.score} for p in records.predictions])

    async def _embed(self, request: Request) -> Response:
        return await self._texts(shapes.texts(await read_json(request)))

    async def _texts(self, texts: list[str]) -> Response:
        vectors = await self._within(asyncio.wrap_future(self._there()[2].texts(texts)))
        return JSONResponse(vectors.tolist())

    async def _embeddings(self, request: Request) -> Response:
        model, _, known = self._there()
        inputs, name, packed = shapes.embeddings(await read_json(request))
        self._check_model(name, model)
        images = [each for each in inputs if isinstance(each, Given)]
        texts = [each for each in inputs if isinstance(each, str)]
        if len(texts) > shapes.MOST_LABELS:
            raise RequestError(f"more than {shapes.MOST_LABELS} texts")
        encoded = known.texts(texts) if texts else None
        answers = iter(await self._within(self._vectors(request, images)))
        rows: Iterator[Floats] = iter(())
        if encoded is not None:
            vectors: Floats = await self._within(asyncio.wrap_future(encoded))
            rows = iter(vectors)
        data = []
        for index, each in enumerate(inputs):
            answer = next(answers) if isinstance(each, Given) else next(rows)
            if isinstance(answer, Failure):
                raise HTTPException(400, f"input {index}: {answer.message}")
            vector = answer.vector if isinstance(answer, Embedded) else answer
            data.append({"object": "embedding", "index": index, "embedding": _packed(vector, packed)})
        usage = {"prompt_tokens": 0, "total_tokens": 0}
        return JSONResponse({"object": "list", "model": model.name, "data": data, "usage": usage})

    async def _classify(self, request: Request) -> Response:
        model, _, _ = self._there()
        kind = request.headers.get("content-type", "")
        body = await (_form(request, self._bounds) if kind.startswith("multipart/") else read_json(request))
        asked = shapes.classify(body)
        classifier = await self._within(self._classifier(asked))
        futures = await self._submitted(request, asked.images, classifier)
        if asked.stream or "application/x-ndjson" in request.headers.get("accept", ""):
            return StreamingResponse(
                self._lines(asked, classifier, futures), media_type="application/x-ndjson"
            )
        answers = await self._within(self._gathered(asked.images, futures))
        records = classifier.stream(answers, top_k=asked.top_k)
        results = [
            _record(k, given, each) for k, (given, each) in enumerate(zip(asked.images, records, strict=True))
        ]
        told: dict[str, Any] = {"model": model.name, "results": results}
        if isinstance(classifier, CascadeClassifier):
            first = await self._within(run_in_threadpool(self._batcher_of, classifier))
            told["promise"] = classifier.promise_with(first.recipe, model.recipe)
        return JSONResponse(told)

    async def _lines(
        self, asked: Asked, classifier: Classifier, futures: Sequence[Coming]
    ) -> AsyncIterator[bytes]:
        until = asyncio.get_running_loop().time() + self._bounds.answering
        try:
            for index, (given, future) in enumerate(zip(asked.images, futures, strict=True)):
                try:
                    async with asyncio.timeout_at(until):
                        (answer,) = await self._gathered([given], [future], index)
                except TimeoutError:
                    answer = Failure(_name(given, index), "TimeoutError", _late(self._bounds))
                (record,) = classifier.stream([answer], top_k=asked.top_k)
                told = _record(index, given, record)
                yield json.dumps(told).encode() + b"\n"
        finally:
            for future in futures:
                future.cancel()

    async def _health(self, _: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def _ready(self, _: Request) -> Response:
        return await self._readiness()

    async def _readiness(self) -> Response:
        """200 where an image was answered within the last seconds, or one of our own is now."""
        why = "stopping" if self.stopping else None
        if why is None:
            try:
                model, batcher, _ = await run_in_threadpool(self._there)
                if time.monotonic() - batcher.answered_at > _RECENT:
                    await asyncio.wait_for(asyncio.wrap_future(batcher.probe()), _PROBE)
            except HTTPException as error:
                why = error.detail
            except Exception as error:
                why = f"no answer: {type(error).__name__}"
            else:
                return JSONResponse({"status": "ready", "model": model.name})
        return JSONResponse({"status": why}, 503, _RETRY)

    async def _metrics(self, _: Request) -> Response:
        batcher = None if self._parts is None else self._parts[1]
        gauges = {
            "nshot_images_waiting": ("Images between arrival and answer.", "gauge", 0.0),
            "nshot_batches_total": ("Batches encoded.", "counter", 0.0),
            "nshot_encoded_total": ("Images encoded.", "counter", 0.0),
            "nshot_bodies_bytes": ("Bytes of the bodies that are held.", "gauge", float(self._bodies.held)),
        }
        if batcher is not None:
            every = [batcher, *self._first.values()]
            values = (
                sum(each.waiting for each in every),
                sum(each.batches for each in every),
                sum(each.encoded for each in every),
            )
            for name, value in zip(list(gauges), values, strict=False):
                gauges[name] = (*gauges[name][:2], float(value))
        return PlainTextResponse(self.metrics.text(gauges), media_type="text/plain; version=0.0.4")

    async def _openapi(self, _: Request) -> Response:
        return JSONResponse(document(self._bounds))

    # how

    def _there(self) -> tuple[Embedder, Batcher, Known]:
        with self._lock:
            if self._parts is None:
                model = self._get()
                if model is None:
                    raise HTTPException(503, "the model is being loaded", _RETRY)
                if isinstance(model, Cascade):  # of the page: asked of its own labels, both answer
                    self._page = model
                    model = model.last
                memory = model.limits.memory
                memory = max(memory - self._bounds.bodies, memory // 2)  # what requests hold is part of it
                batcher = Batcher(model, most=self._bounds.waiting, memory=memory)
                self._parts = model, batcher, Known(model, self._folder)
            return self._parts

    def _check_model(self, name: str | None, model: Embedder) -> None:
        if name not in (None, "", "clip", "nshot", model.name):
            raise HTTPException(404, f"the model here is {model.name}, not {name}")

    async def _classifier(self, asked: Asked) -> Classifier:
        known = self._there()[2]
        if asked.classifier is not None:
            return await run_in_threadpool(known.named, asked.classifier)
        assert asked.labels is not None
        if self._page is not None and _same(asked, self._page.classifier):
            return self._page.classifier
        return await asyncio.shield(asyncio.wrap_future(known.of(asked.labels, asked.templates)))

    async def _answer(self, request: Request, asked: Asked) -> tuple[Classifier, list[Embedded | Failure]]:
        classifier = await self._classifier(asked)
        futures = await self._submitted(request, asked.images, classifier)
        return classifier, await self._gathered(asked.images, futures)

    async def _vectors(self, request: Request, images: Sequence[Given]) -> list[Embedded | Failure]:
        return await self._gathered(images, self._submit(request, images))

    def _submit(self, request: Request, images: Sequence[Given]) -> list[Future[Vector]]:
        _, batcher, _ = self._there()
        return batcher.submit(self._readings(request, images))

    async def _submitted(
        self, request: Request, images: Sequence[Given], classifier: Classifier
    ) -> Sequence[Coming]:
        """The images' vectors to come; of a cascade, those of the stages that they need."""
        if not isinstance(classifier, CascadeClassifier):
            return self._submit(request, images)
        first = await self._within(run_in_threadpool(self._batcher_of, classifier))
        last = self._there()[1]
        kept = [Kept(reading) for reading in self._readings(request, images)]
        early = first.submit([each.once() for each in kept])

        async def answered(each: Kept, coming: Future[Vector]) -> Vector:
            found = await asyncio.wrap_future(coming)
            if classifier.margins(found.vector[None])[0] >= classifier.threshold:
                return Vector(classifier.joined(found.vector), found.notes)
            (later,) = last.submit([each.again()], taken_on=True)
            return Vector(
                classifier.joined(found.vector, (await asyncio.wrap_future(later)).vector), found.notes
            )

        return [asyncio.ensure_future(answered(*pair)) for pair in zip(kept, early, strict=True)]

    def _batcher_of(self, classifier: CascadeClassifier) -> Batcher:
        """The batcher of a cascade's first model, which is loaded where it is not there yet.

        Raises:
            RequestError: it cannot be loaded, or is another one.
        """
        told = classifier.about
        key = f"{told['space']} {told.get('precision')}"
        with self._loading:
            if key not in self._first:
                own = None if self._page is None else self._page.first
                precise = own is not None and told.get("precision") in (None, own.encoder.precision)
                if own is not None and precise and own.space == told["space"]:
                    model: Embedder = own
                elif self._load_first is None:
                    raise RequestError("no cascade can be asked here")
                else:
                    model = self._load_first(classifier)
                classifier.first.check_space(model.recipe, model.name, name="the first stage")
                self._first[key] = Batcher(model, most=self._bounds.waiting, memory=model.limits.memory // 2)
            return self._first[key]

    def _readings(self, request: Request, images: Sequence[Given]) -> list[Reading]:
        model, _, _ = self._there()
        if len(images) > self._bounds.items:
            raise HTTPException(413, f"{len(images)} images: at most {self._bounds.items} a request")
        request.state.told["images"] = len(images)
        limits = replace(model.limits, max_bytes=min(model.limits.max_bytes, self._bounds.body))
        return [image.read(limits, self._urls) for image in images]

    async def _gathered(
        self, images: Sequence[Given], futures: Sequence[Coming], first: int = 0
    ) -> list[Embedded | Failure]:
        answers: list[Embedded | Failure] = []
        done = await asyncio.gather(*map(asyncio.wrap_future, futures), return_exceptions=True)
        for index, (given, each) in enumerate(zip(images, done, strict=True), first):
            if isinstance(each, ImageError):
                answers.append(Failure.of(_name(given, index), each))
            elif isinstance(each, BaseException):
                raise each
            else:
                answers.append(Embedded(_name(given, index), each.vector, notes=each.notes))
        failed = sum(isinstance(each, Failure) for each in answers)
        self.metrics.images(len(answers) - failed, failed)
        return answers

    async def _within(self, work: Awaitable[T]) -> T:
        try:
            return await asyncio.wait_for(work, self._bounds.answering)
        except TimeoutError as error:
            raise HTTPException(429, _late(self._bounds), _RETRY) from error

    def _told(self, handler: Handler, *, openai: bool = False) -> Handler:
        """The handler, within bounds, with errors in the form that its clients read."""

        async def handled(request: Request) -> Response:
            held, bounded, streams = None, request, False
            self._requests += 1
            try:
                if self._requests > self._bounds.waiting:
                    raise Busy(f"{self._requests - 1} requests are waiting")
                bounded, held = self._bodies.bounded(request)
                response = await handler(bounded)
                if isinstance(response, StreamingResponse):  # holds its images until the last line is sent
                    response.body_iterator = self._until_sent(response.body_iterator, bounded, held)
                    streams = True
                return response
            except (HTTPException, NshotError) as error:
                status, message, headers = _status(error)
            except ClientDisconnect:
                status, message, headers = 400, "the request was broken off", {}
            finally:
                if not streams:
                    await self._over(bounded, held)
            told: Any = message
            if openai:
                kind = "rate_limit_error" if status == 429 else "invalid_request_error"
                told = {"message": message, "type": kind, "param": None, "code": None}
            return JSONResponse({"error": told}, status, headers)

        return handled

    async def _until_sent(self, lines: Any, request: Request, held: Held) -> AsyncIterator[Any]:
        try:
            async for line in lines:
                yield line
        finally:
            await self._over(request, held)

    async def _over(self, request: Request, held: Held | None) -> None:
        """Nothing of the request is needed any more."""
        self._requests -= 1
        form: FormData | None = getattr(request.state, "form", None)
        if form is not None:
            await form.close()  # its files are on disk above a size
        if held is not None:
            held.release()


def _status(error: HTTPException | NshotError) -> tuple[int, str, dict[str, str]]:
    if isinstance(error, HTTPException):
        return error.status_code, error.detail, dict(error.headers or {})
    if isinstance(error, Busy):
        return 429, str(error), _RETRY
    return 404 if isinstance(error, UnknownClassifier) else 400, str(error), {}


def _name(given: Given, index: int) -> str:
    return given.name or f"[{index}]"


def _late(bounds: Bounds) -> str:
    return f"no answer within {bounds.answering:g} s"


def _same(asked: Asked, own: CascadeClassifier) -> bool:
    """Whether a request asks what the page's cascade was learnt for."""
    known = own.made.get("asked")
    if known is None or asked.labels is None:
        return False
    given = asked.labels if isinstance(asked.labels, Mapping) else dict.fromkeys(asked.labels, ())
    words = {label: list(each) for label, each in given.items()}
    return words == dict(known["labels"]) and list(asked.templates) == list(known["templates"])


def _record(index: int, given: Given, answer: Any) -> dict[str, Any]:
    told = answer.to_dict()
    if given.name is None:
        told.pop("source")
    return {"index": index, "status": "error" if isinstance(answer, Failure) else "ok", **told}


def _packed(vector: Floats, packed: bool) -> Any:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode() if packed else vector.tolist()


async def _form(request: Request, bounds: Bounds) -> dict[str, Any]:
    """A multipart form: files named ``images``, and the other members of the JSON form as fields."""
    body: dict[str, Any] = {}
    images: list[Any] = []
    request.state.form = form = await read_form(request, files=bounds.items, fields=1000)
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            if name not in ("images", "image"):
                raise RequestError(f"files are called images, not {name}")
            images.append(Given(value.file, value.filename))
        elif name in ("labels", "templates"):
            body[name] = [*body.get(name, []), *_listed(name, value)]
        else:
            body[name] = value
            with suppress(ValueError):
                body[name] = parsed(value) if name in ("top_k", "stream") else value
    return body | {"images": images}


def _listed(name: str, value: str) -> list[str]:
    return [each.strip() for each in value.split(",")] if name == "labels" else [value]
