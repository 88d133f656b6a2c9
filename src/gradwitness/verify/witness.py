"""A candidate that ran, with all that it says about its own gradient, and how two of them compare."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gradwitness import registry
from gradwitness.evidence.black_box import OwnEvidence
from gradwitness.evidence.finite_difference import Differences
from gradwitness.evidence.noise_floor import TensorFloor, joint
from gradwitness.evidence.norms import norm, typical
from gradwitness.problem import Problem
from gradwitness.report import Row
from gradwitness.verdict import (
    JITTER_REACH,
    BlackBoxEvidence,
    Judgement,
    LossJudgement,
    judge_black_box,
    judge_loss,
    with_largest_rounded,
)
from gradwitness.verdict.by_differences import is_refuted_along_directions_alone
from gradwitness.verdict.reach import Reach, node_reach
from gradwitness.verify.settings import Settings
from gradwitness.verify.trial import Trial

__all__ = ["Witness", "comparable", "joint_floor", "reach_of"]

Array = np.ndarray[Any, Any]


@dataclass
class Witness:
    """One candidate that ran. notes: what there is to say of how; differences grow as doubts arise. others: rows beside
    those of its gradients."""

    label: str
    blank: Row
    problem: Problem
    tried: Trial
    evidence: OwnEvidence
    differences: dict[str, Differences]
    notes: list[str]
    others: list[Row] = field(default_factory=list)
    loss: LossJudgement = field(default_factory=LossJudgement)

    @property
    def is_steady(self) -> bool:
        """Whether the same call gives the same answer."""
        return not any(self.tried.unsteady.values())

    def finest(self, path: str) -> Array | None:
        """The gradient in float64 if there is one, else in the dtype on trial; None where it is no finite gradient."""
        found, shape = self.tried.gradients.get(path), self.problem.primals[path].shape
        if found is None or found.shape != shape or not np.all(np.isfinite(found)):
            return None
        return found.astype(np.float64) if self.evidence.fine is None else self.evidence.fine[path]

    def finest_floor(self, path: str) -> TensorFloor:
        """What rounding explains of the finest gradient; in float64 that is less than in the dtype on trial."""
        narrow = self.evidence.fine is None
        floor = (self.evidence.floors.tensors if narrow else self.evidence.sensitivity)[path]
        gradient = self.finest(path)
        if gradient is None or (narrow and self.evidence.floors.by_node):
            return floor
        return with_largest_rounded(floor, gradient, self.blank.dtype if narrow else "float64")

    def evidence_on(self, path: str) -> BlackBoxEvidence:
        own = self.evidence
        return BlackBoxEvidence(
            self.blank.dtype,
            None if own.fine is None else own.fine[path],
            own.sensitivity[path],
            own.floors.tensors[path],
            own.floors.by_node,
            self.differences[path],
            typical(self.problem.primals[path]),
            own.scale,
            self.is_same_in_float64,
        )

    @property
    def is_same_in_float64(self) -> bool:
        """Whether its loss is the same function in float64 as in the dtype on trial, as far as the point shows."""
        own = self.evidence
        if own.fine_loss is None:
            return True
        floors = own.floors.losses[:1]
        return judge_loss(self.tried.losses[:1], [own.fine_loss], floors, reach=reach_of(self, self)).verdict is None

    def judgement(self, path: str) -> Judgement:
        """By what the candidate itself gives."""
        return judge_black_box(self.tried.gradients.get(path), self.evidence_on(path))

    def pin_down(self, path: str, settings: Settings) -> None:
        """Where differences along directions refute the gradient, and none by a coordinate, find an element of it that
        is wrong."""
        gradient, (floor, reach) = self.finest(path), self.evidence_on(path).of_formula
        known = self.differences[path]
        if gradient is None or not is_refuted_along_directions_alone(known, gradient, floor, reach):
            return
        with registry.backend(self.blank.backend).precision(settings.precision):
            index = self.evidence.differencing.locate(
                path, gradient, lambda v: reach.norm * norm(v * floor.elements), seed=(settings.seed, 9)
            )
        self.look_closer(path, [index], settings)

    def look_closer(self, path: str, indices: Sequence[int], settings: Settings) -> None:
        """Take differences by further coordinates."""
        known = {probe.index for probe in self.differences[path].probes}
        new = [i for i in indices if i not in known]
        with registry.backend(self.blank.backend).precision(settings.precision):
            probes = self.evidence.differencing.by_coordinates(path, new)
        self.differences[path] = self.differences[path].with_probes(probes)


def reach_of(one: Witness, other: Witness) -> Callable[[TensorFloor], Reach]:
    """How many joint floors rounding may reach: as many as for the less well known of the two."""
    both = all(w.evidence.floors.by_node for w in (one, other))
    return node_reach if both else lambda floor: JITTER_REACH


def comparable(witnesses: Sequence[Witness], path: str) -> list[Witness]:
    return [w for w in witnesses if w.is_steady and not w.loss.verdict and w.finest(path) is not None]


def joint_floor(one: Witness, other: Witness, path: str) -> tuple[TensorFloor, Reach]:
    """What rounding explains of the distance between two gradients, each of which has its own, and its reach."""
    floor = joint(one.finest_floor(path), other.finest_floor(path))
    narrow = one.evidence.fine is None and other.evidence.fine is None
    return floor, reach_of(one, other)(floor) if narrow else JITTER_REACH
