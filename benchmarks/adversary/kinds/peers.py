"""Gradients beside another candidate's: one that is right, one with the same fault, one with a fault of its own.

No votes are counted: the right one is not accused, whatever stands beside it, nor the wrong one accepted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from benchmarks.adversary.corpus import Subject
from benchmarks.adversary.kinds import backwards, flat, hidden, kinks, offsets, smooth, stairs

__all__ = ["SUBJECTS"]

CHOSEN = (
    (smooth.SUBJECTS, ("tanh", "least squares", "cross-entropy of probabilities")),
    (backwards.SUBJECTS, ("dense layer", "layer norm", "softmax", "gelu")),
    (kinks.SUBJECTS, ("relu perceptron", "max-pool", "relu at 0")),
    (stairs.SUBJECTS, ("sum made 0 by bisection, 25 steps", "root 2 by bisection, 22 steps")),
    (offsets.SUBJECTS, ("loss + 1e+09, small slopes", "centred data of mean 2000")),
    (hidden.SUBJECTS, ("slope 0.003 beside 1, loss + 1e+09", "one small leaf of nine")),
    (flat.SUBJECTS, ("saturated softmax",)),
)


def _beside() -> Iterator[Subject]:
    for subjects, names in CHOSEN:
        found = {subject.name: subject for subject in subjects}
        for name in names:
            subject = found[name]
            for beside in ("right", "wrong"):
                yield replace(
                    subject,
                    name=f"{name}, beside a {beside} one",
                    wrongs=subject.wrongs[:2],
                    rights={},
                    seeds=(0,),
                    dtypes=subject.dtypes[-1:],
                    frameworks=("numpy", "torch"),
                    demanded=(),
                    beside=beside,
                )


SUBJECTS = tuple(_beside())
