"""``nshot`` and ``python -m nshot``: the command line, and Ctrl-C at any moment of it.

This is the first of nshot that runs, so it imports next to nothing. Before a command begins nothing is to be
lost: whoever interrupts ends the program at once, where Python would print in which import that was.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from types import FrameType

_INTERRUPTED = 130
_SAID = b"nshot: interrupted\n"


def main() -> None:
    """Run the command line and exit."""
    ctrl_c = _CtrlC()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored, as in the background
        signal.signal(signal.SIGINT, ctrl_c)
        sys.unraisablehook = ctrl_c.lost
    try:
        from nshot import cli

        try:
            cli.main(begins=ctrl_c.begin)
        except SystemExit as ending:
            ctrl_c.status = ending.code if isinstance(ending.code, int) else 0
    except BaseException:
        if not ctrl_c.heard:
            raise
        os.write(2, _SAID)  # some libraries make another error of it while they are imported
        ctrl_c.status = _INTERRUPTED
    ctrl_c.over = True
    if ctrl_c.heard and ctrl_c.status == _INTERRUPTED:
        _leave()
    sys.exit(ctrl_c.status)


def _leave() -> None:
    """End without waiting for threads, of which one may read from a server that does not answer."""
    import atexit

    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(_INTERRUPTED)


class _CtrlC:
    """What Ctrl-C does: an end at once, but while a command is at work, which it interrupts."""

    def __init__(self) -> None:
        self.begun = self.over = self.heard = False
        self.status = _INTERRUPTED

    def begin(self) -> None:
        """A command begins."""
        self.begun = True

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.over:  # all is said and written
            os._exit(self.status)
        if not self.begun:
            os.write(2, _SAID)
            os._exit(_INTERRUPTED)
        if frame is not None and frame.f_code is main.__code__:  # the command is over
            return
        self.heard = True
        while frame is not None:
            if frame.f_code is _CtrlC.lost.__code__:  # raised in there it would be lost, and printed
                _soon()
                return
            frame = frame.f_back
        raise KeyboardInterrupt

    def lost(self, what: sys.UnraisableHookArgs) -> None:
        """It came where nothing can be raised, as while an object is cleared away: so it comes once more."""
        if not self.heard or not isinstance(what.exc_value, KeyboardInterrupt):
            sys.__unraisablehook__(what)
            return
        _soon()


def _soon() -> None:
    """Send the signal once more, in a moment."""
    import _thread
    from threading import Timer, main_thread

    if hasattr(signal, "pthread_kill"):  # which also wakes what sleeps
        again = Timer(0.01, signal.pthread_kill, (main_thread().ident, signal.SIGINT))
    else:
        again = Timer(0.01, _thread.interrupt_main)
    again.daemon = True
    again.start()


if __name__ == "__main__":
    main()
