"""From evidence to a named verdict: `checks.judge` gives it, by an ordered list of checks."""

from gradwitness.verdict.verdicts import ACCEPTED, Judgement, Verdict, expect_verdicts

__all__ = ["ACCEPTED", "Judgement", "Verdict", "expect_verdicts"]
