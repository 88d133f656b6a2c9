"""The tests that every backend passes: subclass `BackendConformance` in your own test suite.

    class TestMine(BackendConformance):
        backend = "mine"

pytest, which collects them, is imported here and nowhere else in the package.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, ClassVar

import numpy as np
import pytest

from gradwitness import registry
from gradwitness.dtypes import DTYPES, Array
from gradwitness.errors import UnknownName, UnsupportedError
from gradwitness.networks.single_ops import INNER, op_bundles, op_problems
from gradwitness.ops import OPS, Op, Spec, Value
from gradwitness.ops import mse as mse_op
from gradwitness.ops.vocabulary import ROUNDED
from gradwitness.problem import Candidate, Problem
from gradwitness.protocol import Backend, Capabilities, Prepared
from gradwitness.report import Report
from gradwitness.settings import Settings
from gradwitness.verdict import Verdict
from gradwitness.verification import verify_problems

__all__ = ["BackendConformance"]


FIRST, SECOND = np.array([1.0, 2.0, -3.0, 0.5]), np.array([-2.0, 0.25, 4.0, 8.0])  # exact in every dtype, squared too
TARGET = np.array([0.5, -1.0, 2.0, 4.0])


class BackendConformance:
    """The rules on which the core relies, tested on one backend.

    backend: the name under which its entry point registers it.
    dtypes: the dtypes to try, by default all that it declares.

    The tests try the ops of its `capabilities.ops`. `add` must be among them, and either `mse` or all of `multiply`,
    `sum`, `matmul` and `reshape`, of which the suite makes its problems.
    """

    backend: ClassVar[str]
    dtypes: ClassVar[tuple[str, ...] | None] = None

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """A test of each dtype, and of each family of ops."""
        if "dtype" in metafunc.fixturenames:
            metafunc.parametrize("dtype", self.dtypes or self._capabilities().dtypes)
        if "family" in metafunc.fixturenames:
            metafunc.parametrize("family", list(_bundles(self._capabilities().ops)))

    def test_it_is_registered(self) -> None:
        assert self.backend in registry.backend_names(), f"no entry point {self.backend!r} in {registry.GROUP!r}"
        made = registry.installed(self.backend)  # raises, and says why, if the protocol is not followed
        assert made.name == self.backend
        assert list(made.devices())[:1] == ["cpu"], f'devices() must begin with "cpu", got {made.devices()}'

    def test_it_declares_what_exists(self) -> None:
        declared = self._capabilities()
        assert declared.dtypes, "capabilities.dtypes is empty: give one dtype at least"
        assert set(declared.dtypes) <= set(DTYPES), f"dtypes that do not exist: {set(declared.dtypes) - set(DTYPES)}"
        assert declared.ops <= set(OPS), f"ops that do not exist: {', '.join(sorted(declared.ops - set(OPS)))}"
        assert declared.composed <= declared.ops, "capabilities.composed must be among capabilities.ops"
        assert _can_be_tried(declared.ops), f"problems are made with add, and mse or all of {sorted(INNER)}"

    def test_ops(self, family: str, dtype: str) -> None:
        """Every value and gradient agrees, and in float64 every gradient with finite differences of the loss."""
        ops = self._capabilities().ops
        report = self._verified([_bundles(ops)[family]], dtype)
        complaints = _complaints(report, dtype)
        if complaints and not self._capabilities().compiles:  # one op alone, so that it is named
            names = {path.partition(".")[0] for path in _bundles(ops)[family].differentiated}
            alone = [p for p in op_problems(vocabulary=ops) if p.name.partition(".")[0] in names]
            complaints = _complaints(self._verified(alone, dtype), dtype) or complaints
        assert not complaints, "\n".join(complaints)

    def test_the_result_is_on_the_host(self, dtype: str) -> None:
        problem = self._problem()
        value, gradient = self._prepare(dtype).value_and_gradient(problem.primals)
        assert type(value) is float, f"the value must be a Python float, got {type(value).__name__}"
        assert set(gradient) == set(problem.differentiated), f"gradients of {set(gradient)}, not of every leaf"
        found, host = gradient["x"], np.dtype("float64" if dtype == "float64" else "float32")
        assert isinstance(found, np.ndarray), f"a gradient must be a NumPy array, got {type(found).__name__}"
        assert found.dtype == host, f"a gradient in {dtype} must come as {host}, which holds it, got {found.dtype}"
        self._expect_gradient(found, FIRST)

    def test_none_counts_as_zeros_for_a_leaf_that_is_not_reached(self, dtype: str) -> None:
        """None where no path leads from the leaf to the loss, or zeros: nothing else."""
        found = self._prepare(dtype).value_and_gradient(self._problem().primals)[1]["unused"]
        assert found is None or (found.shape == (2,) and not found.any()), f"expected None or two zeros, got {found}"

    def test_each_tape_gives_the_gradient_of_its_own_forward(self, dtype: str) -> None:
        """Two forwards before the first backward; and what is timed is what is verified."""
        prepared, primals = self._prepare(dtype), self._problem().primals
        places = [prepared.place({**primals, "x": x}) for x in (FIRST, SECOND)]
        tapes = [prepared.forward(placed) for placed in places]
        found = [prepared.backward(tape) for tape in tapes] + [prepared.forward_backward(placed) for placed in places]
        prepared.wait(found)
        for gradient, x in zip(map(prepared.fetch, found), (FIRST, SECOND, FIRST, SECOND), strict=True):
            assert gradient["x"] is not None
            self._expect_gradient(gradient["x"], x)

    def test_a_loss_and_a_gradient_of_ones_own(self, dtype: str) -> None:
        """In the framework's arrays, where the backend says that it is native: by value, by tape, and timed."""
        if not self._capabilities().native:
            pytest.skip(f"{self.backend} is not native")
        candidate = Candidate(self.backend, _own_squares, gradient=_own_gradient)
        prepared, primals = self._prepare(dtype, candidate), self._problem().primals
        value, found = prepared.value_and_gradient(primals)
        assert value == prepared.value(primals) == float(np.sum(FIRST**2 * TARGET))
        assert found["unused"] is None, "a gradient that the function leaves out is None"
        places = [prepared.place({**primals, "x": x}) for x in (FIRST, SECOND)]
        tapes = [prepared.forward(placed) for placed in places]
        timed = [prepared.backward(tape) for tape in tapes] + [prepared.forward_backward(placed) for placed in places]
        prepared.wait(timed)
        host = [found, *map(prepared.fetch, timed)]
        for gradient, x in zip(host, (FIRST, FIRST, SECOND, FIRST, SECOND), strict=True):
            assert gradient["x"] is not None
            assert gradient["x"].tolist() == (2 * x * TARGET).tolist()

    def test_other_leaves_take_the_place_of_the_problems(self, dtype: str) -> None:
        """A leaf that is not differentiated may be given with the params, for that call alone."""
        if not self._capabilities().native:
            pytest.skip(f"{self.backend} is not native")
        candidate = Candidate(self.backend, _own_squares, gradient=_own_gradient)
        primals, other = self._problem().primals, {"target": 2 * TARGET}
        for prepared in (self._prepare(dtype), self._prepare(dtype, candidate)):
            before, moved = prepared.value_and_gradient(primals)[0], prepared.value_and_gradient(primals | other)
            assert moved[0] != before
            assert moved[0] == prepared.value(primals | other)
            assert {path for path, g in moved[1].items() if g is not None} <= set(primals)
            assert prepared.value_and_gradient(primals)[0] == before, "the problem's own leaf was not put back"

    def test_the_callers_arrays_are_left_alone(self, dtype: str) -> None:
        """Read-only arrays are accepted, arrays that can be written to come back as they were."""
        prepared, problem = self._prepare(dtype), self._problem()
        for writeable in (False, True):
            mine = {path: np.array(a) for path, a in problem.primals.items()}
            for array in mine.values():
                array.flags.writeable = writeable
            self._run_everything(prepared, mine)
            for path, array in mine.items():
                assert array.tobytes() == problem.primals[path].tobytes(), f"{path} was modified"

    def test_results_share_no_memory(self, dtype: str) -> None:
        """A gradient is its owner's to write to: part of no input, of no other gradient, and of no later one."""
        problem = _shared(self._by_mse())
        prepared, mine = self._prepare(dtype, problem=problem), {p: np.array(a) for p, a in problem.primals.items()}
        found = prepared.value_and_gradient(mine)[1]
        before = _bits(found)
        timed = prepared.fetch(prepared.backward(prepared.forward(prepared.place(mine))))
        arrays = {f"the gradient of {path}": g for path, g in found.items() if g is not None}
        arrays |= {f"the fetched gradient of {path}": g for path, g in timed.items() if g is not None}
        for (one, x), (other, y) in itertools.combinations({**arrays, **mine, **problem.leaves}.items(), 2):
            assert one in problem.leaves or not np.shares_memory(x, y), f"{one} shares memory with {other}"
        for name, array in arrays.items():
            assert array.flags.writeable, f"{name} cannot be written to: give a copy"
            array[...] = 99.0
        assert _bits(prepared.value_and_gradient(mine)[1]) == before, "writing to a gradient changed a later one"

    def test_what_is_placed_is_a_copy_that_serves_again(self, dtype: str) -> None:
        """Neither the caller nor a pass changes what is on the device."""
        prepared, mine = self._prepare(dtype), {p: np.array(a) for p, a in self._problem().primals.items()}
        placed = prepared.place(mine)
        for array in mine.values():
            array[...] = 99.0
        for _ in range(2):
            for found in (prepared.backward(prepared.forward(placed)), prepared.forward_backward(placed)):
                gradient = prepared.fetch(found)["x"]
                assert gradient is not None
                self._expect_gradient(gradient, FIRST)

    def test_wait_takes_what_is_on_the_device(self, dtype: str) -> None:
        """Leaves, tapes and gradients, and lists of them; none is used up."""
        prepared = self._prepare(dtype)
        placed = prepared.place(self._problem().primals)
        tape = prepared.forward(placed)
        for waited in (placed, tape, [tape, placed]):
            prepared.wait(waited)
        found = prepared.backward(tape)
        for waited in (found, [found, placed]):
            prepared.wait(waited)
        gradient = prepared.fetch(found)["x"]
        assert gradient is not None
        self._expect_gradient(gradient, FIRST)

    def test_nothing_is_left_to_do_after_wait(self) -> None:
        """What is timed ends with `wait`, so there the work must be done: fetching four numbers takes less time."""
        ops = self._capabilities().ops
        if not ops >= {"matmul", "mse"} and not ops >= {"matmul", "multiply", "sum"}:
            pytest.skip(f"{self.backend} lacks the ops that make much work of four numbers")
        problem = _much_work(self._by_mse())
        prepared = self._prepare((self.dtypes or self._capabilities().dtypes)[0], problem=problem)
        placed = prepared.place(problem.primals)
        ratios = [_seconds_after_wait(prepared, placed) for _ in range(4)][1:]
        assert min(ratios) < 0.5, f"fetch took {min(ratios):.1f} times what the pass and wait took: wait returns early"

    def test_the_process_is_left_as_it_was(self, dtype: str) -> None:
        """NumPy's error handling and printing, and the random states."""
        with np.errstate(divide="print"), np.printoptions(precision=11):
            before = _process()
            self._run_everything(self._prepare(dtype), self._problem().primals)
            after = _process()
        changed = [what for what in before if before[what] != after[what]]
        assert not changed, f"changed by preparing or running: {', '.join(changed)}"

    def test_running_twice_gives_the_same_bits(self, dtype: str) -> None:
        prepared, primals = self._prepare(dtype), self._problem().primals
        (first, once), (second, twice) = prepared.value_and_gradient(primals), prepared.value_and_gradient(primals)
        assert first == second == prepared.value(primals)
        assert _bits(once) == _bits(twice)

    @pytest.mark.parametrize(("dtype_asked", "device"), [("int8", "cpu"), (None, "nowhere")])
    def test_what_it_cannot_run_is_refused(self, dtype_asked: str | None, device: str) -> None:
        """With a message that says what there is."""
        dtypes = self._capabilities().dtypes
        with pytest.raises(UnsupportedError) as caught:
            self._made().prepare(
                Candidate(self.backend), self._problem(), dtype=dtype_asked or dtypes[0], device=device
            )
        there = dtypes if dtype_asked else self._made().devices()
        assert all(name in str(caught.value) for name in there), f"say what there is ({there}), not: {caught.value}"

    def test_an_unknown_option_is_refused(self) -> None:
        """An option that is ignored would be believed to be in force."""
        candidate = Candidate(self.backend, options={"no_such_option": True})
        with pytest.raises((UnknownName, UnsupportedError), match="no_such_option"):
            self._prepare(self._capabilities().dtypes[0], candidate)

    def test_an_unknown_path_is_refused(self) -> None:
        """Or a plain gradient would be taken for that of another path."""
        candidate = Candidate(self.backend, path="no_such_path")
        with pytest.raises((UnknownName, UnsupportedError), match="no_such_path"):
            self._prepare(self._capabilities().dtypes[0], candidate)

    def test_an_op_that_it_lacks_is_refused_by_name(self) -> None:
        with _new_op() as op:
            problem = Problem("lacking", lambda params, batch: op(params["x"]), {"x": np.ones(())}, {})
            with pytest.raises(UnsupportedError, match=op.name):
                self._prepare(self._capabilities().dtypes[0], problem=problem)

    def test_a_loss_that_raises_costs_the_next_nothing(self, dtype: str) -> None:
        """Nor a candidate that is prepared already."""
        if not self._capabilities().native:
            pytest.skip(f"{self.backend} is not native")
        earlier, primals = self._prepare(dtype), self._problem().primals
        for failing in (Candidate(self.backend, _failing, gradient=_own_gradient), self._failing_gradient()):
            with pytest.raises(Exception):  # noqa: B017, PT011  # whatever the framework makes of it
                self._prepare(dtype, failing).value_and_gradient(primals)
        for prepared in (earlier, self._prepare(dtype)):
            gradient = prepared.value_and_gradient(primals)[1]["x"]
            assert gradient is not None
            self._expect_gradient(gradient, FIRST)

    def test_setup_is_on_record(self, dtype: str) -> None:
        assert self._prepare(dtype).setup_seconds > 0

    def _made(self) -> Backend:
        return registry.backend(self.backend)

    def _capabilities(self) -> Capabilities:
        return self._made().capabilities

    def _by_mse(self) -> bool:
        return "mse" in self._capabilities().ops

    def _problem(self) -> Problem:
        return _squares(self._by_mse())

    def _failing_gradient(self) -> Candidate:
        return Candidate(self.backend, _own_squares, gradient=_failing)

    def _prepare(self, dtype: str, candidate: Candidate | None = None, problem: Problem | None = None) -> Prepared:
        made = self._made()
        with made.precision("highest"):
            chosen = candidate or Candidate(self.backend)
            return made.prepare(chosen, problem or self._problem(), dtype=dtype, device="cpu")

    def _verified(self, problems: list[Problem], dtype: str) -> Report:
        return verify_problems([(problem, [self.backend]) for problem in problems], Settings(dtypes=(dtype,)))

    def _expect_gradient(self, found: Array, x: Array) -> None:
        expected = x - TARGET if self._by_mse() else 2 * x * TARGET
        assert found.tolist() == expected.tolist(), f"at {x}: expected {expected}, got {found}"

    def _run_everything(self, prepared: Prepared, primals: Mapping[str, Array]) -> None:
        prepared.value(primals)
        prepared.value_and_gradient(primals)
        placed = prepared.place(primals)
        prepared.wait(prepared.backward(prepared.forward(placed)))
        prepared.wait(prepared.forward_backward(placed))


