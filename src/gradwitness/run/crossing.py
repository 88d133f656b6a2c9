"""What crosses between a process and the subprocess that holds a candidate, beside arrays: handles, and exceptions;
and the channel that it takes."""

from __future__ import annotations

import socket
import struct
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gradwitness import errors
from gradwitness.run.failing import RAISED_AT, message_of, raised_at

__all__ = ["Channel", "Held", "Raised"]

LENGTH = struct.Struct("!Q")  # of a message, before it
CHUNK = 1 << 20


class Channel:
    """Messages over a socket, each complete by a deadline, as time.monotonic() has it.

    So half a message, which a candidate may leave by writing to a descriptor that is not its own, keeps nobody waiting.
    Raises TimeoutError, EOFError where the other end is closed, OSError.
    """

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    def send(self, message: bytes, *, deadline: float | None = None) -> None:
        self._socket.settimeout(_left(deadline))
        self._socket.sendall(LENGTH.pack(len(message)) + message)

    def receive(self, *, deadline: float | None = None) -> bytes:
        (length,) = LENGTH.unpack(self._read(LENGTH.size, deadline))
        return self._read(length, deadline)

    def _read(self, size: int, deadline: float | None) -> bytes:
        found = bytearray()
        while len(found) < size:
            self._socket.settimeout(_left(deadline))
            part = self._socket.recv(min(size - len(found), CHUNK))
            if not part:
                raise EOFError
            found += part
        return bytes(found)

    def close(self) -> None:
        self._socket.close()


def _left(deadline: float | None) -> float | None:
    """Seconds until then; a little even if it has passed, as 0 would mean not to wait."""
    return None if deadline is None else max(deadline - time.monotonic(), 1e-3)


@dataclass(frozen=True, eq=False)
class Held:
    """The handle of what stays in the subprocess: arrays on a device, a tape, an iterator."""

    number: int


@dataclass(frozen=True)
class Raised:
    """What was raised in the subprocess, by its name and its message: its type may not exist on the other side.

    kind: the class of `gradwitness.errors` that it is, else Exception; state: the attributes of such a class. place:
    where in the user's code.
    """

    kind: type[Exception]
    name: str
    message: str
    state: Mapping[str, Any]
    trace: str
    place: str

    @classmethod
    def of(cls, error: BaseException) -> Raised:
        ours = (kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
        kind = next(ours, Exception)
        state = dict(vars(error)) if type(error) is kind else {}
        trace = "".join(traceback.format_exception(error))
        return cls(kind, type(error).__name__, message_of(error), state, trace, raised_at(error))

    def error(self) -> Exception:
        """The same to raise here: of its kind, and with its name and message. A note holds its traceback."""
        known = self.name == self.kind.__name__
        kind: type[Exception] = self.kind if known else type(self.name, (self.kind,), {})
        made: Exception = kind.__new__(kind, self.message)  # and not kind(...), whose arguments may be others
        vars(made).update(self.state, **{RAISED_AT: self.place})
        made.add_note(f"in the subprocess:\n{self.trace}")
        return made
