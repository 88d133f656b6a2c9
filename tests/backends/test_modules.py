"""torch modules as losses of their parameters: right ones agree, wrong ones are at fault by torch's names."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.fx
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

import gradwitness as gw
from gradwitness.errors import GradwitnessError
from gradwitness_torch import from_module

GENERATOR = torch.Generator().manual_seed(0)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=GENERATOR)


ROWS = {"x": normal(6, 3), "y": normal(6, 2)}
IMAGES = {"x": normal(5, 1, 6, 6), "y": normal(5, 2)}
SERIES = {"x": normal(4, 2, 3), "y": normal(4, 2, 2)}
WORDS = {"x": torch.randint(0, 7, (3, 4), generator=GENERATOR), "y": torch.randint(0, 7, (3, 4), generator=GENERATOR)}


def squared(module: Any, batch: Any) -> torch.Tensor:
    return F.mse_loss(module(batch["x"]), batch["y"])


def entropy(module: Any, batch: Any) -> torch.Tensor:
    return F.cross_entropy(module(batch["x"]).flatten(0, 1), batch["y"].flatten())


class Tied(nn.Module):
    """Words in, words out, by one table."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.norm, self.output = nn.Embedding(7, 5), nn.LayerNorm(5), nn.Linear(5, 7, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, words: torch.Tensor) -> Any:
        return self.output(self.norm(self.embedding(words)))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.output = nn.LSTM(3, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> Any:
        return self.output(self.lstm(x)[0])


def perceptron(*between: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), *between, nn.Linear(4, 2))


def convolution() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Tanh(), nn.Flatten(), nn.Linear(32, 2))


def weighted() -> nn.Module:
    return nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 4)), nn.Tanh(), nn.Linear(4, 2))


def seeded(make: Callable[[], Any]) -> Any:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return make()


def verify(module: nn.Module, loss: Any = squared, batch: Any = None, seed: int | None = None, **how: Any) -> gw.Report:
    of_params, params = from_module(module, loss, seed=seed)
    return gw.verify({"torch": of_params}, params, ROWS if batch is None else batch, **how)


def verdicts(report: gw.Report) -> dict[str | None, str]:
    return {row.parameter: str(row.verdict) for row in report.rows}


MODULES: dict[str, tuple[Callable[[], nn.Module], Any, Any]] = {
    "perceptron": (perceptron, squared, ROWS),
    "convolution, train": (convolution, squared, IMAGES),
    "convolution, eval": (lambda: convolution().eval(), squared, IMAGES),
    "tied": (Tied, entropy, WORDS),
    "lstm": (Recurrent, squared, SERIES),
    "weight norm": (weighted, squared, ROWS),
}
each_module = pytest.mark.parametrize(("make", "loss", "batch"), MODULES.values(), ids=MODULES)


@each_module
def test_a_module_agrees(make: Any, loss: Any, batch: Any) -> None:
    module = seeded(make)
    report = verify(module, loss, batch, dtypes=("float64", "float32"))
    assert report, repr(report)
    assert set(verdicts(report)) == {name for name, _ in module.named_parameters()}
    reached = {row.parameter for row in report.rows if row.reference and row.reference > 1e-3}
    assert reached >= set(verdicts(report)) - {"0.bias"}, "before a batch norm its gradient is 0"


@each_module
def test_loss_and_gradients_are_those_of_the_module_itself(make: Any, loss: Any, batch: Any) -> None:
    module = seeded(make)
    of_params, params = from_module(module, loss)
    leaves = {name: p.requires_grad_() for name, p in params.items()}
    value = of_params(leaves, batch)
    found = torch.autograd.grad(value, list(leaves.values()))
    own = loss(module, batch)
    assert torch.equal(own, value)
    for (name, p), g in zip(leaves.items(), found, strict=True):
        assert torch.equal(g, torch.autograd.grad(own, module.get_parameter(name), retain_graph=True)[0]), name
        assert not torch.equal(g, torch.zeros_like(p)), name


@pytest.mark.nightly
@pytest.mark.slow
def test_torch_compile_takes_the_same_loss() -> None:
    of_params, params = from_module(seeded(convolution), squared)
    report = gw.verify({"torch": of_params, "torch.compile": of_params}, params, IMAGES)
    assert report, repr(report)
    assert len(report.rows) == 12


class Scaled(nn.Module):
    """x times a scale, whose gradient is off by a thousandth."""

    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(x, scale)
            return x * scale

        @staticmethod
        def backward(ctx: Any, *cotangents: torch.Tensor) -> Any:
            (g,), (x, scale) = cotangents, ctx.saved_tensors
            return g * scale, 1.001 * (g * x).sum(0)

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(normal(4))

    def forward(self, x: torch.Tensor) -> Any:
        return self.Product.apply(x, self.scale)  # type: ignore[no-untyped-call]  # torch's


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_wrong_backward_is_at_fault_by_the_parameters_name(dtype: str) -> None:
    report = verify(seeded(lambda: perceptron(Scaled())), dtypes=dtype)
    assert {name for name, verdict in verdicts(report).items() if verdict == "disagree"} == {"2.scale"}, repr(report)
    assert f"loss {dtype} torch 2.scale: disagree: " in repr(report)


