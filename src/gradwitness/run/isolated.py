"""A candidate in a subprocess of its own: what hangs, is killed or crashes there is an error here, and nothing more.

The subprocess runs `answering`. It is started as a program, and not as multiprocessing starts one, which would import
the user's script again.
"""

from __future__ import annotations

import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from gradwitness import registry
from gradwitness.arithmetic import RoundingErrors
from gradwitness.dtypes import Array
from gradwitness.errors import GradwitnessError, NoAnswerError
from gradwitness.graph import Graph
from gradwitness.problem import Candidate, Problem
from gradwitness.protocol import CustomRule, Primals
from gradwitness.run.answering import TELL_WHERE
from gradwitness.run.crossing import Channel, Held, Raised
from gradwitness.run.failing import LIBRARIES, first_lines
from gradwitness.run.sending import pickled
from gradwitness.settings import Settings

__all__ = ["Answering", "Isolated", "IsolatedPerturbing", "ending", "isolate", "start"]

START = 120.0  # seconds that Python and the framework may take to start, which is no doing of a candidate
LONGEST = 1e6  # seconds that a system call can wait for
CRASHES = ("SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT")
OURS = str(Path(__file__).parent)
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")  # read when a library is loaded
MARK = "GRADWITNESS_SUBPROCESS"  # in the environment of all that a candidate starts
FRAME = re.compile(r'  File "(?P<file>.+)", line (?P<line>\d+) in (?P<function>.+)')  # as faulthandler writes it
MEND = "leave timeout= out, or move the function into a module, which the subprocess imports"

_started: ContextVar[list[weakref.finalize[Any, Any]] | None] = ContextVar("_started", default=None)


def isolate(
    candidate: Candidate,
    problem: Problem,
    dtype: str,
    device: str,
    settings: Settings,
    *,
    answering: Answering | None = None,
) -> Isolated:
    """The candidate, prepared in a subprocess of its own, which holds the precision of `settings`.

    answering: the subprocess, if it was started before.

    Raises NoAnswerError where preparing takes longer than settings.timeout or ends the subprocess; GradwitnessError for
    a candidate that cannot be sent there, or whose framework has other settings there; and what preparing raises.
    """
    sent, precision = _pickled(candidate, problem), settings.precision
    answering = answering or start(candidate.backend, settings)
    perturbs, there = answering.ask("prepare", sent, dtype, device, precision)
    _expect_same(registry.backend(candidate.backend).settings(precision), there)
    return IsolatedPerturbing(answering) if perturbs else Isolated(answering)


def start(backend: str, settings: Settings, *, threads: int | None = None) -> Answering:
    """A subprocess that has imported a backend's framework.

    threads: how many it may have, on as many cores; by default as many as this process.
    Raises NoAnswerError where it does not start.
    """
    assert settings.timeout is not None
    answering = Answering(settings.timeout, threads)
    answering.ask("load", backend, settings.precision, within=START)
    return answering


@contextmanager
def ending() -> Iterator[None]:
    """Every subprocess that was started inside ends with it, whatever still refers to it."""
    found: list[weakref.finalize[Any, Any]] = []
    token = _started.set(found)
    try:
        yield
    finally:
        _started.reset(token)
        for end in found:
            end()


