"""Is what differs the work of an arithmetic with fewer bits?

That is asked of candidates of a graph, whose products are known.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from gradwitness.arithmetic import REDUCTIONS, Reduction
from gradwitness.dtypes import Array
from gradwitness.evidence.from_graph import FromGraph
from gradwitness.evidence.products import contractions, multiplies_results
from gradwitness.evidence.reference import Exact
from gradwitness.run.witness import OfGraph, Witness
from gradwitness.settings import Settings
from gradwitness.verdict.by_arithmetic import Moved, recognised

__all__ = ["as_reduced"]

ADVICE = {  # against reduced precision, by the precision of the run
    "default": "--precision highest avoids it",
    "highest": "the backend's own precision is held at highest, so look in the candidate's code",
}


def as_reduced(witness: Witness, settings: Settings) -> None:
    """Change a candidate's judgements where reduced precision explains them all."""
    if not isinstance(witness, OfGraph) or not witness.is_steady:
        return
    under = partial(_moved, witness)
    advice = ADVICE[settings.precision]
    witness.judgements = recognised(witness.judgements, under, _reductions(witness.known), advice=advice)


def _reductions(known: FromGraph) -> Iterator[Reduction]:
    """Those of this dtype that could make a difference to this graph."""
    graph = known.problem.graph
    ops, results = contractions(graph), multiplies_results(graph)
    return (
        r for r in REDUCTIONS if known.dtype in r.dtypes and (r.operands is None or r.operands.matter(ops, results))
    )


def _moved(witness: OfGraph, reduction: Reduction) -> tuple[list[Moved], dict[str, Moved]]:
    """How far losses and gradients are from the reference, and how far this reduction would have moved them."""
    known, tried = witness.known, witness.tried
    floors, loss_floors = known.floors_of(witness.arithmetic), known.loss_floors_of(witness.arithmetic)
    predicted = known.predictions_of(reduction.of(witness.arithmetic))
    losses = [
        Moved(np.array(true), np.array(loss - true), floor, prediction)
        for loss, true, floor, prediction in zip(tried.losses, known.losses, loss_floors, predicted.losses, strict=True)
        if np.isfinite(true) and np.isfinite(floor.norm)
    ]
    gradients = {
        path: Moved(true.high, _error(tried.gradients.get(path), true), floors.tensors[path], predicted.tensors[path])
        for path, true in known.gradients.items()
    }
    return losses, gradients


def _error(gradient: Array | None, true: Exact) -> Array:
    """None counts as zeros; nothing explains another shape."""
    given = np.zeros(true.high.shape) if gradient is None else gradient.astype(np.float64)
    return true.error_of(given) if given.shape == true.high.shape else np.full(true.high.shape, np.inf)
