"""Candidates in subprocesses: one that hangs, is killed or crashes is an error of its own, and none is left over."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import gradwitness as gw
from gradwitness.arithmetic import Arithmetic, RoundingErrors
from gradwitness.errors import GradwitnessError, NoAnswerError, UnsupportedError
from gradwitness.problem import Candidate, Problem
from gradwitness.protocol import Perturbing, Prepared
from gradwitness.run import isolated
from gradwitness.run.crossing import Held
from gradwitness.run.preparing import prepare
from gradwitness.settings import Settings

if not Path("/proc").is_dir():
    pytest.skip("looks for left-over processes in /proc", allow_module_level=True)

DRAW = np.random.default_rng(0).standard_normal
PARAMS = {"w": DRAW((4, 3)), "b": DRAW(4)}
BATCH = {"x": DRAW((8, 3)), "y": DRAW((8, 4))}
LONG = 60.0  # seconds that a right answer takes on no machine

Gradient = dict[str, Any]


def loss(p: Any, d: Any) -> Any:
    return ((np.tanh(d["x"] @ p["w"].T + p["b"]) - d["y"]) ** 2).mean()


def gradient(p: Any, d: Any) -> Gradient:
    hidden = np.tanh(d["x"] @ p["w"].T + p["b"])
    g = 2 * (hidden - d["y"]) / hidden.size * (1 - hidden**2)
    return {"w": g.T @ d["x"], "b": g.sum(axis=0)}


def by_hand(gradient: Any = gradient, loss: Any = loss) -> Candidate:
    return Candidate("numpy", loss, gradient=gradient)


def verify(candidates: Any, timeout: float | None = LONG, **options: Any) -> gw.Report:
    return gw.verify(candidates, PARAMS, BATCH, timeout=timeout, **options)


def prepared(candidate: Candidate | None = None, timeout: float = LONG) -> Prepared:
    problem = Problem("loss", None, PARAMS, BATCH)
    return prepare(candidate or by_hand(), problem, "float64", "cpu", Settings(timeout=timeout))


def living(group: int) -> set[int]:
    """The processes of a group, which is that of a subprocess and of what it started."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.add(int(folder.name))
    return found


def soon(is_so: Callable[[], bool]) -> bool:
    """Whether it becomes so within some seconds."""
    given_up = time.monotonic() + 20
    while not is_so() and time.monotonic() < given_up:
        time.sleep(0.02)
    return is_so()


@pytest.fixture(autouse=True)
def _none_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    started = _recorded(monkeypatch)
    yield
    gc.collect()  # an exception that was looked at refers to where it came from
    for pid in started:
        assert soon(lambda pid=pid: not living(pid)), "a subprocess, or one that it started, is left over"  # type: ignore[misc]


