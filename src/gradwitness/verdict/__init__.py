"""From evidence to a named verdict: `judge` where there is a reference, `judge_black_box` where there is none."""

from gradwitness.verdict.black_box import (
    BlackBoxEvidence,
    compare,
    judge_black_box,
    stands_against,
    with_largest_rounded,
)
from gradwitness.verdict.by_arithmetic import Moved, recognised
from gradwitness.verdict.by_reference import Standing, TensorEvidence, confirms, judge
from gradwitness.verdict.losses import LossJudgement, judge_loss
from gradwitness.verdict.reach import JITTER_REACH, threshold
from gradwitness.verdict.steadiness import accumulated, unsteady
from gradwitness.verdict.verdicts import ACCEPTED, Judgement, Verdict

__all__ = [
    "ACCEPTED",
    "JITTER_REACH",
    "BlackBoxEvidence",
    "Judgement",
    "LossJudgement",
    "Moved",
    "Standing",
    "TensorEvidence",
    "Verdict",
    "accumulated",
    "compare",
    "confirms",
    "judge",
    "judge_black_box",
    "judge_loss",
    "recognised",
    "stands_against",
    "threshold",
    "unsteady",
    "with_largest_rounded",
]
