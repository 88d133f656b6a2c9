"""Ops of a user's own: right ones agree everywhere, wrong ones are named, and what does not fit together is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
import torch

import gradwitness as gw
from gradwitness import ops, registry
from gradwitness.errors import TraceError, UnknownName
from gradwitness.networks.single_ops import op_problems
from gradwitness.ops import BUILT_IN, OPS
from gradwitness.own_ops import Bend, Spec, bends, labels, real, sample, tails
from gradwitness.report import Report
from gradwitness.verdict import Verdict
from gradwitness_numpy.rule import Rule, unary
from tests.core.own_ops import (
    DIRECT,
    at_fault,
    define,
    forward,
    in_ops,
    in_torch,
    softened,
    verify,
    vjp,
)

pytestmark = pytest.mark.usefixtures("vocabulary_restored")

pytestmark = pytest.mark.usefixtures("vocabulary_restored")


# Right ones


@pytest.mark.parametrize("rounding", ["rounded", None])
def test_all_backends_agree_in_a_traced_loss(rounding: str | None) -> None:
    op = define(rounding=rounding, definition=None if rounding else in_ops)
    report = verify(op, beta=0.7)
    assert report.ok, repr(report)
    assert type(registry.backend("torch").capabilities.ops) is frozenset
    assert {(row.backend, row.dtype) for row in report.rows} == {(b, d) for b in DIRECT for d in ("float64", "float32")}
    assert all(row.floor and row.ratio is not None and row.ratio < 4 for row in report.rows)
    assert all(row.refused is None for row in report.rows), "there is a reference in 256 bits"


@pytest.mark.slow
def test_its_samples_through_every_backend() -> None:
    report = gw.verify_op(define())
    assert report.ok, repr(report)
    assert {row.backend for row in report.rows} == set(registry.backend_names())
    assert {row.verdict for row in report.rows} == {Verdict.AGREE}


def test_its_samples_by_name() -> None:
    define()
    report = gw.verify_op("swish", backends=DIRECT, dtypes=("float64",))
    assert report.ok, repr(report)
    assert {(row.network, row.parameter) for row in report.rows} == {("swish.x", f"sample{i}.x") for i in range(3)}


def test_the_function_has_the_names_and_texts_of_the_shape_rule() -> None:
    op = define()
    assert (op.__name__, op.__doc__) == ("swish", "x * sigmoid(beta * x).")
    assert define(name="swish_beta").__name__ == "swish_beta"
    assert OPS["swish"].summary == "x * sigmoid(beta * x)."
    assert OPS["swish"].family == "own"
    with pytest.raises(TraceError, match=r"swish does not take gamma=; its attributes are: beta"):
        verify(op, gamma=1.0)


def affine(x: Spec, w: Spec, b: Spec | None = None) -> Spec:
    """x @ w + b, or x @ w."""
    return Spec((*x.shape[:-1], w.shape[1]))


AFFINE: dict[str, Any] = {
    "samples": [sample(real(3, 2), real(2, 4), real(4)), sample(real(2, 5), real(5, 3), None)],
    "numpy": (
        lambda x, w, b: x @ w if b is None else x @ w + b,
        lambda g, y, x, w, b: (g @ w.T, x.T @ g, None if b is None else g.sum(axis=0)),
    ),
    "torch": lambda x, w, b: x @ w if b is None else x @ w + b,
    "jax": lambda x, w, b: x @ w if b is None else x @ w + b,
}


def test_several_arrays_one_of_them_optional() -> None:
    gw.define_op(affine, rounding="contraction", **AFFINE)
    report = gw.verify_op("affine", backends=DIRECT)
    assert report.ok, repr(report)
    assert {row.network for row in report.rows} == {"affine.x", "affine.w", "affine.b"}


def split(x: Spec) -> tuple[Spec, Spec]:
    """The upper and the lower half."""
    return Spec((x.shape[0] // 2, *x.shape[1:])), Spec((x.shape[0] - x.shape[0] // 2, *x.shape[1:]))


def test_several_results() -> None:
    halves = lambda x: (x[: len(x) // 2], x[len(x) // 2 :])  # noqa: E731
    gw.define_op(
        split,
        rounding="exact",
        samples=[sample(real(5, 2)), sample(real(4))],
        numpy=(halves, lambda g, y, x: np.concatenate(g)),
        torch=halves,
        jax=halves,
    )
    report = gw.verify_op("split", backends=DIRECT)
    assert report.ok, repr(report)


def pick(x: Spec, i: Spec) -> Spec:
    """The rows i of x."""
    return Spec((i.shape[0], *x.shape[1:]))


def test_an_array_of_integers() -> None:
    def pull(g: Any, y: Any, x: Any, i: Any) -> Any:
        sent = np.zeros_like(x)
        for row, part in zip(i, g, strict=True):
            sent[row] += part
        return sent, None

    rows = lambda x, i: x[i]  # noqa: E731
    samples = [sample(real(4, 3), labels(6, high=4)), sample(real(2), labels(3, high=2))]
    gw.define_op(pick, rounding="gather", samples=samples, numpy=(rows, pull), torch=rows, jax=rows)
    report = gw.verify_op("pick", backends=DIRECT)
    assert report.ok, repr(report)


def test_numpy_takes_a_rule_and_arrays_may_broadcast() -> None:
    from gradwitness_numpy.rule import binary

    rule = binary(
        lambda x, y: x * np.tanh(y),
        lambda g, z, x, y: g * np.tanh(y),
        lambda g, z, x, y: g * x * (1 - np.tanh(y) ** 2),
    )
    op = gw.define_op(
        softened,
        rounding="rounded",
        samples=[sample(real(3, 2), real(2)), sample(real(4), real(3, 4))],
        broadcasts=True,
        numpy=rule,
        torch=lambda x, y: x * torch.tanh(torch.as_tensor(y, dtype=x.dtype)),
    )
    report = gw.verify_op(op, backends=("numpy", "torch"))
    assert report.ok, repr(report)
    assert verify(lambda x: op(x, 0.5), backends=("numpy", "torch")).ok, "a number in the place of an array"


# What a backend lacks


def test_a_backend_without_an_implementation_is_unsupported() -> None:
    report = verify(define(jax=None), beta=0.7)
    (row,) = {row.message for row in report.rows if row.verdict is Verdict.UNSUPPORTED}
    assert row == "ops that this backend lacks: swish"
    assert {row.backend for row in report.rows if row.verdict is Verdict.AGREE} == {"numpy", "torch"}


def test_the_definition_stands_in_for_an_implementation() -> None:
    """Also for NumPy's: then nothing is derived by hand, and a kernel is held against its composition."""
    define(rounding=None, definition=in_ops, numpy=None, jax=None)
    assert {b for b in DIRECT if "swish" in registry.backend(b).capabilities.ops} == {"torch"}
    for report in (gw.verify_op("swish", backends=DIRECT), verify(ops_swish, beta=0.7)):
        assert report.ok, repr(report)
        assert {row.backend for row in report.rows if row.verdict is Verdict.AGREE} == set(DIRECT)
        assert all(row.refused is None for row in report.rows)


