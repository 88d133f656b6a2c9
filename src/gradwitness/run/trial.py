"""One candidate at one point: what it gave, or why it gave nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from gradwitness.dtypes import Array
from gradwitness.errors import UnsupportedError
from gradwitness.protocol import Prepared, Primals
from gradwitness.run.failing import located
from gradwitness.verdict import Judgement, Verdict
from gradwitness.verdict.steadiness import accumulated, unsteady

__all__ = ["Failure", "Trial", "attempt", "trial"]

T = TypeVar("T")
RUNNERS = ("_pytest", "asyncio", "trio", "anyio")  # whose own exceptions end what runs all this, such as a time limit


@dataclass(frozen=True)
class Trial:
    """What a prepared candidate gave.

    losses: at the point and at each neighbour. gradients: at the point, by path. unsteady: by path,
    how the answers to two equal calls differ; empty where by rounding at most.
    """

    prepared: Prepared
    losses: tuple[float, ...]
    gradients: Mapping[str, Array | None]
    unsteady: Mapping[str, str]


def trial(prepared: Prepared, primals: Primals, neighbours: Sequence[Primals], dtype: str) -> Trial:
    """Run it: at the neighbours first, so that whatever is left over from there shows at the point, and there twice."""
    nearby = _losses_nearby(prepared, neighbours)
    loss, gradients = first = prepared.value_and_gradient(_read_only(primals))
    second = prepared.value_and_gradient(_read_only(primals))
    differing = unsteady(first, second, dtype)
    if any(differing.values()):
        third = prepared.value_and_gradient(_read_only(primals))
        growing = accumulated([first, second, third])
        differing = {path: reason and (growing[path] or reason) for path, reason in differing.items()}
    return Trial(prepared, (loss, *nearby), gradients, differing)


def _losses_nearby(prepared: Prepared, neighbours: Sequence[Primals]) -> list[float]:
    """The loss at each neighbour, the first together with a gradient, so that a stale one would be seen."""
    losses = []
    for number, neighbour in enumerate(neighbours):
        primals = _read_only(neighbour)
        losses.append(prepared.value(primals) if number else prepared.value_and_gradient(primals)[0])
    return losses


def _read_only(primals: Primals) -> dict[str, Array]:
    """Views that a candidate cannot write to, new for each call: what is remembered by identity shows."""
    return {path: x.view() for path, x in primals.items()}


@dataclass(frozen=True)
class Failure(Judgement):
    """In the place of what somebody should have given: why there is nothing."""


def attempt(work: Callable[[], T]) -> T | Failure:
    """What `work` gives, or why it gives nothing: one failure never costs the others' results."""
    try:
        return work()
    except UnsupportedError as error:
        return Failure(Verdict.UNSUPPORTED, str(error))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a candidate raises is its own
        if type(error).__module__.partition(".")[0] in RUNNERS:
            raise
        return Failure(Verdict.ERROR, located(error))
