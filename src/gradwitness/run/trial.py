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
Answer = tuple[float, Mapping[str, Array | None]]
STATELESS = "keep no state between calls"
RUNNERS = ("_pytest", "asyncio", "trio", "anyio")  # whose own exceptions end what runs all this, such as a time limit


@dataclass(frozen=True)
class Trial:
    """What a prepared candidate gave.

    losses: at the point and at each neighbour. gradients: at the point, by path. unsteady: by path,
    how the answers to two equal calls differ; empty where by rounding at most. untried: what was not, to be said beside
    a gradient that agrees.
    """

    prepared: Prepared
    losses: tuple[float, ...]
    gradients: Mapping[str, Array | None]
    unsteady: Mapping[str, str]
    untried: str = ""


def trial(prepared: Prepared, primals: Primals, neighbours: Sequence[Primals], dtype: str) -> Trial:
    """Run it: at the neighbours first, so that whatever is left over from there shows at the point, and there twice.

    The gradient at the first neighbour is taken again in the end: a first call may be another one (a cache that is
    filled, a kernel that is chosen), and nothing else looks at it.
    """
    began, nearby = _answers_nearby(prepared, neighbours)
    loss, gradients = first = prepared.value_and_gradient(_read_only(primals))
    second = prepared.value_and_gradient(_read_only(primals))
    differing = unsteady(first, second, dtype)
    if any(differing.values()):
        third = prepared.value_and_gradient(_read_only(primals))
        growing = accumulated([first, second, third])
        differing = {path: reason and (growing[path] or reason) for path, reason in differing.items()}
    elif began is not None:
        again = prepared.value_and_gradient(_read_only(neighbours[0]))
        differing = unsteady(began, again, dtype, how="the first call of all and the same later", advice=STATELESS)
    return Trial(prepared, (loss, *nearby), gradients, differing)


def _answers_nearby(prepared: Prepared, neighbours: Sequence[Primals]) -> tuple[Answer | None, list[float]]:
    """(loss and gradient at the first neighbour, so that a stale one would be seen; the loss at each)."""
    if not neighbours:
        return None, []
    began = prepared.value_and_gradient(_read_only(neighbours[0]))
    losses = [prepared.value(_read_only(neighbours[number])) for number in range(1, len(neighbours))]
    return began, [began[0], *losses]


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
