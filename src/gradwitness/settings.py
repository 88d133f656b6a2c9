"""How a run is made: each option once, for Python, the command line and the pytest plugin."""

from __future__ import annotations

import math
import operator
import os
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np

from gradwitness.dtypes import OF_PARTS, dtype_name, find_dtype
from gradwitness.errors import GradwitnessError, UnknownName
from gradwitness.paths import expect_paths

__all__ = ["OPTIONS", "Option", "Settings", "dtype_names", "names", "seed_from"]


@dataclass(frozen=True)
class Settings:
    """How a run is made; `gradwitness.verify` tells of each. timeout: None for this process, and as long as it takes.
    paths: none for the plain one of each candidate. capture: whether losses in a framework's own arrays are read into
    graphs. referee: the label of the candidate whose graph judges those that do not run in float64. derivative: what is
    judged, gradients or another derivative."""

    dtypes: tuple[str, ...] = ("float64", "float32")
    devices: tuple[str, ...] = ("cpu",)
    precision: str = "highest"
    seed: int = 0
    reference: str = "extended"
    seconds: float = 10.0
    timeout: float | None = None
    paths: tuple[str, ...] = ()
    capture: str = "auto"
    referee: str | None = None
    derivative: str = "gradient"

    def __post_init__(self) -> None:
        for name, option in OPTIONS.items():
            if option.choices and getattr(self, name) not in option.choices:
                raise UnknownName(name, getattr(self, name), option.choices)
        checked = {"seconds": _positive("seconds", self.seconds, 'reference="differences" does without 256 bits')}
        if self.timeout is not None:
            checked["timeout"] = _positive("timeout", self.timeout, "None sets none")
            _expect_subprocesses()
        checked["seed"] = _seed(self.seed)
        if self.paths and self.derivative != "gradient":
            raise GradwitnessError(
                f"paths are ways to a gradient, and derivative={self.derivative!r} is taken in each of its own: leave "
                "paths out"
            )
        vars(self).update(checked)  # as Python's own numbers, which JSON can hold
        expect_paths(self.paths)
        for dtype in self.dtypes:
            find_dtype(dtype)

    @property
    def by_cell(self) -> tuple[Settings, ...]:
        """The same for one dtype on one device each, in the order of the rows."""
        ways = [(dtype, device) for dtype in self.dtypes for device in self.devices]
        return tuple(replace(self, dtypes=(dtype,), devices=(device,)) for dtype, device in ways)


def names(given: str | Iterable[str], option: str = "") -> tuple[str, ...]:
    """One name or several, each once; several may be joined by commas. option: what they were given as, for messages.

    Raises GradwitnessError for what is no name.
    """
    what = f"{option}: " if option else ""
    if not isinstance(given, str):
        several = tuple(given) if isinstance(given, Iterable) else (given,)
        for one in several:
            if not isinstance(one, str):
                raise GradwitnessError(f"{what}expected a name, or several, got {one!r} ({type(one).__name__})")
        return tuple(dict.fromkeys(several))
    found = tuple(dict.fromkeys(part.strip() for part in given.split(",") if part.strip()))
    if not found:
        raise GradwitnessError(f"{what}expected a name, or several joined by commas, got {given!r}")
    return found


def dtype_names(given: Any) -> tuple[str, ...]:
    """The names of one dtype or several: names, or the dtypes of NumPy, torch or jax themselves. A complex one stands
    for that of its parts."""
    if isinstance(given, str):
        found = [name.rpartition(".")[2] for name in names(given, "dtypes")]  # of "torch.float32"
    else:
        several = given if isinstance(given, list | tuple | set | frozenset) else [given]
        found = [one if isinstance(one, str) else dtype_name(one) for one in several]
    return names([OF_PARTS.get(name, name) if isinstance(name, str) else name for name in found])


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
    "dtypes": Option("--dtype", "Verify in these dtypes.", metavar="A,B", reads=dtype_names),
    "devices": Option("--device", "Verify on these devices.", metavar="A,B", reads=names),
    "precision": Option(
        "--precision",
        "Hold matmul precision at the highest, or leave the framework's own setting.",
        choices=("highest", "default"),
    ),
    "seed": Option("--seed", "Decides all that is drawn at random.", metavar="N|random", reads=seed_from),
    "reference": Option(
        "--reference",
        "Hold gradients against one in 256 bits, or against one that finite differences confirm (faster).",
        choices=("extended", "differences"),
    ),
    "seconds": Option(
        "--seconds",
        "Seconds that 256 bits may take for each network and dtype. If that is too short, they see fewer examples, or "
        "single directions.",
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
        "Try each candidate along these ways to its gradient, such as torch.func.grad or vmap, if its backend has "
        "them.",
        metavar="all|A,B",
        reads=names,
    ),
    "capture": Option(
        "--capture",
        "Read losses in a framework's own arrays into graphs where possible, or judge them by their values.",
        choices=("auto", "never"),
    ),
    "referee": Option(
        "--referee",
        "The candidate whose loss, read into a graph, is the truth for those that do not run in float64.",
        metavar="LABEL",
        reads=str.strip,
    ),
    "derivative": Option(
        "--derivative",
        "Judge gradients, or another derivative: forward mode (jvp), reverse mode as a function (vjp), products with "
        "the Hessian (hvp), the Hessian itself, or gradients by example.",
        choices=("gradient", "jvp", "vjp", "hvp", "hessian", "per-example"),
    ),
}


def _positive(name: str, given: Any, otherwise: str) -> float:
    """The number, as Python's own. otherwise: what to give where none is wanted."""
    is_number = isinstance(given, Real) and not isinstance(given, bool | np.bool_)
    if not (is_number and 0 < float(given) < math.inf):
        raise GradwitnessError(f"{name} must be a positive number of seconds, got {given!r}; {otherwise}")
    return float(given) if not isinstance(given, int) else given


def _seed(given: Any) -> int:
    try:
        seed = -1 if isinstance(given, bool | np.bool_) else operator.index(given)
    except TypeError:
        seed = -1
    if seed < 0:
        raise GradwitnessError(f"seed must be a whole number that is not negative, got {given!r}")
    return seed


def _expect_subprocesses() -> None:
    if os.name != "posix":
        raise GradwitnessError("timeout= needs the process groups and signals of POSIX, which this system lacks")
