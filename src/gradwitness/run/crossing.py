"""What crosses between a process and the subprocess that holds a candidate, beside arrays: handles, and exceptions."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gradwitness import errors
from gradwitness.run.failing import RAISED_AT, raised_at

__all__ = ["Held", "Raised"]


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
    def of(cls, error: Exception) -> Raised:
        ours = (kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
        kind = next(ours, Exception)
        state = dict(vars(error)) if type(error) is kind else {}
        trace = "".join(traceback.format_exception(error))
        return cls(kind, type(error).__name__, str(error), state, trace, raised_at(error))

    def error(self) -> Exception:
        """The same to raise here: of its kind, and with its name and message. A note holds its traceback."""
        known = self.name == self.kind.__name__
        kind: type[Exception] = self.kind if known else type(self.name, (self.kind,), {})
        made: Exception = kind.__new__(kind, self.message)  # and not kind(...), whose arguments may be others
        vars(made).update(self.state, **{RAISED_AT: self.place})
        made.add_note(f"in the subprocess:\n{self.trace}")
        return made
