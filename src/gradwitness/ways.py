"""The ways that a framework has to a further derivative: what its adapter makes them of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any

from gradwitness.errors import UnsupportedError
from gradwitness.graph import direction
from gradwitness.lowering import Implementation
from gradwitness.problem import Derived

__all__ = ["Asked", "Both", "Leaves", "Loss", "Way", "derived", "of_examples"]

Leaves = Mapping[str, Any]
Loss = Callable[[Leaves], Any]
Both = Callable[[Leaves], tuple[Any, dict[str, Any]]]


@dataclass(frozen=True)
class Asked:
    """What a way is made of: the plain loss, the leaves to differentiate by, and those with an entry by example."""

    loss: Loss
    paths: Sequence[str]
    single: Sequence[str]

    def point(self, leaves: Leaves) -> dict[str, Any]:
        """What the loss is differentiated by."""
        return {path: leaves[path] for path in self.paths}

    def along(self, leaves: Leaves) -> dict[str, Any]:
        """The directions that belong to it."""
        return {path: leaves[direction(path)] for path in self.paths}


@dataclass(frozen=True)
class Way:
    """How a derivative is taken: as the gradient of a loss of leaves, or as value and gradient at once (`both`)."""

    loss: Callable[[Asked], Loss]
    both: Callable[[Asked], Both] | None = None


def derived(
    framework: str,
    way: Way,
    implementation: Implementation,
    asked: Derived,
    wrt: Sequence[str],
    *,
    quiet: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Implementation:
    """The implementation of a further derivative.

    wrt: the leaves that the derivative is by. quiet: what the framework runs in.
    """
    paths = [path for path in asked.problem.differentiated if path in implementation.reaching]
    given = Asked(implementation.loss, paths, asked.problem.by_example)

    def able(function: Callable[[Leaves], Any]) -> Callable[[Leaves], Any]:
        """The same, and an UnsupportedError where it cannot: not every loss with a gradient has this derivative."""

        @wraps(function)
        def tried(leaves: Leaves) -> Any:
            try:
                with quiet():
                    return function(leaves)
            except Exception as error:
                first = str(error).strip().partition("\n")[0]
                raise UnsupportedError(f"{framework} cannot differentiate it in this way: {first}") from error

        return tried

    changed = replace(implementation, loss=able(way.loss(given)), reaching=tuple(wrt))
    return changed if way.both is None else replace(changed, value_and_gradient=able(way.both(given)))


def of_examples(asked: Asked, one_number: Callable[[Any], Any], stack: Callable[[list[Any]], Any]) -> Loss:
    """The sum of the losses of examples, each as a batch of one, at its own copy of the params."""

    def total(leaves: Leaves) -> Any:
        losses = []
        for number in range(len(leaves[asked.single[0]])):
            alone = {path: leaves[path][number : number + 1] for path in asked.single}
            own = {path: leaves[path][number] for path in asked.paths}
            losses.append(one_number(asked.loss({**leaves, **alone, **own})))
        return stack(losses).sum()

    return total
