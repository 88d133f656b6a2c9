"""What a text printed about a network: numbers and ratios, as strings, to be held against the computed ones."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal

__all__ = ["Printed", "PrintedNumber", "PrintedRatio", "WrongDigit", "decimals", "rounded", "wrong_digit"]


@dataclass(frozen=True)
class PrintedNumber:
    """One number as printed. `path` and `index` say which element of which gradient; without a path it is the loss."""

    quantity: str
    printed: str
    path: str | None = None
    index: tuple[int, ...] = ()


@dataclass(frozen=True)
class PrintedRatio:
    """How many times larger (from, to) the gradients by one leaf were said to be than those by another."""

    quantity: str
    printed: tuple[str, str]
    larger: str
    smaller: str


Printed = PrintedNumber | PrintedRatio


@dataclass(frozen=True)
class WrongDigit:
    """The first digit in which a printed number departs from the true one: 4 is the fourth decimal, 0 the ones."""

    place: int
    printed: str
    right: str


def decimals(printed: str) -> int:
    """How many decimals were printed."""
    return len(printed.partition(".")[2])


def rounded(value: float, places: int, *, mode: str = ROUND_HALF_EVEN) -> str:
    """The value to so many decimals; `mode` is one of the rounding modes of `decimal`."""
    return str(Decimal(value).quantize(Decimal(1).scaleb(-places), rounding=mode))


def wrong_digit(printed: str, right: str) -> WrongDigit | None:
    """Where two numbers with equally many decimals differ first; None if nowhere."""
    width = max(len(printed), len(right))
    pairs = zip(printed.rjust(width), right.rjust(width), strict=True)
    point = width - decimals(right) - ("." in right)  # where the decimals begin, the point before them
    for position, (was, should) in enumerate(pairs):
        if was != should:
            return WrongDigit(position - point + (position < point), was, should)
    return None