class Isolated:
    """A Prepared in a subprocess. What stays on the device stays there, and is a `Held` here.

    setup_seconds: what preparing took there, without the start of the subprocess.
    """

    def __init__(self, answering: Answering) -> None:
        self._answering, self.setup_seconds = answering, answering.setup_seconds

    def _ask(self, name: str, *args: Any, **kwargs: Any) -> Any:
        answer = self._answering.ask(name, *args, **kwargs)
        self.setup_seconds = self._answering.setup_seconds
        return answer

    def value(self, params: Primals) -> float:
        found: float = self._ask("value", params)
        return found

    def value_and_gradient(self, params: Primals) -> tuple[float, dict[str, Array | None]]:
        found: tuple[float, dict[str, Array | None]] = self._ask("value_and_gradient", params)
        return found

    def place(self, params: Primals) -> Any:
        return self._ask("place", params)

    def forward(self, placed: Any) -> Any:
        return self._ask("forward", placed)

    def backward(self, tape: Any) -> Any:
        return self._ask("backward", tape)

    def forward_backward(self, placed: Any) -> Any:
        return self._ask("forward_backward", placed)

    def wait(self, x: Any) -> None:
        self._ask("wait", x)

    def custom_rules(self, params: Primals) -> tuple[CustomRule, ...] | None:
        found: tuple[CustomRule, ...] | None = self._ask("custom_rules", dict(params))
        return found

    def why_missing(self) -> str:
        found: str = self._ask("why_missing")
        return found

    def captured(self, params: Primals, *, stops: bool = False) -> Graph:
        found: Graph = self._ask("captured", dict(params), stops=stops)
        return found

    def is_forgetful(self, params: Primals) -> bool | None:
        found: bool | None = self._ask("is_forgetful", dict(params))
        return found

    def fetch(self, gradient: Any) -> dict[str, Array | None]:
        found: dict[str, Array | None] = self._ask("fetch", gradient)
        return found

    def apply(self, function: Callable[..., Any], *args: Any) -> Any:
        """What a function of a module makes there of the Prepared and these arguments."""
        return self._ask("apply", function, *args)

    def pause(self) -> None:
        """None of its threads runs until it is resumed, nor any process that it has started."""
        self._answering.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._answering.signal(signal.SIGCONT)

    def end(self) -> None:
        """End its process."""
        self._answering.end()


class IsolatedPerturbing(Isolated):
    """One that is `Perturbing` as well; each run is an answer of its own."""

    def perturbed(
        self, params: Primals, errors: RoundingErrors, *, runs: int, seed: Sequence[int], gradients: bool = True
    ) -> Iterator[tuple[float, dict[str, Array | None]]]:
        found = self._ask("perturbed", params, errors, runs=runs, seed=seed, gradients=gradients)
        while (run := self._ask("perturbed_run", found)) is not None:
            yield run


class Answering:
    """A subprocess that answers calls, each within `timeout` seconds. It ends with this object, or with this process.

    After a call that got no answer, every further one raises the same NoAnswerError.
    """

    setup_seconds = 0.0

    def __init__(self, timeout: float, threads: int | None = None) -> None:
        self._timeout = timeout
        self._lost = ""
        self._released: list[int] = []
        here, there = socket.socketpair()
        self._channel, mark = Channel(here), uuid.uuid4().hex
        self._stacks = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the subprocess
        with there:
            self._process = _start(there.fileno(), self._stacks.fileno(), mark, threads)
        self.end = weakref.finalize(self, _end, self._process, self._channel, self._stacks, mark)
        started = _started.get()
        if started is not None:
            started.append(self.end)

    def signal(self, number: int) -> None:
        """Send a signal to it and all that it has started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def ask(self, name: str, *args: Any, within: float | None = None, **kwargs: Any) -> Any:
        """The answer to one call. Raises what was raised there, and NoAnswerError where there is none."""
        if self._lost:
            raise NoAnswerError(self._lost)
        try:
            answer, self.setup_seconds = self._exchange((name, args, kwargs, self._take_released()), name, within)
        except NoAnswerError as error:
            self._lost = str(error)
            raise
        except BaseException as error:  # an interrupt: the answer would be taken for that to the next call
            self._lost = f"{type(error).__name__} while it was waited for"
            raise
        finally:
            if self._lost:
                self.end()
        if isinstance(answer, Raised):
            raise answer.error()
        if isinstance(answer, Held):
            weakref.finalize(answer, self._released.append, answer.number).atexit = False
        return answer

    def _exchange(self, request: Any, name: str, within: float | None) -> Any:
        deadline = time.monotonic() + min(within or self._timeout, LONGEST)
        try:
            self._channel.send(pickle.dumps(request), deadline=deadline)
            return pickle.loads(self._channel.receive(deadline=deadline))
        except TimeoutError:
            if self._process.poll() is None:
                raise NoAnswerError(self._late(name, within)) from None
            raise NoAnswerError(self._how_it_ended(name)) from None  # what it started holds the channel open
        except (EOFError, OSError):
            raise NoAnswerError(self._how_it_ended(name)) from None

    def _take_released(self) -> list[int]:
        taken, self._released[:] = list(self._released), []
        return taken

    def _late(self, name: str, within: float | None) -> str:
        if within is not None:
            return f"its subprocess did not start within {within:g} s"
        os.kill(self._process.pid, TELL_WHERE)
        given_up = time.monotonic() + 1.0
        while not _where(self._stacks) and time.monotonic() < given_up:
            time.sleep(0.01)
        time.sleep(0.05)  # the stack is written frame by frame
        where = f"in {name}{_where(self._stacks)}"
        return f"no answer within {self._timeout:g} s (timeout={self._timeout:g}), {where}"

    def _how_it_ended(self, name: str) -> str:
        try:
            status = self._process.wait(10.0)
        except subprocess.TimeoutExpired:
            return f"it closed the channel of its subprocess, in {name}"
        where = f"in {name}{_where(self._stacks)}"
        if status >= 0:
            return f"it ended the interpreter with exit status {status}, {where}"
        by = _signal_name(-status)
        if by == "SIGKILL":
            return f"it was killed (SIGKILL), perhaps because memory ran out, {where}"
        return f"it crashed the interpreter ({by}), {where}" if by in CRASHES else f"it was killed ({by}), {where}"


def _start(channel: int, stacks: int, mark: str, threads: int | None) -> subprocess.Popen[bytes]:
    """A fresh interpreter that looks for modules where this one does, in a process group of its own.

    Unbuffered, so that what is printed is seen even if it crashes. mark: what it and all that it starts have in their
    environment.
    """
    cores = sorted(os.sched_getaffinity(0))[:threads] if threads and hasattr(os, "sched_getaffinity") else None
    program = f"""import os, sys
