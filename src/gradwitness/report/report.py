"""The result of a run: one row per gradient, and what they add up to."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gradwitness.errors import GradwitnessError
from gradwitness.evidence.exercise import Exercise
from gradwitness.report.case import Case
from gradwitness.report.document import to_json
from gradwitness.report.findings import findings
from gradwitness.report.junit import to_junit
from gradwitness.report.metrics import metrics
from gradwitness.report.pages import to_html, to_markdown
from gradwitness.report.row import Row
from gradwitness.report.table import below, short_report, summary, table
from gradwitness.shards import Part
from gradwitness.verdict import ACCEPTED, Verdict

__all__ = ["REFUSED", "Report", "joined", "joined_environments"]

REFUSED: deque[Report] = deque(maxlen=1)  # the last that was falsy where it was asked, for who shows failed assertions
VERIFIED = frozenset({Verdict.AGREE, Verdict.INTENDED})  # what a run must have at least one of


def joined(reports: Sequence[Report]) -> Report:
    """One report of several: their rows, and the environments, which differ in what was used. What one of them allows
    passes in its own networks alone."""
    environment = joined_environments([report.environment for report in reports])
    exercise = {name: calls for report in reports for name, calls in report.exercise.items()}
    cases = tuple(case for report in reports for case in report.cases)
    rows = tuple(row for report in reports for row in report.rows)
    exporter = next((report.exporter for report in reports if report.exporter is not None), None)
    require = tuple(dict.fromkeys(name for report in reports for name in report.require))
    return Report(rows, environment, (), require, _allowed(reports), exercise=exercise, cases=cases, exporter=exporter)


def joined_environments(environments: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all of them list, and of what each has one, the first."""
    found: dict[str, Any] = {}
    for environment in environments:
        for key, value in environment.items():
            found[key] = _both(found[key], value) if key in found else value
    return found


def _both(one: Any, other: Any) -> Any:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return {**one, **other}
    return list(dict.fromkeys([*one, *other])) if isinstance(one, list) and isinstance(other, list) else one


def _allowed(reports: Sequence[Report]) -> dict[str, tuple[str, ...]]:
    """By network, what each report that has one of this name allows."""
    found: dict[str, tuple[str, ...]] = {}
    for report in reports:
        for network in {row.network for row in report.rows}:
            found[network] = tuple(verdict for verdict in report.allow if verdict in found.get(network, report.allow))
    return found


def _is_unable(row: Row) -> bool:
    """Whether a candidate could not run; one path of several that does not apply is no such failure."""
    return row.verdict is Verdict.UNSUPPORTED and row.path is None


