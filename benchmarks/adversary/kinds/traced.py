"""Losses over `gradwitness.ops`, with the gradient under trial beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from benchmarks.adversary.corpus import Subject
from benchmarks.adversary.kinds import flat, kinks, magnitudes, networks, offsets, poles, smooth

__all__ = ["SUBJECTS"]

# what the dialect of the traced ops can say, by the subjects' names
SUBJECTS_OF: dict[str, tuple[Sequence[Subject], tuple[str, ...]]] = {
    "smooth": (smooth.SUBJECTS, tuple(subject.name for subject in smooth.SUBJECTS)),
    "kinks": (kinks.SUBJECTS, (*kinks.AWAY, "relu perceptron", "max-pool of products")),
    "poles": (poles.SUBJECTS, ("1 / x at 1e-08, 3", "log at 1e-10, 3", "sqrt at 1e-12, 3", "log at 1e-09, 1,000")),
    "magnitudes": (magnitudes.SUBJECTS, ("sigmoid at 0.3, 1e+08, -2", "tanh at 1e-07, 40, 1", "log at 1e-06, 1, 30")),
    "offsets": (offsets.SUBJECTS, ("least squares + 1e+09", "centred data of mean 1000")),
    "flat": (flat.SUBJECTS, ("saturated tanh", "cosines at 0", "squares at 0")),
    "networks": (networks.SUBJECTS, ("tanh perceptron, 4 leaves", "relu perceptron, 6 leaves")),
}


def _traced() -> Iterator[Subject]:
    for subjects, names in SUBJECTS_OF.values():
        found = {subject.name: subject for subject in subjects}
        for name in names:
            wrongs = tuple(replace(w, frameworks=()) for w in found[name].wrongs if w.loss is None)
            yield replace(found[name], wrongs=wrongs, frameworks=("ops",), dtypes=("float64",), seeds=(0,))


SUBJECTS = tuple(_traced())
