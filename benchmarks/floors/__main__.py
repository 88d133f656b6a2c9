"""Measure the noise floors over the zoo, and draw docs/noise-floor.md: `python -m benchmarks.floors`."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any

import click
from tabulate import tabulate

from benchmarks.floors.measure import Histogram, measured

DOCS = Path(__file__).parents[2] / "docs"
RESULTS = Path(__file__).with_name("results.json")
DTYPES = ("float64", "float32", "bfloat16")
CONFIDENCE = 0.95
VERSIONS = ("numpy", "torch", "jax")


@click.command()
@click.option("--seeds", default=10, show_default=True)
@click.option("--tables", is_flag=True, help="Write the page from the results on record.")
def main(seeds: int, tables: bool) -> None:
    """Verify the zoo at several seeds, in each dtype, and write the distribution of error / floor."""
    if not tables:
        histograms, cells, alarms = measured(DTYPES, seeds, progress=lambda text: click.echo(text, err=True))
        record = {
            "versions": {name: metadata.version(name) for name in VERSIONS},
            "seeds": seeds,
            "cells": cells,
            "alarms": alarms,
            "histograms": [histogram.as_json() for histogram in histograms],
        }
        RESULTS.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    record = json.loads(RESULTS.read_text(encoding="utf-8"))
    page = DOCS / "noise-floor.md"
    page.write_text(written(page.read_text(encoding="utf-8"), record), encoding="utf-8")
    drawn(record, DOCS / "noise-floor.svg")


def written(page: str, record: dict[str, Any]) -> str:
    """The page with its blocks made anew from the record."""
    for name, text in (("run", run(record)), ("distribution", distribution(record))):
        start = page.index(f"<!-- table: {name} -->\n```\n")
        end = page.index("```", page.index("```", start) + 3)
        page = f"{page[:start]}<!-- table: {name} -->\n```\n{text}\n{page[end:]}"
    return page


def run(record: dict[str, Any]) -> str:
    cells, alarms = record["cells"], len(record["alarms"])
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    lines = [f"{versions}; seeds 0 to {record['seeds'] - 1}; cells (network x seed x backend x dtype): {cells}"]
    if alarms:
        return "\n".join([*lines, f"alarms: {alarms}", *record["alarms"]])
    bound = 1 - (1 - CONFIDENCE) ** (1 / cells)
    return "\n".join([*lines, f"alarms: none, so their rate is below {bound:.2%}, with {CONFIDENCE:.0%} confidence"])


def distribution(record: dict[str, Any]) -> str:
    headers = ("dtype", "backend", "elements", "gradients", "below 0.1", "0.1 to 1", "1 to 10", "largest", "use")
    body: list[list[Any]] = []
    histograms = [Histogram.of_json(given) for given in record["histograms"]]
    for histogram in sorted(histograms, key=lambda h: (DTYPES.index(h.dtype), h.backend, not h.large)):
        shares = [histogram.share(low, high) for low, high in ((1e-30, 0.1), (0.1, 1), (1, 10))]
        total = sum(histogram.counts.values()) + histogram.exact
        shares[0] += histogram.exact / max(total, 1)
        body.append(
            [
                histogram.dtype,
                histogram.backend,
                "16 or more" if histogram.large else "fewer",
                total,
                *(f"{share:.2%}" for share in shares),
                f"{histogram.largest:.2g}",
                f"{histogram.use:.2f}",
            ]
        )
    return tabulate(body, headers, tablefmt="simple")


def drawn(record: dict[str, Any], file: Path) -> None:
    """The distribution of tensors of 16 elements or more, a panel per dtype and a line per backend."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    histograms = [h for h in map(Histogram.of_json, record["histograms"]) if h.large]
    backends = sorted({h.backend for h in histograms})
    with rc_context({"svg.hashsalt": "gradwitness"}):
        figure = Figure(figsize=(9, 3), layout="constrained")
        for number, dtype in enumerate(DTYPES, start=1):
            panel = figure.add_subplot(1, len(DTYPES), number)
            for histogram in (h for h in histograms if h.dtype == dtype):
                total = sum(histogram.counts.values())
                places = range(min(histogram.counts), max(histogram.counts) + 2)
                edges = [10 ** (place / 10) for place in places]
                panel.stairs(
                    [histogram.counts[place] / total for place in places][:-1],
                    edges,
                    label=histogram.backend,
                    color=f"C{backends.index(histogram.backend)}",
                )
            panel.set(xscale="log", xlim=(1e-3, 20), title=dtype, xlabel="error / floor, by norm")
            panel.axvspan(0.1, 10, color="0.93", zorder=0)
            panel.legend(frameon=False)
            if number == 1:
                panel.set_ylabel("part of the gradients")
        figure.savefig(file, metadata={"Date": None})


if __name__ == "__main__":
    main()