if {cores}: os.sched_setaffinity(0, {cores})
sys.path[:] = {sys.path!r}
from gradwitness.run.answering import answer_calls
answer_calls({channel}, {stacks})"""
    return subprocess.Popen(
        [sys.executable, "-u", "-c", program],
        stdin=subprocess.DEVNULL,
        pass_fds=(channel, stacks),
        process_group=0,  # in the same session, so that the system ends it with this process even while it is stopped
        env=os.environ | {MARK: mark} | (dict.fromkeys(THREADS, str(threads)) if threads else {}),
    )


def _end(process: subprocess.Popen[bytes], channel: Channel, stacks: IO[bytes], mark: str) -> None:
    """Kill it with all that it started: its process group, and what left that."""
    channel.close()
    with suppress(ProcessLookupError, PermissionError):  # all gone, or not yet waited for
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    stacks.close()
    for other in _marked(mark):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(other, signal.SIGKILL)


def _marked(mark: str) -> Iterator[int]:
    """The processes that have this mark in their environment, where /proc tells."""
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if f"{MARK}={mark}".encode() in environment.read_bytes().split(b"\0"):
                yield int(environment.parent.name)


def _where(stacks: IO[bytes]) -> str:
    """The innermost line of a user's own, as far as a stack was written."""
    written = os.pread(stacks.fileno(), 1 << 20, 0).decode("utf-8", "replace")
    frames = list(FRAME.finditer(written))
    frames = [frame for frame in frames if not frame["file"].startswith(OURS)]  # where it waits for the next call
    own = [frame for frame in frames if not frame["file"].startswith((*LIBRARIES, "<frozen"))]
    frame = next(iter(own or frames), None)
    return "" if frame is None else f" at {frame['file']}:{frame['line']}, {frame['function']}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _pickled(candidate: Candidate, problem: Problem) -> bytes:
    """Both, with the graph instead of a loss that was traced; anew, without what they keep for later calls."""
    loss = problem.graph if candidate.loss is None and problem.loss is not None else candidate.loss
    if isinstance(loss, Graph):
        loss = Graph(loss.nodes, loss.constants)
    try:
        found = pickled((replace(candidate, loss=loss), replace(problem, loss=None)))
    except Exception as error:
        raise GradwitnessError(
            f"the candidate cannot be sent to the subprocess that timeout= asks for ({first_lines(error)}): {MEND}"
        ) from error
    return found


def _expect_same(here: dict[str, str], there: dict[str, str]) -> None:
    """Raise GradwitnessError unless the framework's precision settings are what they are in this process."""
    for name, value in here.items():
        if there.get(name) != value:
            raise GradwitnessError(
                f"{name} is {value} here and {there.get(name)} in the subprocess that timeout= asks for: a "
                "setting made by a call does not reach it; leave timeout= out, or set it in the module of the loss"
            )
