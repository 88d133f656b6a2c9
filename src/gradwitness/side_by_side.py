"""Several problems at once, each in one of a few processes: compilers keep one waiting half of the time."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from threading import Thread

from gradwitness.problem import Candidate, Problem
from gradwitness.report import Address, Case, Report, Row
from gradwitness.run.environment import environment
from gradwitness.run.trial import Failure
from gradwitness.settings import Settings
from gradwitness.verdict import Verdict
from gradwitness.verification import exporter, verify_problems

__all__ = ["verify_side_by_side"]

Given = tuple[Problem, tuple[str, ...]]  # a problem, and the backends that run it
THREADS = "OMP_NUM_THREADS"  # of each process: those of torch and of BLAS
MOST = 61  # that Windows can wait for
ENDED = "the process that verified it ended; --jobs 1 --timeout 600 says where"


def verify_side_by_side(cases: Sequence[Given], settings: Settings, jobs: int) -> Iterator[tuple[int, Report]]:
    """(which of the cases, its report) as they come. Each is as `verify_problems` would have it.

    jobs: processes. Where one of them ends, what was not done yet is an `error`.
    """
    import cloudpickle  # here, as few need it

    jobs = min(jobs, len(cases), MOST)
    sent = [cloudpickle.dumps((case, settings)) for case in cases]
    context = multiprocessing.get_context("spawn")
    with _sharing_cores(jobs), ProcessPoolExecutor(jobs, context, _begin) as pool:
        futures: dict[Future[Report], int] = {pool.submit(_verified, one): i for i, one in enumerate(sent)}
        try:
            for future in as_completed(futures):
                yield futures[future], _report(future, cases[futures[future]], settings)
        except BaseException:  # an interrupt: nobody waits for what is still at work
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.kill()
            raise


def _begin() -> None:
    """In each process: a terminal interrupts every process of a group, and the one that started these ends them; also
    where it is killed itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _verified(sent: bytes) -> Report:
    """In one of the processes. What belongs to that process stays there."""
    import pickle

    case, settings = pickle.loads(sent)
    return replace(verify_problems([case], settings), cases=(), exporter=None)


def _report(future: Future[Report], given: Given, settings: Settings) -> Report:
    """With what a script of one of its rows is made from."""
    problem, backends = given
    try:
        found = future.result()
    except BrokenProcessPool:
        failure = Failure(Verdict.ERROR, ENDED)
        places = [
            (name, dtype, device) for device in settings.devices for dtype in settings.dtypes for name in backends
        ]
        rows = [Row.of(Address(problem.name, name, name, device, dtype), failure) for name, dtype, device in places]
        found = Report(tuple(rows), environment(backends, settings))
    case = Case(problem, {name: Candidate(name) for name in backends}, settings)
    return replace(found, cases=(case,), exporter=exporter)


@contextmanager
def _sharing_cores(jobs: int) -> Iterator[None]:
    """Each process takes its part of the cores, unless the environment says how many."""
    if THREADS in os.environ:
        yield
        return
    os.environ[THREADS] = str(max((os.cpu_count() or 1) // jobs, 1))
    try:
        yield
    finally:
        del os.environ[THREADS]
