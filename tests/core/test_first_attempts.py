"""What people type first works, or the error has the line to type."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import gradwitness as gw

RNG = np.random.default_rng(0)
PARAMS, BATCH = {"w": RNG.normal(size=(4, 3))}, {"x": RNG.normal(size=(8, 4))}
POINT = {"x": RNG.normal(size=(8, 4))}


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        (x,) = ctx.saved_tensors
        return 3 * g * x**2


@jax.custom_vjp
def square(x: Any) -> Any:
    return x**2


square.defvjp(lambda x: (x**2, x), lambda x, g: (2 * x * g,))
LINEAR = torch.nn.Linear(4, 3).double()


def torch_loss(p: Any, b: Any) -> Any:
    return torch.tanh(b["x"] @ p["w"]).sum()


def jax_loss(p: Any, b: Any) -> Any:
    return jnp.tanh(b["x"] @ p["w"]).sum()


@functools.wraps(torch.add)
def wrapped(params: Any, batch: Any) -> Any:
    return torch_loss(params, batch)


class Bare(torch.nn.Module):
    def forward(self, params: Any, batch: Any) -> Any:
        return torch_loss(params, batch)


def of_one(w: Any) -> Any:
    return (w**2).sum()


def verify(loss: Any, *arguments: Any, **options: Any) -> Callable[[], gw.Report]:
    return lambda: gw.verify(loss, *(arguments or (PARAMS, BATCH)), **options)


WORKS = {
    "a torch dtype": verify({"torch": torch_loss}, dtypes=torch.float64),
    "a jax dtype": verify({"torch": torch_loss}, dtypes=jnp.float32),
    "NumPy's dtypes": verify({"torch": torch_loss}, dtypes=[np.float32, np.dtype("float64")]),
    "dtypes of several libraries": verify({"torch": torch_loss}, dtypes=(torch.float32, "float64")),
    "tensors for params": verify({"torch": torch_loss}, {"w": torch.tensor(PARAMS["w"])}, BATCH),
    "parameters of a module": verify(
        {"torch": lambda p, b: (b["x"] @ p["weight"].T).square().sum()}, dict(LINEAR.named_parameters()), BATCH
    ),
    "a list of params": verify({"torch": lambda p, b: (b["x"] @ p[0]).square().sum()}, [PARAMS["w"]], BATCH),
    "a bare array for params": verify({"torch": lambda p, b: (b["x"] @ p).square().sum()}, PARAMS["w"], BATCH),
    "no batch": verify({"torch": lambda p, b: (p["w"] ** 2).sum()}, PARAMS),
    "allow and require": verify({"torch": torch_loss}, allow="inconclusive", require="torch"),
    "an integer of NumPy for a seed": verify({"torch": torch_loss}, seed=np.int64(3)),
    "a wrapped function": verify({"torch": wrapped}),
    "a module without parameters": verify({"torch": Bare()}),
    "a sparse gradient": verify(
        {"torch": lambda p, b: torch.nn.functional.embedding(b["i"], p["w"], sparse=True).square().sum()},
        PARAMS,
        {"i": np.array([0, 2, 2])},
    ),
}
FROM_MODULE = "`loss, params = gradwitness_torch.from_module("
ALONE = "`gw.verify(gw.Candidate("
SAYS = {
    "an autograd.Function": (verify(Cube, POINT), ALONE + '"torch", lambda params, batch: Cube.apply(params['),
    "its apply": (verify(Cube.apply, POINT), ALONE + '"torch", lambda params, batch: Cube.apply(params['),
    "its apply in a mapping": (verify({"torch": Cube.apply}, POINT), "custom=Cube), params, cotangent="),
    "a custom_vjp": (verify(square, POINT), ALONE + '"jax", lambda params, batch: square(params['),
    "a module": (verify(LINEAR, POINT), FROM_MODULE),
    "a module in a mapping": (verify({"torch": LINEAR}, POINT), FROM_MODULE),
    "a class of modules": (verify(torch.nn.Linear, POINT), FROM_MODULE),
    "a module in a candidate": (verify(gw.Candidate("torch", LINEAR), POINT), FROM_MODULE),
    "a torch loss by itself": (verify(torch_loss), 'gw.verify({"torch": loss}, ...)'),
    "a jax loss by itself": (verify(jax_loss), 'gw.verify({"jax": loss}, ...)'),
    "a function of the params": (verify({"torch": of_one}, PARAMS), "`lambda params, batch: of_one(params['w'])`"),
    "a function of an array": (verify(of_one, PARAMS["w"]), "`lambda params, batch: of_one(params)`"),
    "a function of a tuple": (verify(of_one, (PARAMS["w"],)), "`lambda params, batch: of_one(params[0])`"),
    "a function of all params": (verify({"torch": lambda p: of_one(p["w"])}), "`lambda params, batch: f(params)`"),
    "a function of arrays": (
        verify({"torch": lambda w, x, y: of_one(w)}, PARAMS, {"x": np.ones(2), "y": np.ones(2)}),
        "`lambda params, batch: f(params['w'], batch['x'], batch['y'])`",
    ),
    "a function of more than there is": (
        verify({"torch": lambda w, x, y: of_one(w)}),
        "`lambda params, batch: f(...)`",
    ),
    "no params": (lambda: gw.verify({"torch": torch_loss}), "call gw.verify(loss, params, batch)"),
    "a list of losses": (verify([torch_loss, jax_loss]), 'gw.verify({"torch": loss, '),
    "a candidate without a backend": (lambda: gw.Candidate(torch_loss), 'Candidate("torch", loss)'),  # type: ignore[arg-type]
    "another name of a backend": (verify(gw.Candidate("pytorch", torch_loss)), "did you mean 'torch'?"),
    "another name in a mapping": (verify({"pytorch": torch_loss}), "{'pytorch': Candidate(\"torch\", loss)}"),
    "a name that is nearly a backend's": (verify({"pytorch": torch_loss}), "did you mean 'torch'?"),
    "a generator": (verify({"torch": torch_loss}, LINEAR.parameters()), "dict(module.named_parameters())"),
    "a tolerance": (verify({"torch": torch_loss}, atol=1e-5), "is measured, not given"),
    "an option misspelt": (verify({"torch": torch_loss}, dtype="float32"), "did you mean 'dtypes'?"),
    "an option that there is not": (
        verify({"torch": torch_loss}, order=2),
        "verify has no option 'order'; it has loss",
    ),
    "whole numbers": (verify({"torch": torch_loss}, {"w": np.ones((4, 3), int)}, BATCH), "Use array.astype(float)"),
    "a label that is no string": (verify({5: torch_loss}), "a candidate's label must be a string, got 5"),
    "a dtype that is none": (verify({"torch": torch_loss}, dtypes=5), "expected a dtype, such as 'float64'"),
}


@pytest.mark.parametrize("attempt", WORKS)
def test_it_works(attempt: str) -> None:
    report = WORKS[attempt]()
    assert report, repr(report)


@pytest.mark.parametrize("attempt", SAYS)
def test_the_error_has_the_line_to_type(attempt: str) -> None:
    call, line = SAYS[attempt]
    with pytest.raises(gw.GradwitnessError) as raised:
        call()
    assert line in str(raised.value)


def test_the_line_for_a_rule_by_itself_works() -> None:
    with pytest.raises(gw.GradwitnessError) as raised:
        gw.verify(Cube.apply, POINT)
    line = str(raised.value).split("`")[1]
    assert eval(line, {"gw": gw, "Cube": Cube, "params": POINT})


def test_a_batch_that_was_forgotten_is_said_in_the_row() -> None:
    (row,) = gw.verify({"torch": torch_loss}, PARAMS).rows
    assert row.message.endswith("; no batch was given: verify(loss, params, batch)")


def test_a_loss_that_runs_in_one_dtype_only_is_weighed_all_the_same() -> None:
    fixed = torch.ones(3, 2)
    rows = gw.verify(
        {"torch": lambda p, b: torch.tanh(p["x"] @ fixed)},
        {"x": RNG.normal(size=(4, 3))},
        cotangent="random",
        dtypes=("float64", "float32"),
    ).rows
    assert [(row.dtype, str(row.verdict)) for row in rows if row.parameter is None] == [("float64", "error")]
    assert "cotangent" not in rows[0].message
    assert {row.dtype for row in rows if row.parameter is not None} == {"float32"}


def test_what_there_is_is_shown() -> None:
    assert set(gw.__all__) == set(dir(gw))
    assert {"verify", "verify_port", "Problem", "__version__"} <= set(dir(gw))
    assert all(getattr(gw, name) is not None for name in gw.__all__)
    assert gw.__version__.count(".") >= 1
    with pytest.raises(AttributeError, match="has no attribute 'gradcheck'; it has Benchmark, Candidate, "):
        gw.gradcheck  # noqa: B018
