"""Each check of `BackendConformance` fails a backend that deviates in just that, and passes the one that does not."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest

from gradwitness import registry
from gradwitness.errors import UnsupportedError
from gradwitness.protocol import Capabilities
from gradwitness.testing import BackendConformance
from gradwitness_numpy.backend import NumpyBackend

CHECKS = [name for name in dir(BackendConformance) if name.startswith("test_")]
ARGUMENTS = {"dtype": "float64", "family": "ops.elementwise", "dtype_asked": "int8", "device": "cpu"}


class Suite(BackendConformance):
    __test__ = False
    backend = "deviant"


class Deviant(NumpyBackend):
    """NumPy's, with methods of what it prepares in the place of others: each gets the one that it replaces."""

    name = "deviant"
    capabilities = replace(NumpyBackend.capabilities, interpreter=False)
    shared: ClassVar[dict[str, Any]] = {}

    def __init__(self, **changed: Callable[..., Any]) -> None:
        self.changed = changed

    def prepare(self, *given: Any, **options: Any) -> Any:
        prepared: Any = super().prepare(*given, **options)
        for name, change in self.changed.items():
            own = getattr(prepared, name)
            setattr(prepared, name, change(own) if callable(own) else change)
        return prepared


class WithoutChecks(Deviant):
    """Runs what it is given, whatever is asked for."""

    def prepare(self, candidate: Any, problem: Any, *, dtype: str, device: str) -> Any:
        dtype = dtype if dtype in self.capabilities.dtypes else "float64"
        return super().prepare(replace(candidate, options={}, path=None), problem, dtype=dtype, device="cpu")


class Terse(Deviant):
    def prepare(self, *given: Any, **options: Any) -> Any:
        try:
            return super().prepare(*given, **options)
        except UnsupportedError:
            raise UnsupportedError("no") from None


class Lazy(Deviant):
    """Finds out what it lacks when it runs."""

    def prepare(self, candidate: Any, problem: Any, **options: Any) -> Any:
        from gradwitness.networks.single_ops import op_problems

        if "op_that_no_one_has" in problem.graph.op_names:
            problem = op_problems(vocabulary={"add", "tanh", "mse"})[0]
        return super().prepare(candidate, problem, **options)


class Unlisted(Deviant):
    def devices(self) -> Any:
        return ("gpu",)


class Boasting(Deviant):
    capabilities = replace(Deviant.capabilities, ops=Deviant.capabilities.ops | {"teleport"})


class Rude(Deviant):
    def prepare(self, *given: Any, **options: Any) -> Any:
        np.seterr(all="ignore")
        return super().prepare(*given, **options)


class Locked(Deviant):
    """A lock that an exception leaves closed."""

    busy = False

    def prepare(self, *given: Any, **options: Any) -> Any:
        prepared: Any = super().prepare(*given, **options)
        own = prepared.value_and_gradient

        def locked(params: Any) -> Any:
            if self.busy:
                raise RuntimeError("still at work")
            self.busy = True
            found = own(params)
            self.busy = False
            return found

        prepared.value_and_gradient = locked
        return prepared


def early() -> Deviant:
    """Works on another thread, and waits for it when it fetches alone."""
    pool = ThreadPoolExecutor(1)
    return Deviant(
        forward_backward=lambda own: lambda placed: pool.submit(own, placed),
        fetch=lambda own: lambda found: own(found.result() if hasattr(found, "result") else found),
    )


def of_the_last_forward() -> Deviant:
    last: list[Any] = []

    def forward(own: Any) -> Any:
        def run(placed: Any) -> Any:
            last[:] = [own(placed)]
            return last[0]

        return run

    return Deviant(forward=forward, backward=lambda own: lambda tape: own(last[0]))


