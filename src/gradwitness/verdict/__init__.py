"""From evidence to a named verdict: `judge` gives it, by an ordered list of checks."""

from gradwitness.evidence.reach import JITTER_REACH, threshold
from gradwitness.verdict.by_arithmetic import Moved, recognised
from gradwitness.verdict.checks import compare, judge, refutation
from gradwitness.verdict.leaf import LeafEvidence, Standing
from gradwitness.verdict.losses import LossJudgement, judge_loss
from gradwitness.verdict.steadiness import accumulated, unsteady
from gradwitness.verdict.verdicts import ACCEPTED, Judgement, Verdict

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
    "judge",
    "judge_loss",
    "recognised",
    "refutation",
    "threshold",
    "unsteady",
]
