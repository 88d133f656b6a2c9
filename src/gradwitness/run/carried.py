"""Cells carried by an executor: a pool of processes or threads, loky's, or a cluster's."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, as_completed
from dataclasses import replace

from gradwitness.errors import GradwitnessError
from gradwitness.graph import Graph
from gradwitness.problem import Problem
from gradwitness.report import Case, Report
from gradwitness.run.cases import verify_case
from gradwitness.run.crossing import Raised
from gradwitness.run.environment import environment
from gradwitness.run.failing import first_lines
from gradwitness.run.problems import rows_of_failure
from gradwitness.run.sending import pickled
from gradwitness.run.trial import Failure
from gradwitness.verdict import Verdict

__all__ = ["carried", "expect_executor"]

ENDED = "its worker ended: with timeout=600 each candidate has a process of its own, and costs no other cell"
ONE_AT_A_TIME = threading.Lock()  # in a worker: precision, dtypes and random states belong to the whole process


def carried(cells: Sequence[Case], executor: Executor, *, ended: str = ENDED) -> Iterator[tuple[int, Report]]:
    """(which of the cells, its report) as they come. Each is as `verify_case` would have it, without its case.

    ended: what is said of a cell whose worker ended before it was done.

    Raises GradwitnessError for what cannot be sent, for an executor that takes nothing any more, and where a worker
    raises it.
    """
    sent = [_pickled(cell) for cell in cells]
    futures = {_submitted(executor, one): number for number, one in enumerate(sent)}
    try:
        for future in as_completed(futures):
            number = futures[future]
            yield number, _report(future, cells[number], ended)
    except BaseException:  # an interrupt: nobody waits for the rest
        for future in futures:
            future.cancel()
        raise


def expect_executor(executor: object) -> None:
    """Raise GradwitnessError for what is no `concurrent.futures.Executor`."""
    if isinstance(executor, Executor):
        return
    mend = "give client.get_executor()" if hasattr(executor, "get_executor") else "give a ProcessPoolExecutor, say"
    raise GradwitnessError(f"executor: expected a concurrent.futures.Executor, got {type(executor).__name__}: {mend}")


def _pickled(cell: Case) -> bytes:
    """With the graph instead of a loss that is traced: who made it need not be there."""
    try:
        found = pickled(replace(cell, problem=_traced(cell.problem)))
    except Exception as error:
        raise GradwitnessError(
            f"{cell.problem.name} cannot be sent to a worker ({first_lines(error)}): let its losses and gradients "
            "refer to nothing that belongs to this process, such as a lock, an open file or a generator; make that "
            "inside them, or verify it without other processes"
        ) from error
    return found


def _traced(problem: Problem) -> Problem:
    """Anew, without what it keeps for later calls; as it is where it cannot be traced, which its rows will say."""
    try:
        graph = None if problem.loss is None else problem.graph
    except Exception:  # noqa: BLE001  # a loss may raise anything
        return problem
    return replace(problem, loss=None if graph is None else Graph(graph.nodes, graph.constants, graph.remarks))


def _submitted(executor: Executor, sent: bytes) -> Future[Report | Raised]:
    try:
        return executor.submit(_verified, sent)
    except BrokenExecutor as error:  # by a cell that was submitted before
        failed: Future[Report | Raised] = Future()
        failed.set_exception(error)
        return failed
    except RuntimeError as error:
        raise GradwitnessError(f"executor: {error}; give one that is open") from None


def _verified(sent: bytes) -> Report | Raised:
    """In a worker. What belongs to that process stays there."""
    with ONE_AT_A_TIME:
        try:
            cell = _unpickled(sent)
            return replace(verify_case(cell), cases=())
        except GradwitnessError as error:
            return Raised.of(error)


def _unpickled(sent: bytes) -> Case:
    try:
        found: Case = pickle.loads(sent)
    except Exception as error:
        raise GradwitnessError(
            f"what was sent cannot be read in the worker ({first_lines(error)}): let the worker find every module that "
            "the losses and gradients are imported from"
        ) from error
    return found


def _report(future: Future[Report | Raised], cell: Case, ended: str) -> Report:
    """What came back; an `error` of every candidate where nothing did."""
    try:
        found = future.result()
    except BrokenExecutor:
        return _lost(cell, ended)
    except Exception as error:  # noqa: BLE001  # each kind of executor has its own
        return _lost(cell, f"its worker gave no answer ({first_lines(error)})")
    if isinstance(found, Raised):
        raise found.error()
    return found


def _lost(cell: Case, why: str) -> Report:
    rows = rows_of_failure(cell.problem, cell.candidates, cell.settings, Failure(Verdict.ERROR, why))
    return Report(tuple(rows), environment(cell.backends, cell.settings))
