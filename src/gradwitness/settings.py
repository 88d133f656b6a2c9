"""How a run is made."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

from gradwitness.dtypes import find_dtype
from gradwitness.errors import GradwitnessError, UnknownName
from gradwitness.paths import expect_paths

__all__ = ["Settings"]

PRECISIONS = ("highest", "default")
REFERENCES = ("extended", "differences")


@dataclass(frozen=True)
class Settings:
    """How a run is made: on what, in what precision ("highest" or "default"), from which seed.

    reference: what a traced loss's gradients are held against: the gradient in 256 bits ("extended"), or the
    hand-derived one in float64, confirmed by finite differences ("differences"), which is faster. seconds: what the
    former may take, by an estimate; beyond it 256 bits validate the rules on a part of the examples, or check
    the gradient in float64 along single directions. timeout: seconds that preparing a candidate and each of its answers
    may take; then it runs in a subprocess. None: in this process, for as long as it takes. paths: the execution paths
    along which each candidate that has them is verified, by their names, or "all"; without any, along its plain one.
    """

    dtypes: tuple[str, ...] = ("float64", "float32")
    devices: tuple[str, ...] = ("cpu",)
    precision: str = "highest"
    seed: int = 0
    reference: str = "extended"
    seconds: float = 30.0
    timeout: float | None = None
    paths: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UnknownName("precision", self.precision, PRECISIONS)
        if self.reference not in REFERENCES:
            raise UnknownName("reference", self.reference, REFERENCES)
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


def _expect_possible(timeout: float) -> None:
    if not 0 < timeout < math.inf:
        raise GradwitnessError(f"timeout must be a positive number of seconds, got {timeout}; None sets none")
    if os.name != "posix":
        raise GradwitnessError("timeout= needs the process groups and signals of POSIX, which this system lacks")
