"""OpenVINO and ``os.fork``: the one core of this process, and the gate that all inference goes through."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import weakref
from typing import Any, Protocol

from nshot.encoders.runtime import ov


class Abandoned(Protocol):
    """What holds objects of OpenVINO, and starts anew in a child."""

    def abandon(self) -> list[Any]:
        """Forget what is held, and give it: nothing of it may be used or destroyed after a fork."""


towers: weakref.WeakSet[Abandoned] = weakref.WeakSet()
"""Whoever holds objects of OpenVINO."""

_started: list[ov.Core] = []  # at most one


def core() -> ov.Core:
    """The one of this process, started when it is first asked for."""
    if not _started:
        _started.append(ov.Core())
    return _started[0]


class _Gate:
    """Inference and compiling go through it; a fork closes it, and waits until nobody is inside.

    A child that is made in the midst of them would find OpenVINO's locks held by threads that it lacks.
    """

    def __init__(self) -> None:
        self._inside: list[int] = []  # threads
        self._closed = False
        self._moved = threading.Condition()

    def __enter__(self) -> None:
        with self._moved:
            self._moved.wait_for(lambda: not self._closed)
            self._inside.append(threading.get_ident())

    def __exit__(self, *_: object) -> None:
        with self._moved:
            self._inside.remove(threading.get_ident())
            self._moved.notify_all()

    def close(self) -> None:
        """Let nobody in, and wait until all others have left."""
        own = threading.get_ident()  # a handler of a signal may fork within
        with self._moved:
            self._closed = True
            self._moved.wait_for(lambda: all(each == own for each in self._inside))

    def open(self) -> None:
        """Let in who waits."""
        with self._moved:
            self._closed = False
            self._moved.notify_all()


gate = _Gate()


def _before_fork() -> None:
    """Have OpenVINO forget the idle threads of models that are gone, which it keeps for the next model.

    In a child they would be dead, and its first model would wait for them forever. Ending a plugin clears
    them; nothing but a fork needs that.
    """
    gate.close()
    if _started:
        with contextlib.suppress(RuntimeError):
            other = ov.Core()
            other.get_property("CPU", "FULL_DEVICE_NAME")  # loads the plugin
            other.unload_plugin("CPU")


def _after_fork() -> None:
    """In a child OpenVINO's threads are gone: to call what they served, or to destroy it, waits forever.

    So every tower starts anew there when it is next used, and what the parent had is never destroyed: of
    each object one reference too many is counted. That holds for towers, too, which nobody can reach any
    more and Python has not collected yet.
    """
    global gate
    gate = _Gate()
    for tower in list(towers):
        for held in tower.abandon():
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(held))
    while _started:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(_started.pop()))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=lambda: gate.open(), after_in_child=_after_fork)