def _recorded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of each subprocess, as it starts."""
    started: list[int] = []
    start = isolated._start

    def recording(*args: Any) -> Any:
        process = start(*args)
        started.append(process.pid)
        return process

    monkeypatch.setattr(isolated, "_start", recording)
    return started


# What can go wrong, planted


def sleeping(p: Any, d: Any) -> None:
    time.sleep(1000)


def looping(p: Any, d: Any) -> None:
    while True:
        pass


def with_a_child(p: Any, d: Any) -> None:
    subprocess.run(["sleep", "1000"], check=False)


def killed(p: Any, d: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def terminated(p: Any, d: Any) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def segfault(p: Any, d: Any) -> None:
    ctypes.string_at(0)


def leaving(p: Any, d: Any) -> None:
    os._exit(3)


def leaving_politely(p: Any, d: Any) -> None:
    sys.exit(4)


def leaving_a_fork(p: Any, d: Any) -> None:
    """What it leaves has every descriptor that it had."""
    if os.fork() == 0:
        time.sleep(1000)
    os._exit(7)


def raising(p: Any, d: Any) -> None:
    raise KeyError("no such\nweight")


def unsupported(p: Any, d: Any) -> None:
    raise UnsupportedError("not on this machine")


def complex_valued(p: Any, d: Any) -> Gradient:
    return {path: g + 0j for path, g in gradient(p, d).items()}


HANGS = {f.__name__: f for f in (sleeping, looping, with_a_child)}
ENDS = (killed, terminated, segfault, leaving, leaving_politely, leaving_a_fork)
FAILS = {f.__name__: f for f in (*ENDS, raising, unsupported, complex_valued)}
SAYS = {
    "killed": "it was killed (SIGKILL), perhaps because memory ran out, in value_and_gradient",
    "terminated": "it was killed (SIGTERM), in value_and_gradient",
    "segfault": "it crashed the interpreter (SIGSEGV), in value_and_gradient at {file}:{line}, segfault",
    "leaving": "it ended the interpreter with exit status 3, in value_and_gradient",
    "leaving_politely": "SystemExit: 4 (at tests/core/test_isolated.py:{polite}, leaving_politely)",
    "leaving_a_fork": "it ended the interpreter with exit status 7, in value_and_gradient",
    "raising": "KeyError: 'no such\\nweight' (at tests/core/test_isolated.py:{raised}, raising); params has w, b; "
    "batch has x, y",
    "unsupported": "not on this machine",
    "complex_valued": "the gradient of w has dtype complex128, its parameter float64: give it in that dtype",
}


def messages(report: gw.Report) -> dict[str, str]:
    """Of each candidate without a gradient; the others agree."""
    assert {str(row.verdict) for row in report.rows if row.parameter is not None} <= {"agree"}, repr(report)
    return {row.candidate: row.message for row in report.rows if row.parameter is None}


def test_what_ends_the_interpreter_is_an_error_and_the_others_go_on() -> None:
    report = verify({name: by_hand(wrong) for name, wrong in FAILS.items()} | {"right": by_hand()})
    line = segfault.__code__.co_firstlineno + 1
    places = {"file": __file__, "line": line}
    places |= {"raised": raising.__code__.co_firstlineno + 1, "polite": leaving_politely.__code__.co_firstlineno + 1}
    assert messages(report) == {name: says.format(**places) for name, says in SAYS.items()}
    verdicts = {row.candidate: str(row.verdict) for row in report.rows}
    assert verdicts == dict.fromkeys(FAILS, "error") | {"unsupported": "unsupported", "right": "agree"}


def test_what_hangs_is_an_error_that_says_where() -> None:
    report = verify({name: by_hand(wrong) for name, wrong in HANGS.items()} | {"right": by_hand()}, timeout=3)
    found = messages(report)
    assert set(found) == set(HANGS)
    for name, message in found.items():
        said = f"no answer within 3 s (timeout=3), in value_and_gradient at {__file__}:"
        assert message.startswith(said), message
        assert message.endswith(f", {name}"), message


def test_messages_are_those_of_a_run_in_this_process() -> None:
    candidates = {name: by_hand(FAILS[name]) for name in ("raising", "unsupported", "complex_valued")}
    assert messages(verify(candidates)) == messages(verify(candidates, timeout=None))


def test_a_crash_while_it_is_differenced_is_no_domain_error() -> None:
    """A loss that raises has left its domain; one that crashes has not."""

    def fragile(p: Any, d: Any) -> Any:
        if not np.array_equal(p["w"], PARAMS["w"]) and np.allclose(p["w"], PARAMS["w"], rtol=1e-3):
            os._exit(5)
        return loss(p, d)

    message = messages(verify({"mine": by_hand(loss=fragile), "right": by_hand()}))["mine"]
    assert "exit status 5" in message


def test_a_crash_in_one_dtype_leaves_the_other() -> None:
    def narrow(p: Any, d: Any) -> Gradient:
        if p["w"].dtype == np.float32:
            os._exit(6)
        return gradient(p, d)

    report = verify({"mine": by_hand(narrow)}, dtypes=("float32", "float64"))
    assert {(row.dtype, str(row.verdict)) for row in report.rows} == {("float32", "error"), ("float64", "agree")}


def test_after_a_crash_every_call_fails_at_once_with_the_same_message() -> None:
    lost = prepared(by_hand(sleeping), timeout=2)
    assert lost.value(PARAMS) == loss(PARAMS, BATCH)
    with pytest.raises(NoAnswerError) as first:
        lost.value_and_gradient(PARAMS)
    started = time.monotonic()
    with pytest.raises(NoAnswerError) as second:
        lost.value(PARAMS)
    assert time.monotonic() - started < 1
    assert str(second.value) == str(first.value)


@pytest.fixture
def heeding_interrupts() -> Iterator[None]:
    """What a shell runs in the background ignores interrupts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeding_interrupts")
