"""What verifying a port found: the mapping, the values, the causes, the gradients."""

from __future__ import annotations

from dataclasses import dataclass

from gradwitness.port.causes import Explained
from gradwitness.port.matching import Match
from gradwitness.port.values import Compared
from gradwitness.report import Report

__all__ = ["PortReport"]

HEADERS = ("torch", "shape", "jax", "shape", "how", "matched by")
SHOWN = 12  # lines of a short report


@dataclass(frozen=True)
class PortReport:
    """The mapping, the values compared by it, and the gradients. Falsy if anything differs.

    matches: the mapping, guessed and given.
    misplaced: parameters of jax that do not hold torch's values (`converted=True`).
    values: activations, the loss and running statistics, each against the other side's.
    explained: the causes of the differences.
    unseen: activations of jax that match no name of torch's.
    gradients: the Report on both gradients, by torch's names; None if the losses differ, as there is nothing to
    compare.
    allow: kinds of causes that you intend.
    elsewhere: the values are those at a seeded neighbour of the given point, because the point itself hides a
    difference.
    """

    matches: tuple[Match, ...]
    misplaced: tuple[str, ...]
    values: tuple[Compared, ...]
    explained: Explained
    unseen: tuple[str, ...]
    gradients: Report | None
    allow: tuple[str, ...] = ()
    elsewhere: bool = False

    @property
    def ok(self) -> bool:
        """Whether parameters, values and gradients agree."""
        meant = all(cause.family in self.allow for cause, _ in self.explained.causes)
        return not self.misplaced and meant and self.explained.rest is None and bool(self.gradients)

    def __bool__(self) -> bool:
        return self.ok

    @property
    def causes(self) -> tuple[str, ...]:
        """The causes that explain the differences, one line each."""
        return tuple(cause.text for cause, _ in self.explained.causes)

    def findings(self) -> tuple[str, ...]:
        """What differs and why, one line each; none if nothing differs. Gradients have findings of their own."""
        lines = [f"parameter {line}" for line in self.misplaced]
        if self.elsewhere and (self.explained.causes or self.explained.rest):
            lines.append("all agree at the given point; what follows is at a seeded neighbour, and hidden there")
        for at in dict.fromkeys(at for _, at in self.explained.causes):
            causes = [cause for cause, its in self.explained.causes if its is at]
            changed = "this" if len(causes) == 1 else "all of these"
            lines.append(f"first difference: {at}")
            lines += [f"cause: {cause.text}" for cause in causes]
            lines.append(
                f"with {changed} changed, {at.torch} agrees; to mend it: {'; '.join(c.remedy for c in causes)}"
            )
        if self.explained.rest is not None:
            then = "then differs" if self.explained.causes else "first difference"
            tried = ", ".join(f"{family} ({count})" for family, count in self.explained.tried.items()) or "nothing"
            lines += [f"{then}: {self.explained.rest}", f"none of the known causes explains it; tried: {tried}"]
            if self.explained.nearest is not None:
                cause, left = self.explained.nearest
                lines.append(f"nearest: {cause.text}; it leaves a relative error of {left.error:.1e}")
        return tuple(lines)

    def mapping(self) -> str:
        """The mapping as a table: names and shapes on both sides, the layout, and how it was guessed."""
        from tabulate import tabulate

        body = [(m.piece.label, m.piece.shape, m.target, m.shape, m.how, m.why) for m in self.matches]
        return tabulate(body, HEADERS, tablefmt="simple", disable_numparse=True)

    def table(self, *, verbose: bool = False, color: bool = False) -> str:
        """The mapping, values, differences and gradients, as text. verbose, color: as in `Report.table`."""
        loss = next(one for one in self.values if one.torch == "loss")
        others = len(self.values) - 1
        ours, theirs = loss.worst[1:] if loss.worst else (float("nan"),) * 2
        agreeing = "agree" if loss.agrees else "differ"
        values = f"loss: {ours:.12g} in torch, {theirs:.12g} in jax: they {agreeing}; {others} other values compared"
        unseen = (
            [f"not compared, as torch shows nothing by these names: {', '.join(self.unseen)}"] if self.unseen else []
        )
        after = self.gradients.table(verbose=verbose, color=color) if self.gradients is not None else (
            "gradients: not compared, as the losses differ"
        )  # fmt: skip
        return "\n".join([self.mapping(), "", values, *unseen, *self.findings(), "", after])

    def __repr__(self) -> str:
        """A dozen lines at most."""
        lines = [f"gradwitness: port of {len(self.matches)} parameters", *self.findings()]
        if not self.findings():
            lines[0] += ": values agree"
        lines += repr(self.gradients).splitlines() if self.gradients is not None else []
        return "\n".join(
            lines if len(lines) <= SHOWN else [*lines[: SHOWN - 1], f"... and {len(lines) - SHOWN + 1} more"]
        )