def _can_be_tried(ops: frozenset[str]) -> bool:
    return "add" in ops and ("mse" in ops or ops >= INNER)


@cache
def _bundles(ops: frozenset[str]) -> dict[str, Problem]:
    """The problems of these ops, a bundle per family, by its name."""
    return {bundle.name: bundle for bundle in op_bundles(vocabulary=ops)} if _can_be_tried(ops) else {}


@cache
def _squares(by_mse: bool) -> Problem:
    """A sum of squares, of one leaf of two."""

    def loss(params: Any, batch: Any) -> Value:
        x, target = params["x"], batch["target"]
        total: Value = mse_op(x, target, reduction="sum", half=True) if by_mse else (x * x * target).sum()
        return total

    return Problem("squares", loss, {"x": FIRST, "unused": np.ones(2)}, {"target": TARGET})


@cache
def _shared(by_mse: bool) -> Problem:
    """A loss of two leaves that have the same gradient; that of the second form is a leaf of the batch."""

    def loss(params: Any, batch: Any) -> Value:
        both, target = params["x"] + params["y"], batch["target"]
        total: Value = mse_op(both, target, reduction="sum", half=True) if by_mse else (both * target).sum()
        return total

    return Problem("shared", loss, {"x": FIRST, "y": SECOND}, {"target": TARGET})


