"""What a candidate raised, on one line: its type, the first lines of its message, and where in the user's own code."""

from __future__ import annotations

import os
import sysconfig
import traceback

from gradwitness.errors import GradwitnessError

__all__ = ["LIBRARIES", "RAISED_AT", "first_lines", "located", "raised_at"]

RAISED_AT = "raised_at"  # the attribute that holds it where the traceback is another process's
LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def first_lines(error: BaseException) -> str:
    """The error's type, unless it is gradwitness's own, and the first lines of its message, on one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kind = "" if isinstance(error, GradwitnessError) else f"{type(error).__name__}: "
    return f"{kind}{' / '.join(lines[:3])[:400]}"


def located(error: BaseException) -> str:
    """The same, with the innermost line of the user's own."""
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
    return f"at {_short(frame.f_code.co_filename)}:{line}, {frame.f_code.co_name}"


def _is_own(file: str, namespace: dict[str, object]) -> bool:
    package = str(namespace.get("__name__")).partition(".")[0]
    return not package.startswith("gradwitness") and not file.startswith((*LIBRARIES, "<frozen", "<gradwitness"))


def _short(file: str) -> str:
    """Relative to the working directory, where it lies in it."""
    inside = file.startswith(os.getcwd() + os.sep)
    return os.path.relpath(file) if inside else file
