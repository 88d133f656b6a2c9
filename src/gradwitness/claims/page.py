"""Claims beside what was measured, as a page: a block for each claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gradwitness.claims.table import Claim
from gradwitness.claims.tested import HOLDS, Tested, interval_text, range_text
from gradwitness.page import Page, Section, expect_installed
from gradwitness.page.pictures import INK, MUTED, RULE, Picture, drawing, inline, label, panel
from gradwitness.timing.page import Group, Groups, Table
from gradwitness.timing.page.bars import whiskers

__all__ = ["claims_page"]

HEADER = ("what", "measured", "beside the claim")
LINE, FRAME = 20.0, 62.0  # units of height: of a figure, and of what is around all
LONGEST = 24  # characters of a name
OF_CLAIMS = (
    "The shaded range is what is claimed. A mark is what this machine showed, and its whiskers hold the figure with "
    "95% confidence."
)


def claims_page(found: Sequence[Tested], environment: Mapping[str, Any], made: Mapping[str, str]) -> str:
    """The page as HTML. made: how it was made. Raises GradwitnessError where jinja2 or matplotlib is missing."""
    expect_installed("a page")
    measured = [one.says(figure.found) for one in found for figure in one.measured]
    missing = sum(bool(one.why) for one in found)
    counts = [
        ("good", "✓", measured.count(HOLDS), HOLDS),
        ("doubt", "≠", len(measured) - measured.count(HOLDS), "otherwise"),
        ("idle", "–", missing, "not measured"),
    ]
    shown = Groups((), [_group(one, f"claim-{number}") for number, one in enumerate(found)])
    return Page(
        title="gradwitness bench --claims",
        kind="doubt" if missing else "good",
        mark="–" if missing else "✓",
        outcome="Not all measured" if missing else "Measured",
        summary=f"{len(measured)} figures, of {len(found)} claims about the cost of gradients",
        sections=[
            Section("claims", "Claimed and measured", "times.html", shown, OF_CLAIMS),
            Section("environment", "Environment", "record.html", environment),
        ],
        counts=[count for count in counts if count[2]],
        made=made,
    ).html()


def _group(one: Tested, name: str) -> Group:
    lines = [(figure.what, interval_text(figure.found), _said(one.says(figure.found))) for figure in one.measured]
    notes = [f"not measured: {one.why}"] if one.why else []
    notes += [f"{figure.what}: {figure.note}" for figure in one.measured if figure.note]
    pictures = [_picture(one, name)] if one.measured else []
    title = f"{one.claim.name}: claimed {range_text(one.claim)}"
    return Group(title, pictures, Table(HEADER, lines), [f"source: {one.claim.source}", *notes])


def _said(says: str) -> str:
    return f"{'✓' if says == HOLDS else '≠'} {says}"


def _picture(one: Tested, name: str) -> Picture:
    with drawing():
        figure, (axes,) = panel(FRAME + LINE * len(one.measured))
        for place, measured in enumerate(one.measured):
            found = measured.found
            axes.errorbar(found.middle, place, xerr=whiskers(found), fmt="o", color=INK, capsize=2.5, zorder=2)
        _shade(axes, one.claim)
        axes.set_yticks(range(len(one.measured)), [label(measured.what, LONGEST) for measured in one.measured])
        axes.set(ylim=(len(one.measured) - 0.4, -0.6), xlabel=f"claimed: {range_text(one.claim)}")
        axes.tick_params(axis="x", labelcolor=MUTED)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        told = "; ".join(f"{measured.what} {interval_text(measured.found)}" for measured in one.measured)
        text = f"{one.claim.name}: claimed {range_text(one.claim)}, measured {told}"
        return Picture("", inline(figure, name, text), "")


def _shade(axes: Any, claim: Claim) -> None:
    """What is claimed, to the edge of the picture where that has no end."""
    low, high = axes.get_xlim()
    room = 0.1 * (max(high, claim.low) - min(low, claim.low))
    ends = min(low, claim.low - room), max(high, claim.low + room, claim.high + room if claim.high < 1e300 else high)
    axes.axvspan(claim.low, min(claim.high, ends[1]), color=RULE, linewidth=0, zorder=0)
    axes.set_xlim(*ends)
