"""How a run is made: each option once, for Python, the command line and the pytest plugin."""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from gradwitness.dtypes import find_dtype
from gradwitness.errors import GradwitnessError, UnknownName
from gradwitness.paths import expect_paths

__all__ = ["OPTIONS", "Option", "Settings", "names", "seed_from"]


@dataclass(frozen=True)
class Settings:
    """How a run is made; `gradwitness.verify` tells of each. timeout: None for this process, and as long as it takes.
    paths: none for the plain one of each candidate."""

    dtypes: tuple[str, ...] = ("float64", "float32")
    devices: tuple[str, ...] = ("cpu",)
    precision: str = "highest"
    seed: int = 0
    reference: str = "extended"
    seconds: float = 10.0
    timeout: float | None = None
    paths: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, option in OPTIONS.items():
            if option.choices and getattr(self, name) not in option.choices:
                raise UnknownName(name, getattr(self, name), option.choices)
        if not (isinstance(self.seconds, int | float) and self.seconds > 0):
            raise GradwitnessError(
                f"seconds must be a positive number, got {self.seconds!r}; "
                'reference="differences" does without 256 bits'
            )
        if self.timeout is not None:
            _expect_possible(self.timeout)
        if self.seed < 0:
            raise GradwitnessError(f"the seed must not be negative, got {self.seed}")
        expect_paths(self.paths)
        for dtype in self.dtypes:
            find_dtype(dtype)


def names(given: str | Iterable[str]) -> tuple[str, ...]:
    """One name or several, each once; several may be joined by commas."""
    if not isinstance(given, str):
        return tuple(dict.fromkeys(given))
    found = tuple(dict.fromkeys(part.strip() for part in given.split(",") if part.strip()))
    if not found:
        raise GradwitnessError(f"expected a name, or several joined by commas, got {given!r}")
    return found


def seed_from(text: str) -> int:
    """A whole number, or one that is drawn, for "random"."""
    if text == "random":
        return secrets.randbelow(2**31)
    if not text.isdecimal():
        raise GradwitnessError(f"expected a whole number or 'random', got {text!r}")
    return int(text)


@dataclass(frozen=True)
class Option:
    """How text gives one of the Settings. reads: what makes a value of the text; choices: all that there are."""

    flag: str
    help: str | None = None
    metavar: str | None = None
    reads: Callable[[str], Any] = str
    choices: tuple[str, ...] = ()


OPTIONS = {
    "dtypes": Option("--dtype", metavar="A,B", reads=names),
    "devices": Option("--device", metavar="A,B", reads=names),
    "precision": Option(
        "--precision",
        "Hold matmul precision at the highest, or verify what people run untouched.",
        choices=("highest", "default"),
    ),
    "seed": Option("--seed", metavar="N|random", reads=seed_from),
    "reference": Option(
        "--reference",
        "Hold gradients against one in 256 bits, or, faster, against one that finite differences confirm.",
        choices=("extended", "differences"),
    ),
    "seconds": Option(
        "--seconds",
        "What 256 bits may take for each network and dtype; beyond it they see fewer examples, or single directions.",
        metavar="S",
        reads=float,
    ),
    "timeout": Option(
        "--timeout",
        "Run each candidate in a subprocess, in which preparing and any single answer may take S seconds.",
        metavar="S",
        reads=float,
    ),
    "paths": Option(
        "--paths",
        "The ways to the gradient: each candidate along each, such as torch.func.grad or vmap, that its backend has.",
        metavar="all|A,B",
        reads=names,
    ),
}


def _expect_possible(timeout: float) -> None:
    if not 0 < timeout < math.inf:
        raise GradwitnessError(f"timeout must be a positive number of seconds, got {timeout}; None sets none")
    if os.name != "posix":
        raise GradwitnessError("timeout= needs the process groups and signals of POSIX, which this system lacks")
