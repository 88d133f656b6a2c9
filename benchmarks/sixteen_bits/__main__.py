"""Measure how small an error of a 16-bit kernel is surely caught, and write docs/sixteen-bits.md."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from benchmarks.sixteen_bits.kernels import KERNELS
from benchmarks.sixteen_bits.measure import measured
from benchmarks.sixteen_bits.page import write

RESULTS = Path(__file__).with_name("results.json")
DTYPES = ("bfloat16", "float16")
EVERY = 10  # runs, after which what was measured is kept


def kept(results: Path) -> dict[str, Any]:
    return json.loads(results.read_text(encoding="utf-8")) if results.exists() else {}


def keep(results: Path, found: dict[str, Any]) -> None:
    every = {**kept(results), f"{found['kernel']} {found['dtype']}": found}
    results.write_text(json.dumps(every, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kernels", nargs="*", default=list(KERNELS), help=", ".join(KERNELS))
    parser.add_argument("--dtype", nargs="*", default=DTYPES)
    parser.add_argument("--runs", type=int, default=200, help="right runs of each kernel in each dtype")
    parser.add_argument("--draws", type=int, default=20, help="of these, in which faults are planted")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where what is measured is kept")
    parser.add_argument(
        "--page", action="store_true", help="write the page from what was measured, and measure nothing"
    )
    given = parser.parse_args()
    for dtype in () if given.page else given.dtype:
        for name in given.kernels:
            started = time.process_time()
            for found in measured(name, dtype, seeds=given.runs, draws=given.draws):
                if found["runs"] % EVERY == 0 or found["runs"] == given.runs:
                    keep(given.results, found)
            print(
                f"{name} {dtype}: {found['alarms']['gradwitness']}, {time.process_time() - started:.0f} s", flush=True
            )
    if given.page or given.results == RESULTS:
        write(kept(RESULTS))


if __name__ == "__main__":
    main()
