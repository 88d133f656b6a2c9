"""Health as a page: signal and gradient against depth as a picture, every layer in a table, and what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gradwitness.diagnosis.measured import Measured
from gradwitness.diagnosis.table import HEADER, lines, on_backend
from gradwitness.findings import lines as found_lines
from gradwitness.page import Page, Section, expect_installed
from gradwitness.page.pictures import MUTED, Picture, Pictures, drawing, inline, panel, powers_of_ten, series
from gradwitness.timing.page import Group, Groups, Table

__all__ = ["against_depth", "to_page"]

HEIGHT = 230.0
WHAT = ("signal", "cotangent", "gradient")
OF_FLOW = (
    "From left to right as values pass through the network: the signal is the root mean square of what a layer gives, "
    "the cotangent the norm of the derivative of the loss by that, the gradient the norm of the derivatives by its "
    "parameters. Steady curves are healthy; a straight slope multiplies from layer to layer."
)


def to_page(health: Measured, made: Mapping[str, str]) -> str:
    """The page as HTML. made: how it was made. Raises GradwitnessError."""
    expect_installed("a page")
    count = len(health.findings)
    layers = Groups(
        (), [Group("", [], Table(HEADER, list(lines(health))), list(map(on_backend, health.flows.values())))]
    )
    told = list(found_lines(health.findings))
    sections = [Section("findings", "What was found", "lines.html", told)] if count else []
    curves = {what: [getattr(one, what) for one in health.passing] for what in WHAT}
    return Page(
        title=f"gradwitness health: {health.name}",
        kind="bad" if count else "good",
        mark="✗" if count else "✓",
        outcome=f"{count} finding{'s' if count > 1 else ''}" if count else "Healthy",
        summary=f"{health.parameters:,} parameters in {len({s.layer for s in health.stages})} layers, {health.dtype}",
        sections=[
            *sections,
            Section("flow", "Flow", "pictures.html", against_depth({"": curves}, "flow"), OF_FLOW),
            Section("layers", "Layers", "times.html", layers),
            Section("environment", "Environment", "record.html", health.environment),
        ],
        made=made,
    ).html()


def against_depth(pictures: Mapping[str, Mapping[str, Sequence[float]]], name: str) -> Pictures:
    """A picture by title, each of curves by name: a size at each stage, from the first to the last."""
    looks = series(curve for curves in pictures.values() for curve in curves)
    drawn = []
    with drawing():
        for number, (title, curves) in enumerate(pictures.items()):
            figure, (axes,) = panel(HEIGHT)
            axes.set(yscale="log", xlabel="stage")
            for curve, sizes in curves.items():
                look, places = looks[curve], [place for place, size in enumerate(sizes) if size > 0]
                axes.plot(
                    places,
                    [sizes[place] for place in places],
                    marker=look.marker,
                    color=look.color,
                    markerfacecolor="none",
                    markevery=max(len(places) // 12, 1),
                )
            powers_of_ten(axes.yaxis)
            axes.tick_params(labelcolor=MUTED)
            told = "; ".join(f"{c} from {s[0]:.2g} to {s[-1]:.2g}" for c, s in curves.items() if s)
            drawn.append(Picture(title, inline(figure, f"{name}-{number}", f"{title} {told}".strip()), ""))
    return Pictures(list(looks.values()), drawn)
