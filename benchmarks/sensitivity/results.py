"""Everything that is measured, as one record that JSON can hold."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.sensitivity.cells import Cell, correct_cells
from benchmarks.sensitivity.faults import FAULTS, VERSION, Fault, corpus_hash, effect
from benchmarks.sensitivity.layers import FAMILIES, LAYERS, family
from benchmarks.sensitivity.limits import DTYPES, NETWORKS, limits
from benchmarks.sensitivity.trials import trials

__all__ = ["RESULTS", "load", "measure", "save"]

RESULTS = Path(__file__).with_name("results.json")
Results = dict[str, Any]


def measure(*, quick: bool, progress: Callable[[str], None]) -> Results:
    """Run all of it, or with `quick` a sample that takes a minute."""
    faults, cells = list(FAULTS), correct_cells()
    first_of = {family(name): name for name in reversed(LAYERS)}
    measured = [Cell(first_of[name]) for name in FAMILIES]
    if quick:
        faults, cells, measured = faults[:: len(faults) // 3], cells[:: len(cells) // 3], measured[:1]
    networks = NETWORKS[:1] if quick else NETWORKS
    narrow = [cell for cell in cells if cell.seed == 0]
    return {
        "corpus": {"version": VERSION, "hash": corpus_hash(), "faults": [_described(fault) for fault in faults]},
        "cells": {"float64": [str(cell) for cell in cells], "float32": [str(cell) for cell in narrow]},
        "trials": [
            *trials(faults, cells, "float64", progress=progress),
            *trials([f for f in faults if "float32" in f.dtypes], narrow, "float32", progress=progress),
        ],
        "limits": limits(measured, networks, DTYPES[:1] if quick else DTYPES, progress=progress),
        "measured_on": {"layers": [cell.layer for cell in measured], "networks": list(networks)},
        "environment": _environment(["numpy", "torch", "jax", "gradwitness"]),
    }


def _described(fault: Fault) -> dict[str, Any]:
    return {
        "name": fault.name,
        "family": fault.family,
        "layer": fault.layer,
        "kind": fault.kind,
        "regime": fault.regime,
        "reached": fault.reached,
        "dtypes": fault.dtypes,
        "effect": effect(fault),
        "old": fault.old,
        "new": fault.new,
    }


def _environment(packages: Sequence[str]) -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
        "machine": platform.machine(),
        "cores": os.cpu_count(),
    }


def save(results: Results, path: Path = RESULTS) -> None:
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def load(path: Path = RESULTS) -> Results:
    found: Results = json.loads(path.read_text(encoding="utf-8"))
    return found