def ops_swish(x: Any, **attributes: Any) -> Any:
    return OPS["swish"](x, **attributes)


def test_a_definition_of_an_op_that_has_a_definition() -> None:
    inner = define(rounding=None, definition=in_ops, numpy=None, torch=None, jax=None)

    def twice(x: Spec) -> Spec:
        return x

    gw.define_op(twice, definition=lambda x: inner(inner(x)), samples=[sample(real(2, 3))])
    report = gw.verify_op("twice", backends=DIRECT)
    assert report.ok, repr(report)


def test_a_definition_that_makes_an_array_needs_implementations_but_numpys() -> None:
    def gate(x: Spec) -> Spec:
        return x

    made = lambda x: x * ops.where(x > 0.1, 1.0, 0.5)  # noqa: E731
    gw.define_op(gate, definition=made, samples=[sample(real(2, 3))])
    report = gw.verify_op("gate", backends=DIRECT)
    assert {row.backend for row in report.rows if row.verdict is Verdict.AGREE} == {"numpy"}
    assert {row.message for row in report.rows if row.verdict is Verdict.UNSUPPORTED} == {
        "a definition makes arrays (constant.0, constant.1): give this backend an implementation"
    }


# Wrong ones


def test_a_wrong_vjp_is_named() -> None:
    op = define(numpy=(forward, lambda g, y, x, *, beta: 1.001 * vjp(g, y, x, beta=beta)))
    for report in (verify(op, beta=0.7), gw.verify_op(op, backends=DIRECT)):
        assert not report
        assert at_fault(report) == {"numpy"}


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_a_wrong_derivative_in_a_framework_is_named(backend: str) -> None:
    """Values are right, and the way back is not."""

    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, beta: float) -> Any:
            ctx.save_for_backward(x)
            ctx.beta = beta
            return in_torch(x, beta=beta)

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * torch.sigmoid(ctx.beta * ctx.saved_tensors[0]), None

    def in_jax_wrong(x: Any, *, beta: float) -> Any:
        return x * jax.lax.stop_gradient(jax.nn.sigmoid(beta * x)) + 0 * x

    wrong = {"torch": lambda x, *, beta: Wrong.apply(x, beta), "jax": in_jax_wrong}  # type: ignore[no-untyped-call]
    op = define(**{backend: wrong[backend]})
    for report in (verify(op, beta=0.7), gw.verify_op(op, backends=DIRECT)):
        assert not report
        assert at_fault(report) == {backend}


