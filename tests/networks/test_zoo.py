"""The zoo: every network is a problem at a generic point, and the data are what their README says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gradwitness.errors import UnknownName
from gradwitness.networks import NETWORKS, network
from gradwitness.networks.data import CLASSES, characters, digits, vocabulary_size
from gradwitness.networks.perceptron import ACTIVATIONS
from gradwitness.networks.single_ops import op_bundles, op_problems
from gradwitness.ops import OPS

GROWN: dict[str, dict[str, Any]] = {
    "article": {},
    "mlp": {"batch": 64, "width": 128, "depth": 4},
    "softmax_classifier": {"batch": 100},
    "deep_sigmoid": {"batch": 32, "width": 64, "depth": 15},
    "deep_relu": {"batch": 32, "width": 64, "depth": 20},
    "residual_mlp": {"batch": 32, "width": 64, "hidden": 96, "blocks": 5},
    "batchnorm_mlp": {"batch": 32, "width": 64, "depth": 5},
    "layernorm_mlp": {"batch": 32, "width": 64, "depth": 5},
    "convnet": {"batch": 80, "channels": 16},
    "lstm": {"batch": 16, "time": 12, "embedding": 24, "hidden": 32},
    "gru": {"batch": 16, "time": 12, "embedding": 24, "hidden": 32},
    "transformer": {"batch": 16, "time": 48, "width": 40, "heads": 4, "depth": 8, "hidden": 96, "blocks": 3},
    "siamese": {"batch": 32, "features": 48, "width": 64, "outputs": 16},
    "gaussian_mixture": {"batch": 100, "dimensions": 16, "components": 25},
}
each_network = pytest.mark.parametrize("name", NETWORKS)


@each_network
def test_traces_and_reaches_every_parameter(name: str) -> None:
    problem = network(name)
    assert problem.name == name
    assert set(problem.differentiated) <= set(problem.graph.leaves)
    assert set(problem.differentiated) <= set(problem.graph.decomposed().leaves)


@each_network
def test_decomposes_into_elementary_ops(name: str) -> None:
    assert all(OPS[op].definition is None for op in network(name).graph.decomposed().op_names)


@each_network
@pytest.mark.parametrize("seed", [0, 1, 7])
def test_is_at_a_generic_point(name: str, seed: int) -> None:
    for path, array in network(name, seed=seed).primals.items():
        assert np.all(np.isfinite(array)), path
        assert np.all((array != 0) & (array != 1)), path
        assert len(np.unique(array)) == array.size, f"{path} repeats a value"


@each_network
def test_is_small_enough_to_verify_in_passing(name: str) -> None:
    assert sum(array.size for array in network(name).primals.values()) <= 3000


@each_network
def test_only_the_article_has_square_weights(name: str) -> None:
    shapes = [array.shape for path, array in network(name).primals.items() if path.rpartition(".")[2] == "weight"]
    square = [shape for shape in shapes if len(shape) == 2 and shape[0] == shape[1]]
    assert square == ([(2, 2)] if name == "article" else [])


@each_network
def test_is_drawn_from_its_seed(name: str) -> None:
    first, again, other = network(name), network(name, seed=0), network(name, seed=1)
    for path, array in first.primals.items():
        np.testing.assert_array_equal(array, again.primals[path])
        assert np.array_equal(array, other.primals[path]) == (name == "article"), path


@each_network
def test_grows(name: str) -> None:
    small, grown = network(name), network(name, **GROWN[name])
    assert grown.graph.output.spec.size == 1
    assert sum(a.size for a in grown.leaves.values()) > sum(a.size for a in small.leaves.values()) or name == "article"


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_mlp_takes_every_activation_and_loss(activation: str, loss: str) -> None:
    assert {activation, loss} <= set(network("mlp", activation=activation, loss=loss).graph.op_names)


@pytest.mark.parametrize(
    ("name", "sizes", "message"),
    [
        ("perceptron", {}, "unknown network 'perceptron'; there is: article, "),
        ("mlp", {"widht": 3}, "unknown size of mlp 'widht'; did you mean 'width'"),
        ("mlp", {"activation": "swish"}, "unknown activation 'swish'; there is: elu, "),
        ("mlp", {"loss": "mae"}, r"unknown loss 'mae'; did you mean 'mse'\? There is: cross_entropy, mse"),
    ],
)
def test_unknown_names_are_refused_with_what_there_is(name: str, sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownName, match=message):
        network(name, **sizes)


def test_article_has_the_numbers_of_the_article() -> None:
    """By hand, without the ops: the forward pass and the chain rule written out."""
    p = network("article", seed=5).leaves
    z = (p["x"] @ p["hidden.weight"] + p["hidden.bias"])[0]
    h = 1 / (1 + np.exp(-z))
    (y,) = p["output.weight"] @ h + p["output.bias"]
    dy = y - p["target"].item()
    dz = dy * p["output.weight"][0] * h * (1 - h)

    def printed(actual: Any, *expected: float) -> None:
        np.testing.assert_allclose(np.ravel(actual), expected, rtol=0, atol=1e-12)

    printed(z, 0.17, 0.21)
    printed(h, 0.5423979407743504, 0.5523079095743253)
    printed(y, 0.1012668034374428)
    printed(dy**2 / 2, 0.4038606793017760)
    printed(dy, -0.8987331965625572)
    printed(dy * h, -0.4874710351210810, -0.4963774530585171)
    dw = np.outer(p["x"][0], dz)  # a row per input, a column per neuron: the layout of hidden.weight
    printed(dw, -0.0446135498968531, 0.0333336389399910, -0.0713816798349649, 0.0533338223039855)
    printed(dz, -0.0892270997937061, 0.0666672778799820)


def test_gaussian_mixture_is_the_likelihood_of_its_densities() -> None:
    """Against densities written out point by point; the loss is run in NumPy through the few ops that it has."""
    from gradwitness.lowering import lower

    problem = network("gaussian_mixture", batch=3, dimensions=4, components=2, gamma=0.7, extra_freedom=3)
    graph = problem.graph
    loss = lower(graph, _NUMPY)({**problem.leaves, **graph.constants})

    alphas, means, icf, x = (problem.leaves[path] for path in ("alphas", "means", "icf", "x"))
    weights = np.exp(alphas) / np.exp(alphas).sum()
    factors = []
    for row in icf:
        factor = np.diag(np.exp(row[:4]))
        factor[[1, 2, 3, 2, 3, 3], [0, 0, 0, 1, 1, 2]] = row[4:]
        factors.append(factor)
    densities = [
        [
            w * np.linalg.det(q) * np.exp(-0.5 * np.sum((q @ (point - m)) ** 2))
            for w, m, q in zip(weights, means, factors, strict=True)
        ]
        for point in x
    ]
    priors = [0.5 * 0.7**2 * np.sum(q**2) - 3 * np.log(np.linalg.det(q)) for q in factors]
    np.testing.assert_allclose(loss, sum(priors) - np.log(np.sum(densities, axis=1)).sum(), rtol=1e-13)


_NUMPY: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "matmul": np.matmul,
    "exp": np.exp,
    "index": lambda x, key: x[key],
    "reshape": np.reshape,
    "sum": lambda x, axis, keepdims: np.sum(x, axis=axis, keepdims=keepdims),
    "logsumexp": lambda x, axis, keepdims: np.log(np.exp(x).sum(axis, keepdims=keepdims)),
}


def test_ops_problems_cover_every_op_that_has_a_gradient() -> None:
    covered = {problem.name.partition(".")[0] for problem in op_problems()}
    comparisons = {"equal", "not_equal", "less", "less_equal", "greater", "greater_equal"}
    assert set(OPS) - covered == {*comparisons, "one_hot", "stop_gradient"}


def test_op_problems_take_each_floating_operand_of_each_sample() -> None:
    for problem in op_problems():
        name, _, operand = problem.name.partition(".")
        op = OPS[name]
        position = [op.name_of_operand(i) for i in range(max(len(s.operands) for s in op.samples))].index(operand)
        having = [i for i, s in enumerate(op.samples) if position < len(s.operands) and s.operands[position]]
        assert problem.differentiated == tuple(f"sample{i}.{operand}" for i in having)
        assert name in problem.graph.op_names
        assert set(problem.differentiated) <= set(problem.graph.leaves)
        problem.graph.decomposed()


def test_op_problems_have_random_cotangents() -> None:
    for problem in op_problems():
        cotangents = [a for path, a in problem.leaves.items() if ".cotangent." in path]
        assert cotangents
        assert all(len(np.unique(c)) == c.size for c in cotangents), problem.name
    (lstm,) = [p for p in op_problems() if p.name == "lstm_cell.c"]
    assert {"sample0.cotangent.0", "sample0.cotangent.1"} <= set(lstm.leaves)


def test_op_problems_of_one_op_stand_at_one_point() -> None:
    x, y = (next(p for p in op_problems() if p.name == name) for name in ("matmul.x", "matmul.y"))
    assert x.leaves.keys() == y.leaves.keys()
    for path in x.leaves:
        np.testing.assert_array_equal(x.leaves[path], y.leaves[path])


def test_bundles_hold_every_op_problem_once() -> None:
    bundles = op_bundles()
    assert [b.name for b in bundles][:3] == ["ops.elementwise", "ops.arrays", "ops.reductions"]
    bundled = [path for b in bundles for path in b.differentiated]
    assert sorted(bundled) == sorted(f"{p.name}.{path}" for p in op_problems() for path in p.differentiated)
    for b in bundles:
        assert set(b.differentiated) <= set(b.graph.leaves)
        b.graph.decomposed()


def test_digits_are_images_in_the_unit_interval() -> None:
    images, labels = digits(70)
    assert images.shape == (70, 8, 8)
    assert images.min() == 0
    assert images.max() == 1
    np.testing.assert_array_equal(images * 16, np.round(images * 16))
    assert set(labels) == set(range(CLASSES))
    np.testing.assert_array_equal(images[64:], images[:6])
    np.testing.assert_array_equal(labels[64:], labels[:6])


def test_digits_are_those_of_scikit_learn() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    bundled = datasets.load_digits()
    images, labels = digits(64)
    np.testing.assert_array_equal(images * 16, bundled.images[:64])
    np.testing.assert_array_equal(labels, bundled.target[:64])


def test_characters_follow_the_text() -> None:
    stretches = characters(3, 250, offset=10)
    assert stretches.shape == (3, 250)
    assert stretches.max() < vocabulary_size()
    (whole,) = characters(1, 1500)
    np.testing.assert_array_equal(stretches.ravel(), whole[10:760])
    length = next(n for n in range(1, 1000) if np.array_equal(whole[n : n + 300], whole[:300]))
    assert len(set(whole[:length])) == vocabulary_size()


def test_importing_the_zoo_is_light() -> None:
    program = (
        "import sys, gradwitness.networks, gradwitness.networks.single_ops as _\n"
        "from gradwitness.networks import data\n"
        "heavy = {'torch', 'jax', 'scipy', 'sklearn', 'ml_dtypes', 'flint'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert data._digits.cache_info().currsize == data._text.cache_info().currsize == 0\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
