"""One image over http or https, from an address that anybody may reach.

A list of images may come from anywhere, so a URL in it must not read the services of a private network: a
name is resolved once, every address it stands for is checked, and the connection goes to an address that was
checked; each redirect starts over. Proxies from the environment are ignored, as they would resolve the name
again, out of sight of the check.
"""

from __future__ import annotations

import base64
import http.client
import io
import ipaddress
import socket
import ssl
import threading
import time
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from nshot.errors import FetchError, ForbiddenAddress, ImageError, ImageTooLarge

_REDIRECTS = (301, 302, 303, 307, 308)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_BLOCK = 2**16


def fetch(
    url: str,
    *,
    max_bytes: int,
    timeout: float = 20.0,
    max_redirects: int = 5,
    allow_private: bool = False,
) -> bytes:
    """Fetch the bytes behind a URL.

    Args:
        url: http or https; a user and password in it go to its own host alone.
        max_bytes: the most bytes to take.
        timeout: seconds for all of it: names, redirects, and a server that sends a byte at a time.
        max_redirects: how many redirects to follow.
        allow_private: also connect to addresses that are not globally routable.

    Raises:
        ForbiddenAddress: the URL, or a redirect, points to an address that is not globally routable.
        ImageTooLarge: more than max_bytes.
        FetchError: anything else that kept the bytes from coming.
    """
    deadline = time.monotonic() + timeout
    try:
        for _ in range(max_redirects + 1):
            answer = _get(_split(url), max_bytes, deadline, allow_private)
            if isinstance(answer, bytes):
                return answer
            url = urljoin(url, answer)
    except ImageError:
        raise
    except TimeoutError as error:
        raise FetchError(f"no complete answer within {timeout:g} s") from error
    except ssl.SSLError as error:
        raise FetchError(f"no secure connection: {error.reason or error}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise FetchError(f"no answer: {str(error) or type(error).__name__}") from error
    raise FetchError(f"more than {max_redirects} redirects")


def is_routable(address: str) -> bool:
    """Whether an IP address is one of the public internet's, also where it wraps an IPv4 address."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in _NAT64:
            return is_routable(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])
        if inner:
            return is_routable(str(inner))
        if ip.is_site_local:
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_private)


def _split(url: str) -> SplitResult:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise FetchError(f"{parts.scheme or 'no scheme'} in {url!r}: only http and https are fetched")
    if not parts.hostname:
        raise FetchError(f"no host in {url!r}")
    return parts


def _get(parts: SplitResult, max_bytes: int, deadline: float, allow_private: bool) -> bytes | str:
    """One request: the body, or where a redirect leads."""
    secure = parts.scheme == "https"
    assert parts.hostname is not None
    host = parts.hostname if ":" in parts.hostname else parts.hostname.encode("idna").decode()
    port = parts.port or (443 if secure else 80)
    connection = http.client.HTTPConnection(host, port)
    connection.default_port = 443 if secure else 80  # so that the Host header names only an unusual port
    with _connect(host, port, deadline, allow_private) as plain:
        stream = plain
        if secure:
            plain.settimeout(_left(deadline))
            stream = ssl.create_default_context().wrap_socket(plain, server_hostname=host)
        with stream:
            connection.sock = _Timed(stream, deadline)
            connection.request("GET", _target(parts), headers=_headers(parts))
            return _body(connection.getresponse(), max_bytes)


def _target(parts: SplitResult) -> str:
    """Path and query; what a person types there, spaces and umlauts, percent-encoded."""
    query = f"?{parts.query}" if parts.query else ""
    return quote(f"{parts.path or '/'}{query}", safe="/?:@!$&'()*+,;=%~")


def _headers(parts: SplitResult) -> dict[str, str]:
    headers = {"User-Agent": "nshot", "Accept": "image/*, */*;q=0.5"}
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    return headers


def _body(response: http.client.HTTPResponse, max_bytes: int) -> bytes | str:
    location = response.getheader("Location")
    if response.status in _REDIRECTS and location:
        return location
    if response.status != 200:
        raise FetchError(f"the server answered {response.status} {response.reason}".rstrip())
    too_large = ImageTooLarge(f"the server sends more than the limit of {max_bytes:,} bytes")
    expected = response.length
    if expected is not None and expected > max_bytes:
        raise too_large
    blocks, size = [], 0
    while block := response.read(_BLOCK):
        size += len(block)
        if size > max_bytes:
            raise too_large
        blocks.append(block)
    if expected is not None and size < expected:
        raise FetchError(f"cut off after {size:,} of {expected:,} bytes")
    return b"".join(blocks)


def _connect(host: str, port: int, deadline: float, allow_private: bool) -> socket.socket:
    """A connection to the first of the host's addresses that takes one, all of them checked beforehand."""
    found = _resolve(host, port, deadline)
    for *_, address in found:
        if not allow_private and not is_routable(str(address[0])):
            raise ForbiddenAddress(
                f"{host} is {address[0]}, not a public address; those are fetched from only where allowed"
            )
    failure: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in found:
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(_left(deadline))
            connection.connect(address)
        except OSError as error:
            connection.close()
            failure = error
        else:
            return connection
    raise failure


def _resolve(host: str, port: int, deadline: float) -> list[tuple[Any, ...]]:
    """getaddrinfo, which knows no time limit, in a thread of its own that is left behind when time is up."""
    answer: list[list[tuple[Any, ...]] | OSError | UnicodeError] = []

    def ask() -> None:
        try:
            answer.append(list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
        except (OSError, UnicodeError) as error:
            answer.append(error)

    thread = threading.Thread(target=ask, name="nshot-resolve", daemon=True)
    thread.start()
    thread.join(_left(deadline))
    if not answer:
        raise TimeoutError
    if isinstance(answer[0], Exception):
        raise FetchError(f"the name {host} cannot be resolved") from answer[0]
    return answer[0]


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class _Timed:
    """The part of a socket that http.client uses, with one deadline over all of its reads and writes."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline

    def sendall(self, data: bytes) -> None:
        self._connection.settimeout(_left(self._deadline))
        self._connection.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_TimedReader(self._connection, self._deadline))

    def close(self) -> None:
        """Nothing: http.client closes a socket while its file is still read; _get closes the real one."""


class _TimedReader(io.RawIOBase):
    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._connection.settimeout(_left(self._deadline))
        return self._connection.recv_into(buffer)
