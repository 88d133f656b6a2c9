"""How a run is made."""

from __future__ import annotations

from dataclasses import dataclass

from gradwitness.dtypes import find_dtype
from gradwitness.errors import GradwitnessError, UnknownName

__all__ = ["Settings"]

PRECISIONS = ("highest", "default")


@dataclass(frozen=True)
class Settings:
    """How a run is made: on what, in what precision ("highest" or "default"), from which seed."""

    dtypes: tuple[str, ...] = ("float64", "float32")
    devices: tuple[str, ...] = ("cpu",)
    precision: str = "highest"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UnknownName("precision", self.precision, PRECISIONS)
        if self.seed < 0:
            raise GradwitnessError(f"the seed must not be negative, got {self.seed}")
        for dtype in self.dtypes:
            find_dtype(dtype)