def gradients(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Deviant:
    """What is fetched, changed."""

    def of_both(own: Any) -> Any:
        def run(params: Any) -> Any:
            value, found = own(params)
            return value, change(found)

        return run

    return Deviant(value_and_gradient=of_both)


def aliasing(found: dict[str, Any]) -> dict[str, Any]:
    """One array for two leaves."""
    return {**found, "y": found["x"]} if "y" in found else found


def locked(found: dict[str, Any]) -> dict[str, Any]:
    for g in found.values():
        if g is not None:
            g.flags.writeable = False
    return found


def kept() -> Deviant:
    """One buffer for all calls, filled once."""
    buffers: dict[str, Any] = {}
    return gradients(lambda found: {path: buffers.setdefault(path, g) for path, g in found.items()})


def writing(own: Any) -> Any:
    def run(params: Any) -> Any:
        found = own(params)
        for array in params.values():
            if array.flags.writeable:
                array += 1.0
        return found

    return run


def consuming(own: Any) -> Any:
    """A backward that leaves its gradient in the leaves."""

    def run(placed: Any) -> Any:
        found = own(placed)
        for array in placed.values():
            array += 1.0
        return found

    return run


def picky(own: Any) -> Any:
    def wait(x: Any) -> None:
        if isinstance(x, list):
            raise TypeError("one at a time")

    return wait


def drawing(own: Any) -> Any:
    def run(params: Any) -> Any:
        random.random()
        return own(params)

    return run


DEVIATIONS: dict[str, list[Callable[[], Deviant]]] = {
    "test_it_is_registered": [Unlisted],
    "test_it_declares_what_exists": [Boasting],
    "test_ops": [lambda: gradients(lambda found: {p: None if g is None else 1.01 * g for p, g in found.items()})],
    "test_the_result_is_on_the_host": [
        lambda: gradients(lambda found: {p: None if g is None else g.tolist() for p, g in found.items()}),
        lambda: gradients(lambda found: {p: None if g is None else g.astype(np.float32) for p, g in found.items()}),
        lambda: Deviant(value_and_gradient=lambda own: lambda params: (np.float64(own(params)[0]), own(params)[1])),
    ],
    "test_none_counts_as_zeros_for_a_leaf_that_is_not_reached": [
        lambda: gradients(lambda found: {p: np.ones(2) if g is None else g for p, g in found.items()})
    ],
    "test_each_tape_gives_the_gradient_of_its_own_forward": [of_the_last_forward],
    "test_a_loss_and_a_gradient_of_ones_own": [
        lambda: gradients(lambda found: {p: np.zeros(2) if g is None else g for p, g in found.items()})
    ],
    "test_other_leaves_take_the_place_of_the_problems": [
        lambda: Deviant(place=lambda own: lambda params: own({p: a for p, a in params.items() if p != "target"}))
    ],
    "test_the_callers_arrays_are_left_alone": [lambda: Deviant(value_and_gradient=writing)],
    "test_results_share_no_memory": [lambda: gradients(aliasing), lambda: gradients(locked), kept],
    "test_what_is_placed_is_a_copy_that_serves_again": [
        lambda: Deviant(place=lambda own: dict),
        lambda: Deviant(forward_backward=consuming),
    ],
    "test_wait_takes_what_is_on_the_device": [lambda: Deviant(wait=picky)],
    "test_nothing_is_left_to_do_after_wait": [early],
    "test_the_process_is_left_as_it_was": [Rude, lambda: Deviant(value=drawing)],
    "test_running_twice_gives_the_same_bits": [
        lambda: gradients(lambda found: {p: None if g is None else g + np.random.random() for p, g in found.items()})
    ],
    "test_what_it_cannot_run_is_refused": [WithoutChecks, Terse],
    "test_an_unknown_option_is_refused": [WithoutChecks],
    "test_an_unknown_path_is_refused": [WithoutChecks],
    "test_an_op_that_it_lacks_is_refused_by_name": [Lazy],
    "test_a_loss_that_raises_costs_the_next_nothing": [Locked],
    "test_setup_is_on_record": [lambda: Deviant(setup_seconds=0.0)],  # type: ignore[arg-type]  # no method
}


@contextmanager
def registered(backend: Any) -> Iterator[None]:
    registry.register_backend(backend)
    try:
        with np.errstate():
            yield
    finally:
        registry.unregister_backend("deviant")


def check(name: str) -> None:
    """One test of the class, on the backend that is registered."""
    test = getattr(Suite(), name)
    test(**{parameter: ARGUMENTS[parameter] for parameter in inspect.signature(test).parameters})


@pytest.mark.parametrize(("name", "number"), [(n, i) for n, found in DEVIATIONS.items() for i in range(len(found))])
def test_a_deviation_fails_its_check(name: str, number: int) -> None:
    with registered(DEVIATIONS[name][number]()), pytest.raises((Exception, pytest.fail.Exception)) as caught:
        check(name)
    assert isinstance(caught.value, AssertionError | pytest.fail.Exception | RuntimeError | TypeError), caught.value


@pytest.mark.parametrize("name", CHECKS)
def test_without_one_it_passes(name: str) -> None:
    with registered(Deviant()):
        check(name)


def test_every_check_has_its_deviation() -> None:
    assert sorted(DEVIATIONS) == CHECKS


def test_asynchronous_work_that_is_waited_for_passes() -> None:
    late = early()
    late.changed["wait"] = lambda own: lambda found: found.result()
    with registered(late):
        check("test_nothing_is_left_to_do_after_wait")


@pytest.mark.nightly
def test_jax_without_its_wait_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its work is asynchronous on a CPU too; where cores are busy with something else, not in every run."""
    from gradwitness_jax.prepared import JaxPrepared

    class Jax(BackendConformance):
        __test__ = False
        backend = "jax"

    Jax().test_nothing_is_left_to_do_after_wait()
    monkeypatch.setattr(JaxPrepared, "wait", lambda self, x: None)

    def several() -> None:
        for _ in range(10):
            Jax().test_nothing_is_left_to_do_after_wait()

    with pytest.raises(AssertionError, match="wait returns early"):
        several()


def test_a_backend_may_lack_what_some_checks_need() -> None:
    small = Deviant()
    small.capabilities = Capabilities(("float64",), frozenset({"add", "mse", "tanh"}), requires=("numpy",))
    for name in ("test_nothing_is_left_to_do_after_wait", "test_a_loss_that_raises_costs_the_next_nothing"):
        with registered(small), pytest.raises(pytest.skip.Exception):
            check(name)
