"""Rounding errors on the results of torch: as large as each kind of op makes them, in place and backwards too, and what
cannot be looked into is refused by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from gradwitness import registry
from gradwitness.arithmetic import Arithmetic, RoundingErrors, Sums
from gradwitness.errors import UnsupportedError
from gradwitness.evidence.noise_floor import noise_floor
from gradwitness.evidence.perturbed_runs import PerturbedRuns
from gradwitness.evidence.reach import node_reach
from gradwitness.networks import NETWORKS, network
from gradwitness.problem import Candidate, Problem
from gradwitness.protocol import Interpreter, Perturbing
from gradwitness_torch import rounding
from gradwitness_torch.normals import Normals
from gradwitness_torch.rounding import Rounding
from tests.native import gradients_and_floors

UNIT = 2.0**-24
FLOAT32 = RoundingErrors.of("float32", Arithmetic())
NONE = RoundingErrors(0.0, 0.0, 1.0, Arithmetic())
RUNS = 300  # a spread of so many is known to 4%


def tensor(*values: Any) -> Any:
    return torch.tensor(values, dtype=torch.float64)


X, Y = tensor(0.3, -1.21, 2.6), tensor(1.53, 0.7, -0.41)
A, B = tensor([0.51, -1.03, 2.07], [1.56, 0.3, -0.7]), tensor([1.02, -0.2], [0.4, 0.9], [-1.1, 0.6])
INDEX = torch.tensor([0, 1, 0])


def rounded(f: Callable[..., Any], *args: Any, errors: RoundingErrors = FLOAT32, seed: int = 0) -> Any:
    with Rounding(errors, [seed]).everywhere():
        return f(*args)


def sizes(f: Callable[[], Any], errors: RoundingErrors = FLOAT32, recorded: bool = False) -> Any:
    """How large the errors of f's results are, in units of roundoff."""
    exact, found = f(), Rounding(errors, [0])
    if recorded:
        with found.recording():
            assert torch.allclose(torch.as_tensor(f()), exact, rtol=1e-14)
        with found.everywhere():
            return torch.stack([(f() - exact) ** 2 for _ in again(found)]).mean(0).sqrt() / UNIT
    with found.everywhere():
        runs = [f() for _ in range(RUNS)]
    return torch.stack([(y - exact) ** 2 for y in runs]).mean(0).sqrt() / UNIT


def again(found: Rounding) -> Iterator[None]:
    """Runs of which each begins as the recorded one did."""
    for _ in range(RUNS):
        found.begin()
        yield


def gradient(f: Callable[..., Any], *args: Any) -> tuple[Any, ...]:
    """Of the inner product of f's result with numbers from 0.51 to 1.53."""
    leaves = [x.clone().requires_grad_() for x in args]
    y = f(*leaves)
    return torch.autograd.grad(y, leaves, torch.linspace(0.51, 1.53, y.numel(), dtype=torch.float64).reshape(y.shape))


def moment(y: Any, m: Any) -> Any:
    return torch.sqrt(y * y + m)


