"""Files that are written whole or not at all, and what is no file: devices, pipes, standard output."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from gradwitness.errors import GradwitnessError

__all__ = [
    "STANDARD_OUTPUT",
    "discard_standard_output",
    "encodable",
    "expect_writable",
    "is_standard_output",
    "write_whole",
]

STANDARD_OUTPUT = "-"
PATIENCE = 5.0  # seconds that the reader of a pipe may take to come
DESCRIPTORS = ("/dev/fd/", "/dev/std", "/proc/")  # whose targets somebody holds open: replaced, they would be lost


def write_whole(path: str | Path, text: str) -> None:
    """Write a file so that it is there completely or not at all, whatever interrupts.

    A link keeps pointing where it does: its target is replaced. What is no regular file (a device, a pipe) is written
    to as it stands. Raises OSError.
    """
    if is_standard_output(path):
        try:
            sys.stdout.write(encodable(text, sys.stdout))
            sys.stdout.flush()
        except OSError:
            discard_standard_output()
            raise
    elif _is_replaceable(path) and not _is_writable_in_place(path):
        _replace(Path(os.path.realpath(path)), text)
    else:
        _write_into(path, text)


def expect_writable(option: str, path: str | Path) -> None:
    """Raise GradwitnessError where `write_whole` would fail, before there is anything to lose.

    option: what the path was given as, for the message.
    """
    if is_standard_output(path):
        if sys.stdout is None:
            raise GradwitnessError(f"{option} {path}: cannot be written: standard output is closed")
        return
    try:
        if _is_replaceable(path) and not _is_writable_in_place(path):
            target = Path(os.path.realpath(path))
            _refuse_a_name_too_long(target)
            with _temporary(target) as temporary:
                temporary.open("x").close()
        elif Path(path).is_dir():
            raise IsADirectoryError(0, "it is a folder; name a file")
        elif not os.access(path, os.W_OK):
            raise PermissionError(0, "you may not write to it")
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        why = f"the folder {Path(path).parent} does not exist; create it first" if missing else error.strerror
        raise GradwitnessError(f"{option} {path}: cannot be written: {why}") from None


def encodable(text: str, stream: TextIO) -> str:
    """The text with what the stream's encoding lacks written out."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def discard_standard_output() -> None:
    """What could not be written is not tried again when Python ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def is_standard_output(path: str | Path) -> bool:
    """Whether this is "-", or another name of what standard output goes to, such as /dev/stdout."""
    if str(path) == STANDARD_OUTPUT:
        return True
    try:
        return os.path.samestat(os.stat(path), os.fstat(sys.stdout.fileno()))
    except (OSError, ValueError, AttributeError):  # no such file; a standard output that is closed, or no file
        return False


def _is_replaceable(path: str | Path) -> bool:
    """Whether it is a regular file, or nothing yet, and no name of something that is open already."""
    if os.path.abspath(path).startswith(DESCRIPTORS):
        return False
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        return True


def _is_writable_in_place(path: str | Path) -> bool:
    """Whether it is a file that may be written to, in a folder where no other may be made."""
    folder = os.path.dirname(os.path.realpath(path))
    return os.path.isfile(path) and os.access(path, os.W_OK) and not os.access(folder, os.W_OK)


def _write_into(path: str | Path, text: str) -> None:
    is_pipe = os.path.exists(path) and stat.S_ISFIFO(os.stat(path).st_mode)
    with open(_opened_pipe(path) if is_pipe else path, "w", encoding="utf-8") as stream:
        stream.write(text)


def _opened_pipe(path: str | Path) -> int:
    """The descriptor of a pipe that somebody reads; opened as a file is, it would be waited for without end.

    Raises OSError if no reader comes.
    """
    given_up = time.monotonic() + PATIENCE
    while True:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO or time.monotonic() > given_up:
                raise OSError(error.errno, "nobody reads from this pipe") from None
            time.sleep(0.05)
        else:
            os.set_blocking(descriptor, True)
            return descriptor


def _replace(target: Path, text: str) -> None:
    _refuse_a_name_too_long(target)
    with _temporary(target) as temporary:
        with temporary.open("x", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        with suppress(FileNotFoundError):
            temporary.chmod(stat.S_IMODE(target.stat().st_mode))
        try:
            temporary.replace(target)
        except OSError as error:
            if error.errno != errno.EBUSY:  # a file that is mounted by itself stays where it is
                raise
            _write_into(target, text)


@contextmanager
def _temporary(target: Path) -> Iterator[Path]:
    """A name beside the target that no file has. A file made under it is gone at the end, whatever interrupts."""
    name = target.with_name(f".{target.name[:50]}.{secrets.token_hex(4)}")
    try:
        try:
            yield name
        finally:
            name.unlink(missing_ok=True)
    finally:
        name.unlink(missing_ok=True)  # an interrupt may have come just before the first attempt


def _refuse_a_name_too_long(target: Path) -> None:
    with suppress(FileNotFoundError):
        target.lstat()