@dataclass(frozen=True)
class Report:
    """All rows of a run, and the environment in which it ran. Falsy if something does not agree.

    rows: one Row for each gradient, or for each candidate without any.
    environment: versions, devices, seed and settings, as the JSON has them.
    allow: verdicts that pass as well; allowed: the same, by network.
    require: backends or candidates that must have run and agreed, so that `unsupported` is a failure for them.
    exercise: by network, the calls of ops that have several regions, and which of these the point reached; none of
    black boxes.
    cases: the problems and candidates of the run; exporter: writes a script of a row. `export_repro` needs
    both, which only the process of the run has.
    shard: which part of a run this is, if that was split; what the whole run must have, it need not.
    """

    rows: tuple[Row, ...]
    environment: Mapping[str, Any]
    allow: tuple[str, ...] = ()
    require: tuple[str, ...] = ()
    allowed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    exercise: Mapping[str, tuple[Exercise, ...]] = field(default_factory=dict)
    cases: tuple[Case, ...] = field(default=(), repr=False, compare=False)
    exporter: Callable[..., None] | None = field(default=None, repr=False, compare=False)
    shard: Part | None = None

    @property
    def ok(self) -> bool:
        """Whether a gradient agreed or is as intended, every other is accepted, and all that is required agreed."""
        return not self.failures()

    def failures(self) -> tuple[str, ...]:
        """Why this report is not green, one line each; none if it is."""
        return (*findings(row for row in self.rows if not self._passes(row)), *self.shortfalls())

    def _passes(self, row: Row) -> bool:
        return row.verdict in ACCEPTED or row.verdict in (*self.allow, *self.allowed.get(row.network, ()))

    def shortfalls(self) -> tuple[str, ...]:
        """What was required or needed, and is missing, one line each."""
        missing = [
            f"{name} is required, and did not agree everywhere it was asked"
            for name in self.require
            if (self._is_due(name) and not self._agreed(name)) or any(map(_is_unable, self._rows_of(name)))
        ]
        is_green = self.shard is None and all(self._passes(row) for row in self.rows)
        if is_green and not any(row.verdict in VERIFIED for row in self.rows):
            missing += [
                *findings(row for row in self.rows if row.verdict is Verdict.UNSUPPORTED),
                "nothing agreed: a run that verified nothing is not green",
            ]
        return tuple(missing)

    def _is_due(self, name: str) -> bool:
        """Whether it must have agreed here: in a shard, only what has rows there."""
        return self.shard is None or bool(self._rows_of(name))

    def _rows_of(self, name: str) -> list[Row]:
        return [row for row in self.rows if name in (row.backend, row.candidate, row.label)]

    def _agreed(self, name: str) -> bool:
        return any(row.verdict is Verdict.AGREE for row in self._rows_of(name))

    def __bool__(self) -> bool:
        if not self.ok:
            REFUSED.append(self)
        return self.ok

    def __repr__(self) -> str:
        return short_report(self.rows, self.failures())

    def table(self, *, verbose: bool = False, color: bool = False, width: int | None = None) -> str:
        """The table: rows that do not agree, rows that do (many of these folded into one line), then the reasons.

        It has a row for each network, dtype and candidate, at its worst tensor. verbose: a row for each gradient, with
        all figures. color: mark verdicts for a terminal. width: the columns that a row may take, 80 by default unless
        `verbose`; longer names are cut.
        """
        return table(self.rows, self.exercise, verbose=verbose, color=color, width=width)

    def summary(self) -> str:
        """How many gradients got which verdict, in one line."""
        return summary(self.rows)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return to_html(self.rows, self.failures(), below(self.rows, self.exercise))

    def html(self, *, made: Mapping[str, str] | None = None) -> str:
        """The whole report as a page of HTML: one file that opens in a browser, without a network or a script.

        It shows the verdicts by network, candidate and dtype, each with the evidence of every tensor, errors against
        floors as pictures, and the environment. made: what to say of how the page was made, such as
        {"command": "python check.py"}.

        Raises GradwitnessError where jinja2 or matplotlib is missing (`pip install "gradwitness[html]"`).
        """
        from gradwitness.report.page import to_page  # what few reports need

        return to_page(self.rows, self._passes, self.failures(), self.exercise, self.environment, made or {})

    def markdown(self) -> str:
        """The outcome, the failures, and the table in Markdown, as for the summary of a CI run."""
        return to_markdown(self.rows, self.failures())

    def junit(self) -> str:
        """The verdicts as JUnit's XML: a suite for each network, a test case for each gradient."""
        return to_junit(self.rows, self._passes, self.shortfalls())

    def metrics(self) -> dict[str, float]:
        """A flat dict of numbers, for an experiment tracker.

        It has `ok` (1.0 or 0.0), `gradients`, and the count of each verdict. For each network, candidate and dtype it
        has `network/candidate/dtype/error_in_floors`, the worst error in floors, and `.../setup_seconds`, in seconds.
        """
        return metrics(self.rows, ok=self.ok)

    def json(self) -> str:
        """The whole report as JSON, as `report/schema.json` describes it."""
        kept = None if self.shard is None else self.shard.document() | self._demands()
        return to_json(self.ok, self.environment, self.rows, self.exercise, kept)

    def _demands(self) -> dict[str, Any]:
        """What the exit status of the whole run depends on, beside the rows."""
        return {"allow": self.allow, "allowed": self.allowed, "require": self.require}

    def export_repro(
        self,
        path: str | Path,
        *,
        candidate: str | None = None,
        parameter: str | None = None,
        dtype: str | None = None,
        seconds: float = 30.0,
    ) -> None:
        """Write a script that shows the first wrong gradient on its own, without gradwitness.

        The script needs NumPy and the candidate's framework. It prints the gradient and the finite difference at one
        element, and exits with 1 while they differ. It runs once before this returns.
        path: the script's file.
        candidate, parameter, dtype: of the row to show; by default the first that is `disagree`, `nonfinite` or
        `missing`.
        seconds: how long to look for a smaller problem that shows the same.

        Raises GradwitnessError if there is no such row, if no single element shows it, if the source text of the
        candidate's functions is not available, or if the script does not show it.
        """
        if self.exporter is None:
            raise GradwitnessError(
                "this report has no candidates: export from the report that gradwitness.verify returned, in its process"
            )
        asked = {"candidate": candidate, "parameter": parameter, "dtype": dtype}
        self.exporter(self.cases, self.rows, Path(path), **asked, seconds=seconds)
