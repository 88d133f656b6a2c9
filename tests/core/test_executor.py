"""Cells in workers: the rows are those of a run without them, and a worker that ends costs its own cells alone."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from types import ModuleType
from typing import Any

import pytest

import gradwitness as gw
from gradwitness import verification
from gradwitness.errors import UnknownName
from gradwitness.report import Report
from gradwitness.run import carried
from gradwitness.run.cases import verify_case
from gradwitness.run.environment import environment
from tests.core.executors import BATCH, PARAMS, black_boxes, dying, gradient, loss, rows, traced


def pool(workers: int = 1) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, get_context("spawn"))


@pytest.fixture(scope="module")
def workers() -> Iterator[Executor]:
    with pool() as executor:
        yield executor


class Here(Executor):
    """Does at once, and here, what it is given first, and the rest never."""

    def __init__(self, most: int = 100) -> None:
        self.most, self.futures = most, list[Future[Any]]()

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.futures.append(future)
        if len(self.futures) <= self.most:
            future.set_result(function(*args, **kwargs))
        return future


@pytest.mark.parametrize("what", [traced, black_boxes()], ids=["traced", "black boxes"])
def test_rows_are_those_of_a_run_without_it(workers: Executor, what: Any) -> None:
    options: dict[str, Any] = {"backends": "numpy,torch"} if what is traced else {}
    here = rows(what, **options)
    assert rows(what, workers, **options) == here
    assert ({row.verdict for row in here} == {gw.Verdict.AGREE}) == (what is traced)


def test_what_a_script_is_made_from_stays_here(workers: Executor) -> None:
    report = gw.verify(traced, PARAMS, BATCH, backends="numpy", executor=workers)
    assert report
    assert [case.problem.loss for case in report.cases] == [traced]
    assert report.exporter is not None


def test_a_worker_that_ends_costs_what_it_had_not_finished() -> None:
    candidates = {
        "right": gw.Candidate("numpy", loss, gradient=gradient),
        "dying": gw.Candidate("numpy", loss, gradient=dying),
    }
    with pool() as executor:
        found = rows(candidates, executor)
    assert found[:4] == rows(candidates, dtypes="float64")
    assert [(row.candidate, row.dtype, row.verdict, row.message) for row in found[4:]] == [
        ("right", "float32", "error", carried.ENDED),
        ("dying", "float32", "error", carried.ENDED),
    ]


def test_with_a_timeout_it_costs_the_candidate_alone(workers: Executor) -> None:
    candidates = {
        "right": gw.Candidate("numpy", loss, gradient=gradient),
        "dying": gw.Candidate("numpy", loss, gradient=dying),
    }
    found = rows(candidates, workers, dtypes="float32", timeout=60)
    assert [(row.candidate, row.verdict) for row in found] == [("right", "agree")] * 2 + [("dying", "error")]
    assert "exit status 3" in found[-1].message


def test_what_cannot_be_sent_is_one_error(workers: Executor) -> None:
    lock = threading.Lock()

    def locked(p: Any, b: Any) -> Any:
        with lock:
            return loss(p, b)

    candidate = gw.Candidate("numpy", locked, gradient=gradient)
    with pytest.raises(gw.GradwitnessError, match=r"^loss cannot be sent to a worker \(TypeError: .*lock.*\): let its"):
        rows(candidate, workers)
    assert rows(candidate)


def test_what_a_worker_does_not_find_is_one_error(workers: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("only_here")
    exec("def loss(p, b): return (p['w'] ** 2).sum()", vars(module))  # noqa: S102  # in a module that no file has
    monkeypatch.setitem(sys.modules, "only_here", module)
    with pytest.raises(gw.GradwitnessError, match=r"cannot be read in the worker \(ModuleNotFoundError: .*only_here"):
        rows({"torch": vars(module)["loss"]}, workers)


def test_threads_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    at_work, together, patience = [0], [0], [0.1]
    lock = threading.Lock()

    def counted(cell: Any) -> Report:
        with lock:
            at_work[0] += 1
            together[0] = max(together[0], at_work[0])
        until = time.monotonic() + patience[0]
        while together[0] < 2 and time.monotonic() < until:
            time.sleep(0.01)
        try:
            return verify_case(cell)
        finally:
            with lock:
                at_work[0] -= 1

    monkeypatch.setattr(carried, "verify_case", counted)
    with ThreadPoolExecutor(2) as executor:
        assert rows(traced, executor, backends="numpy") == rows(traced, backends="numpy")
        assert together == [1]
        patience[0] = 60.0
        monkeypatch.setattr(carried, "ONE_AT_A_TIME", threading.Semaphore(2))
        gw.verify(traced, PARAMS, BATCH, backends="numpy", dtypes="float32,float16", executor=executor)
        assert together == [2], "the count would have seen it"


def test_what_is_no_executor_is_one_error() -> None:
    class Client:
        def get_executor(self) -> None: ...

    with pytest.raises(gw.GradwitnessError, match=r"expected a concurrent\.futures\.Executor, got int: give a"):
        rows(traced, 3)  # type: ignore[arg-type]
    with pytest.raises(gw.GradwitnessError, match=r"got Client: give client.get_executor\(\)"):
        rows(traced, Client())  # type: ignore[arg-type]


def test_an_executor_that_is_closed_is_one_error() -> None:
    executor = pool()
    executor.shutdown()
    with pytest.raises(gw.GradwitnessError, match=r"^executor: cannot schedule new futures after shutdown; give"):
        rows(traced, executor)


def test_workers_with_other_versions_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(*given: Any) -> dict[str, Any]:
        found = environment(*given)
        return found | {"versions": found["versions"] | {"numpy": "1.0"}}

    monkeypatch.setattr(verification, "environment", other)
    with pytest.raises(gw.GradwitnessError, match=r"^numpy is 1\.0 here and [\d.]+ in a worker of executor=: let them"):
        rows(traced, Here(), backends="numpy")


def test_an_error_of_ours_comes_back_as_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(cell: Any) -> Report:
        raise UnknownName("thing", "a", ["b", "c"])

    monkeypatch.setattr(carried, "verify_case", refuses)
    with pytest.raises(UnknownName, match="unknown thing 'a'; there is: b, c"):
        rows(traced, Here(), backends="numpy")


def test_after_an_interrupt_nobody_waits_for_the_rest() -> None:
    def interrupt(text: str) -> None:
        raise KeyboardInterrupt

    executor = Here(1)
    with pytest.raises(KeyboardInterrupt):
        rows(traced, executor, backends="numpy", progress=interrupt)
    assert [future.cancelled() for future in executor.futures] == [False, True]
