"""What a text printed against what was computed: which digit is wrong, and which slip of the hand gives it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_DOWN
from typing import Any

import numpy as np

from gradwitness.dtypes import Array
from gradwitness.explain.derivative import dense
from gradwitness.problem import Problem
from gradwitness.protocol import Interpreter
from gradwitness.published import Printed, PrintedNumber, PrintedRatio, WrongDigit, decimals, rounded, wrong_digit

__all__ = ["Comparison", "compare"]


@dataclass(frozen=True)
class Comparison:
    """One claim beside the truth.

    computed: the exact numbers (two for a ratio, smallest and largest). right: what should have been printed.
    wrong: the first wrong digit of a number. why: the slips that were tried and give
    the printed figure; empty if it is right.
    """

    quantity: str
    printed: str
    computed: tuple[float, ...]
    right: str
    wrong: WrongDigit | None
    why: str


@dataclass(frozen=True)
class _Result:
    """Loss and gradients of one way of computing them."""

    loss: float
    gradients: Mapping[str, Array]

    def number(self, claim: PrintedNumber) -> float:
        return self.loss if claim.path is None else float(self.gradients[claim.path][claim.index])


def compare(
    interpreter: Interpreter, problem: Problem, loss: float, gradients: Mapping[str, Array], claims: Sequence[Printed]
) -> tuple[Comparison, ...]:
    """Each claim against the computed loss and gradients."""
    exact = _Result(loss, gradients)
    return tuple(
        _number(claim, exact, _by_hand(interpreter, problem, decimals(claim.printed)))
        if isinstance(claim, PrintedNumber)
        else _ratio(claim, exact)
        for claim in claims
    )


def _by_hand(interpreter: Interpreter, problem: Problem, places: int) -> _Result:
    """The same pass with every value and every cotangent rounded to so many decimals before it is used."""

    def on_value(node: Any, step: Any) -> Any:
        return np.round(step.output, places)

    def on_cotangent(node: Any, step: Any, cotangent: Any, sent: Sequence[Any]) -> list[Any]:
        return [None if part is None else np.round(dense(part), places) for part in sent]

    tape = interpreter.forward(problem.graph, problem.leaves, on_value=on_value)
    return _Result(
        interpreter.loss(tape), interpreter.backward(tape, problem.differentiated, on_cotangent=on_cotangent)
    )


def _number(claim: PrintedNumber, exact: _Result, by_hand: _Result) -> Comparison:
    places, value = decimals(claim.printed), exact.number(claim)
    right = rounded(value, places)
    wrong = wrong_digit(claim.printed, right)
    slips = {
        f"rounded to {places} decimals at every step": rounded(by_hand.number(claim), places),
        f"cut off after {places} decimals": rounded(value, places, mode=ROUND_DOWN),
    }
    matching = [slip for slip, gives in slips.items() if gives == claim.printed]
    why = "" if wrong is None else " or ".join(matching) or "unexplained"
    return Comparison(claim.quantity, claim.printed, (value,), right, wrong, why)


def _ratio(claim: PrintedRatio, exact: _Result) -> Comparison:
    """Every gradient by one leaf over every gradient by the other, as absolute values."""
    larger, smaller = np.abs(exact.gradients[claim.larger]), np.abs(exact.gradients[claim.smaller])
    ratios = larger.reshape(-1, *[1] * smaller.ndim) / smaller
    places = max(1, *map(decimals, claim.printed))
    right = " to ".join(rounded(float(end), places) for end in (ratios.min(), ratios.max()))
    within = (ratios >= float(claim.printed[0])) & (ratios <= float(claim.printed[1]))
    return Comparison(
        claim.quantity,
        " to ".join(claim.printed),
        (float(ratios.min()), float(ratios.max())),
        right,
        None,
        "" if within.all() else _where(claim, within),
    )


def _where(claim: PrintedRatio, within: Array) -> str:
    """For which elements of the smaller gradients the claim holds."""
    holds = within.all(axis=0)
    kept, broken = (", ".join(str(list(map(int, at))) for at in np.argwhere(where)) for where in (holds, ~holds))
    count = f"{int(within.sum())} of {within.size} ratios are in that range"
    return f"{count}: every one to {claim.smaller} at {kept or 'no element'}, not those at {broken}"
