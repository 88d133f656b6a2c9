"""NumPy's backward held against torch autograd's, in turn in one run: `python -m benchmarks.ratios`."""

from __future__ import annotations

import os
import platform
import time
from typing import Any

import numpy as np

from benchmarks.cases import CASES, DTYPE, Case, prepared, problem, rows_of, wrong
from gradwitness import registry

__all__ = ["main", "ratio", "seconds_in_turn"]

BACKENDS = ("numpy", "torch")
LIMITS = {"mlp-large": 1.1, "convnet-small": 2.0, "convnet-large": 2.0}
ATTEMPTS = 3
ROUNDS = {"small": 60, "large": 20}  # of each attempt


def seconds_in_turn(case: Case, rounds: int) -> dict[str, list[float]]:
    """What each backend's backward takes on a fresh tape, the backends by turns, so that a busy moment hits all."""
    readies = {name: prepared(case, name, "cpu") for name in BACKENDS}
    placed = {name: ready.place(problem(case).primals) for name, ready in readies.items()}
    taken: dict[str, list[float]] = {name: [] for name in BACKENDS}
    for number in range(rounds + 3):
        for name, ready in readies.items():
            seconds = _backward(ready, placed[name])
            if number >= 3:  # the first ones warm up
                taken[name].append(seconds)
    return taken


def _backward(ready: Any, placed: Any) -> float:
    tape = ready.forward(placed)
    ready.wait(tape)
    started = time.perf_counter()
    ready.wait(ready.backward(tape))
    return time.perf_counter() - started


def ratio(case: Case) -> tuple[float, float, float]:
    """(NumPy's median over torch's, NumPy's median, torch's median) of one attempt."""
    taken = seconds_in_turn(case, ROUNDS[case.size])
    numpy, torch = (float(np.median(taken[name])) for name in BACKENDS)
    return numpy / torch, numpy, torch


def main() -> None:
    """A line per case: the ratio of the medians of each attempt, and the limit that it is to keep."""
    import torch

    blas = {key: value for key, value in os.environ.items() if key.startswith(("OPENBLAS", "OMP_", "MKL_"))}
    print(f"numpy {np.__version__}, torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} cores")
    print(f"torch {torch.get_num_threads()} threads; BLAS variables: {blas or 'none'}")
    for case in CASES:
        if str(case) not in LIMITS:
            continue
        if reasons := [line for name in BACKENDS for line in wrong(rows_of(case, BACKENDS, "cpu"), name)]:
            raise SystemExit("\n".join(reasons))
        with registry.backend("torch").precision("highest"):
            found = sorted(ratio(case) for _ in range(ATTEMPTS))
        middle, numpy, other = found[len(found) // 2]
        print(
            f"{case.described} {DTYPE} backward: numpy {1e3 * numpy:.3f} ms, torch {1e3 * other:.3f} ms, "
            f"ratio {middle:.2f} ({found[0][0]:.2f} to {found[-1][0]:.2f} in {ATTEMPTS} attempts), "
            f"limit {LIMITS[str(case)]}",
            flush=True,
        )


if __name__ == "__main__":
    main()
