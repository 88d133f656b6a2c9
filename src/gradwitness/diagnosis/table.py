"""The flow through a network as text: a line for each layer, and what was found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tabulate import tabulate

from gradwitness.diagnosis.flow import Flow
from gradwitness.diagnosis.measured import Measured
from gradwitness.findings import lines as found_lines

__all__ = ["HEADER", "lines", "on_backend", "table"]

HEADER = ("layer", "uses", "activation", "signal", "cotangent", "attenuation", "bound", "gradient")
FOLDED = 4  # uses of one layer, one after another, of which the first and the last are shown


def table(health: Measured) -> str:
    """Where each column is from: docs/health.md."""
    title = f"{health.name}, {health.parameters:,} parameters, {health.dtype}"
    body = tabulate(list(lines(health)), HEADER, disable_numparse=True, colalign=("left", *["right"] * 7))
    return "\n".join([title, body, "", *map(on_backend, health.flows.values()), "", *found_lines(health.findings)])


def lines(health: Measured) -> Iterator[Sequence[str]]:
    """A line for each stage; of many uses of one layer, the first and the last."""
    hidden = 0
    for number, (stage, one) in enumerate(zip(health.stages, health.passing, strict=True)):
        if _is_folded(health, number):
            hidden += 1
            continue
        if hidden:
            yield [f"... {hidden} more", *[""] * 7]
            hidden = 0
        ratio, bound = health.attenuation[number], health.bounds[number]
        yield [
            stage.layer,
            str(stage.use) if _uses(health, stage.layer) > 1 else "",
            stage.activation,
            f"{one.signal:.2g}",
            f"{one.cotangent:.2g}",
            "" if ratio is None else f"{ratio:.2g}",
            "" if bound is None else f"{bound:.2g}",
            f"{one.gradient:.2g}",
        ]


def _uses(health: Measured, layer: str) -> int:
    return sum(stage.layer == layer for stage in health.stages)


def _is_folded(health: Measured, number: int) -> bool:
    stage = health.stages[number]
    uses = _uses(health, stage.layer)
    return uses > FOLDED and 1 < stage.use < uses


def on_backend(flow: Flow) -> str:
    if flow.why:
        return f"{flow.backend}: {flow.why}"
    same = "NOT the same" if flow.is_other else "the same within rounding"
    return f"{flow.backend}: {same} ({flow.used:.0%} of what rounding may reach)"