@cache
def _much_work(by_mse: bool) -> Problem:
    """Milliseconds of matrix products between four numbers and the loss."""
    rng, size = np.random.default_rng(0), 512
    wide = rng.standard_normal((size, size)) / size**0.5
    batch = {"in": rng.standard_normal((4, size)), "wide": wide, "out": rng.standard_normal((size, 1))}

    def loss(params: Any, batch: Any) -> Value:
        hidden = params["x"] @ batch["in"]
        for _ in range(40):
            hidden = hidden @ batch["wide"]
        result, target = hidden @ batch["out"], batch["target"]
        total: Value = mse_op(result, target, reduction="sum", half=True) if by_mse else (result * target).sum()
        return total

    return Problem("much work", loss, {"x": FIRST[None]}, batch | {"target": np.ones((1, 1))})


def _seconds_after_wait(prepared: Prepared, placed: Any) -> float:
    """What is left to do after `wait`, by the time that it takes: of what the pass took."""
    started = time.perf_counter()
    found = prepared.forward_backward(placed)
    prepared.wait(found)
    waited = time.perf_counter()
    prepared.fetch(found)
    return (time.perf_counter() - waited) / (waited - started)


def _process() -> dict[str, Any]:
    """What belongs to the whole process."""
    kind, keys, *rest = np.random.get_state()
    return {
        "np.seterr": np.geterr(),
        "np.set_printoptions": np.get_printoptions(),
        "random": random.getstate(),
        "np.random": (kind, np.asarray(keys).tolist(), *rest),
    }


