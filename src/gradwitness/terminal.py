"""What the command shows: on standard output, which may be closed or full, and on standard error while it works."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import click

from gradwitness.errors import GradwitnessError
from gradwitness.interrupts import keep_what_is_there
from gradwitness.writing import discard_standard_output, encodable

__all__ = ["Shown", "open_standard_streams", "progress", "show"]


def open_standard_streams() -> None:
    """Give descriptors 0 to 2 that are closed to nobody: the next file that is opened would get them, and with it what
    a library prints."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # which takes the lowest that is free
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # as long as the process


def show(text: str, *, err: bool = False) -> None:
    """Print it. Raises GradwitnessError where standard output is closed or full.

    err: on standard error, where nothing is lost if it cannot be written.
    """
    if err:
        with suppress(OSError):
            click.echo(encodable(text, sys.stderr), err=True)
        return
    if sys.stdout is None:
        raise GradwitnessError("standard output is closed, so the report cannot be shown: send it to a file")
    try:
        click.echo(encodable(text, sys.stdout))
    except BrokenPipeError:
        raise  # nobody reads on, as behind `| head`: click ends in silence
    except OSError as error:
        discard_standard_output()
        raise GradwitnessError(f"standard output cannot be written: {error.strerror}") from None


@dataclass
class Shown:
    """How far a run of `count` parts has come. status: where the part at work is told, if anywhere; each part that is
    done gets a line of its own, if there are several."""

    count: int
    status: Callable[[str], None]
    line: Callable[[str], None]
    finished: int = 0
    started: float = field(default_factory=time.monotonic)

    def step(self, text: str) -> None:
        """Tell of a step within the part at work."""
        place = f"{self.finished + 1} of {self.count}{self._left()}: " if self.count > 1 else ""
        self.status(place + text)

    def done(self, text: str) -> None:
        """Tell of a part that is done, which an interrupt is not to lose."""
        keep_what_is_there()
        self.finished += 1
        if self.count > 1:
            self.line(f"{self.finished} of {self.count}: {text}")

    def _left(self) -> str:
        if not self.finished:
            return ""
        each = (time.monotonic() - self.started) / self.finished
        return f", about {each * (self.count - self.finished):.0f} s left"


@contextmanager
def progress(count: int) -> Iterator[Shown]:
    """On standard error: a status line while it works, on a terminal only, and a line for each part that is done."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.text import Text

        console = Console(stderr=True, highlight=False, emoji=False, markup=False)
        with console.status("starting") as status:
            yield Shown(count, lambda text: status.update(Text(text)), lambda text: console.print(text, markup=False))
    else:
        yield Shown(count, lambda text: None, lambda text: show(text, err=True))
