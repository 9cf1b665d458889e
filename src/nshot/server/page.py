"""The page's routes: each is one call of the session, its answer in columns where it is long."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias, TypeVar

import anyio
import numpy as np
from anyio import CapacityLimiter, to_thread
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from nshot.bounded import received, weight
from nshot.classifier.cascade import CascadeClassifier
from nshot.classifier.classifier import Classifier
from nshot.classifier.facets import Facets
from nshot.errors import ImageError, NshotError, OutputError, RequestError
from nshot.pages.engine import asset, environment
from nshot.server.session import Question, Session, several, taking_away
from nshot.server.session.images import half, packed

HERE = Path(__file__).parent
MAX_JSON = 16 * 2**20  # bytes of a request: 40,000 selected images are 3 MB
MAX_READ = 2**28  # bytes of memory that its JSON may take
MAX_IMAGE = 64 * 2**20
_ROWS = 50_000  # in one answer
_TICK = 0.25  # seconds between looks for news
_DIGITS = 15  # of a number
_KINDS: Mapping[type, str] = {str: "texts", int: "numbers", dict: "objects"}
_BEAT = 40  # ticks without news after which a comment keeps the connection open

T = TypeVar("T")
Handler: TypeAlias = Callable[[Request], Awaitable[Response]]


def page_routes(session: Session, start: Mapping[str, Any]) -> list[BaseRoute]:
    """Everything under / that the page needs.

    Args:
        session: what it shows; the caller starts and closes it.
        start: what the page begins with: labels, templates, title, and the sources as they were named.
    """
    return _Page(session, start).routes()


class _Page:
    def __init__(self, session: Session, start: Mapping[str, Any]) -> None:
        self.session = session
        self.start = start
        self.images = CapacityLimiter(2)  # decoding must leave the processor to the questions
        self.html = (
            environment(HERE / "templates")
            .get_template("page.html")
            .render(title=f"nshot · {start['title']}", name=start["title"], start=json.dumps(start))
        )

    def routes(self) -> list[BaseRoute]:
        gets: dict[str, Handler] = {
            "/": self.index,
            "/theme.css": self.theme,
            "/api/state": self.state,
            "/api/events": self.events,
            "/api/rows": self.rows,
            "/api/journal": self.journal,
            "/thumbnails/{digest}.webp": self.thumbnail,
            "/images/{digest}.webp": self.large,
            "/images/{digest}/{key}/{place}.webp": self.heat,
        }
        posts: dict[str, Handler] = {
            "/api/ask": self.ask,
            "/api/ranked": self.ranked,
            "/api/about": self.about,
            "/api/acts": self.acts,
            "/api/fit": self.fit,
            "/api/take": self.take,
            "/api/next": self.next,
            "/api/audit": self.audit,
            "/api/search": self.search,
            "/api/search/image": self.search_image,
            "/api/duplicates": self.duplicates,
            "/api/export": self.export,
            "/api/pause": self.pause,
            "/api/again": self.again,
        }
        return [
            *(Route(path, told(handler), methods=["GET"]) for path, handler in gets.items()),
            *(Route(path, told(handler), methods=["POST"]) for path, handler in posts.items()),
            Mount("/static", StaticFiles(directory=HERE / "static")),
        ]

    # The page itself, and news

    async def index(self, _: Request) -> Response:
        return Response(self.html, media_type="text/html", headers={"Cache-Control": "no-store"})

    async def theme(self, _: Request) -> Response:
        return Response(asset("theme.css"), media_type="text/css", headers={"Cache-Control": "no-cache"})

    async def state(self, _: Request) -> Response:
        return JSONResponse(self.session.state())

    async def events(self, request: Request) -> Response:
        start = _number(request, "acts")
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(self._news(start), media_type="text/event-stream", headers=headers)

    async def _news(self, acts: int) -> AsyncIterator[bytes]:
        """The state whenever it changes, and acts from a place on: those of other windows among them."""
        last, quiet = "", 0
        while not self.session.closing.is_set():
            news = []
            state = json.dumps(self.session.state())
            if len(lines := self.session.journal.lines[acts:]):
                acts += len(lines)
                news.append(_event("acts", json.dumps(lines)))
            if state != last:
                last = state
                news.append(_event("state", state))
            quiet = 0 if news else quiet + 1
            if quiet > _BEAT:
                quiet = 0
                news.append(b": still here\n\n")
            for each in news:
                yield each
            await anyio.sleep(_TICK)

    async def rows(self, request: Request) -> Response:
        data = await to_thread.run_sync(packed, self.session.images, _number(request, "from"), _ROWS)
        return Response(data, media_type="application/octet-stream", headers={"Cache-Control": "no-store"})

    async def journal(self, request: Request) -> Response:
        return JSONResponse(self.session.journal.lines[_number(request, "from") :])

    # Images, by their content: what is at such an address never changes

    async def thumbnail(self, request: Request) -> Response:
        return await self._webp(request, self.session.thumbnail)

    async def large(self, request: Request) -> Response:
        return await self._webp(request, self.session.large)

    async def heat(self, request: Request) -> Response:
        key, place = request.path_params["key"], _whole("a label's place", request.path_params["place"])
        return await self._webp(request, lambda digest: self.session.heat(digest, key, place))

    async def _webp(self, request: Request, make: Callable[[str], bytes]) -> Response:
        async with self.images:
            if await request.is_disconnected():  # the cell has left the screen
                return Response(status_code=499)
            try:
                data = await to_thread.run_sync(make, request.path_params["digest"])
            except RequestError as error:
                raise HTTPException(404, str(error)) from error
        headers = {"Cache-Control": "private, max-age=31536000, immutable"}
        return Response(data, media_type="image/webp", headers=headers)

    # Questions

    async def ask(self, request: Request) -> Response:
        body = await _json(request)
        question = Question.from_dict(body)
        if not question.labels:
            raise RequestError("no label given")
        asked, answers = await to_thread.run_sync(self.session.ask, question)
        header = {
            "key": asked.key,
            "rows": len(answers.label),
            "labels": list(question.names),
            "unsure": answers.unsure,
            "calibrated": asked.calibrated,
            "learnt": asked.learnt,
            "notes": list(asked.notes),
        }
        if isinstance(asked.classifier, CascadeClassifier):
            header["stages"] = list(asked.classifier.stages)
        elif remark := self.session.remark():
            header["notes"] = [*asked.notes, f"{remark[0].upper()}{remark[1:]}."]
        columns = [
            answers.label.astype("<u2").tobytes(),
            *map(half, (answers.score, answers.margin, answers.fits)),
        ]
        if asked.several is not None:
            more, column = await to_thread.run_sync(several.told, asked, answers)
            header, columns = header | more, columns + column
        return _columns(header, *columns)

    async def ranked(self, request: Request) -> Response:
        body = await _json(request)
        key, place = str(body.get("key")), body.get("place")
        if not isinstance(place, int):
            raise RequestError('an order is {"key": "...", "place": 0}')
        rows = await to_thread.run_sync(self.session.ranked, key, place)
        return Response(rows.astype("<u4").tobytes(), media_type="application/octet-stream")

    async def about(self, request: Request) -> Response:
        body = await _json(request)
        key = body.get("key")
        about = partial(self.session.about, str(body.get("digest")), str(key) if key else None)
        return JSONResponse(await to_thread.run_sync(about))

    async def search(self, request: Request) -> Response:
        body = await _json(request)
        return JSONResponse(
            await to_thread.run_sync(
                partial(self.session.search, str(body.get("words") or ""), _list(body, "like", str))
            )
        )

    async def search_image(self, request: Request) -> Response:
        data = await _body(request, MAX_IMAGE)
        return JSONResponse(await to_thread.run_sync(partial(self.session.search, data=data)))

    # Saying and learning

    async def acts(self, request: Request) -> Response:
        body = await _json(request)
        acts = body.get("acts")
        if not isinstance(acts, list) or not all(isinstance(act, dict) for act in acts):
            raise RequestError('what was done is {"acts": [...]}')
        return await _kept(partial(self.session.say, acts))

    async def fit(self, request: Request) -> Response:
        question = Question.from_dict(await _json(request))
        proposal = await to_thread.run_sync(self.session.learn, question)
        if proposal is None:
            return JSONResponse({"token": None})
        moves = [[int(a), int(b), rows.tolist()] for (a, b), rows in proposal.moves.items()]
        audited = await to_thread.run_sync(self.session.audit_of, proposal)
        return JSONResponse(
            {
                "token": proposal.token,
                "examples": proposal.examples,
                "reason": proposal.reason,
                "seconds": proposal.seconds,
                "moves": sorted(moves, key=lambda move: -len(move[2])),
                "changed": proposal.changed,
                "labels": list(proposal.labels),
                "left": list(proposal.left),
                "audit": None if audited is None else audited.to_dict(),
            }
        )

    async def take(self, request: Request) -> Response:
        body = await _json(request)
        return await _kept(partial(self.session.take, str(body.get("token")), str(body.get("id"))))

    async def next(self, request: Request) -> Response:
        question = Question.from_dict(await _json(request))
        return JSONResponse({"rows": await to_thread.run_sync(self.session.next, question)})

    async def audit(self, request: Request) -> Response:
        body = await _json(request)
        draw = partial(self.session.audit, Question.from_dict(body), anew=bool(body.get("anew")))
        rows, total, found = await to_thread.run_sync(draw)
        return JSONResponse({"rows": rows, "total": total, **found.to_dict()})

    async def export(self, request: Request) -> Response:
        body = await _json(request)
        return await to_thread.run_sync(self._exported, body)

    def _exported(self, body: dict[str, Any]) -> Response:
        form, target = str(body.get("as")), Path(str(body.get("target") or "sorted"))
        if body.get("undo"):
            folder = Path(str(body["undo"]))
            count = taking_away.untag(folder) if form == "xmp" else taking_away.take_back(folder)
            told = _many(count, "sidecar") if form == "xmp" else _many(count, "copy", "copies")
            return JSONResponse({"said": f"{told} taken back."})
        some, only = body.get("what") in ("selection", "shown"), body.get("what") == "yours"
        rows = set(_list(body, "rows", int)) if some else None
        if several := [Question.from_dict(each) for each in _list(body, "facets", dict)]:
            if form == "nshot":
                return _classifier(Facets({each.facet: self.session.learnt(each) for each in several}))
            asked = {each.facet: self.session.classifier(each) for each in several}
            facets = taking_away.open_decisions(Facets(asked))
            return _download(
                *taking_away.as_file(form, facets, self.session.faceted(facets, rows, only=only))
            )
        question = Question.from_dict(body)
        if form == "nshot":
            return _classifier(self.session.learnt(question))  # as nshot fit --journal does
        classifier = self.session.classifier(question)
        records = self.session.records(classifier, rows, only=only, facet=question.facet)
        if form == "xmp":
            tagged = taking_away.tag(self._folder(), records)
            sidecars = _many(len(tagged.tags), "sidecar")
            what = sidecars, f"keywords written into {sidecars}"
            return self._planned(body, tagged, len(tagged.tags), *what, str(tagged.folder))
        if form == "sort":
            if question.multi:
                raise RequestError("an image with several labels has no folder of its own: write keywords")
            plan = taking_away.sort(target, classifier, records)
            files = len(plan.moves)
            what = (f"{_many(files, 'file')} copied into {target}/",) * 2
            return self._planned(body, plan, files, *what, str(target))
        return _download(*taking_away.as_file(form, classifier, records))

    def _planned(
        self,
        body: Mapping[str, Any],
        plan: taking_away.Sorted | taking_away.Tagged,
        files: int,
        would: str,
        done: str,
        undo: str,
    ) -> Response:
        """A plan to look at; or, where its token says that it was looked at, the act."""
        token = plan.token(self.session.number)
        if body.get("token") != token:
            said = f"Dry run: {would}; nothing was touched, and nothing would be overwritten."
            return JSONResponse({"said": said, "files": files, "lines": plan.lines(), "token": token})
        count = plan.carry_out()
        said = f"Done: {done}." if count == files else f"{count:,} of {files:,}: {done}."
        return JSONResponse({"said": said, "lines": [said], "undo": undo})

    def _folder(self) -> Path:
        """The one folder of the images, which keywords' journal lies in."""
        folder = Path(self.session.specs[0])
        if len(self.session.specs) != 1 or not folder.is_dir():
            raise RequestError(
                "keywords are written where the images are one folder; use nshot tag for others"
            )
        return folder

    async def duplicates(self, request: Request) -> Response:
        body = await _json(request)
        if "move" in body or "undo" in body:
            return await to_thread.run_sync(self._moved, body)
        return JSONResponse(await to_thread.run_sync(self.session.duplicates))

    def _moved(self, body: dict[str, Any]) -> Response:
        if body.get("undo"):
            count = taking_away.take_back(Path(str(body["undo"])))
            return JSONResponse({"said": f"Back where they were: {_many(count, 'file')}."})
        known = {name for name, _ in self.session.images.files}
        try:
            wanted = [(str(name), str(kind)) for name, kind in body["move"]]
        except (TypeError, ValueError) as error:
            raise RequestError('what to move is {"move": [[name, kind], ...]}') from error
        if strange := [name for name, _ in wanted if name not in known]:
            raise RequestError(f"{strange[0]} is not among these images")
        target = Path(str(body.get("target") or "trash"))
        plan = taking_away.put_aside(target, wanted)
        files = len(plan.moves)
        told = _many(files, "file")
        would = f"{told} would move to {target}/, the ★ best of each group stays"
        return self._planned(body, plan, files, would, f"{told} moved to {target}/", str(target))

    async def pause(self, request: Request) -> Response:
        self.session.reading.pause(bool((await _json(request)).get("on")))
        return JSONResponse(self.session.state())

    async def again(self, _: Request) -> Response:
        self.session.reading.again()
        return JSONResponse(self.session.state())


