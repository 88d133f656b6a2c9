"""Several problems at once, each in one of a few processes: compilers keep one waiting half of the time."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from threading import Thread

from gradwitness.report import Case, Report
from gradwitness.run.carried import carried
from gradwitness.verification import exporter

__all__ = ["verify_side_by_side"]

THREADS = "OMP_NUM_THREADS"  # of each process: those of torch and of BLAS
MOST = 61  # that Windows can wait for
ENDED = "the process that verified it ended; --jobs 1 --timeout 600 says where"


def verify_side_by_side(cases: Sequence[Case], jobs: int) -> Iterator[tuple[int, Report]]:
    """(which of the cases, its report) as they come. Each is as `verify_problems` would have it.

    jobs: processes. Where one of them ends, what was not done yet is an `error`.
    """
    jobs = min(jobs, len(cases), MOST)
    context = multiprocessing.get_context("spawn")
    with _sharing_cores(jobs), ProcessPoolExecutor(jobs, context, _begin) as pool:
        try:
            for number, report in carried(cases, pool, ended=ENDED):
                yield number, replace(report, cases=(cases[number],), exporter=exporter)
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