KINDS: dict[str, tuple[Callable[[], Any], Any]] = {
    "add": (lambda: X + Y, (X + Y).abs()),
    "mul": (lambda: X * 3, (X * 3).abs()),
    "exp": (lambda: X.exp(), X.exp()),
    "neg": (lambda: -X, 0),
    "relu": (lambda: X.relu(), 0),
    "maximum": (lambda: torch.maximum(X, Y), 0),
    "where": (lambda: torch.where(X > 0, X, Y), 0),
    "indexing": (lambda: X[INDEX][1:], 0),
    "views": (lambda: A.T.unsqueeze(0).expand(2, 3, 2)[:, ::2].diagonal(), 0),
    "cat": (lambda: torch.cat([X, Y]), 0),
    "sort": (lambda: X.sort().values, 0),
    "new": (lambda: torch.full((3,), 0.1, dtype=torch.float64), 0),
    "index_put": (lambda: X.index_put((INDEX[:2],), Y[:2]), 0),
    "mm": (lambda: A @ B, moment(A @ B, A**2 @ B**2)),
    "bmm": (lambda: A[None] @ B[None], moment(A @ B, A**2 @ B**2)),
    "linear": (lambda: F.linear(A, B.T, Y[:2]), moment(A @ B + Y[:2], A**2 @ B**2 + Y[:2] ** 2)),
    "addmm": (
        lambda: torch.addmm(Y[:2], A, B, beta=3, alpha=2),
        moment(2 * A @ B + 3 * Y[:2], 4 * A**2 @ B**2 + 9 * Y[:2] ** 2),
    ),
    "dot": (lambda: torch.dot(X, Y), moment(X @ Y, X**2 @ Y**2)),
    "einsum": (lambda: torch.einsum("ij,jk->ik", A, B), moment(A @ B, A**2 @ B**2)),
    "convolution": (
        lambda: F.conv1d(X[None, None], Y[None, None, :2])[0, 0],
        moment(X[:2] * Y[0] + X[1:] * Y[1], X[:2] ** 2 * Y[0] ** 2 + X[1:] ** 2 * Y[1] ** 2),
    ),
    "sum": (lambda: A.sum(1), moment(A.sum(1), (A**2).sum(1))),
    "cumsum": (lambda: X.cumsum(0), moment(X.cumsum(0), (X**2).cumsum(0))),
    "mean": (lambda: A.mean(1), moment(2**0.5 * A.mean(1), (A**2).sum(1) / 9)),
    "index_add": (
        lambda: torch.zeros(3).double().index_add(0, INDEX, X),
        moment(tensor(X[0] + X[2], X[1], 0), tensor(X[0] ** 2 + X[2] ** 2, X[1] ** 2, 0)),
    ),
    "index_put, accumulated": (
        lambda: X.index_put((INDEX,), Y, accumulate=True),
        moment(
            tensor(X[0] + Y[0] + Y[2], X[1] + Y[1], X[2]),
            tensor(X[0] ** 2 + Y[0] ** 2 + Y[2] ** 2, X[1] ** 2 + Y[1] ** 2, X[2] ** 2),
        ),
    ),
    "avg_pool": (lambda: F.avg_pool1d(A, 3)[:, 0], moment(A.mean(1), (A**2).sum(1) / 9)),
    "embedding's backward": (
        lambda: gradient(lambda table: F.embedding(INDEX, table)[:, 0], B)[0],
        moment(
            tensor([2.04, 0.0], [1.02, 0.0], [0.0, 0.0]),
            tensor([0.51**2 + 1.53**2, 0.0], [1.02**2, 0.0], [0.0, 0.0]),
        ),
    ),
}


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("name", KINDS)
def test_each_kind_of_op_rounds_as_it_should(name: str, recorded: bool) -> None:
    f, expected = KINDS[name]
    found = sizes(f, recorded=recorded)
    assert np.allclose(found, torch.as_tensor(expected).expand_as(found), rtol=0.2, atol=0)


def test_sums_grow_as_the_arithmetic_says() -> None:
    a, b = torch.full((1, 400), 1.1).double(), torch.ones(400, 1).double()
    grown = RoundingErrors.of("float32", Arithmetic(frozenset({("matmul", Sums(0.5, free=4)), ("sum", Sums(0.5))})))
    once = moment(a.sum(1), 400 * 1.1**2)
    assert np.allclose(sizes(lambda: (a @ b)[0], grown), 10 * once, rtol=0.2)
    assert np.allclose(sizes(lambda: a.sum(1), grown), 20 * once, rtol=0.2)
    assert np.allclose(sizes(lambda: a.sum(1)), once, rtol=0.2), "one rounding elsewhere"


