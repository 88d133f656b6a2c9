"""Claims beside what was measured: as a table, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tabulate import tabulate

from gradwitness import registry
from gradwitness.claims.measuring import Bench, Measured
from gradwitness.claims.table import Claim
from gradwitness.networks.sizes import sized
from gradwitness.report.document import jsonable
from gradwitness.run.failing import first_lines
from gradwitness.settings import Settings
from gradwitness.terminal import progress
from gradwitness.timing.engine import available_threads, expect_threads
from gradwitness.timing.roofline import Machine
from gradwitness.timing.statistics import Interval

__all__ = ["HOLDS", "Tested", "claims_json", "claims_table", "interval_text", "put_to_test", "range_text", "tested"]

HOLDS, LESS, MORE = "as claimed", "less", "more"


@dataclass(frozen=True)
class Tested:
    """A claim, and each figure that was measured. why: why there is none, if there is none."""

    claim: Claim
    measured: tuple[Measured, ...]
    why: str = ""

    def says(self, found: Interval) -> str:
        """Whether an interval and the range that is claimed have something in common."""
        if found.high < self.claim.low:
            return LESS
        return MORE if found.low > self.claim.high else HOLDS


def tested(claims: Sequence[Claim], bench: Bench) -> Iterator[Tested]:
    """Each claim, measured. What cannot be measured here says why, and costs no other claim its figures."""
    for claim in claims:
        try:
            measured = tuple(claim.measure(bench))
        except Exception as error:  # noqa: BLE001  # whatever a framework raises on the way
            yield Tested(claim, (), first_lines(error))
        else:
            yield Tested(claim, measured, "" if measured else "no backend here can show it")


def put_to_test(
    claims: Sequence[Claim],
    settings: Settings,
    *,
    backends: Sequence[str],
    sizes: Sequence[str],
    threads: int | None,
    budget: float,
    processes: int,
) -> list[Tested]:
    """Each claim on this machine, on these backends or all that are installed, at these sizes of networks.

    Raises GradwitnessError for what is not there.
    """
    expect_threads(threads)
    chosen = tuple(backends) or tuple(n for n in registry.backend_names() if not registry.missing_modules(n))
    for name in chosen:
        registry.installed(name)
    for size in sizes:
        sized("mlp", size)
    machine = Machine(threads or available_threads())
    found = []
    with progress(len(claims)) as shown:
        bench = Bench(settings, machine, chosen, tuple(sizes), budget, processes, shown.step)
        for one in tested(claims, bench):
            found.append(one)
            shown.done(one.claim.name)
    return found


def claims_table(found: Sequence[Tested]) -> str:
    """Claimed against measured, a block for each claim."""
    return "\n\n".join(map(_block, found))


def _block(one: Tested) -> str:
    claim = one.claim
    title = f"{claim.name}: claimed {range_text(claim)}\n({claim.source})"
    if one.why:
        return f"{title}\nnot measured: {one.why}"
    rows = [(measured.what, interval_text(measured.found), one.says(measured.found)) for measured in one.measured]
    notes = [f"{measured.what}: {measured.note}" for measured in one.measured if measured.note]
    return "\n".join([title, tabulate(rows, tablefmt="plain", disable_numparse=True), *notes])


def range_text(claim: Claim) -> str:
    return f"more than {claim.low:g}" if claim.high == float("inf") else f"{claim.low:g} to {claim.high:g}"


def interval_text(found: Interval) -> str:
    return f"{found.middle:.2f}" + ("" if found.low == found.high else f" ({found.low:.2f} to {found.high:.2f})")


def claims_json(environment: Mapping[str, Any], found: Sequence[Tested]) -> str:
    """Each claim with its figures, and the environment."""
    records = [
        {
            **{key: getattr(one.claim, key) for key in ("name", "source", "low", "high")},
            "measured": [asdict(measured) | {"says": one.says(measured.found)} for measured in one.measured],
            "why": one.why,
        }
        for one in found
    ]
    return json.dumps(jsonable({"environment": environment, "claims": records}), indent=1, allow_nan=False)
