"""The layers of a network, read off its graph: which there are, in which order, and what follows which."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import gradwitness as gw
from gradwitness import ops
from gradwitness.diagnosis.stages import Stage, stages_of
from gradwitness.networks import network
from gradwitness.problem import Problem


def stages(problem: Problem) -> tuple[Stage, ...]:
    return stages_of(problem.graph, problem.differentiated)


def test_a_perceptron_is_its_layers_each_behind_its_activation() -> None:
    found = stages(network("mlp"))
    assert [stage.layer for stage in found] == ["layers.0", "layers.1", "layers.2", "layers.3"]
    assert [stage.activation for stage in found] == ["tanh", "tanh", "tanh", ""]
    assert [stage.leaves for stage in found] == [(f"layers.{i}.weight", f"layers.{i}.bias") for i in range(4)]
    assert [stage.after for stage in found] == [None, 0, 1, 2]
    assert [stage.weight for stage in found] == [f"layers.{i}.weight" for i in range(4)]


def test_a_recurrent_cell_is_a_stage_at_every_step() -> None:
    found = stages(network("lstm"))
    assert [(s.layer, s.use) for s in found if s.layer == "cell"] == [("cell", i) for i in range(1, 7)]
    assert [s.name for s in found][:3] == ["embedding", "cell", "cell (use 2)"]


def test_one_that_follows_a_sum_bounds_nothing() -> None:
    found = stages(network("residual_mlp"))
    named = {stage.layer: stage for stage in found}
    assert named["blocks.0.down"].after == [stage.layer for stage in found].index("blocks.0.up")
    assert named["blocks.1.up"].after is None  # what goes in is a sum
    assert named["output"].after is None


def test_weights_and_biases_of_plain_names_make_one_layer() -> None:
    def loss(p: Any, b: Any) -> Any:
        hidden = ops.relu(ops.matmul(b["x"], p["w1"]) + p["b1"])
        return (ops.matmul(hidden, p["w2"]) + p["b2"]).sum()

    shapes = {"w1": (3, 4), "b1": (4,), "w2": (4, 2), "b2": (2,)}
    params = {name: np.ones(shape) for name, shape in shapes.items()}
    found = stages(Problem("plain", loss, params, {"x": np.ones((5, 3))}))
    assert [(stage.layer, stage.leaves, stage.activation) for stage in found] == [
        ("w1", ("w1", "b1"), "relu"),
        ("w2", ("w2", "b2"), ""),
    ]


def test_a_transposed_weight_is_the_weight() -> None:
    def loss(p: Any, b: Any) -> Any:
        return (torch.sigmoid(b["x"] @ p["a.weight"].T + p["a.bias"]) @ p["c.weight"].T).sum()

    params = {"a.weight": np.ones((4, 3)), "a.bias": np.ones(4), "c.weight": np.ones((2, 4))}
    batch = {"x": np.ones((5, 3))}
    graph = gw.capture(gw.Candidate("torch", loss), params, batch)
    found = stages_of(graph, tuple(params))
    assert [(s.layer, s.activation, s.weight, s.after) for s in found] == [
        ("a", "sigmoid", "a.weight", None),
        ("c", "", "c.weight", 0),
    ]
