"""Inputs that would be changed without a word are refused by name."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import gradwitness as gw

WEIGHTS = {"w": np.ones(2)}
CYCLE: dict[str, Any] = {}
CYCLE["w"] = CYCLE
DEEP: Any = np.ones(2)
for _ in range(10_000):
    DEEP = [DEEP]
MASKED = np.ma.array([1.0, 1e9], mask=[False, True])
REFUSED = {
    "a masked array": (WEIGHTS, {"x": MASKED}, "x: a masked array"),
    "a masked parameter": ({"w": MASKED}, {}, "w: a masked array"),
    "an integer beyond int64": (WEIGHTS, {"i": np.array([2**64 - 1], np.uint64)}, "i: unsigned integers above"),
    "raw bytes": ({"w": np.zeros(2, "V8")}, {}, r"w: expected an array of floats, .* got ndarray of dtype \|V8"),
    "records": ({"w": np.zeros(2, [("a", "f8"), ("b", "f8")])}, {}, "w: expected an array of floats"),
    "a record of one field": ({"w": np.zeros(2, [("a", "f8")])}, {}, "w: expected an array of floats"),
    "integers of four bits": ({"w": np.ones(2).astype(ml_dtypes.int4)}, {}, "w: a parameter must be floating"),
    "a cycle": (CYCLE, {}, "params: nested too deeply, or within itself"),
    "a cycle in the batch": (WEIGHTS, CYCLE, "batch: nested too deeply, or within itself"),
    "a nest without end": (DEEP, {}, "params: nested too deeply"),
    "text": (WEIGHTS, {"x": np.array(["a"])}, "x: expected an array of floats"),
    "objects": (WEIGHTS, {"x": np.array([object()])}, "x: expected an array of floats"),
    "dates": (WEIGHTS, {"x": np.array(["2026-01-01"], "M8[D]")}, "x: expected an array of floats"),
    "an empty index": (WEIGHTS, {"i": np.zeros(0, int)}, "i: no elements"),
    "no parameters": ({}, {}, "params has no leaves"),
}


def loss(p: Any, b: Any) -> float:
    return float(np.sum(p["w"] ** 2))


def verify(params: Any, batch: Any, **options: Any) -> gw.Report:
    return gw.verify(
        {"m": gw.Candidate("numpy", loss, gradient=lambda p, b: {"w": 2 * p["w"]})}, params, batch, **options
    )


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_refused_by_name(what: str) -> None:
    params, batch, says = REFUSED[what]
    with pytest.raises(gw.GradwitnessError, match=f"^{says}"):
        verify(params, batch)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, np.float16, np.float32])
def test_floats_of_any_width_are_taken(dtype: Any) -> None:
    assert verify({"w": np.ones(2).astype(dtype)}, {}, dtypes="float64")


@pytest.mark.parametrize("dtype", [ml_dtypes.int4, np.uint8, np.uint64, np.bool_])
def test_integers_of_any_width_are_data(dtype: Any) -> None:
    assert verify(WEIGHTS, {"i": np.ones(2).astype(dtype)})