@contextmanager
def _new_op() -> Iterator[Op]:
    """An op of the vocabulary for a while, which no backend has."""

    def rule(x: Spec) -> Spec:
        return x

    op = OPS["op_that_no_one_has"] = Op("op_that_no_one_has", rule, ROUNDED, ())
    try:
        yield op
    finally:
        del OPS[op.name]


def _failing(params: Any, batch: Any) -> Any:
    raise RuntimeError("the user's own")


def _own_squares(params: Any, batch: Any) -> Any:
    """`_squares` in the arrays of any framework."""
    return (params["x"] * params["x"] * batch["target"]).sum()


def _own_gradient(params: Any, batch: Any) -> Any:
    return {"x": 2 * params["x"] * batch["target"]}


def _bits(gradient: Mapping[str, Array | None]) -> dict[str, bytes | None]:
    return {path: None if g is None else g.tobytes() for path, g in gradient.items()}


def _complaints(report: Report, dtype: str) -> list[str]:
    """Why this report will not do, a line each."""
    # 16-bit formats may leave an op's gradient below what rounding hides; that is said, and is no alarm
    passing = {Verdict.AGREE, Verdict.INCONCLUSIVE} if dtype.endswith("16") else {Verdict.AGREE}
    failing = tuple(row for row in report.rows if row.verdict not in passing)
    lines = list(Report(failing, report.environment).failures()) if failing else list(report.shortfalls())
    if dtype == "float64":
        for row in report.rows:
            if row.fd_error is not None and row.fd_bound is not None and not row.fd_error <= row.fd_bound:
                place = f"{row.network} {row.parameter}"
                lines.append(f"{place}: {row.fd_error:.1e} from finite differences, whose bound is {row.fd_bound:.1e}")
    return lines
