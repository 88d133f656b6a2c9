"""Remedies side by side: as text, as JSON, and as one page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tabulate import tabulate

from gradwitness.diagnosis.page import against_depth
from gradwitness.diagnosis.remedies import Compared
from gradwitness.page import Page, Section, expect_installed
from gradwitness.report.document import jsonable
from gradwitness.timing.page import Group, Groups, Table

__all__ = ["comparison_json", "comparison_page", "comparison_table", "is_apart"]

HEADER = ("network", "depth", "first/last", "theory", "by theory", "norm", "backends")
SCHEMA = 1  # raised when a key changes its meaning or goes
OF_ALL = (
    "Each curve is the cotangent that arrives at each hidden layer, as part of that at the last; of recurrent cells, "
    "the derivative by each input. A level curve is what you want: each layer then learns as fast as the last."
)


def comparison_table(found: Sequence[Compared]) -> str:
    """A line for each network and depth. first/last: the cotangent at the first hidden layer over that at the last."""
    lines = list(map(_cells, found))
    return "\n".join([tabulate(lines, HEADER, disable_numparse=True, colalign=_ALIGNED), "", *_notes(found)])


_ALIGNED = ("left", "right", "right", "right", "left", "right", "left")


def _cells(one: Compared) -> list[str]:
    theory = "" if one.foretold is None else f"{one.foretold:.1e}"
    norm = f"{one.norm:.1e}" if one.gradients else ""
    return [one.remedy.name, str(one.depth), f"{one.ratio:.1e}", theory, one.remedy.says, norm, _on_backends(one)]


def is_apart(one: Compared) -> bool:
    """Whether a backend gives something else, or nothing."""
    return bool(_apart(one))


def _apart(one: Compared) -> list[str]:
    return [*(name for name, used in one.used.items() if not used <= 1), *one.why]


def _on_backends(one: Compared) -> str:
    """Whether all give the same, and who does not."""
    apart = _apart(one)
    return f"NOT the same: {', '.join(apart)}" if apart else f"the same on {len(one.used)}"


def _notes(found: Sequence[Compared]) -> Iterator[str]:
    yield "first/last: the cotangent at the first hidden layer over that at the last; of recurrent cells, the"
    yield "derivative by the first input over that by the last. norm: that of the gradient by all weights."
    yield from dict.fromkeys(f"{name}: {why}" for one in found for name, why in one.why.items())


def comparison_json(environment: Mapping[str, Any], found: Sequence[Compared]) -> str:
    """Everything, in full precision."""
    document = {"comparison": SCHEMA, "environment": environment, "networks": [_record(one) for one in found]}
    return json.dumps(jsonable(document), indent=1, allow_nan=False)


def _record(one: Compared) -> dict[str, Any]:
    return {
        "network": one.remedy.name,
        "depth": one.depth,
        "ratio": one.ratio,
        "theory": one.foretold,
        "source": one.remedy.source,
        "norm": one.norm,
        "cotangents": list(one.cotangents),
        "gradients": list(one.gradients),
        "backends": one.used,
        "why": one.why,
    }


def comparison_page(found: Sequence[Compared], environment: Mapping[str, Any], made: Mapping[str, str]) -> str:
    """The page as HTML. made: how it was made. Raises GradwitnessError where jinja2 or matplotlib is missing."""
    expect_installed("a page")
    pictures: dict[str, dict[str, list[float]]] = {}
    for one in found:
        last = one.cotangents[-1] or 1.0
        what = "steps" if not one.gradients else "layers"
        pictures.setdefault(f"{one.depth} {what}", {})[one.remedy.name] = [size / last for size in one.cotangents]
    table = Table(HEADER, list(map(_cells, found)))
    apart = list(filter(is_apart, found))
    sources = [f"{name}: {source}" for name, source in {one.remedy.name: one.remedy.source for one in found}.items()]
    return Page(
        title="gradwitness health --compare",
        kind="bad" if apart else "good",
        mark="✗" if apart else "✓",
        outcome="Not the same on all backends" if apart else "The same on all backends",
        summary=f"{len(found)} networks that differ in one thing each",
        sections=[
            Section("depth", "Against depth", "pictures.html", against_depth(pictures, "depth"), OF_ALL),
            Section("table", "Measured and foretold", "times.html", Groups((), [Group("", [], table, sources)])),
            Section("environment", "Environment", "record.html", environment),
        ],
        made=made,
    ).html()
