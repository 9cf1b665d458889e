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
from collections.abc import Callable
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from nshot.errors import FetchError, ForbiddenAddress, ImageError, ImageTooLarge

_REDIRECTS = (301, 302, 303, 307, 308)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_UNICAST = ipaddress.IPv6Network("2000::/3")  # all that IANA has given out of IPv6

# IANA's registries of special-purpose IPv4 and IPv6 addresses (2025): what is not globally reachable, ...
_SPECIAL = tuple(
    ipaddress.ip_network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15"),
        *("198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        *("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"),
        # ... and what clouds and their platforms answer on inside a machine, at addresses that look public
        *("168.63.129.16/32", "100.100.100.200/32", "192.0.0.192/32"),
    )
)
# ... without what lies in these and is.
_REACHABLE = tuple(
    ipaddress.ip_network(network)
    for network in (
        *("192.0.0.9/32", "192.0.0.10/32", "2001:1::1/128", "2001:1::2/128", "2001:1::3/128"),
        *("2001:3::/32", "2001:4:112::/48", "2001:20::/28", "2001:30::/28"),
    )
)
_BLOCK = 2**16


def fetch(
    url: str,
    *,
    max_bytes: int,
    timeout: float = 20.0,
    max_redirects: int = 5,
    allow_private: bool = False,
    before_more: tuple[int, Callable[[], object]] | None = None,
) -> bytes:
    """Fetch the bytes behind a URL.

    Args:
        url: http or https; a user and password in it go to its own host alone.
        max_bytes: the most bytes to take.
        timeout: seconds for all of it: names, redirects, and a server that sends a byte at a time.
        max_redirects: how many redirects to follow.
        allow_private: also connect to addresses that are not globally routable.
        before_more: (bytes, what to call once before more than these are held); the time that it waits for
            memory is not counted.

    Raises:
        ForbiddenAddress: the URL, or a redirect, points to an address that is not globally routable.
        ImageTooLarge: more than max_bytes.
        FetchError: anything else that kept the bytes from coming.
    """
    deadline = _Deadline(timeout)
    try:
        for _ in range(max_redirects + 1):
            answer = _get(_split(url), max_bytes, deadline, allow_private, before_more)
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
    """Whether an IP address is one of the public internet's, also where it wraps an IPv4 address.

    Public is what IANA's registries of special-purpose addresses do not list, or list as globally reachable;
    without what clouds answer on inside a machine, such as the metadata of its credentials.
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in _NAT64:  # an IPv4 address in its last 32 bits
            return is_routable(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])
        if inner:
            return is_routable(str(inner))
        if ip not in _UNICAST:
            return False
    if any(ip in network for network in _REACHABLE if network.version == ip.version):
        return True
    return not any(ip in network for network in _SPECIAL if network.version == ip.version)


def _split(url: str) -> SplitResult:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise FetchError(f"{parts.scheme or 'no scheme'} in {url!r}: only http and https are fetched")
    if not parts.hostname:
        raise FetchError(f"no host in {url!r}")
    return parts


def _get(
    parts: SplitResult,
    max_bytes: int,
    deadline: _Deadline,
    allow_private: bool,
    before_more: tuple[int, Callable[[], object]] | None,
) -> bytes | str:
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
            plain.settimeout(deadline.left())
            stream = ssl.create_default_context().wrap_socket(plain, server_hostname=host)
        with stream:
            connection.sock = _Timed(stream, deadline)
            connection.request("GET", _target(parts), headers=_headers(parts))
            response = connection.getresponse()
            return _body(response, max_bytes, deadline, before_more)


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


def _body(
    response: http.client.HTTPResponse,
    max_bytes: int,
    deadline: _Deadline,
    before_more: tuple[int, Callable[[], object]] | None,
) -> bytes | str:
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
        if before_more is not None and size > before_more[0]:
            deadline.wait(before_more[1])
            before_more = None
        blocks.append(block)
    if expected is not None and size < expected:
        raise FetchError(f"cut off after {size:,} of {expected:,} bytes")
    return b"".join(blocks)


def _connect(host: str, port: int, deadline: _Deadline, allow_private: bool) -> socket.socket:
    """A connection to the first of the host's addresses that takes one, all of them checked beforehand."""
    found = _resolve(host, port, deadline)
    for *_, address in found:
        if not allow_private and not is_routable(str(address[0])):
            raise ForbiddenAddress(
                f"{host} is {address[0]}, not a public address: add --allow-private to fetch from it"
            )
    failure: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in found:
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(deadline.left())
            connection.connect(address)
        except OSError as error:
            connection.close()
            failure = error
        else:
            return connection
    raise failure


def _resolve(host: str, port: int, deadline: _Deadline) -> list[tuple[Any, ...]]:
    """getaddrinfo, which knows no time limit, in a thread of its own that is left behind when time is up."""
    answer: list[list[tuple[Any, ...]] | OSError | UnicodeError] = []

    def ask() -> None:
        try:
            answer.append(list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
        except (OSError, UnicodeError) as error:
            answer.append(error)

    thread = threading.Thread(target=ask, name="nshot-resolve", daemon=True)
    thread.start()
    thread.join(deadline.left())
    if not answer:
        raise TimeoutError
    if isinstance(answer[0], Exception):
        raise FetchError(f"the name {host} cannot be resolved") from answer[0]
    return answer[0]


class _Deadline:
    """When an answer must be complete."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    def left(self) -> float:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def wait(self, call: Callable[[], object]) -> None:
        """Make a call whose time is not counted."""
        begun = time.monotonic()
        call()
        self._until += time.monotonic() - begun


class _Timed:
    """The part of a socket that http.client uses, with one deadline over all of its reads and writes."""

    def __init__(self, connection: socket.socket, deadline: _Deadline) -> None:
        self._connection = connection
        self._deadline = deadline

    def sendall(self, data: bytes) -> None:
        self._connection.settimeout(self._deadline.left())
        self._connection.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_TimedReader(self._connection, self._deadline))

    def close(self) -> None:
        """Nothing: http.client closes a socket while its file is still read; _get closes the real one."""


class _TimedReader(io.RawIOBase):
    def __init__(self, connection: socket.socket, deadline: _Deadline) -> None:
        self._connection = connection
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._connection.settimeout(self._deadline.left())
        return self._connection.recv_into(buffer)