def test_an_interrupt_ends_the_subprocess(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its late answer would be taken for that to the next call."""
    started = _recorded(monkeypatch)
    interrupted = prepared(by_hand(sleeping))
    threading.Timer(1.0, signal.pthread_kill, (threading.get_ident(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        interrupted.value_and_gradient(PARAMS)
    assert soon(lambda: not living(started[0]))
    with pytest.raises(NoAnswerError, match="KeyboardInterrupt while it was waited for"):
        interrupted.value(PARAMS)


def scribbling(p: Any, d: Any) -> float:
    """Writes to every socket that is open, as a C library may that logs to a descriptor of its own."""
    for descriptor in range(3, 64):
        with suppress(OSError):
            if os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket"):
                os.write(descriptor, b"debug output\n")
    return float(loss(p, d))


def test_half_a_message_keeps_nobody_waiting() -> None:
    started = time.monotonic()
    report = verify({"m": by_hand(loss=scribbling), "right": by_hand()}, timeout=3)
    assert time.monotonic() - started < 30
    assert [(row.candidate, str(row.verdict)) for row in report.rows if row.parameter is None] == [("m", "error")]
    assert {str(row.verdict) for row in report.rows if row.candidate == "right"} == {"agree"}


def test_what_left_the_process_group_is_ended_too(tmp_path: Path) -> None:
    written = tmp_path / "pid"

    def starting(p: Any, d: Any) -> float:
        if not written.exists():
            program = f"import os, time; open({str(written)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
            subprocess.Popen([sys.executable, "-c", program], start_new_session=True)
            while not written.exists() or not written.read_text():
                time.sleep(0.01)
        return float(loss(p, d))

    assert verify({"m": by_hand(loss=starting)})
    assert soon(lambda: not living(int(written.read_text())))


class OddError(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError


class OwnError(BaseException):
    """No Exception."""


@pytest.mark.parametrize("timeout", [None, LONG])
@pytest.mark.parametrize("error", [OddError, OwnError, SystemExit, GeneratorExit])
def test_whatever_is_raised_costs_the_others_nothing(error: type[BaseException], timeout: float | None) -> None:
    def raising(p: Any, d: Any) -> float:
        raise error

    report = verify({"right": by_hand(), "wrong": by_hand(loss=raising)}, timeout=timeout)
    assert {str(row.verdict) for row in report.rows if row.candidate == "right"} == {"agree"}
    (row,) = (row for row in report.rows if row.candidate == "wrong")
    assert str(row.verdict) == "error"
    assert row.message.startswith(error.__name__)


# What crosses


def test_figures_are_those_of_a_run_in_this_process() -> None:
    dtypes = ("float64", "float32")
    assert figures(verify(by_hand(), dtypes=dtypes)) == figures(verify(by_hand(), timeout=None, dtypes=dtypes))


def figures(report: gw.Report) -> list[dict[str, Any]]:
    return [{name: x for name, x in asdict(row).items() if name != "setup_seconds"} for row in report.rows]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "torch.compile", "jax"])
def test_figures_of_a_framework_are_those_of_a_run_in_this_process(backend: str) -> None:
    def in_torch(p: Any, d: Any) -> Any:
        import torch

        return ((torch.tanh(d["x"] @ p["w"].T + p["b"]) - d["y"]) ** 2).mean()

    def in_jax(p: Any, d: Any) -> Any:
        import jax.numpy as jnp

        return ((jnp.tanh(d["x"] @ p["w"].T + p["b"]) - d["y"]) ** 2).mean()

    candidate = Candidate(backend, in_jax if backend == "jax" else in_torch)
    report = verify(candidate, dtypes="float32")
    assert report, repr(report)
    assert figures(report) == figures(verify(candidate, timeout=None, dtypes="float32"))


def test_a_traced_loss_is_sent_as_its_graph() -> None:
    tracings: list[int] = []
    lock = threading.Lock()  # cannot be sent

    def traced(p: Any, d: Any) -> Any:
        with lock:
            tracings.append(os.getpid())
        return gw.ops.mse(gw.ops.tanh(gw.ops.linear(d["x"], p["w"], p["b"])), d["y"], reduction="mean", half=False)

    reports = [gw.verify(traced, PARAMS, BATCH, backends="numpy", timeout=timeout) for timeout in (LONG, None)]
    assert reports[0], repr(reports[0])
    assert figures(reports[0]) == figures(reports[1])


def test_lambdas_and_closures_cross() -> None:
    factor = 3.0
    scaled = by_hand(lambda p, d: {path: factor * g for path, g in gradient(p, d).items()}, lambda p, d: 3 * loss(p, d))
    assert verify(scaled)


def test_what_cannot_be_sent_is_an_error_that_says_how_to_mend_it() -> None:
    lock = threading.Lock()

    def locked(p: Any, d: Any) -> Gradient:
        with lock:
            return gradient(p, d)

    found = messages(verify({"mine": by_hand(locked), "right": by_hand()}))
    assert found == {
        "mine": "the candidate cannot be sent to the subprocess that timeout= asks for (TypeError: "
        "cannot pickle '_thread.lock' object): leave timeout= out, or move the function into a module, which the "
        "subprocess imports"
    }


def test_a_module_that_cannot_be_found_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("made_on_the_fly")
    by_name = lambda p, d: loss(p, d)  # noqa: E731  # in no file
    by_name.__module__, by_name.__qualname__, by_name.__name__ = module.__name__, "by_name", "by_name"
    module.by_name = by_name  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    found = messages(verify({"mine": by_hand(loss=by_name), "right": by_hand()}))
    assert "cannot be read in its subprocess" in found["mine"]
    assert "(ModuleNotFoundError: No module named 'made_on_the_fly')" in found["mine"]
    assert "must be importable" in found["mine"]


def test_an_array_for_a_loss_is_weighed_at_random() -> None:
    """The shape of what it returns crosses in an error."""

    def rows(p: Any, d: Any) -> Any:
        return ((np.tanh(d["x"] @ p["w"].T + p["b"]) - d["y"]) ** 2).mean(axis=1)

    def pulled(p: Any, d: Any, cotangent: Any) -> Gradient:
        hidden = np.tanh(d["x"] @ p["w"].T + p["b"])
        g = cotangent[:, None] * 2 * (hidden - d["y"]) / hidden.shape[1] * (1 - hidden**2)
        return {"w": g.T @ d["x"], "b": g.sum(axis=0)}

    report = verify(by_hand(pulled, rows), cotangent="random")
    assert report, repr(report)


def test_what_is_printed_is_seen(capfd: pytest.CaptureFixture[str]) -> None:
    def talking(p: Any, d: Any) -> Gradient:
        print("to standard output")
        print("to standard error", file=sys.stderr)
        os.write(1, b"past Python\n")
        return gradient(p, d)

    assert verify(by_hand(talking))
    out, err = capfd.readouterr()
    assert "to standard output\n" in out
    assert "past Python\n" in out
    assert "to standard error\n" in err


def test_a_backward_that_reads_what_the_last_forward_left_is_found() -> None:
    seen: dict[str, Any] = {}

    def remembering(p: Any, d: Any) -> Any:
        seen["p"] = p
        return loss(p, d)

    def stale(p: Any, d: Any) -> Gradient:
        return gradient(seen["p"], d)

    report = verify(by_hand(stale, remembering))
    assert {str(row.verdict) for row in report.rows} == {"nondeterministic"}
    assert "two forwards before the first backward gave two answers" in repr(report)


def test_handles_that_are_dropped_are_let_go() -> None:
    candidate = prepared()
    numbers = [candidate.place(PARAMS).number for _ in range(3)]
    assert len(set(numbers)) == 3
    tape = candidate.forward(candidate.place(PARAMS))
    found: dict[str, Any] = candidate.fetch(candidate.backward(tape))
    assert all(np.array_equal(found[path], g) for path, g in gradient(PARAMS, BATCH).items())
    with pytest.raises(Exception, match=f"^{numbers[0]}\n") as raised:  # what was placed first is there no longer
        candidate.forward(Held(numbers[0]))
    assert type(raised.value).__name__ == "KeyError"
    assert "in the subprocess:" in raised.value.__notes__[0]


# One that can be looked into


def perturbed(self: Any, params: Any, errors: Any, *, runs: int, seed: Sequence[int], gradients: bool = True) -> Any:
    for number in range(runs):
        if number == 2:
            raise UnsupportedError("an opaque kernel")
        yield errors.roundoff + number, dict(params) if gradients else {}


class Transparent:
    """Is read in the subprocess as `loss`, after NumPy's candidates there were made perturbing."""

    def __call__(self, p: Any, d: Any) -> Any:
        return loss(p, d)

    def __reduce__(self) -> Any:
        return _loss_of_perturbing, ()


def _loss_of_perturbing() -> Any:
    from gradwitness_numpy.by_hand import PreparedByHand

    PreparedByHand.perturbed = perturbed  # type: ignore[attr-defined]
    return loss


def test_perturbed_runs_come_one_by_one() -> None:
    opaque, candidate = prepared(), prepared(by_hand(loss=Transparent()))
    assert not isinstance(opaque, Perturbing)
    assert isinstance(candidate, Perturbing)
    errors = RoundingErrors.of("float32", Arithmetic())
    found: list[tuple[float, dict[str, Any]]] = list(candidate.perturbed(PARAMS, errors, runs=2, seed=(1, 2)))
    assert [value for value, _ in found] == [errors.roundoff, errors.roundoff + 1]
    assert np.array_equal(found[0][1]["w"], PARAMS["w"])
    runs = candidate.perturbed(PARAMS, errors, runs=3, seed=(1, 2), gradients=False)
    assert [next(runs)[1], next(runs)[1]] == [{}, {}]
    with pytest.raises(UnsupportedError, match="an opaque kernel"):
        next(runs)


# Whose end it is

SCRIPT = f"""
import os, sys, time
import numpy as np
import gradwitness as gw

print("top level")
RNG = np.random.default_rng(0)

def scale():
    return 3.0

def loss(p, d):
    return scale() * np.tanh(p["w"]).sum()

def gradient(p, d):
    return {{"w": scale() * (1 - np.tanh(p["w"]) ** 2)}}

def hanging(p, d):
    print(os.getpid(), flush=True)
    time.sleep(1000)

chosen = globals()[sys.argv[1]]
report = gw.verify(gw.Candidate("numpy", loss, gradient=chosen), {{"w": RNG.normal(size=4)}}, timeout={LONG})
print(repr(report))
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


def test_a_script_without_a_main_guard_is_not_run_again(script: Path) -> None:
    run = subprocess.run([sys.executable, str(script), "gradient"], capture_output=True, text=True, check=True)
    first, *rest = run.stdout.splitlines()
    assert first == "top level"
    assert "top level" not in rest
    assert "1 gradient: 1 agree" in run.stdout
    assert run.stderr == ""


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM])
def test_a_subprocess_ends_with_the_process_that_started_it(script: Path, by: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, str(script), "hanging"], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "top level\n"
        pid = int(run.stdout.readline())
        assert living(pid) == {pid}
        run.send_signal(by)
    assert soon(lambda: not living(pid))


def preparing(tmp_path: Path, *lines: str) -> list[str]:
    """A command that keeps a candidate in a subprocess, prints the process, and goes on with these lines."""
    path = tmp_path / "script.py"
    root = str(Path(__file__).parents[2])
    first = f"import sys, time; sys.path.insert(0, {root!r})\nfrom tests.core.test_isolated import prepared\n"
    told = "print(kept._answering._process.pid, flush=True)"
    path.write_text(first + "\n".join(["kept = prepared()", *lines[:1], told, *lines[1:]]) + "\n")
    return [sys.executable, str(path)]


def test_one_that_rests_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    command = preparing(tmp_path, "kept.pause()", "time.sleep(1000)")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        pid = int(run.stdout.readline())
        assert living(pid) == {pid}
        run.kill()
    assert soon(lambda: not living(pid))


def test_a_subprocess_ends_at_the_exit_of_the_interpreter(tmp_path: Path) -> None:
    command = preparing(tmp_path, "kept.itself = kept")
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not living(int(run.stdout))
    assert run.stderr == ""


def test_a_subprocess_ends_with_the_run_whoever_refers_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Any] = []
    isolate = isolated.isolate

    def keeping(*args: Any) -> Any:
        kept.append(isolate(*args))
        return kept[-1]

    monkeypatch.setattr(isolated, "isolate", keeping)
    started = _recorded(monkeypatch)
    assert verify(by_hand())
    assert kept
    assert not any(living(pid) for pid in started)


def test_a_left_over_process_would_be_seen() -> None:
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as process:
        assert living(process.pid) == {process.pid}
        process.kill()
    assert not living(process.pid)


# The setting


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("inf"), float("nan")])
def test_a_timeout_is_a_positive_number_of_seconds(timeout: float) -> None:
    with pytest.raises(GradwitnessError, match="timeout must be a positive number of seconds"):
        verify(by_hand(), timeout=timeout)


def test_the_timeout_is_on_record() -> None:
    assert verify(by_hand()).environment["timeout"] == LONG
    assert verify(by_hand(), timeout=None).environment["timeout"] is None


def test_settings_that_do_not_cross_are_an_error() -> None:
    with pytest.raises(GradwitnessError, match="precision is high here and highest in the subprocess"):
        isolated._expect_same({"precision": "high"}, {"precision": "highest"})
    isolated._expect_same({"precision": "high"}, {"precision": "high"})
