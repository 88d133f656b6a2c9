"""One line of evidence: a gradient of a candidate, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gradwitness.verdict import Verdict

__all__ = ["Row", "describe"]


@dataclass(frozen=True)
class Row:
    """One gradient of one candidate: its verdict and the figures behind it (see `verdict.Judgement`).

    parameter and shape are None where the candidate did not run (`unsupported`, `error`). reference:
    the norm of the gradient that it is held against. textbook: relative difference at step 1e-5 over the whole
    candidate. referee: this is the gradient that the others are held against. refused: why there is no reference in
    256 bits. left, right: at a kink, the one-sided derivatives by the element that the message names. Where the
    losses are black boxes, against is the label of the candidate from whose gradient `error` is measured, and fd_dtype
    what the differences were taken in. seen: how many elements differences saw one by one. path: the execution path
    that the candidate took, if not its plain one. custom: the custom rules that the candidate refers to, by name, and
    whether its gradient is made of them; None where that cannot be told.
    """

    network: str
    candidate: str
    backend: str
    device: str
    dtype: str
    verdict: Verdict
    message: str = ""
    parameter: str | None = None
    shape: tuple[int, ...] | None = None
    reference: float | None = None
    error: float | None = None
    worst: float | None = None
    ulps: float | None = None
    seen: int | None = None
    floor: float | None = None
    ratio: float | None = None
    fd_error: float | None = None
    fd_bound: float | None = None
    limit: float | None = None
    limit_element: float | None = None
    left: float | None = None
    right: float | None = None
    textbook: float | None = None
    referee: bool = False
    refused: str | None = None
    setup_seconds: float | None = None
    against: str | None = None
    fd_dtype: str | None = None
    path: str | None = None
    custom: Mapping[str, bool] | None = None

    @property
    def label(self) -> str:
        """The candidate's, without the path."""
        return self.candidate.removesuffix(f" [{self.path}]")


def describe(row: Row) -> str:
    """One line: who, where, verdict, why."""
    place = f" {row.parameter}" if row.parameter is not None else ""
    who = row.candidate if row.device == "cpu" else f"{row.candidate} on {row.device}"
    return f"{row.network} {row.dtype} {who}{place}: {row.verdict}" + (f": {row.message}" if row.message else "")