def test_another_function_is_a_different_loss() -> None:
    report = verify(define(torch=lambda x, *, beta: x * torch.sigmoid(x)), beta=0.7)
    assert {row.backend for row in report.rows if row.verdict is Verdict.DIFFERENT_LOSS} == {"torch"}


@pytest.mark.parametrize("right", [True, False])
def test_the_definition_of_a_fused_op_is_held_against_its_rule(right: bool) -> None:
    definition = in_ops if right else lambda x, *, beta: x * ops.sigmoid(x)
    op = define(rounding=None, definition=definition)
    report = gw.verify_op(op, backends=("numpy",), dtypes=("float64",))
    judged = {row.verdict for row in report.rows if row.candidate == "definition"}
    assert judged == ({Verdict.AGREE} if right else {Verdict.DIFFERENT_LOSS})


# Rounding, kinks and regions


def test_the_floor_follows_the_rounding() -> None:
    """Of a copy nothing is left but what its neighbours round."""
    floors = {}
    for rounding in ("exact", "rounded"):
        define(rounding=rounding)
        report = gw.verify_op("swish", backends="numpy", dtypes=("float32",))
        floors[rounding] = [row.floor for row in report.rows if row.floor is not None]
    assert len(floors["exact"]) == len(floors["rounded"]) == 3
    assert all(less < more for less, more in zip(floors["exact"], floors["rounded"], strict=True))


def test_the_floor_of_a_contraction_covers_its_sums() -> None:
    floors = []
    for rounding in ("rounded", "contraction"):
        gw.define_op(affine, rounding=rounding, **(AFFINE | {"samples": [sample(real(40, 3), real(3, 2), real(2))]}))
        report = gw.verify_op("affine", backends="torch", dtypes=("float32",))
        assert report.ok, repr(report)
        floors.append({row.network: row.floor or 0.0 for row in report.rows})
    rounded, contraction = floors
    assert contraction["affine.b"] > rounded["affine.b"], "a sum over 40 rows"


def shrink(x: Spec, *, by: float = 0.5) -> Spec:
    """x moved towards 0 by so much, and 0 where it would pass it."""
    return x


SHRINK: dict[str, Any] = {
    "samples": [sample(real(2, 3)), sample(real(7), by=0.3)],
    "numpy": (
        lambda x, *, by: np.where(np.abs(x) > by, x - by * np.sign(x), x * 0.0),
        lambda g, y, x, *, by: g * (np.abs(x) > by),
    ),
    "torch": lambda x, *, by: torch.nn.functional.softshrink(x, by),
}
RIGHT_OF_IT = (SHRINK["numpy"][0], lambda g, y, x, *, by: g * (np.abs(x) >= by))  # slope 1 at the bends
SHRINK_BENDS = bends(lambda by: [Bend(-by, left=1.0, right=0.0, own=0.0), Bend(by, left=0.0, right=1.0, own=0.0)])


def at_its_kink(backends: Any = ("numpy", "torch")) -> Report:
    params = {"x": np.array([[0.5, 1.25, -0.5], [0.25, 3.0, -2.0]])}
    batch = {"y": np.array([[1.0, 2.0, -3.0], [0.5, 1.5, 4.0]])}
    loss = lambda params, batch: ops.mse(  # noqa: E731
        OPS["shrink"](params["x"]), batch["y"], reduction="sum", half=True
    )
    return gw.verify(loss, params, batch, backends=backends, dtypes="float64")


def test_a_kink_is_a_convention() -> None:
    gw.define_op(shrink, rounding="rounded", kink=SHRINK_BENDS, **(SHRINK | {"numpy": RIGHT_OF_IT}))
    report = at_its_kink()
    assert report, repr(report)
    assert {row.backend: row.verdict for row in report.rows} == {"numpy": Verdict.CONVENTION, "torch": Verdict.AGREE}
    assert "shrink" in next(row.message for row in report.rows if row.backend == "numpy")


