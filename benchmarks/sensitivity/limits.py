"""The smallest error that gradwitness surely catches: planted in a right gradient, ever smaller, until it passes.

Two errors: of a whole tensor, which becomes (1 + e) times itself, and of one coordinate, drawn at random, to which e
times the tensor's largest element is added. Caught means `disagree`: `inconclusive` is not counted. e goes down in
powers of two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

import gradwitness as gw
from benchmarks.sensitivity.arrays import torch_namespace
from benchmarks.sensitivity.cells import Cell
from benchmarks.sensitivity.forms import arguments, autograd_candidate, function_candidate, layer_inputs
from benchmarks.sensitivity.layers import LAYERS
from gradwitness import registry, tree
from gradwitness.networks import network
from gradwitness.run.problems import verify_problem
from gradwitness.settings import Settings

__all__ = ["DTYPES", "NETWORKS", "limits"]

Array = np.ndarray[Any, Any]
DTYPES = ("float64", "float32", "bfloat16")
NETWORKS = ("article", "mlp", "convnet", "lstm", "transformer")
WAYS = {"whole": ("alone",), "coordinate": ("alone", "beside")}  # another candidate matters where places are sampled
SMALLEST, LARGEST = -52, 1  # exponents of two; what is not caught at the largest is never caught
ZERO = 1e-30  # of the largest gradient: what 256 bits leave of one that is zero by structure
Limit = dict[str, Any]


def whole(gradient: Array, e: float) -> Array:
    return np.asarray(gradient * (1 + e))


def coordinate(gradient: Array, e: float) -> Array:
    moved = gradient.copy()
    place = int(np.random.default_rng(gradient.size).integers(gradient.size))
    moved.reshape(-1)[place] += e * np.max(np.abs(gradient))
    return moved


ERRORS: dict[str, Callable[[Array, float], Array]] = {"whole": whole, "coordinate": coordinate}


def limits(
    cells: Sequence[Cell],
    networks: Sequence[str],
    dtypes: Sequence[str] = DTYPES,
    *,
    progress: Callable[[str], None],
) -> list[Limit]:
    """One record for each way of judging, dtype and error; e is None for a tensor where none is caught."""
    found = []
    for dtype in dtypes:
        for error in ERRORS:
            progress(f"{dtype}: smallest error of {error} that is caught")
            for how in WAYS[error]:
                tensors = [t for cell in cells for t in _of_black_box(cell, dtype, error, beside=how == "beside")]
                found.append(_summary(how, dtype, error, tensors))
            tensors = [t for name in networks for t in _of_traced(name, dtype, error)]
            found.append(_summary("traced", dtype, error, tensors))
    return found


def _summary(how: str, dtype: str, error: str, tensors: list[Limit]) -> Limit:
    caught = sorted((t for t in tensors if t["caught"] is not None), key=lambda t: t["caught"])
    printed = [t["printed"] for t in tensors if t["printed"] is not None]
    return {
        "how": how,
        "dtype": dtype,
        "error": error,
        "tensors": len(tensors),
        "median": float(np.median([t["caught"] for t in caught])) if caught else None,
        "worst": caught[-1]["caught"] if caught else None,
        "worst_at": caught[-1]["tensor"] if caught else None,
        "never": [t["tensor"] for t in tensors if t["caught"] is None],
        "printed_median": float(np.median(printed)) if printed else None,
        "beyond_printed": [t["tensor"] for t in tensors if error == "whole" and _exceeds(t)],
    }


def _exceeds(tensor: Limit) -> bool:
    """Whether it takes an error beyond the printed limit, which is by norm; e is known up to a factor of two."""
    if tensor["printed"] is None or tensor["caught"] is None:
        return tensor["printed"] is not None
    return bool(tensor["caught"] > 2 * tensor["printed"])


def _of_black_box(cell: Cell, dtype: str, error: str, *, beside: bool) -> list[Limit]:
    """By bisection, for all tensors of a layer at once, as each has a verdict of its own. The error is one of the
    formula: it is there in every dtype in which gradwitness runs the candidate."""
    names = list(LAYERS[cell.layer].floats)
    low, high = dict.fromkeys(names, SMALLEST - 1), dict.fromkeys(names, LARGEST + 1)
    printed: dict[str, float | None] = {}
    while any(high[name] - low[name] > 1 for name in names):
        middle = {name: (low[name] + high[name]) // 2 for name in names}
        rows = _judged(cell, dtype, ERRORS[error], {name: 2.0**k for name, k in middle.items()}, beside=beside)
        for name, row in rows.items():
            (high if row.verdict is gw.Verdict.DISAGREE else low)[name] = middle[name]
            printed[name] = row.limit / row.reference if row.limit and row.reference else None
    return [
        {
            "tensor": f"{cell.layer} {name}",
            "caught": 2.0 ** high[name] if high[name] <= LARGEST else None,
            "printed": printed[name],
        }
        for name in names
    ]


def _judged(
    cell: Cell, dtype: str, error: Callable[[Array, float], Array], sizes: Mapping[str, float], *, beside: bool
) -> dict[str, gw.Row]:
    """The verdict on each gradient of a layer in torch, each with an error of its own size."""
    layer = LAYERS[cell.layer]()

    def gradient(params: Any, batch: Any) -> dict[str, Array]:
        _, saved = layer.forward(torch_namespace(), *layer_inputs(layer, params, batch))
        right = layer.backward(torch_namespace(), saved, batch["cotangent"])
        return {name: error(_host(g), sizes[name]) for name, g in zip(layer.floats, right, strict=True)}

    mine = gw.Candidate("torch", function_candidate(layer).loss, gradient=gradient)
    candidates = {"mine": mine, "autograd": autograd_candidate(layer)} if beside else {"mine": mine}
    report = gw.verify(candidates, *arguments(cell), dtypes=dtype)
    return {row.parameter: row for row in report.rows if row.candidate == "mine" and row.parameter is not None}


def _of_traced(name: str, dtype: str, error: str) -> list[Limit]:
    """With a candidate for each size of the error, all held against one reference. Here the error is in the dtype.

    A tensor that is zero by structure, as a bias before batch norm, is left out: any part of nothing is nothing.
    """
    problem = network(name)
    exponents = range(SMALLEST, LARGEST + 1)
    candidates = {str(k): _planted_autograd(problem, dtype, partial(_with, ERRORS[error], 2.0**k)) for k in exponents}
    rows = verify_problem(problem, candidates, Settings(dtypes=(dtype,)))
    largest = max(row.reference or 0.0 for row in rows)
    rows = [row for row in rows if (row.reference or 0.0) > ZERO * largest]
    of_each = {path: [row for row in rows if row.parameter == path] for path in problem.primals}
    return [_smallest(f"{name} {path}", own) for path, own in of_each.items() if own]


def _smallest(tensor: str, rows: Iterable[gw.Row]) -> Limit:
    """The smallest error that is caught as every larger one is."""
    caught, printed = None, None
    for row in sorted(rows, key=lambda row: -int(row.candidate)):
        printed = row.limit / row.reference if row.limit and row.reference else None
        if row.verdict is not gw.Verdict.DISAGREE:
            break
        caught = 2.0 ** int(row.candidate)
    return {"tensor": tensor, "caught": caught, "printed": printed}


def _planted_autograd(problem: gw.Problem, dtype: str, planted: Callable[[Array], Array]) -> gw.Candidate:
    """torch's own gradient of a traced loss, with the error in every tensor."""
    loss = registry.installed("torch").lower(problem.graph)
    constants = {path: torch.tensor(x) for path, x in problem.graph.constants.items()}

    def gradient(params: Any, batch: Any) -> Any:
        leaves = {**constants, **tree.flatten(params, "params"), **tree.flatten(batch, "batch")}
        leaves = {path: x.to(getattr(torch, dtype)) if x.is_floating_point() else x for path, x in leaves.items()}
        wanted = {path: leaves[path].detach().requires_grad_() for path in problem.differentiated}
        found = torch.autograd.grad(loss({**leaves, **wanted}), list(wanted.values()))
        right = {path: planted(_host(g)) for path, g in zip(wanted, found, strict=True)}
        return tree.rebuild(params, right, "params")

    return gw.Candidate("torch", gradient=gradient)


def _with(error: Callable[[Array, float], Array], e: float, gradient: Array) -> Array:
    return error(gradient, e)


def _host(tensor: Any) -> Array:
    """Exactly, in float64."""
    return np.asarray(tensor.detach().double().numpy())
