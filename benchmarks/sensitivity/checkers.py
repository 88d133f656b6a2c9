"""The checkers, each shown the same layer at the same point; what each says of it, and how long it takes.

Whatever a checker raises counts as finding a fault: it fails the test that a user wrote with it.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import jax.numpy as jnp
import torch
from jax.test_util import check_grads

import gradwitness as gw
from benchmarks.sensitivity.cells import Cell
from benchmarks.sensitivity.forms import (
    arguments,
    autograd_candidate,
    custom_vjp_candidate,
    function_candidate,
    jax_function,
    numpy_candidate,
    torch_function,
    wide,
)
from benchmarks.sensitivity.layers import LAYERS, Layer

__all__ = ["CHECKERS", "PEERS", "Check", "Outcome", "Says", "judged", "run"]


class Says(StrEnum):
    """What a checker says of a layer. Only gradwitness says the last two: that nothing can be said, which fails a test
    as well but names no fault, and that it is autograd who is wrong."""

    PASS = "pass"
    FAULT = "fault"
    INCONCLUSIVE = "inconclusive"
    WRONG_BLAME = "wrong blame"


@dataclass(frozen=True)
class Outcome:
    """What a checker said, why, and the seconds of CPU that it took: other programs do not lengthen them."""

    says: Says
    message: str
    seconds: float


Answer = tuple[Says, str]
Check = Callable[[type[Layer], Cell, str, float | None], Answer]


def run(check: Check, layer: type[Layer], cell: Cell, dtype: str, tolerance: float | None = None) -> Outcome:
    """Show the layer to a checker; a tolerance of None is its default."""
    started = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # gradcheck warns of float32
        says, message = check(layer, cell, dtype, tolerance)
    return Outcome(says, message, time.process_time() - started)


def gradcheck_slow(layer: type[Layer], cell: Cell, dtype: str, tolerance: float | None) -> Answer:
    """`torch.autograd.gradcheck`: the whole Jacobian."""
    return _gradcheck(layer, cell, dtype, tolerance, fast_mode=False)


def gradcheck_fast(layer: type[Layer], cell: Cell, dtype: str, tolerance: float | None) -> Answer:
    """The same with fast_mode=True: one random projection of it."""
    return _gradcheck(layer, cell, dtype, tolerance, fast_mode=True)


def _gradcheck(layer: type[Layer], cell: Cell, dtype: str, tolerance: float | None, *, fast_mode: bool) -> Answer:
    """On the layer as a torch.autograd.Function, what comes out of it uncontracted."""
    floats = [torch.tensor(x, dtype=getattr(torch, dtype), requires_grad=True) for x in cell.floats.values()]
    integers = [torch.tensor(x) for x in cell.integers.values()]
    limits: dict[str, Any] = {} if tolerance is None else {"atol": tolerance, "rtol": tolerance}
    return _raises(
        lambda: torch.autograd.gradcheck(torch_function(layer()), (*floats, *integers), fast_mode=fast_mode, **limits)
    )


def check_grads_reverse(layer: type[Layer], cell: Cell, dtype: str, tolerance: float | None) -> Answer:
    """`jax.test_util.check_grads` on the layer as a jax.custom_vjp, which has no forward mode."""
    with wide(dtype):
        floats = tuple(jnp.asarray(x, dtype) for x in cell.floats.values())
        integers = tuple(jnp.asarray(x) for x in cell.integers.values())
        function = jax_function(layer(), integers)
        return _raises(lambda: check_grads(function, floats, order=1, modes=("rev",), atol=tolerance, rtol=tolerance))


def _raises(check: Callable[[], Any]) -> Answer:
    try:
        check()
    except Exception as error:  # noqa: BLE001  # a faulty layer may raise anything
        return Says.FAULT, " ".join(str(error).split())[:200]
    return Says.PASS, ""


def gradwitness_alone(layer: type[Layer], cell: Cell, dtype: str, tolerance: float | None) -> Answer:
    """`gradwitness.verify` of a torch loss that uses the layer as a torch.autograd.Function, as gradcheck gets it."""
    return judged(function_candidate(layer()), cell, dtype)


def gradwitness_in_jax(layer: type[Layer], cell: Cell, dtype: str, tolerance: float | None) -> Answer:
    """`gradwitness.verify` of a jax loss that uses the layer as a jax.custom_vjp, as check_grads gets it."""
    return judged(custom_vjp_candidate(layer()), cell, dtype)


def gradwitness_beside(layer: type[Layer], cell: Cell, dtype: str, tolerance: float | None) -> Answer:
    """`gradwitness.verify` of the layer's NumPy beside torch's autograd, as the README shows it."""
    right = LAYERS[cell.layer]()
    return judged({"mine": numpy_candidate(layer()), "torch": autograd_candidate(right)}, cell, dtype)


def judged(candidates: Any, cell: Cell, dtype: str) -> Answer:
    """What `gradwitness.verify` says of one candidate, or of two, of which the one labelled torch is right."""
    report = gw.verify(candidates, *arguments(cell), dtypes=dtype, name=str(cell))
    message = "; ".join(report.failures())
    accused = {row.candidate for row in report.rows if row.verdict not in (gw.Verdict.AGREE, gw.Verdict.INCONCLUSIVE)}
    if accused and len({row.candidate for row in report.rows}) > 1 and "torch" in accused:
        return Says.WRONG_BLAME, message
    return (Says.FAULT if accused else Says.PASS if report else Says.INCONCLUSIVE), message


PEERS: dict[str, Check] = {
    "gradcheck slow": gradcheck_slow,
    "gradcheck fast": gradcheck_fast,
    "check_grads": check_grads_reverse,
}
CHECKERS: dict[str, Check] = {
    "gradwitness alone": gradwitness_alone,
    "gradwitness in jax": gradwitness_in_jax,
    "gradwitness beside": gradwitness_beside,
    **PEERS,
}
