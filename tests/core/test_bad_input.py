"""Bad input: one clear error each, in the row of the candidate whose it is, and no traceback of a framework."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable
from itertools import count
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import gradwitness as gw
from gradwitness_torch.prepared import OF_MODULE

RNG = np.random.default_rng(0)
PARAMS = {"w": RNG.standard_normal((4, 3)), "b": RNG.standard_normal(3)}
BATCH = {"x": RNG.standard_normal((8, 4)), "y": RNG.standard_normal((8, 3))}
NONE: dict[str, Any] = {}
DRAWN = np.random.default_rng(1)


@jax.custom_jvp
def called_back(x: Any) -> Any:
    return jax.pure_callback(lambda v: NONE[f"the real cause, {len(v)}"], jax.ShapeDtypeStruct(x.shape, x.dtype), x)


called_back.defjvp(lambda p, t: (called_back(p[0]), t[0]))


@pytest.mark.parametrize("timeout", [None, 120])
def test_the_cause_of_an_error_in_a_callback_is_said_and_where(timeout: float | None) -> None:
    (row,) = gw.verify(
        gw.Candidate("jax", lambda p, d: called_back(p["w"]).sum()), PARAMS, BATCH, wrt="w", timeout=timeout
    ).rows
    assert row.message.startswith("JaxRuntimeError: KeyError: 'the real cause, 4' (at ")
    assert row.message.endswith(", <lambda>)")
    assert "test_bad_input.py:" in row.message


def loss(p: Any, d: Any) -> Any:
    return ((torch.tanh(d["x"] @ p["w"] + p["b"]) - d["y"]) ** 2).mean()


def jax_loss(p: Any, d: Any) -> Any:
    return ((jnp.tanh(d["x"] @ p["w"] + p["b"]) - d["y"]) ** 2).mean()


def gradient(p: Any, d: Any) -> dict[str, Any]:
    leaves = {name: x.detach().requires_grad_() for name, x in p.items()}
    return dict(zip(leaves, torch.autograd.grad(loss(leaves, d), list(leaves.values())), strict=True))


def by_hand(changed: Callable[[dict[str, Any]], Any]) -> gw.Candidate:
    """The right gradient, with a change."""
    return gw.Candidate("torch", loss, gradient=lambda p, d: changed(gradient(p, d)))


def each(changed: Callable[[Any], Any]) -> gw.Candidate:
    return by_hand(lambda g: {name: changed(x) for name, x in g.items()})


def written_to(p: Any, d: Any) -> Any:
    d["x"].mul_(2)
    return loss(p, d)


def params_written_to(p: Any, d: Any) -> Any:
    p["w"].mul_(2)
    return loss(p, d)


def clamps(array: Callable[[Any], Any], which: str) -> Callable[..., Any]:
    """The loss, which clamps a leaf in place, so that all calls but the first write what is there already."""

    def clamping(p: Any, d: Any) -> Any:
        found = array({**p, **d}[which])
        found[...] = found.clip(0, 1)
        return loss(p, d)

    return clamping


def numpy_loss(p: Any, d: Any) -> Any:
    return np.mean((d["x"] @ p["w"] + p["b"]) ** 2)


def written_in_numpy(p: Any, d: Any) -> Any:
    d["x"].flags.writeable = True
    d["x"][...] = 0
    return p


def dropped_out(p: Any, d: Any) -> Any:
    return torch.nn.functional.dropout(torch.linspace(1, 2, 100, dtype=torch.float64), 0.5).sum() * loss(p, d)


def calls_backward(p: Any, d: Any) -> Any:
    value = loss(p, d) ** 2
    value.backward()
    return value


def branching(p: Any, d: Any) -> Any:
    value = jax_loss(p, d)
    return value if value > 0 else -value


WITHOUT_ITEM = "of one number, got float; return it without int(), float() or .item()"
HERE = "(at tests/core/test_bad_input.py"
ERRORS: dict[str, tuple[gw.Candidate, str]] = {
    "torch, None": (gw.Candidate("torch", lambda p, d: None), "must return a torch.Tensor of one number, got NoneType"),
    "jax, None": (gw.Candidate("jax", lambda p, d: None), "must return a jax.Array of one number, got NoneType"),
    "torch, float": (gw.Candidate("torch", lambda p, d: loss(p, d).item()), WITHOUT_ITEM),
    "torch, meta": (gw.Candidate("torch", lambda p, d: loss(p, d).to("meta")), 'on the device "meta", which holds no'),
    "torch, backward()": (gw.Candidate("torch", calls_backward), "leave backward() out of the loss"),
    "jax, float": (gw.Candidate("jax", lambda p, d: 1.0), WITHOUT_ITEM),
    "jax, float()": (gw.Candidate("jax", lambda p, d: float(jax_loss(p, d))), 'options={"jit": False}'),
    "jax, branching": (gw.Candidate("jax", branching), 'options={"jit": False}'),
    "jax, NumPy": (gw.Candidate("jax", lambda p, d: np.sum(np.asarray(p["w"]))), "keep to jax.numpy"),
    "torch, vector": (
        gw.Candidate("torch", lambda p, d: p["b"]),
        "shape (3,): end it in a mean or a sum",
    ),
    "jax, vector": (gw.Candidate("jax", lambda p, d: p["b"]), "shape (3,): end it in a mean or a sum"),
    "torch, complex": (
        gw.Candidate("torch", lambda p, d: 1j * loss(p, d)),
        "a real number with a gradient",
    ),
    "torch, integer": (
        gw.Candidate("torch", lambda p, d: loss(p, d).long()),
        "a real number with a gradient",
    ),
    "jax, integer": (gw.Candidate("jax", lambda p, d: jnp.int32(3)), "a real number with a gradient, got one of int32"),
    "no such parameter": (gw.Candidate("torch", lambda p, d: p["v"].sum()), "KeyError: 'v' " + HERE),
    "no such input": (gw.Candidate("jax", lambda p, d: d["z"].sum()), "; params has w, b; batch has x, y"),
    "raises": (by_hand(lambda g: 1 / 0), "ZeroDivisionError: division by zero " + HERE),
    "exits": (by_hand(lambda g: sys.exit(3)), "SystemExit: 3 " + HERE),
    "writes to batch": (
        gw.Candidate("torch", written_to),
        "modifies x, which belongs to the caller",
    ),
    "writes to params": (
        gw.Candidate("torch", params_written_to),
        "modifies one of its params",
    ),
    "writes to batch through .data": (
        gw.Candidate("torch", clamps(lambda x: x.data, "x")),
        "the function modifies x, which belongs to the caller",
    ),
    "writes to batch through NumPy": (
        gw.Candidate("torch", clamps(lambda x: x.numpy(), "x")),
        "the function modifies x, which belongs to the caller",
    ),
    "writes to params through .data": (
        gw.Candidate("torch", clamps(lambda x: x.data, "w")),
        "the function modifies w, which belongs to the caller",
    ),
    "writes to batch through .data in a gradient by hand": (
        gw.Candidate("torch", loss, gradient=lambda p, d: [gradient(p, d), d["x"].data.clamp_(0, 1)][0]),
        "the function modifies x, which belongs to the caller",
    ),
    "writes to batch in NumPy": (
        gw.Candidate("numpy", numpy_loss, gradient=written_in_numpy),
        "the function modifies its params or batch, which belong to the caller",
    ),
    "writes to batch in jax": (
        gw.Candidate("jax", jax_loss, gradient=lambda p, d: np.asarray(d["x"]).fill(0)),
        "the function modifies its params or batch, which belong to the caller",
    ),
    "gradient, extra": (
        by_hand(lambda g: {**g, "c": g["b"]}),
        "shaped like params; it returned w, b, c",
    ),
    "gradient, None": (by_hand(lambda g: None), "shaped like params; it returned NoneType"),
    "gradient, lists": (
        each(lambda x: x.tolist()),
        "it returned a list, tuple or dict for w: give an array",
    ),
    "gradient, a list": (by_hand(lambda g: list(g.values())), "shaped like params; it returned 0, 1"),
    "gradient, integers": (
        each(lambda x: x.int()),
        "gradient of w has dtype int32, its parameter float64",
    ),
    "gradient, complex": (
        each(lambda x: x + 0j),
        "dtype complex128, its parameter float64",
    ),
    "gradient, narrower": (
        each(lambda x: x.float()),
        "dtype float32, its parameter float64",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_it_is_one_error_and_the_others_are_judged(name: str) -> None:
    candidate, says = ERRORS[name]
    report = gw.verify({"torch": loss, "mine": candidate}, PARAMS, BATCH)
    (error,) = (row for row in report.rows if row.candidate == "mine")
    assert error.verdict == "error"
    assert says in error.message
    assert "\n" not in error.message
    assert {str(row.verdict) for row in report.rows if row.candidate == "torch"} == {"agree"}


def test_a_parameter_that_is_missing_in_one_gradient_is_named() -> None:
    report = gw.verify({"torch": loss, "mine": by_hand(lambda g: {"b": g["b"]})}, PARAMS, BATCH)
    assert [(row.parameter, str(row.verdict)) for row in report.rows if row.verdict != "agree"] == [("w", "missing")]


def test_a_gradient_of_another_shape_is_named() -> None:
    report = gw.verify({"torch": loss, "mine": by_hand(lambda g: {**g, "w": g["w"].T})}, PARAMS, BATCH)
    (row,) = (row for row in report.rows if row.verdict != "agree")
    assert (row.parameter, row.message) == ("w", "the gradient has shape (3, 4), its parameter (4, 3)")
    assert row.verdict == "error"


def in_one_dtype(dtype: torch.dtype) -> gw.Candidate:
    def kernel(p: Any, d: Any) -> Any:
        if p["w"].dtype is not dtype:
            raise AssertionError
        return loss(p, d)

    return gw.Candidate("torch", kernel)


def test_a_kernel_of_another_dtype_is_told_which_to_ask_for() -> None:
    candidates = {
        "bfloat16": in_one_dtype(torch.bfloat16),
        "float32": in_one_dtype(torch.float32),
        "none": by_hand(lambda g: 1 / 0),
    }
    messages = {row.candidate: row.message for row in gw.verify(candidates, PARAMS, BATCH, dtypes="float64").rows}
    assert re.fullmatch(
        r"AssertionError \(at \S+, kernel\); it runs in bfloat16: give dtypes=\"bfloat16\", and referee= with the "
        r"label of a candidate whose loss is the same in plain ops",
        messages["bfloat16"],
    )
    assert messages["float32"].endswith('; it runs in float32: give dtypes="float32"')
    assert "it runs in" not in messages["none"]


def test_a_traced_loss_is_told_which_names_there_are() -> None:
    with pytest.raises(gw.GradwitnessError, match=r"KeyError: 'v'\n.*\n  params has w, b; batch has x, y"):
        gw.verify(lambda p, d: p["v"], PARAMS, BATCH)


def test_a_gradient_with_more_digits_than_its_parameter_does_no_harm() -> None:
    wider = each(lambda x: x.double())
    assert gw.verify({"torch": loss, "mine": wider}, PARAMS, BATCH, dtypes="float32")


def test_a_loss_of_nan_is_named() -> None:
    nowhere = gw.Candidate("torch", lambda p, d: loss(p, d) * float("nan"))
    report = gw.verify({"mine": nowhere, "also": nowhere}, PARAMS, BATCH)
    assert {(str(r.verdict), r.message) for r in report.rows} == {
        ("nonfinite", "the loss is nan at the given point: there is nothing to differentiate")
    }
    beside = gw.verify({"mine": nowhere, "torch": loss}, PARAMS, BATCH)
    assert {str(r.verdict) for r in beside.rows if r.candidate == "mine"} == {"different-loss"}


def drawing(p: Any, d: Any) -> Any:
    return loss(p, d) * DRAWN.uniform(0.5, 1)


@pytest.mark.parametrize("random", [dropped_out, drawing])
def test_a_loss_that_is_random_is_named_and_not_taken_for_one_that_accumulates(random: Callable[..., Any]) -> None:
    report = gw.verify({"torch": random}, PARAMS, BATCH)
    for row in report.rows:
        assert row.verdict == "nondeterministic"
        assert row.message.startswith("the same call twice gave two losses, ")


def test_a_gradient_that_accumulates_is_still_named() -> None:
    times = count(1)
    report = gw.verify({"torch": by_hand(lambda g: {k: x * next(times) for k, x in g.items()})}, PARAMS, BATCH)
    assert "nondeterministic" in {str(row.verdict) for row in report.rows}


SCALE = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
FIXED = torch.tensor(2.0, dtype=torch.float64)
MANY = [torch.tensor(1.0, dtype=torch.float64, requires_grad=True) for _ in range(5)]
HEAD = torch.nn.Linear(3, 3, bias=False).double()


def warnings_of(candidates: dict[str, Any]) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert gw.verify(candidates, PARAMS, BATCH)
    return sorted({str(w.message) for w in caught if "is not in params" in str(w.message)})


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (lambda p, d: SCALE * loss(p, d), "SCALE"),
        (lambda p, d: HEAD(d["x"] @ p["w"]).sum(), "HEAD.weight"),
        (lambda p, d: loss(p, d) * sum(MANY), None),
    ],
)
@pytest.mark.parametrize("backend", ["torch", pytest.param("torch.compile", marks=pytest.mark.slow)])
def test_what_a_loss_closes_over_is_warned_of_if_it_requires_a_gradient(
    function: Callable[..., Any], names: str | None, backend: str
) -> None:
    (message,) = warnings_of({backend: function})
    expected = names or "a tensor of shape (), a tensor of shape (), a tensor of shape () and 2 more"
    assert message.startswith(f"the loss reads {expected}: it requires a gradient and is not in params")


def test_what_a_loss_closes_over_is_not_warned_of_if_it_requires_none() -> None:
    assert not warnings_of({"torch": lambda p, d: FIXED * SCALE.detach() * loss(p, d)})


def test_a_loss_may_read_another_tensor_in_the_place_of_its_parameter() -> None:
    """Autograd finds no path from w, and the loss stands still: true, and not what its user wanted to know."""
    with pytest.warns(UserWarning, match="the loss reads HEAD.weight"):
        report = gw.verify({"torch": lambda p, d: HEAD(d["x"][:, :3]).sum()}, PARAMS, BATCH)
    assert {str(row.verdict) for row in report.rows} == {"inconclusive"}
    assert all(
        row.message.endswith("the loss reads HEAD.weight, which is not in params" + OF_MODULE) for row in report.rows
    )


def test_what_it_reads_is_said_beside_a_gradient_of_none_that_is_right() -> None:
    """Differences see that w does not matter, as they see what b does."""
    with pytest.warns(UserWarning, match="the loss reads HEAD.weight"):
        report = gw.verify({"torch": lambda p, d: HEAD(d["x"][:, :3] + p["b"]).sum()}, PARAMS, BATCH)
    messages = {row.parameter: row.message for row in report.rows}
    assert report
    assert messages == {"w": "the loss reads HEAD.weight, which is not in params" + OF_MODULE, "b": ""}
