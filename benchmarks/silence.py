"""Does `gradwitness diff` stay silent where nothing changed, and tell a backward that takes 1.5 times as long?

`python -m benchmarks.silence [--runs N] [--sizes small,medium] [--keep DIR] [-- OPTION ...]` times the same code again
and again, and holds each run against the one before; what follows `--` goes to `gradwitness bench`. Then it times an
mlp of its own twice, the second time with half of its backward's time added to it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from benchmarks import slowed
from gradwitness.changes import changes, read

__all__ = ["main"]

BACKENDS = "numpy,torch,jax"
HALF = 0.5  # of a backward, that is added to it
SLOWED = f"{slowed.__file__}:problem"


def timed(file: Path, *arguments: str, extra: float = 0.0) -> Path:
    """The file, with the times of a run."""
    if not file.is_file():
        command = [sys.executable, "-m", "gradwitness", "bench", *arguments, "--json", str(file)]
        done = subprocess.run(
            command, env=os.environ | {slowed.SECONDS: str(extra)}, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} exited with {done.returncode}:\n{done.stdout}{done.stderr}")
    return file


def said(old: Path, new: Path) -> list[str]:
    """What diff says of two runs, a line each."""
    found = changes(read(old), read(new))
    counted = [str(change) for change in found if change.worse is not None]
    print(f"{old.stem} -> {new.stem}: {len(counted)} changes", *found, sep="\n    ", flush=True)
    return counted


def silent(folder: Path, size: str, runs: int, options: Sequence[str]) -> int:
    """How many of the runs are as the one before."""
    arguments = ("mlp", "--size", size, "--backend", BACKENDS, *options)
    files = [timed(folder / f"{size}-{number}.json", *arguments) for number in range(runs)]
    return sum(not said(old, new) for old, new in pairwise(files))


def told(folder: Path, options: Sequence[str]) -> bool:
    """Whether a backward with half of its time added is worse."""
    arguments = (SLOWED, "--backend", "torch", *options)
    old = timed(folder / "as-it-is.json", *arguments)
    own = next(one for one in json.loads(old.read_text())["timings"] if one["candidate"] == "torch")
    new = timed(folder / "slowed.json", *arguments, extra=HALF * own["times"]["backward"]["middle"])
    return any("torch: backward is" in line and line.startswith("worse") for line in said(old, new))


def main() -> None:
    """A line per comparison, with what changed; then how many were silent, and whether the planted one was told."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=11)
    parser.add_argument("--sizes", default="small,medium")
    parser.add_argument("--keep", type=Path, help="where the runs are kept, and taken from if they are there")
    parser.add_argument("options", nargs="*")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        planted = told(folder, given.options)
        counts = {size: silent(folder, size, given.runs, given.options) for size in given.sizes.split(",")}
    for size, count in counts.items():
        print(f"mlp {size}: silent in {count} of {given.runs - 1}")
    print(f"1.5 times as long: {'told' if planted else 'not told'}")
    raise SystemExit(0 if planted and all(count == given.runs - 1 for count in counts.values()) else 1)


if __name__ == "__main__":
    main()
