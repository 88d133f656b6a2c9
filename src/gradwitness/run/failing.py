"""What a candidate raised, on one line: its type, the first lines of its message, and where in the user's own code."""

from __future__ import annotations

import os
import re
import sysconfig
import traceback

from gradwitness.errors import GradwitnessError

__all__ = ["LIBRARIES", "RAISED_AT", "first_lines", "located", "message_of", "raised_at", "short"]

LONGEST = 400  # characters of a message
NESTED = "Traceback (most recent call last):"
FRAME = re.compile(r'File "(?P<file>.+)", line (?P<line>\d+), in (?P<function>.+)')
RAISED = re.compile(r"[A-Za-z_][\w.]*(: .*)?$")  # "KeyError: 'x'", as the last line of a traceback has it
RAISED_AT = "raised_at"  # the attribute that holds it where the traceback is another process's
LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def message_of(error: BaseException) -> str:
    """What it says; that it cannot be said, where it raises as it is asked."""
    try:
        return str(error)
    except Exception as another:  # noqa: BLE001  # a user's own class
        return f"(its message raises {type(another).__name__})"


def first_lines(error: BaseException) -> str:
    """The error's type, unless it is gradwitness's own, and the first lines of its message, on one line."""
    message = message_of(error)
    if NESTED in message:
        return f"{type(error).__name__}: {_innermost(message)}"
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    kind = "" if isinstance(error, GradwitnessError) else f"{type(error).__name__}: "
    return f"{kind}{' / '.join(lines[:3])[:LONGEST]}" if lines else type(error).__name__


def _innermost(message: str) -> str:
    """What a message says that holds a traceback, as of a callback: what was raised last, and where in the user's own
    code."""
    lines = [line.strip() for line in message.partition(NESTED)[2].splitlines() if line.strip()]
    raised = [line for line in lines if RAISED.match(line)]
    own = [
        frame for frame in map(FRAME.match, lines) if frame and not frame["file"].startswith((*LIBRARIES, "<frozen"))
    ]
    place = f" (at {short(own[-1]['file'])}:{own[-1]['line']}, {own[-1]['function']})" if own else ""
    return f"{(raised or lines or ['?'])[-1][:LONGEST]}{place}"


def located(error: BaseException) -> str:
    """The same, with the innermost line of the user's own."""
    if NESTED in message_of(error):
        return first_lines(error)
    place = getattr(error, RAISED_AT, None) or raised_at(error)
    return f"{first_lines(error)} ({place})" if place else first_lines(error)


def raised_at(error: BaseException) -> str:
    """ "at file:line, function" of the innermost frame that is neither a library's nor gradwitness's, of the error or
    of its cause; "" if there is none."""
    raised = [x for x in (error, error.__cause__) if x is not None]
    frames = [at for x in raised for at in traceback.walk_tb(x.__traceback__)]
    own = [(frame, line) for frame, line in frames if _is_own(frame.f_code.co_filename, frame.f_globals)]
    if not own:
        return ""
    frame, line = own[-1]
    return f"at {short(frame.f_code.co_filename)}:{line}, {frame.f_code.co_name}"


def _is_own(file: str, namespace: dict[str, object]) -> bool:
    package = str(namespace.get("__name__")).partition(".")[0]
    return not package.startswith("gradwitness") and not file.startswith((*LIBRARIES, "<frozen", "<gradwitness"))


def short(file: str) -> str:
    """Relative to the working directory, where it lies in it."""
    inside = file.startswith(os.getcwd() + os.sep)
    return os.path.relpath(file) if inside else file