class Counting(nn.Module):
    """Adds to its output how often it was called, and counts in what torch does not know as state."""

    calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x + self.calls


def test_a_module_that_remembers_earlier_calls_is_nondeterministic() -> None:
    module = perceptron(counting := Counting())
    assert set(verdicts(verify(module)).values()) == {"nondeterministic"}
    assert counting.calls == 0, "the module itself was not called"


def test_dropout_is_nondeterministic_unless_it_is_seeded_or_at_rest() -> None:
    module = seeded(lambda: perceptron(nn.Dropout(0.5)))
    report = verify(module)
    assert set(verdicts(report).values()) == {"nondeterministic"}
    assert "seed all random numbers" in repr(report)
    both = ("float64", "float32")
    assert verify(module, seed=0, dtypes=both), "the same mask each time"
    assert verify(module.eval(), dtypes=both)


def test_a_backward_that_draws_another_mask_is_found_behind_a_seed() -> None:
    class Dropped(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x * (torch.rand_like(x) > 0.5)

        @staticmethod
        def backward(ctx: Any, *cotangents: torch.Tensor) -> torch.Tensor:
            return cotangents[0] * (torch.rand_like(cotangents[0]) > 0.5)

    class Dropping(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return Dropped.apply(x)  # type: ignore[no-untyped-call]  # torch's

    found = verdicts(verify(perceptron(Dropping()), seed=0, dtypes="float64"))
    assert found["0.weight"] == "nondeterministic"


def test_the_seed_chooses_what_is_drawn() -> None:
    module = perceptron(nn.Dropout(0.5))
    losses = []
    for seed in (0, 0, 1):
        of_params, params = from_module(module, squared, seed=seed)
        losses.append(float(of_params(params, ROWS)))
    assert losses[0] == losses[1] != losses[2]


def state(module: nn.Module) -> Any:
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return (
        {name: (id(x), x.detach().numpy().tobytes(), x.requires_grad, x._version) for name, x in tensors.items()},
        {name: None if p.grad is None else p.grad.tolist() for name, p in module.named_parameters()},
        {name: (m.training, sorted(m.__dict__)) for name, m in module.named_modules()},
        torch.get_rng_state().tolist(),
        torch.is_grad_enabled(),
    )


@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
def test_the_module_is_left_untouched(mode: bool) -> None:
    """Batch norm's running statistics, gradients that are there already, and torch's random numbers as well."""
    module = seeded(lambda: perceptron(nn.BatchNorm1d(4), nn.Dropout(0.5)))
    module[0].requires_grad_(False)
    squared(module, ROWS).backward()
    module.train(mode)[2].eval()
    before = state(module)
    assert verify(module, seed=0)
    assert state(module) == before


def test_params_are_copies_in_the_modules_own_dtype() -> None:
    module: Any = perceptron().bfloat16()
    of_params, params = from_module(module, squared)
    assert {(p.dtype, p.requires_grad) for p in params.values()} == {(torch.bfloat16, False)}
    for p in params.values():
        p.zero_()
    assert module[0].weight.any()
    report = gw.verify({"torch": of_params}, from_module(module, squared)[1], ROWS)
    assert {row.dtype for row in report.rows} == {"bfloat16"}
    assert not {str(row.verdict) for row in report.rows} - {"agree", "inconclusive"}, repr(report)


def test_the_module_counts_as_it_was_given() -> None:
    """Modes, buffers and parameters that change afterwards do not change the loss."""
    module = seeded(lambda: perceptron(nn.BatchNorm1d(4))).eval()
    of_params, params = from_module(module, squared)
    before = of_params(params, ROWS)
    squared(module.train(), ROWS)
    nn.init.zeros_(module[0].weight)
    assert torch.equal(of_params(params, ROWS), before)


class Shifted(nn.Module):
    """Buffers of every kind: a shift, places to take it from, and one that is not saved."""

    shift: torch.Tensor
    places: torch.Tensor
    mask: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", normal(2))
        self.register_buffer("places", torch.tensor([1, 0]))
        self.register_buffer("mask", torch.tensor([True, False]), persistent=False)
        self.weight = nn.Parameter(normal(2, 3))
        self.frozen = nn.Parameter(normal(2), requires_grad=False)
        self.seen: set[torch.dtype] = set()

    def forward(self, x: torch.Tensor) -> Any:
        self.seen |= {self.shift.dtype, self.frozen.dtype, self.places.dtype, self.mask.dtype}
        self.shift += 1  # what a call leaves in a buffer, the next does not see
        return F.linear(x, self.weight) + torch.where(self.mask, self.shift[self.places], self.frozen)


def test_buffers_and_frozen_parameters_come_anew_in_the_dtype_on_trial() -> None:
    seen: set[Any] = set()

    def loss(module: Any, batch: Any) -> Any:
        value = squared(module, batch)
        seen.update(module.seen)
        return value

    report = verify(Shifted(), loss, dtypes=("float64", "float32"))
    assert report, repr(report)
    assert verdicts(report) == {"weight": "agree"}
    assert seen == {torch.float64, torch.float32, torch.int64, torch.bool}


def test_what_is_not_on_trial_goes_where_the_parameters_are() -> None:
    of_params, params = from_module(Shifted(), lambda module, batch: module(batch["x"]).sum())
    value = of_params({name: p.to("meta") for name, p in params.items()}, {"x": ROWS["x"].to("meta")})
    assert value.device.type == "meta"


def test_a_loss_may_use_submodules_and_parameters() -> None:
    def loss(module: Any, batch: Any) -> Any:
        return module[0](batch["x"]).square().mean() + 0.1 * module[0].weight.square().sum()

    report = verify(perceptron(), loss)
    assert report, repr(report)
    norms = {row.parameter: row.reference for row in report.rows}
    assert norms["0.weight"]
    assert norms["2.weight"] == 0


def test_forward_hooks_run() -> None:
    module = perceptron()
    module[0].register_forward_hook(lambda layer, args, output: 2 * output)
    of_params, params = from_module(module, squared)
    assert torch.equal(of_params(params, ROWS), squared(module, ROWS))
    assert verify(module)


def test_a_loss_may_return_an_array() -> None:
    report = verify(perceptron(), lambda module, batch: module(batch["x"]).square().mean(1), cotangent="random")
    assert report, repr(report)


def test_a_lacking_parameter_is_told_by_name() -> None:
    of_params, params = from_module(perceptron(), squared)
    del params["0.bias"]
    (row,) = gw.verify({"torch": of_params}, params, ROWS).rows
    assert "0.bias" in row.message


class Uncopyable(nn.Linear):
    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("cannot pickle '_io.TextIOWrapper' object")


def test_what_cannot_be_verified_says_why() -> None:
    model = perceptron()

    def wrong(module: Any, batch: Any) -> Any:
        return squared(model, batch)

    for module, loss, says in (
        (perceptron().requires_grad_(False), squared, "no parameter of the module requires a gradient"),
        (nn.Sequential(nn.LazyLinear(2)), squared, "0.weight, 0.bias: lazy"),
        (Uncopyable(3, 2), squared, "cannot be copied: TypeError: cannot pickle"),
        (model, wrong, "the loss uses 'model', the module itself"),
        (squared, model, r"takes a torch.nn.Module and a loss\(module, batch\), got function and Sequential"),
    ):
        with pytest.raises(GradwitnessError, match=says):
            from_module(module, loss)  # type: ignore[arg-type]


# A backward that runs the module again


class Again(torch.autograd.Function):
    """Its backward runs a module again, with the parameters that it then has: an adjoint, a reversible net."""

    @staticmethod
    def forward(ctx: Any, module: Any, x: torch.Tensor, *params: torch.Tensor) -> Any:
        ctx.module = module
        ctx.save_for_backward(x)
        return module(x)

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor) -> Any:
        with torch.enable_grad():
            x = ctx.saved_tensors[0].detach().requires_grad_()
            y = ctx.module(x)
        by = [p for p in (x, *ctx.module.parameters()) if p.requires_grad]
        found = dict(zip(map(id, by), torch.autograd.grad(y, by, cotangents), strict=True))
        return None, *(found.get(id(p)) for p in (x, *ctx.module.parameters()))


class Rerun(nn.Module):
    """Layers that a backward runs again, in each of the ways in which a module may refer to them."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Tanh())
        self.tied = nn.Linear(3, 3, bias=False)
        self.tied.weight = self.inner[0].weight  # type: ignore[assignment]  # what Sequential holds is not typed
        self.listed = [self.inner, self.tied]  # as torch does not know it
        self.bound = self.step
        self.way = way

    def step(self, x: torch.Tensor) -> Any:
        for layer in self.listed:
            x = layer(x)
        return x

    def forward(self, x: torch.Tensor) -> Any:
        if self.way == "checkpoint":
            return checkpoint(self.bound, x, use_reentrant=False)
        if self.way == "adjoint":
            return Again.apply(self.inner, x, *self.inner.parameters())  # type: ignore[no-untyped-call]  # torch's
        return self.bound(x)


def rerun(way: str) -> Any:
    return seeded(lambda: nn.Sequential(nn.Linear(3, 3), Rerun(way), nn.Linear(3, 2)))


@pytest.mark.parametrize("way", ["plain", "checkpoint", "adjoint"])
def test_a_backward_that_runs_the_module_again_has_the_parameters_of_its_call(way: str) -> None:
    report = verify(rerun(way), dtypes=("float64", "float32"))
    assert report, repr(report)
    assert verify(rerun(way), dtypes="bfloat16").rows[0].verdict != "error"
    by_batch = verify(rerun(way), wrt=["x"], dtypes="float32")
    assert by_batch, repr(by_batch)


@pytest.mark.parametrize("way", ["checkpoint", "adjoint"])
def test_each_backward_has_those_of_its_own_call_whatever_ran_meanwhile(way: str) -> None:
    of_params, params = from_module(rerun(way), squared)
    expected, _ = from_module(rerun("plain" if way == "checkpoint" else way), squared)
    points = [{name: (factor * p).double().requires_grad_() for name, p in params.items()} for factor in (1.0, 0.5)]
    batch = {name: x.double() for name, x in ROWS.items()}
    values = [of_params(point, batch) for point in points]
    of_params(params, ROWS)  # in float32, at yet another time
    for point, value in zip(points, values, strict=True):
        found = torch.autograd.grad(value, list(point.values()), allow_unused=True)
        alone = torch.autograd.grad(expected(point, batch), list(point.values()), allow_unused=True)
        for name, g, same in zip(point, found, alone, strict=True):
            assert g is None if same is None else torch.equal(g, same), name


@pytest.mark.parametrize("make", [lambda: rerun("plain")[0], Tied, lambda: rerun("checkpoint"), Recurrent])
def test_nothing_of_a_call_outlives_it(make: Any) -> None:
    """No cycle of references holds a call's tensors until Python looks for cycles; but one of the module's own does."""
    of_params, params = from_module(make(), lambda module, batch: sum(p.sum() for p in module.parameters()))
    given = {name: p.clone().requires_grad_() for name, p in params.items()}
    gc.collect()
    gc.disable()
    try:
        of_params(given, None).backward()
        of_params({name: p.clone() for name, p in params.items()}, None)
        kept = [weakref.ref(p) for p in given.values()]
        del given
        if any(isinstance(m, Rerun) for m in make().modules()):
            gc.collect()
        assert [ref() for ref in kept] == [None] * len(kept)
    finally:
        gc.enable()


def test_state_that_refers_to_the_module_begins_anew_and_other_state_lasts() -> None:
    class Lazy(nn.Module):
        act: Any = None
        calls = 0

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(normal(3, 2))

        def run(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.weight

        def forward(self, x: torch.Tensor) -> Any:
            self.act = self.act or self.run
            self.calls += 1
            return self.act(x)

    seen: list[int] = []

    def loss(module: Any, batch: Any) -> Any:
        seen.append(module.calls)
        return squared(module, batch)

    report = verify(Lazy(), loss)
    assert report, repr(report)
    assert seen == list(range(len(seen)))


@pytest.mark.slow
def test_layers_that_are_compiled_where_they_are_written_are_taken_as_well() -> None:
    layers: Any = torch.compile(nn.Sequential(nn.Linear(4, 4), nn.Tanh()), backend="eager")
    report = verify(nn.Sequential(nn.Linear(3, 4), layers, nn.Linear(4, 2)))
    assert report, repr(report)
    assert len(report.rows) == 6


def test_a_traced_module_is_taken_as_well() -> None:
    report = verify(torch.fx.symbolic_trace(seeded(perceptron)))
    assert report, repr(report)
    assert len(report.rows) == 4


@pytest.mark.filterwarnings("ignore")  # torch's of its own torch.jit
def test_a_module_of_torch_jit_is_taken_as_well() -> None:
    report = verify(nn.Sequential(nn.Linear(3, 3), torch.jit.script(nn.Linear(3, 2))))
    assert report, repr(report)
    assert len(report.rows) == 4


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_module_in_a_subprocess_has_the_parameters_that_it_is_given(dtype: str) -> None:
    """Objects have other ids there."""

    def first_alone(module: Any, batch: Any) -> Any:
        return module[0](batch["x"]).square().mean() + module[2].bias.sum()

    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    loss, params = from_module(module, first_alone)
    here, there = (gw.verify({"torch": loss}, params, ROWS, dtypes=dtype, timeout=t) for t in (None, 300))
    assert [str(row.verdict) for row in here.rows] == ["agree"] * 4
    assert [(row.parameter, row.verdict, row.message) for row in there.rows] == [
        (row.parameter, row.verdict, row.message) for row in here.rows
    ]
    assert [row.reference for row in there.rows] == [row.reference for row in here.rows]
