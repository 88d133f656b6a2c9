"""Tracing: what is recorded, and what is said when a loss cannot be recorded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradwitness import ops, trace
from gradwitness.errors import NotOneNumberError, TraceError
from gradwitness.graph import Graph
from gradwitness.protocol import Interpreter

X, W, B = np.ones((5, 3)), np.full((4, 3), 0.5), np.zeros(4)


def value(interpreter: Interpreter, graph: Graph, **leaves: np.ndarray) -> float:
    return interpreter.loss(interpreter.forward(graph, leaves))


def test_source_is_the_loss_in_straight_lines() -> None:
    graph = trace(lambda p, b: ops.tanh(ops.linear(b["x"], p["w"], p["b"])).mean(), {"w": W, "b": B}, {"x": X})
    assert graph.source().splitlines() == [
        "def loss(leaves):",
        "    v0 = leaves['w']",
        "    v1 = leaves['b']",
        "    v2 = leaves['x']",
        "    v3 = linear(v2, v0, v1)",
        "    v4 = tanh(v3)",
        "    v5 = mean(v4, axis=(0, 1), keepdims=False)",
        "    return v5",
    ]


def test_nodes_that_do_not_reach_the_loss_are_dropped() -> None:
    graph = trace(lambda p, b: (ops.exp(p["unused"]), (p["w"] * 2).sum())[1], {"w": W, "unused": W}, {})
    assert set(graph.leaves) == {"w"}
    assert graph.op_names == ("multiply", "sum")


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (lambda x: x + 1, lambda x: x + 1),
        (lambda x: 1 - x, lambda x: 1 - x),
        (lambda x: 2 / (x * 3), lambda x: 2 / (x * 3)),
        (lambda x: -(x**2), lambda x: -(x**2)),
        (lambda x: 2.0**x, lambda x: 2.0**x),
        (lambda x: x @ x.T, lambda x: x @ x.T),
        (lambda x: np.full((2, 5), 0.1) @ x, lambda x: np.full((2, 5), 0.1) @ x),
        (lambda x: abs(x - 1), lambda x: abs(x - 1)),
        (lambda x: x[1:, None, ::2], lambda x: x[1:, None, ::2]),
        (lambda x: x[..., -1], lambda x: x[..., -1]),
        (lambda x: x[np.array([0, 0, 3])], lambda x: x[[0, 0, 3]]),
        (lambda x: x.reshape(3, -1), lambda x: x.reshape(3, -1)),
        (lambda x: x.mean(0) + x.sum(axis=(0, 1)), lambda x: x.mean(0) + x.sum()),
        (lambda x: ops.where(x > 0.5, x, 0.0), lambda x: np.where(x > 0.5, x, 0.0)),
        (lambda x: ops.concatenate([x, x], axis=1), lambda x: np.concatenate([x, x], axis=1)),
        (lambda x: sum(row.sum() for row in x), lambda x: x.sum()),
    ],
)
def test_python_operators_mean_what_numpy_means(interpreter: Interpreter, expression: Any, expected: Any) -> None:
    x = np.linspace(0.1, 1.7, 15).reshape(5, 3)
    graph = trace(lambda p, b: (expression(p["x"]) * 1.5).sum(), {"x": x}, {})
    assert value(interpreter, graph, x=x) == pytest.approx((expected(x) * 1.5).sum(), rel=1e-14)


def test_integers_compare_as_integers_and_scale_as_floats(interpreter: Interpreter) -> None:
    graph = trace(
        lambda p, b: ops.where(b["y"] == 2, p["x"] * 3, 0.0).sum(), {"x": np.ones(4)}, {"y": np.array([2, 1, 2, 0])}
    )
    assert value(interpreter, graph, x=np.ones(4), y=np.array([2, 1, 2, 0])) == 6.0


def test_constants_of_the_loss_and_of_definitions_keep_apart(interpreter: Interpreter) -> None:
    x = np.arange(32.0).reshape(2, 1, 4, 4)
    graph = trace(lambda p, b: ops.avg_pool2d(p["x"] * np.full((2, 1, 4, 4), 3.0), kernel_size=2).sum(), {"x": x}, {})
    elementary = graph.decomposed()
    assert len(elementary.constants) == 2
    assert value(interpreter, elementary, x=x) == pytest.approx(value(interpreter, graph, x=x))


def test_an_error_names_op_line_and_both_shapes() -> None:
    def loss(p: Any, b: Any) -> Any:
        return (b["x"] @ p["w"]).mean()  # the line that is wrong

    with pytest.raises(TraceError) as caught:
        trace(loss, {"w": W}, {"x": X})
    message = str(caught.value)
    assert message.startswith("matmul: inner extents differ: 3 and 4")
    assert "test_trace.py:" in message
    assert "# the line that is wrong" in message
    assert "x: float[5, 3]" in message
    assert "y: float[4, 3]" in message


@pytest.mark.parametrize(
    ("loss", "says"),
    [
        (lambda p, b: p["w"] * 2, r"one number, got an array of shape \(4, 3\): end it in .mean\(\)"),
        (lambda p, b: 3.0, "must return a traced value.*got float"),
        (lambda p, b: None, "got NoneType"),
        (lambda p, b: p["w"] if p["w"] > 0 else 0, "truth of a traced value"),
        (lambda p, b: ops.mse(p["w"], b["x"], reduction="mean", half=False), "same shape"),
        (lambda p, b: ops.mse(p["w"], p["w"]), "needs reduction, half="),  # type: ignore[call-arg]  # the mistake
        (lambda p, b: ops.tanh(p["w"], sharpness=2).sum(), "does not take sharpness="),  # type: ignore[call-arg]  # the mistake
        (lambda p, b: ops.sum(p["w"], axis=2), "axis 2 is out of range for 2 dimensions"),
        (lambda p, b: ops.reshape(p["w"], shape=(5, 5)).sum(), "cannot reshape"),
        (lambda p, b: p["w"][5].sum(), "index 5 is out of range for an axis of 4"),
        (lambda p, b: p["w"][::-1].sum(), "step must be positive"),
        (lambda p, b: ops.take(p["w"], b["x"]).sum(), "indices must be int"),
        (lambda p, b: (p["w"] + np.ones(7)).sum(), "do not broadcast"),
        (lambda p, b: (p["w"] + "a").sum(), "dtype"),
        (lambda p, b: ops.tanh(np.ones(3)), "got no traced value"),
        (lambda p, b: ops.softmax(b["x"] > 0).sum(), "x must be float, got bool"),
    ],
)
def test_what_cannot_be_traced_is_explained(loss: Any, says: str) -> None:
    with pytest.raises((TraceError, NotOneNumberError), match=r"(?s)" + says):
        trace(loss, {"w": W}, {"x": X})


def test_a_value_of_another_trace_is_refused() -> None:
    kept = []

    def keeping(p: Any, b: Any) -> Any:
        kept.append(p["w"])
        return p["w"].sum()

    trace(keeping, {"w": W}, {})
    with pytest.raises(TraceError, match="another trace"):
        trace(lambda p, b: (p["w"] * kept[0]).sum(), {"w": W}, {})


def test_scalars_that_no_array_gives_a_width_become_leaves(interpreter: Interpreter) -> None:
    """where(mask, 1.0, 0.0): as literals they would take each framework's default dtype."""
    graph = trace(lambda p, b: (ops.where(b["m"], 1, 0) * p["w"]).sum(), {"w": W}, {"m": W > 0})
    assert list(graph.constants) == ["constant.0", "constant.1"]
    assert value(interpreter, graph, w=W, m=W > 0) == 6.0


def test_an_integer_index_stays_an_integer(interpreter: Interpreter) -> None:
    graph = trace(lambda p, b: ops.take(p["w"], 2, axis=0).sum(), {"w": W}, {})
    assert value(interpreter, graph, w=np.arange(12.0).reshape(4, 3)) == 21.0