def told(handler: Handler) -> Handler:
    """The handler, with nshot's errors as JSON: 400 for a wrong request, 410 for a lost image."""

    async def handled(request: Request) -> Response:
        try:
            return await handler(request)
        except HTTPException as error:
            return JSONResponse({"error": error.detail}, error.status_code)
        except ImageError as error:
            return JSONResponse({"error": str(error)}, 410)
        except NshotError as error:
            return JSONResponse({"error": str(error)}, 400)
        except ClientDisconnect:
            return JSONResponse({"error": "the request was broken off"}, 400)

    return handled


async def _kept(act: Callable[[], int]) -> Response:
    """The number of acts, once they are on disk; 507 where the disk is full."""
    try:
        return JSONResponse({"acts": await to_thread.run_sync(act)})
    except OutputError as error:
        return JSONResponse({"error": str(error)}, 507)


async def _body(request: Request, limit: int) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise HTTPException(413, f"more than {limit // 2**20} MB")
        parts.append(part)
    return b"".join(parts)


async def _json(request: Request) -> dict[str, Any]:
    try:
        body = await _body(request, MAX_JSON) or b"{}"
        if weight([body]) > MAX_READ:
            raise HTTPException(413, "reading this JSON would take too much memory")
        content = received(body)
    except ValueError as error:
        raise RequestError(f"the request is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise RequestError("the request is not a JSON object")
    return content


def _number(request: Request, name: str) -> int:
    return _whole(name, request.query_params.get(name, "0"))


def _whole(name: str, text: str) -> int:
    if not text.isdecimal() or len(text) > _DIGITS:
        raise RequestError(f"{name} is a number, not {text[:80]!r}")
    return int(text)


def _list(body: Mapping[str, Any], name: str, kind: type[T]) -> list[T]:
    """A list that a request holds, all of one type; empty where it holds none."""
    found = body.get(name) or []
    if not isinstance(found, list) or not all(type(each) is kind for each in found):
        raise RequestError(f"{name} is a list of {_KINDS[kind]}, not {str(found)[:80]!r}")
    return found


def _many(count: int, one: str, several: str = "") -> str:
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def _event(name: str, data: str) -> bytes:
    return f"event: {name}\ndata: {data}\n\n".encode()


def _download(data: bytes, name: str, media: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return Response(data, media_type=media, headers=headers)


def _classifier(made: Classifier | Facets) -> Response:
    with TemporaryDirectory(prefix="nshot-") as temporary:
        path = Path(temporary) / "photos.nshot"
        made.save(path)
        return _download(path.read_bytes(), path.name, "application/octet-stream")


def _columns(header: Mapping[str, Any], *columns: bytes) -> Response:
    """A JSON header with its length before it, padded to four bytes, then an array per column."""
    said = json.dumps(header).encode()
    said += b" " * (-len(said) % 4)
    data = b"".join([np.array([len(said)], "<u4").tobytes(), said, *columns])
    return Response(data, media_type="application/octet-stream", headers={"Cache-Control": "no-store"})
