"""From evidence to a named verdict: `judge` gives it, by an ordered list of checks."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gradwitness.verdict.verdicts import ACCEPTED, Judgement, Verdict, expect_verdicts

if TYPE_CHECKING:
    from gradwitness.evidence.reach import JITTER_REACH, threshold
    from gradwitness.verdict.by_arithmetic import Moved, recognised
    from gradwitness.verdict.checks import compare, judge, refutation
    from gradwitness.verdict.leaf import LeafEvidence, Standing
    from gradwitness.verdict.losses import LossJudgement, judge_loss
    from gradwitness.verdict.steadiness import accumulated, unsteady

__all__ = [
    "ACCEPTED",
    "JITTER_REACH",
    "Judgement",
    "LeafEvidence",
    "LossJudgement",
    "Moved",
    "Standing",
    "Verdict",
    "accumulated",
    "compare",
    "expect_verdicts",
    "judge",
    "judge_loss",
    "recognised",
    "refutation",
    "threshold",
    "unsteady",
]

_WHERE = {  # imported when they are asked for, so that importing gradwitness is quick
    "gradwitness.evidence.reach": ("JITTER_REACH", "threshold"),
    "gradwitness.verdict.by_arithmetic": ("Moved", "recognised"),
    "gradwitness.verdict.checks": ("compare", "judge", "refutation"),
    "gradwitness.verdict.leaf": ("LeafEvidence", "Standing"),
    "gradwitness.verdict.losses": ("LossJudgement", "judge_loss"),
    "gradwitness.verdict.steadiness": ("accumulated", "unsteady"),
}


def __getattr__(name: str) -> Any:
    for module, names in _WHERE.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
