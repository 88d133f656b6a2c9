"""What stands for each verdict: a symbol, how good it is, and what it means."""

from __future__ import annotations

from dataclasses import dataclass

from gradwitness.verdict import Verdict

__all__ = ["MARKS", "Mark"]


@dataclass(frozen=True)
class Mark:
    """symbol: one character, without colour. kind: a class of style.css. meaning: the verdict in a few words."""

    symbol: str
    kind: str
    meaning: str


MARKS = {
    Verdict.AGREE: Mark("✓", "good", "rounding explains its distance from the true gradient"),
    Verdict.CONVENTION: Mark("≈", "good", "several gradients are right here, as at a kink, and it is one of them"),
    Verdict.INTENDED: Mark("◇", "good", "it differs from the derivative, as you said that it should"),
    Verdict.UNSUPPORTED: Mark("–", "idle", "the backend does not run it, and says so"),
    Verdict.INCONCLUSIVE: Mark("?", "doubt", "the evidence does not decide"),
    Verdict.REDUCED_PRECISION: Mark("↓", "doubt", "an arithmetic with fewer bits explains what differs"),
    Verdict.NONFINITE: Mark("∞", "bad", "elements are NaN or infinite"),
    Verdict.MISSING: Mark("∅", "bad", "there is none, though the loss depends on the parameter"),
    Verdict.NONDETERMINISTIC: Mark("⇄", "bad", "the same call gave two answers"),
    Verdict.DISAGREE: Mark("✗", "bad", "it is wrong: rounding does not explain the distance"),
    Verdict.DIFFERENT_LOSS: Mark("≠", "bad", "the loss itself has another value"),
    Verdict.ERROR: Mark("!", "bad", "it raised an error"),
}
