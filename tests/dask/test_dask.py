"""A local Dask cluster, and loky, carry the cells: `nox -s dask`. What is not installed is skipped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import gradwitness as gw
from tests.core.executors import PARAMS, black_boxes, dying, gradient, loss, rows, traced

WHY = "is not installed: nox -s dask"


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Of two processes with two threads each, whose cells must take turns."""
    distributed = pytest.importorskip("distributed", reason=f"Dask {WHY}")
    import dask

    here: dict[str, Any] = {"processes": True, "dashboard_address": None, "memory_limit": 0}
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),  # as often a worker may die of one cell
        distributed.LocalCluster(n_workers=2, threads_per_worker=2, **here) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.mark.parametrize("what", [traced, black_boxes()], ids=["traced", "black boxes"])
def test_rows_are_those_of_a_run_without_it(client: Any, what: Any) -> None:
    how: dict[str, Any] = {"backends": "numpy,torch,jax"} if what is traced else {}
    how |= {"dtypes": "float64,float32,float16", "reference": "extended"}
    assert rows(what, client.get_executor(), **how) == rows(what, **how)


def test_a_worker_that_ends_costs_its_own_cell_alone(client: Any) -> None:
    candidates = {"dying": gw.Candidate("numpy", loss, gradient=dying)}
    found = rows(candidates, client.get_executor())
    assert found[:2] == rows({"dying": gw.Candidate("numpy", loss, gradient=gradient)}, dtypes="float64")
    assert [(row.dtype, row.verdict) for row in found[2:]] == [("float32", "error")]
    assert found[2].message.startswith("its worker gave no answer (KilledWorker: ")


def test_a_client_is_told_what_to_give(client: Any) -> None:
    with pytest.raises(gw.GradwitnessError, match=r"got Client: give client.get_executor\(\)"):
        gw.verify(traced, PARAMS, executor=client)


def test_loky_does_as_well() -> None:
    loky = pytest.importorskip("loky", reason=f"loky {WHY}")
    with loky.ProcessPoolExecutor(2) as executor:
        assert rows(black_boxes(), executor) == rows(black_boxes())