def test_underflow_zeros_and_infinities() -> None:
    x = tensor(1e-60, 0.0, -np.inf, np.inf)
    y = rounded(lambda: x * 2)
    assert 0 < abs(y[0]) < 1e-43, "the smallest number of float32"
    assert torch.equal(y[1:], x[1:])
    assert torch.equal(rounded(lambda: torch.zeros(2, 3).double() @ B), torch.zeros(2, 2).double())


def test_an_op_in_place_moves_the_base_of_its_view_and_nothing_else() -> None:
    def shrunk() -> Any:
        base = A.clone()
        view = base[0]
        assert view.mul_(0.3) is view
        assert torch.equal(view, base[0])
        return base

    found = sizes(shrunk)
    assert np.allclose(found[0], 0.3 * A[0].abs(), rtol=0.2)
    assert torch.all(found[1] == 0)


def test_sums_in_place_are_of_what_was_there_before() -> None:
    def accumulated() -> Any:
        return A.clone()[:, :2].addmm_(A, B)

    assert np.allclose(sizes(accumulated), moment(A[:, :2] + A @ B, A[:, :2] ** 2 + A**2 @ B**2), rtol=0.2)
    out = torch.empty(2, 2, dtype=torch.float64)
    assert np.allclose(sizes(lambda: torch.mm(A, B, out=out).clone()), moment(A @ B, A**2 @ B**2), rtol=0.2)


BATCH = torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
ROWS = BATCH.reshape(4, 30)[:, :6]
LABELS = torch.tensor([0, 3, 1, 5])
RECURRENT = torch.nn.LSTM(5, 3).double()
FUSED: dict[str, Callable[[Any], Any]] = {
    **{name: getattr(F, name) for name in ("gelu", "silu", "elu", "softplus", "mish", "logsigmoid", "selu", "glu")},
    "softmax": lambda x: F.softmax(x, -1),
    "log_softmax": lambda x: F.log_softmax(x, -1),
    "logsumexp": lambda x: torch.logsumexp(x, -1),
    "var": lambda x: x.var(-1),
    "var of all": lambda x: x.var(unbiased=False).reshape(1),
    "std": lambda x: x.std((0, 1), keepdim=True),
    "norm": lambda x: torch.linalg.vector_norm(x, dim=-1),
    "layer_norm": lambda x: F.layer_norm(x, x.shape[-1:], x[0, 0], x[0, 1]) if x.ndim == 3 else F.layer_norm(x, (6,)),
    "rms_norm": lambda x: F.rms_norm(x, x.shape[-1:]),
    "batch_norm": lambda x: F.batch_norm(x, None, None, training=True),
    "group_norm": lambda x: F.group_norm(x.reshape(4, 6, -1), 3),
    "cross_entropy": lambda x: F.cross_entropy(x.reshape(4, -1), LABELS).reshape(1),
    "bce": lambda x: F.binary_cross_entropy_with_logits(x, torch.full_like(x, 0.3)).reshape(1),
    "huber": lambda x: F.huber_loss(x, torch.ones_like(x), reduction="none"),
    "smooth_l1": lambda x: F.smooth_l1_loss(x, torch.ones_like(x)).reshape(1),
    "mse": lambda x: F.mse_loss(x, torch.ones_like(x)).reshape(1),
    "attention": lambda x: F.scaled_dot_product_attention(x, x.roll(1, -1), x.sin(), is_causal=True),
    "addcmul": lambda x: torch.addcmul(x, x, x.sin(), value=-0.5),
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "hardswish": F.hardswish,
    "adaptive_avg_pool": lambda x: F.adaptive_avg_pool2d(x.reshape(4, 1, -1, 1), (2, 1)),
    "max_pool": lambda x: F.max_pool2d(x[None], 2) * 1.1 if x.ndim == 3 else x * 1.1,
    "upsampled": lambda x: F.interpolate(x.reshape(4, 1, -1), scale_factor=2.0, mode="linear"),
    "embedding_bag": lambda x: F.embedding_bag(LABELS[None] % 4, x.reshape(4, -1), mode="mean"),
    "lstm": lambda x: RECURRENT(x.reshape(-1, 1, 5))[0],
    "silu in place": lambda x: F.silu(x.clone(), inplace=True),
    "normalize": lambda x: F.normalize(x, dim=-1),
}


