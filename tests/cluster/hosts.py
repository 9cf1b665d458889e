"""Two machines within this one: each with a network, processes and a name of its own, and the same files."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

TOOLS = ("ip", "nsenter", "unshare", "mount")
_NAMES = {"first": "10.77.0.1", "second": "10.77.0.2"}


def missing() -> str | None:
    """Why there can be no such machines here; None: there can."""
    if gone := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"machines within this one need {', '.join(gone)} (iproute2, util-linux)"
    return None if os.getuid() == 0 else "machines within this one are made by root alone"


class Host:
    """One of them.

    Attributes:
        name: what the other one calls it.
    """

    def __init__(self, name: str, space: str, home: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self._environment = dict(environment)
        self._said = home / f"{name}.said"
        # what Ray keeps in /tmp/ray, and the names of machines, are each machine's own
        script = (
            f"hostname {name} && mkdir -p /tmp/ray && mount -t tmpfs tmpfs /tmp/ray"
            f" && mount --bind {home / 'hosts'} /etc/hosts && mount -t proc proc /proc"
            f" && touch {home / name} && exec sleep infinity"
        )
        command = ["ip", "netns", "exec", space, "unshare", "--uts", "--mount", "--pid", "--fork"]
        with (home / f"{name}.log").open("wb") as log:
            self._first = subprocess.Popen(
                [*command, "--kill-child", "sh", "-c", script], stdout=log, stderr=subprocess.STDOUT
            )
        until = time.monotonic() + 30
        while not (home / name).exists():
            if self._first.poll() is not None or time.monotonic() > until:
                raise RuntimeError((home / f"{name}.log").read_text())
            time.sleep(0.05)
        children = Path(f"/proc/{self._first.pid}/task/{self._first.pid}/children").read_text()
        self._inside = children.split()[0]

    def begin(self, command: str) -> subprocess.Popen[bytes]:
        """Begin what a person types there; what it prints is in ``said``."""
        with self._said.open("wb") as out:  # no pipe, which what goes on in the background would keep open
            return subprocess.Popen(
                ["nsenter", "-t", self._inside, "-m", "-u", "-n", "-p", "sh", "-c", command],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def end(self, process: subprocess.Popen[bytes], seconds: float = 200) -> tuple[int, str]:
        """The exit status of what was begun last, and what it printed."""
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return process.returncode, self._said.read_text(errors="replace")

    def do(self, command: str) -> tuple[int, str]:
        """Begin something, and wait for its end."""
        return self.end(self.begin(command))

    def off(self) -> None:
        """Pull the plug: every process of it is gone at once."""
        self._first.kill()
        self._first.wait()


@contextmanager
def two_hosts(home: Path, environment: Mapping[str, str]) -> Iterator[tuple[Host, Host]]:
    """Two machines that call each other first and second.

    Raises:
        RuntimeError: they cannot be made here.
    """
    home.mkdir(parents=True, exist_ok=True)
    lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in _NAMES.items())]
    (home / "hosts").write_text("\n".join(lines) + "\n")
    spaces = {name: f"nshot-{name}-{os.getpid()}" for name in _NAMES}
    hosts: list[Host] = []
    try:
        for space in spaces.values():
            _ip("netns", "add", space)
        ends = [f"nshot{os.getpid() % 10**6}{letter}" for letter in "ab"]
        _ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for end, (name, space) in zip(ends, spaces.items(), strict=True):
            _ip("link", "set", end, "netns", space)
            _ip("-n", space, "address", "add", f"{_NAMES[name]}/24", "dev", end)
            _ip("-n", space, "link", "set", end, "up")
            _ip("-n", space, "link", "set", "lo", "up")
            _ip("-n", space, "route", "add", "default", "dev", end)  # by which Ray finds its own address
        hosts += [Host(name, space, home, environment) for name, space in spaces.items()]
        yield hosts[0], hosts[1]
    finally:
        for host in hosts:
            host.off()
        for space in spaces.values():
            with suppress(RuntimeError):
                _ip("netns", "delete", space)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")
