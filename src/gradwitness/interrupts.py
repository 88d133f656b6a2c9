"""Ctrl-C: one line, exit status 130, and nothing torn, wherever it comes. It needs nothing but Python's own modules."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType

__all__ = ["INTERRUPTED", "end", "has_come", "install", "keep_what_is_there"]

INTERRUPTED = 130  # the exit status, as of a shell: 128 and SIGINT
PATIENCE = 2.0  # seconds after which an interrupt that somebody swallowed comes again
SHORTLY = 0.05  # and after which it comes where Python itself would swallow it
AT_ONCE = 3  # interrupts that end it wherever it is, such as in a compiled loop that never ends
SAID = b"interrupted\n"


def install() -> None:
    """Let an interrupt raise KeyboardInterrupt, and end at once while modules are imported.

    Where interrupts are ignored, as in the background, they stay so.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return
    signal.signal(signal.SIGINT, _in_an_import_end)
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, _raise)
    _count()


def keep_what_is_there() -> None:
    """Let an interrupt raise KeyboardInterrupt everywhere, as there is something now that it is not to lose."""
    if signal.getsignal(signal.SIGINT) is _in_an_import_end and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _raise)


def has_come() -> None:
    """The KeyboardInterrupt has arrived: it need not come again."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 0)


def end() -> None:
    """Without the end of Python, in which threads of frameworks that were interrupted crash."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(INTERRUPTED)


def _in_an_import_end(number: int, frame: FrameType | None) -> None:
    """A framework that is imported by half may crash Python where it ends."""
    above = frame
    while above is not None:
        if above.f_code.co_filename.startswith("<frozen importlib"):
            os.write(2, SAID)
            os._exit(INTERRUPTED)
        above = above.f_back
    _raise(number, frame)


def _raise(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt; later in a `__del__` or in a callback of the garbage collector, where Python would
    swallow it. Who else swallows it gets it again."""
    callbacks = [getattr(callback, "__code__", None) for callback in gc.callbacks]
    is_swallowed = False
    while frame is not None:
        is_swallowed |= frame.f_code.co_name == "__del__" or frame.f_code in callbacks
        frame = frame.f_back
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, SHORTLY if is_swallowed else PATIENCE)
    if not is_swallowed:
        raise KeyboardInterrupt


def _count() -> None:
    """Let a thread look for them as well: a handler runs between two steps of Python, and there may be none."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    if hasattr(os, "register_at_fork"):  # a child's interrupts are not this process's
        os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))

    def count() -> None:
        left = AT_ONCE
        while left:
            left -= os.read(reader, 1) == bytes([signal.SIGINT])
        os.write(2, SAID)
        os._exit(INTERRUPTED)

    threading.Thread(target=count, daemon=True).start()