@pytest.mark.parametrize("name", FUSED)
def test_a_fused_op_is_taken_apart_into_the_same(name: str) -> None:
    f = FUSED[name]
    x = ROWS if name in ("glu", "batch_norm") else BATCH
    passes: list[Callable[[], Any]] = [lambda: f(x), lambda: gradient(f, x)[0]]
    for g in passes:
        exact = g()
        assert torch.allclose(rounded(g, errors=NONE), exact, rtol=1e-12, atol=1e-14)
        error = max((rounded(g, seed=seed) - exact).abs().max() for seed in range(3))
        assert 0.1 * UNIT < error / exact.abs().max() < 1e3 * UNIT


def test_rounding_inside_a_fused_op_is_not_one_rounding_of_its_result() -> None:
    x = 1000 + BATCH
    exact = F.layer_norm(x, (5,))
    assert 100 * UNIT < (rounded(F.layer_norm, x, (5,)) - exact).abs().max() < 1e5 * UNIT


class Tripled(torch.autograd.Function):
    """3 x, its gradient by hand."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return 3 * x

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        return g[0] * 3


def test_a_backward_by_hand_is_perturbed() -> None:
    assert np.allclose(sizes(lambda: gradient(Tripled.apply, X)[0]), 3 * tensor(0.51, 1.02, 1.53), rtol=0.2)


def test_a_checkpointed_region_is_perturbed() -> None:
    def f(x: Any) -> Any:
        return checkpoint(lambda x: (x.exp() * 2).sin(), x, use_reentrant=False)

    (exact,) = gradient(f, X)
    assert torch.allclose(rounded(gradient, f, X, errors=NONE)[0], exact, rtol=1e-14)
    assert torch.all(rounded(gradient, f, X)[0] != exact)


# What cannot be looked into


@torch.library.custom_op("gradwitness_tests::doubled", mutates_args=())
def doubled(x: torch.Tensor) -> torch.Tensor:
    return 2 * x


@torch.library.custom_op("gradwitness_tests::double_", mutates_args={"x"})
def double_(x: torch.Tensor) -> None:
    x.mul_(2)


@torch.library.custom_op("gradwitness_tests::largest", mutates_args=())
def largest(x: torch.Tensor) -> torch.Tensor:
    return x.argmax()


def through_numpy(x: Any) -> Any:
    return torch.from_numpy(np.tanh(x.detach().numpy()))


@pytest.mark.parametrize(
    ("f", "named"),
    [
        (lambda: doubled(X), "gradwitness_tests.doubled.default"),
        (lambda: double_(X.clone()), "gradwitness_tests.double_.default"),
        (lambda: torch.linalg.cholesky(A @ A.T), "aten.linalg_cholesky_ex.default"),
        (lambda: torch.fft.rfft(X), "torch.complex128"),
        (lambda: X.float(), "aten._to_copy.default gives torch.float32"),
        (lambda: torch.zeros(3).copy_(X), "aten.copy_.default gives torch.float32"),
        (lambda: torch.mean(X, 0, dtype=torch.float32), "torch.float32"),
        (lambda: torch.softmax(X, 0, out=torch.empty(3).double()), "softmax"),
        (lambda: through_numpy(X), "Tensor.numpy"),
        (lambda: np.asarray(X), "Tensor.__array__"),
        (lambda: X.data_ptr(), "Tensor.data_ptr"),
    ],
)
def test_what_cannot_be_looked_into_is_refused_by_name(f: Callable[[], Any], named: str) -> None:
    with pytest.raises(UnsupportedError, match=named.replace("(", ".")):
        rounded(f)


def test_what_depends_on_nothing_in_float64_may_be_in_less() -> None:
    assert torch.equal(rounded(lambda: torch.tensor([0.1, 0.2]).exp()), torch.tensor([0.1, 0.2]).exp())
    assert rounded(lambda: LABELS.float() / 3 * tensor(1.0)).dtype is torch.float64
    assert rounded(largest, X) == 2, "it gives no floats"
    assert rounded(lambda: LABELS.numpy().sum()) == 9


# A candidate's runs


def prepared(loss: Any, params: Any, batch: Any = (), name: str = "torch", **given: Any) -> tuple[Any, Any]:
    problem = Problem("p", None, params, batch)
    found = registry.backend(name).prepare(Candidate(name, loss, **given), problem, dtype="float64", device="cpu")
    assert isinstance(found, Perturbing)
    return found, problem.primals


def weighed(p: Any, b: Any) -> Any:
    return (p["w"] * b["x"]).sin().sum()


W, DATA = {"w": np.array([0.3, -0.7, 1.1])}, {"x": np.array([0.2, 1.4, -0.9])}


def test_runs_differ_and_the_seed_decides_them() -> None:
    found, primals = prepared(weighed, W, DATA)
    first, second = (list(found.perturbed(primals, FLOAT32, runs=3, seed=(7, 1))) for _ in range(2))
    assert len({value for value, _ in first}) == 3
    assert all(a == b and np.array_equal(g["w"], h["w"]) for (a, g), (b, h) in zip(first, second, strict=True))
    assert next(found.perturbed(primals, FLOAT32, runs=1, seed=(8, 1)))[0] != first[0][0]
    assert [g for _, g in found.perturbed(primals, FLOAT32, runs=2, seed=(7, 1), gradients=False)] == [{}, {}]


def test_a_gradient_by_hand_and_a_leaf_without_one() -> None:
    def by_hand(p: Any, b: Any) -> Any:
        return {"w": (p["w"] * b["x"]).cos() * b["x"]}

    params = {**W, "unused": np.ones(2)}
    found, primals = prepared(weighed, params, DATA, gradient=by_hand)
    for _, g in found.perturbed(primals, FLOAT32, runs=2, seed=(0,)):
        exact = np.cos(W["w"] * DATA["x"]) * DATA["x"]
        assert np.all((abs(g["w"] - exact) > 0) & (abs(g["w"] - exact) < 10 * UNIT))
        assert g["unused"] is None


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_callers_mode_changes_nothing(mode: Any) -> None:
    table = torch.nn.Parameter(BATCH[0].clone())

    def loss(p: Any, b: Any) -> Any:
        return F.gelu(table @ p["w"].outer(b["x"]).repeat(2, 2)[:5]).mean() + F.dropout(p["w"]).sum()

    found, primals = prepared(loss, W, DATA)
    torch.manual_seed(5)
    expected = list(found.perturbed(primals, FLOAT32, runs=2, seed=(0,)))
    state = torch.get_rng_state()
    torch.manual_seed(5)
    with mode():
        results = list(found.perturbed(primals, FLOAT32, runs=2, seed=(0,)))
        assert torch.is_grad_enabled() is False
    assert all(a == b and np.array_equal(g["w"], h["w"]) for (a, g), (b, h) in zip(results, expected, strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    for _ in range(2):
        found.value(primals)
    assert torch.equal(torch.get_rng_state(), state), "it draws what the loss draws, and nothing else"
    assert table.requires_grad
    assert table.grad is None


def test_dropout_masks_are_those_of_a_plain_run() -> None:
    torch.manual_seed(1)
    plain = F.dropout(BATCH)
    torch.manual_seed(1)
    assert torch.equal(rounded(F.dropout, BATCH) == 0, plain == 0)


def test_a_run_that_leaves_the_domain_cannot_be_looked_into() -> None:
    def strict(p: Any, b: Any) -> Any:
        if (p["w"] * 1.1).tolist() != (W["w"] * 1.1).tolist():
            raise ValueError("moved")
        return p["w"].sum()

    found, primals = prepared(strict, W)
    with pytest.raises(UnsupportedError, match="moved"):
        list(found.perturbed(primals, FLOAT32, runs=1, seed=(0,)))


@pytest.mark.slow
def test_torch_compile_runs_its_loss_uncompiled() -> None:
    compiled: list[Any] = []

    def counted(graph: Any, inputs: Sequence[Any]) -> Any:
        compiled.append(graph)
        return graph.forward

    found, primals = prepared(weighed, W, DATA, "torch.compile", options={"backend": counted})
    before = len(compiled)
    assert before
    eager, _ = prepared(weighed, W, DATA)
    runs = [list(one.perturbed(primals, FLOAT32, runs=2, seed=(0,))) for one in (found, eager)]
    assert [value for value, _ in runs[0]] == [value for value, _ in runs[1]]
    found.value(primals)
    assert len(compiled) == before


# The floor that comes of it


def ratios(interpreter: Interpreter, name: str, dtype: str) -> list[float]:
    """Of the norms of floors, by perturbing torch's ops and by perturbing the nodes of the traced graph."""
    problem = network(name).rounded(dtype)
    _, _, floors = gradients_and_floors(problem, dtype)
    arithmetic = registry.backend("torch").capabilities.arithmetic(dtype)
    wrt = problem.differentiated
    runs = PerturbedRuns(interpreter, problem.graph.decomposed(), problem.leaves, dtype, [0], arithmetic)
    traced = noise_floor(runs, wrt)
    return [floors[path].norm / traced.tensors[path].norm for path in wrt]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_floor_is_that_of_the_traced_network(interpreter: Interpreter, name: str, dtype: str) -> None:
    found = ratios(interpreter, name, dtype)
    assert 0.5 < min(found) <= max(found) < 2