def test_without_its_kink_the_same_is_no_convention() -> None:
    gw.define_op(shrink, rounding="rounded", **(SHRINK | {"numpy": RIGHT_OF_IT}))
    assert Verdict.CONVENTION not in {row.verdict for row in at_its_kink().rows}


def test_bends_divide_its_domain() -> None:
    gw.define_op(shrink, rounding="rounded", kink=SHRINK_BENDS, **SHRINK)
    report = gw.verify(
        lambda params, batch: OPS["shrink"](params["x"]).sum(), {"x": np.ones(3)}, backends="numpy", dtypes="float64"
    )
    assert "never exercised: shrink below -0.5 or between -0.5 and 0.5 (" in report.table()


def test_regions_are_told() -> None:
    op = define(regions=tails(-3.0, 3.0))
    assert "swish below -3" in verify(op, backends="numpy", dtypes="float64").table()


# Again, and no longer


def test_the_same_function_again_replaces_the_op() -> None:
    """As a cell of a notebook that runs again; what was traced before runs by the new functions."""
    wrong = define(numpy=(forward, lambda g, y, x, *, beta: -vjp(g, y, x, beta=beta)))
    assert not verify(wrong, backends="numpy", dtypes="float64")
    right = define()
    for op in (right, wrong):
        assert verify(op, backends=DIRECT, dtypes="float64").ok


def test_the_same_name_from_elsewhere_is_refused() -> None:
    define()

    def swish(x: Spec, *, beta: float = 1.0) -> Spec:
        return x

    with pytest.raises(gw.GradwitnessError, match=r"swish: .* defined by tests\.core\.own_ops\.swish: "):
        define(shape=swish)
    gw.forget_op("swish")
    define(shape=swish)


def test_a_refused_definition_leaves_the_one_before() -> None:
    op = define()
    with pytest.raises(gw.GradwitnessError, match="must give 1 results"):
        define(numpy=(lambda x, *, beta: x.sum(), vjp))
    with pytest.raises(gw.GradwitnessError, match="expected a function of arrays"):
        define(torch=3)
    assert verify(op, dtypes="float64").ok


def test_what_is_forgotten_is_gone() -> None:
    op = define()
    gw.forget_op("swish")
    assert set(OPS) == BUILT_IN
    assert all(registry.backend(b).capabilities.ops == BUILT_IN for b in DIRECT)
    with pytest.raises(UnknownName, match="unknown op 'swish'"):
        verify(op)
    for name in ("swish", "tanh"):
        with pytest.raises(UnknownName, match=f"unknown op of one's own '{name}'; there is: none"):
            gw.forget_op(name)


def test_without_gradient_there_is_nothing_to_verify() -> None:
    with pytest.raises(gw.GradwitnessError, match="equal has no gradient"):
        gw.verify_op("equal")
    with pytest.raises(UnknownName, match="unknown op 'swosh'"):
        gw.verify_op("swosh")


def test_the_vocabulary_counts_it_while_it_is_there() -> None:
    define()
    assert "swish.x" in {problem.name for problem in op_problems()}
    gw.forget_op("swish")
    assert "swish.x" not in {problem.name for problem in op_problems()}


# Adapters that come later


@pytest.fixture
def fresh() -> Iterator[None]:
    """Adapters as they are before they are used, and new ones afterwards."""
    registry._made.clear()
    yield
    registry._made.clear()


@pytest.mark.usefixtures("fresh")
def test_a_backend_that_is_loaded_later_has_it() -> None:
    define(jax=None)
    assert "jax" not in registry._made
    define()
    registry._made.clear()
    assert all("swish" in registry.backend(b).capabilities.ops for b in registry.backend_names())
    assert verify(OPS["swish"], dtypes="float64").ok


def test_torch_compile_has_torchs_unless_it_has_its_own() -> None:
    define()
    assert registry.backend("torch.compile").own_ops["swish"] is in_torch  # type: ignore[attr-defined]
    other = lambda x, *, beta: x * torch.sigmoid(beta * x)  # noqa: E731
    define(**{"torch.compile": other})
    assert registry.backend("torch.compile").own_ops["swish"] is other  # type: ignore[attr-defined]
    assert registry.backend("torch").own_ops["swish"] is in_torch  # type: ignore[attr-defined]


def test_a_rule_is_taken_as_it_is() -> None:
    rule = unary(forward, vjp)
    define(numpy=rule)
    assert registry.backend("numpy").own_ops["swish"] is rule  # type: ignore[attr-defined]
    assert isinstance(rule, Rule)
