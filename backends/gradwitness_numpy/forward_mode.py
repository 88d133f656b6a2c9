"""Derivatives along directions by forward mode: the graph of the tangent, a rule for each op, run forward alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gradwitness.derivatives import tangent
from gradwitness.dtypes import Array
from gradwitness.graph import Graph, direction, step
from gradwitness.lowering import Implementation

__all__ = ["forward_mode"]

Leaves = Mapping[str, Array]


def forward_mode(
    implementation: Implementation, graph: Graph, wrt: Sequence[str], lower: Callable[[Graph], Callable[[Leaves], Any]]
) -> Implementation:
    """The loss after steps along directions, and its derivatives by these (`derivatives.stepped`).

    implementation: of the graph. wrt: the leaves that go along directions.
    """
    tangents = {path: lower(tangent(graph, (path,))) for path in wrt}

    def moved(leaves: Leaves) -> dict[str, Array]:
        return {path: leaves[path] + np.tensordot(leaves[step(path)], leaves[direction(path)], 1) for path in wrt}

    def value(leaves: Leaves) -> Any:
        return implementation.loss({**leaves, **moved(leaves)})

    def gradient(leaves: Leaves) -> dict[str, Any]:
        at = {**leaves, **moved(leaves)}
        return {
            step(path): np.asarray([slope({**at, direction(path): v}) for v in leaves[direction(path)]])
            for path, slope in tangents.items()
        }

    return replace(
        implementation,
        loss=value,
        gradient=gradient,
        value_and_gradient=lambda leaves: (value(leaves), gradient(leaves)),
        reaching=tuple(map(step, wrt)),
    )
