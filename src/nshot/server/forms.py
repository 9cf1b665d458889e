"""Forms of many parts, read to their end."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator

from starlette.datastructures import FormData, Headers
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from nshot.errors import RequestError

# a line for each form that is none would let a stranger fill the log; the answer says what is wrong
logging.getLogger("python_multipart").setLevel(logging.ERROR)


async def read_form(request: Request, *, files: int, fields: int) -> FormData:
    """A multipart form, whose files are on disk above a size; to be closed by whoever asked for it.

    Args:
        request: it streams the form.
        files: how many there may be.
        fields: how many there may be beside them.

    Raises:
        RequestError: it is no form, is cut off, or has more parts.
    """
    parser = _Whole(request.headers, request.stream(), files, fields)
    try:
        return await parser.parse()
    except MultiPartException as error:
        raise RequestError(f"the form cannot be read: {error.message}") from error


class _Whole(MultiPartParser):
    """Starlette's parser takes a form that was cut off, and leaves out its last parts without a word."""

    def __init__(
        self, headers: Headers, stream: AsyncGenerator[bytes, None], files: int, fields: int
    ) -> None:
        self._ended = False
        super().__init__(headers, self._to_the_end(stream), max_files=files, max_fields=fields)

    def on_end(self) -> None:
        self._ended = True

    async def _to_the_end(self, stream: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        async for part in stream:
            yield part
        if not self._ended:
            raise MultiPartException("it is cut off before its last boundary")
