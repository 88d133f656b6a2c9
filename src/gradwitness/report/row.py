"""One line of evidence: an address and a judgement, or the reason why there is no gradient to judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gradwitness.verdict import Judgement

__all__ = ["Address", "Row"]


@dataclass(frozen=True)
class Address:
    """Whose gradient it is, and where.

    network: the problem's name. candidate: its label, with the path if it has one. backend, device, dtype: where it
    ran.
    parameter: the leaf's path; None for the candidate as a whole.
    path: the execution path that the candidate took, if not its plain one.
    """

    network: str
    candidate: str
    backend: str
    device: str
    dtype: str
    parameter: str | None = field(default=None, kw_only=True)
    path: str | None = field(default=None, kw_only=True)

    @property
    def label(self) -> str:
        """The candidate's, without the path."""
        return self.candidate.removesuffix(f" [{self.path}]")

    @property
    def cell(self) -> tuple[str, str, str, str]:
        """Network, dtype, candidate and device: of all tensors of one run of a candidate."""
        return self.network, self.dtype, self.candidate, self.device


@dataclass(frozen=True)
class Row(Judgement, Address):
    """The judgement at an address, and the facts of the run that belong to it.

    The address says whose gradient it is (`Address`), and the judgement has the verdict and its figures (`Judgement`).
    parameter, shape: None if the candidate did not run (`unsupported`, `error`).
    reference: the norm of the gradient that this one is held against.
    textbook: the relative difference from central differences at step 1e-5, over the whole candidate.
    referee: whether this is the gradient that the others are held against.
    refused: why there is no reference in 256 bits.
    setup_seconds: what preparing the candidate took, in seconds.
    against: for black boxes, the label of the candidate from whose gradient `error` is measured.
    fd_dtype: for black boxes, the dtype in which the differences were taken.
    custom: the custom rules of the candidate, by name, and whether its gradient is made of them; None if unknown.
    captured: the number of ops in the graph of the candidate's own loss, if that judged it; not_captured: why there is
    no such graph. remarks: what the graph assumes, with the lines.
    """

    shape: tuple[int, ...] | None = None
    reference: float | None = None
    textbook: float | None = None
    referee: bool = False
    refused: str | None = None
    setup_seconds: float | None = None
    against: str | None = None
    fd_dtype: str | None = None
    custom: Mapping[str, bool] | None = None
    captured: int | None = None
    not_captured: str | None = None
    remarks: tuple[str, ...] = ()

    @classmethod
    def of(cls, address: Address, judgement: Judgement, **facts: Any) -> Row:
        """The row of an address, a judgement and the facts of the run, by name."""
        return cls(**vars(address), **vars(judgement), **facts)
