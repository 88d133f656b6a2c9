"""Does a function keep anything from one call to the next? The same question, asked again after other calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gradwitness.dtypes import Array
from gradwitness.errors import NoAnswerError
from gradwitness.problem import Problem
from gradwitness.protocol import Prepared, Primals
from gradwitness.run.failing import first_lines
from gradwitness.run.trial import Trial
from gradwitness.verdict.steadiness import unsteady

__all__ = ["compiled_anew", "impure"]

Gradients = Mapping[str, Array | None]
Answer = tuple[float, Gradients]


def impure(
    prepared: Prepared, problem: Problem, tried: Trial, elsewhere: Primals | None, dtype: str, *, resizes: bool
) -> dict[str, str]:
    """By path, how the answer at the problem's point changes with what else was called; empty where it does not.

    elsewhere: another point, for a forward pass between this one's forward and its backward. resizes: ask once more
    after a batch of another size, if the function takes one.
    """
    found: dict[str, str] = {}
    if elsewhere is not None:
        found = _after_another_forward(prepared, problem, tried, elsewhere, dtype)
    if any(found.values()) or not resizes or not problem.may_be_cut:
        return found
    smaller = problem.with_examples(problem.examples - 1).leaves
    try:
        prepared.value_and_gradient(smaller)
    except NoAnswerError:
        raise
    except Exception:  # noqa: BLE001  # a function made for one size of batch may raise anything at another
        return found
    return _compared(
        (tried.losses[0], tried.gradients),
        lambda: prepared.value_and_gradient(problem.primals),
        dtype,
        how="the same call before and after a batch of another size",
        advice="keep no state between calls",
    )


def compiled_anew(anew: Callable[[], Prepared], primals: Primals, tried: Trial, dtype: str) -> dict[str, str]:
    """By path, how the answer of a function that is compiled changes with its compilation; empty where it does not, or
    cannot be compiled twice."""
    try:
        prepared = anew()
    except NoAnswerError:
        raise
    except Exception:  # noqa: BLE001  # a device may be too small for two
        return {}
    return _compared(
        (tried.losses[0], tried.gradients),
        lambda: prepared.value_and_gradient(primals),
        dtype,
        how="compiled anew, the same call",
        advice="what draws numbers, or counts, in Python does so once, as it is compiled: draw from a key in batch",
    )


def _after_another_forward(
    prepared: Prepared, problem: Problem, tried: Trial, elsewhere: Primals, dtype: str
) -> dict[str, str]:
    """Two forwards before the first backward. Where that differs from what was given, forward and backward are called
    once more with nothing between them: a framework may compile the one way and not the other, which is no memory."""

    def compared(gradients: Gradients) -> dict[str, str]:
        return _compared(
            (tried.losses[0], gradients),
            lambda: (tried.losses[0], _backward(prepared, problem.primals, elsewhere)),
            dtype,
            how="two forwards before the first backward",
            advice="the backward must use what its own forward saved, and all random numbers need a seed",
        )

    found = compared(tried.gradients)
    if not any(found.values()):
        return found
    try:
        alone = _backward(prepared, problem.primals, None)
    except NoAnswerError:
        raise
    except Exception:  # noqa: BLE001  # it did not raise when it was asked in one call
        return found
    return compared(alone)


def _compared(answer: Answer, again: Callable[[], Answer], dtype: str, *, how: str, advice: str) -> dict[str, str]:
    try:
        return unsteady(answer, again(), dtype, how=how, advice=advice)
    except NoAnswerError:
        raise
    except Exception as error:  # noqa: BLE001  # it did not raise when it was asked alone
        return dict.fromkeys(answer[1], f"{how}: {first_lines(error)}: {advice}")


def _backward(prepared: Prepared, here: Primals, elsewhere: Primals | None) -> Gradients:
    """The gradient by a forward and a backward, with a forward at another point between them, if there is one."""
    tape = prepared.forward(prepared.place(here))
    if elsewhere is not None:
        prepared.wait(prepared.forward(prepared.place(elsewhere)))
    return prepared.fetch(prepared.backward(tape))
