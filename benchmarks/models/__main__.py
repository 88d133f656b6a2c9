"""Verify published architectures, as they are, on every backend, and write docs/models.md and the README's table."""

from __future__ import annotations

import argparse
import json
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tabulate import tabulate

import gradwitness as gw
from benchmarks.models.architectures import ARCHITECTURES
from gradwitness import tree

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).with_name("results.json")
PAGE = ROOT / "docs" / "models.md"
README = ROOT / "README.md"
DTYPES = ("float64", "float32", "bfloat16")
HEADER = ["model", "tensors", "ops", *DTYPES, "CPU s"]


def measured(name: str, derivative: str = "gradient") -> dict[str, Any]:
    """One architecture through every backend in every dtype; another derivative than the gradient in float64, and not
    through torch.compile, which has none."""
    torch.manual_seed(0)
    backend, loss, params, batch = ARCHITECTURES[name]()
    leaves = [np.asarray(x) for x in tree.flatten(params, "params").values()]
    started = time.process_time()
    how: dict[str, Any] = {"backends": "all", "dtypes": DTYPES}
    if derivative != "gradient":
        how = {"backends": ["numpy", "torch", "jax"], "dtypes": "float64", "derivative": derivative}
    report = gw.verify({backend: loss}, params, batch, name=name, **how)
    return {
        "model": name,
        "tensors": len(leaves),
        "parameters": sum(x.size for x in leaves),
        "ops": max((row.captured or 0 for row in report.rows), default=0),
        "seconds": time.process_time() - started,
        "verdicts": {dtype: _verdicts(report, dtype) for dtype in DTYPES},
        "not captured": sorted({row.not_captured for row in report.rows if row.not_captured}),
        "failures": [line for line in repr(report).splitlines()[1:] if " agree" not in line],
    }


def _verdicts(report: gw.Report, dtype: str) -> dict[str, int]:
    """How many gradients, or backends that gave none, got which verdict; NumPy has no bfloat16."""
    rows = [row for row in report.rows if row.dtype == dtype and not (row.backend == "numpy" and dtype == "bfloat16")]
    return dict(Counter(str(row.verdict) for row in rows))


def line(found: dict[str, Any]) -> list[Any]:
    cells = [", ".join(f"{n} {verdict}" for verdict, n in found["verdicts"][dtype].items()) for dtype in DTYPES]
    return [found["model"], found["tensors"], found["ops"], *cells, round(found["seconds"])]


def write(measured_now: list[dict[str, Any]]) -> None:
    """The page, the README's table and the record, in which others stay as they were last measured."""
    found = {one["model"]: one for one in [*json.loads(RESULTS.read_text(encoding="utf-8")), *measured_now]}
    results = [found[name] for name in ARCHITECTURES if name in found]
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    table = tabulate([line(found) for found in results], HEADER)
    for path in (PAGE, README):
        text = path.read_text(encoding="utf-8")
        path.write_text(
            re.sub(r"(<!-- table: models -->\n```\n).*?(```\n)", rf"\g<1>{table}\n\g<2>", text, flags=re.DOTALL),
            encoding="utf-8",
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=list(ARCHITECTURES), help=", ".join(ARCHITECTURES))
    parser.add_argument("--derivative", default="gradient", help="another one, which is printed and not written")
    parser.add_argument("--write", action="store_true", help="write the page and the README's table")
    given = parser.parse_args()
    if given.write and given.derivative != "gradient":
        parser.error("--write is for gradients")
    results = []
    for name in given.models:
        results.append(measured(name, given.derivative))
        print(tabulate([line(results[-1])], HEADER if len(results) == 1 else [], tablefmt="plain"), flush=True)
        for failure in results[-1]["failures"] + results[-1]["not captured"]:
            print("   ", failure, flush=True)
    if given.write:
        write(results)


if __name__ == "__main__":
    main()