def test_a_wrong_row_is_noticed(interpreter: Interpreter, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mm", "addmm"):
        monkeypatch.setitem(rounding.ROWS, name, rounding.EXACT)
    rounding._rule.cache_clear()
    try:
        assert min(ratios(interpreter, "deep_relu", "float32")) < 0.2
    finally:
        rounding._rule.cache_clear()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_right_gradients_stay_within_what_rounding_may_reach(name: str, dtype: str) -> None:
    for seed in range(3):
        found, exact, floors = gradients_and_floors(network(name, seed=seed), dtype)
        for path, floor in floors.items():
            error, reach = found[path] - exact[path], node_reach(floor)
            assert np.linalg.norm(error) <= 0.5 * reach.norm * floor.norm
            assert np.all(np.abs(error) <= 0.5 * reach.element * floor.elements)


def test_normal_numbers_are_normal_and_no_two_alike() -> None:
    device = torch.device("cpu")
    normals, same, other = (Normals(device, seed) for seed in ((3, 1), (3, 1), (3, 2)))
    drawn = torch.cat([normals.like(torch.empty(7, 101)).flatten().clone() for _ in range(2000)]).double()
    assert abs(drawn.mean()) < 4 / drawn.numel() ** 0.5
    for power, moment in ((2, 1.0), (4, 3.0), (6, 15.0)):
        assert abs((drawn**power).mean() / moment - 1) < 0.02
    below = drawn.sort().values
    expected = torch.special.ndtr(below)
    assert (expected - torch.linspace(0, 1, len(below)).double()).abs().max() < 2 / drawn.numel() ** 0.5
    shifted = [(drawn[:-lag] * drawn[lag:]).mean() * drawn.numel() ** 0.5 for lag in (1, 707, 2**17)]
    assert max(map(abs, shifted)) < 4
    assert torch.equal(same.like(torch.empty(50)), drawn[:50].float())
    assert not torch.equal(other.like(torch.empty(50)), drawn[:50].float())
    assert normals.like(torch.empty(0, 3)).shape == (0, 3)
    assert normals.like(torch.empty(2**19)).unique().numel() > 60_000
