"""Parameters are matched by name, shape and layout; what is ambiguous or left over is asked for by name."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from gradwitness.errors import GradwitnessError, UnknownName
from gradwitness.port.layouts import LAYOUTS, flattened
from gradwitness.port.matching import Match, match_parameters

Shapes = Mapping[str, tuple[int, ...]]


def found(torch: Shapes, jax: Shapes, **how: object) -> dict[str, tuple[str, str]]:
    """By torch's label: jax's name, and how."""
    return {m.piece.label: (m.target, m.how) for m in match_parameters(torch, jax, **how)}  # type: ignore[arg-type]


def one(torch: Shapes, jax: Shapes, **how: object) -> Match:
    return match_parameters(torch, jax, **how)[0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("torch", "jax", "how"),
    [
        ((4, 3), (4, 3), "same"),
        ((4, 3), (3, 4), "transposed"),
        ((5, 4, 3), (3, 4, 5), "OIW to WIO"),
        ((6, 5, 2, 3), (2, 3, 5, 6), "OIHW to HWIO"),
        ((7, 6, 2, 3, 4), (2, 3, 4, 6, 7), "OIDHW to DHWIO"),
        ((6, 5), (5, 2, 3), "transposed, in heads"),
        ((5, 6), (2, 3, 5), "transposed, in heads"),
        ((6,), (2, 3), "reshaped"),
        ((4,), (1, 4, 1), "reshaped"),
    ],
)
def test_a_layout_is_told_by_shapes_and_leads_there(torch: tuple[int, ...], jax: tuple[int, ...], how: str) -> None:
    match = one({"a.weight": torch}, {"a.kernel": jax})
    assert match.how == how
    assert match.convert({"a.weight": np.zeros(torch)}).shape == jax


def test_every_layout_is_tried_above() -> None:
    assert len({layout.name for layout in LAYOUTS}) == 7


def test_values_go_where_the_layout_says() -> None:
    x = np.arange(24.0).reshape(2, 3, 4, 1)
    kernel = one({"a.weight": x.shape}, {"a.kernel": (4, 1, 3, 2)}).convert({"a.weight": x})
    assert kernel[3, 0, 2, 1] == x[1, 2, 3, 0]
    flat = flattened(3, 4, 1).apply(x.reshape(2, 12), (12, 2))
    assert flat[3 * 3 + 2, 1] == x[1, 2, 3, 0], "row (h w c)"


@pytest.mark.parametrize(
    ("leaf", "torch_leaf", "how"),
    [
        ("kernel", "weight", "transposed"),
        ("w", "weight", "transposed"),
        ("weight", "weight", "same"),
        ("w", "w", "same"),
    ],
)
def test_a_square_matrix_follows_its_names_convention(leaf: str, torch_leaf: str, how: str) -> None:
    assert one({f"a.{torch_leaf}": (4, 4)}, {f"a.{leaf}": (4, 4)}).how == how


def test_a_square_matrix_follows_its_fellows_first() -> None:
    torch, jax = {"a.w": (4, 3), "b.w": (4, 4)}, {"a.w": (3, 4), "b.w": (4, 4)}
    assert found(torch, jax) == {"a.w": ("a.w", "transposed"), "b.w": ("b.w", "transposed")}


def test_a_square_matrix_whose_layout_nothing_tells_is_asked_for() -> None:
    torch, jax = {"a.weight": (4, 4)}, {"a.table": (4, 4)}
    with pytest.raises(GradwitnessError, match=r'mapping=\{"a.weight": \("a.table", "transposed"\)\}'):
        found(torch, jax)
    assert found(torch, jax, mapping={"a.weight": ("a.table", "transposed")})


def test_numbers_that_count_otherwise_go_by_their_order() -> None:
    torch = {f"{n}.{leaf}": s for n in (0, 2, 10) for leaf, s in (("weight", (4, 4)), ("bias", (4,)))}
    jax = {f"Dense_{n}.{leaf}": s for n in (2, 10, 1) for leaf, s in (("kernel", (4, 4)), ("bias", (4,)))}
    pairs = {name: target for name, (target, _) in found(torch, jax).items()}
    assert (pairs["0.weight"], pairs["2.weight"], pairs["10.bias"]) == (
        "Dense_1.kernel",
        "Dense_2.kernel",
        "Dense_10.bias",
    )


def test_names_go_before_order() -> None:
    torch = {"fc.weight": (4, 4), "hidden.weight": (4, 4)}
    jax = {"hidden.kernel": (4, 4), "dense.kernel": (4, 4)}
    assert found(torch, jax)["fc.weight"] == ("dense.kernel", "transposed")


def test_a_bias_goes_with_its_weight() -> None:
    torch = {"a.weight": (4, 3), "a.bias": (4,), "b.weight": (4, 5), "b.bias": (4,)}
    jax = {"one.w": (5, 4), "one.b": (4,), "two.w": (3, 4), "two.b": (4,)}
    assert found(torch, jax)["a.bias"] == ("two.b", "same")


def test_alike_in_name_and_shape_is_asked_for() -> None:
    torch = {"fc.weight": (4, 4), "out.weight": (4, 4)}
    jax = {"first.kernel": (4, 4), "second.kernel": (4, 4)}
    with pytest.raises(GradwitnessError, match="several ways") as raised:
        found(torch, jax)
    says = str(raised.value)
    assert "first.kernel (4, 4) may be fc.weight or out.weight" in says
    assert 'mapping={"fc.weight": "first.kernel", "out.weight": "second.kernel"}' in says
    assert found(torch, jax, mapping={"fc.weight": "second.kernel"})["out.weight"] == ("first.kernel", "transposed")


@pytest.mark.parametrize(
    ("torch", "jax", "says"),
    [
        ({"a.weight": (4, 3), "a.bias": (4,)}, {"a.kernel": (3, 4)}, r"in torch: a.bias \(4,\); in jax: nothing"),
        ({"a.weight": (4, 3)}, {"a.kernel": (3, 4), "a.gain": (2,)}, r"in torch: nothing; in jax: a.gain \(2,\)"),
        ({"a.weight": (4, 3)}, {"a.kernel": (3, 5)}, r"in torch: a.weight \(4, 3\); in jax: a.kernel \(3, 5\)"),
    ],
)
def test_what_is_left_over_is_named_on_both_sides(torch: Shapes, jax: Shapes, says: str) -> None:
    with pytest.raises(GradwitnessError, match=says):
        found(torch, jax)


@pytest.mark.parametrize(
    ("mapping", "error", "says"),
    [
        ({"b.weight": "a.kernel"}, UnknownName, "parameter of torch in mapping= 'b.weight'; there is: a.weight"),
        ({"a.weight": "b"}, UnknownName, "parameter of jax in mapping= 'b'; there is: a.kernel"),
        ({"a.weight": ("a.kernel", "upside down")}, UnknownName, "layout in mapping= 'upside down'; there is: OIDHW"),
        (
            {"a.weight": ("a.kernel", "same")},
            GradwitnessError,
            r"'same' does not lead from a.weight \(4, 3\) to a.kernel",
        ),
        ({"a.weight": ("a.kernel", "gates i, f, g, o")}, GradwitnessError, "is not of a gated layer"),
    ],
)
def test_a_wrong_mapping_says_what_there_is(mapping: object, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        found({"a.weight": (4, 3)}, {"a.kernel": (3, 4)}, mapping=mapping)


def test_two_for_one_are_refused() -> None:
    with pytest.raises(GradwitnessError, match="gives 'b' twice: 'x' and 'y'"):
        found({"x": (4,), "y": (4,)}, {"b": (4,), "c": (4,)}, mapping={"x": "b", "y": "b"})


def test_a_function_may_be_the_layout() -> None:
    how = {"mapping": {"a.weight": ("a.table", lambda w: w[::-1])}}
    match = one({"a.weight": (2, 2)}, {"a.table": (2, 2)}, **how)
    np.testing.assert_array_equal(match.convert({"a.weight": np.array([[1.0, 2], [3, 4]])}), [[3, 4], [1, 2]])


RECURRENT = {"rnn.weight_ih_l0": (16, 3), "rnn.weight_hh_l0": (16, 4), "rnn.bias_ih_l0": (16,), "rnn.bias_hh_l0": (16,)}


@pytest.mark.parametrize(
    ("jax", "labels"),
    [
        ({"c.weight_ih": (16, 3), "c.weight_hh": (16, 4), "c.bias_ih": (16,), "c.bias_hh": (16,)}, [*RECURRENT]),
        (
            {"c.weight_ih": (16, 3), "c.weight_hh": (16, 4), "c.bias": (16,)},
            ["rnn.weight_ih_l0", "rnn.weight_hh_l0", "rnn.bias_ih_l0 + rnn.bias_hh_l0"],
        ),
        (
            {"c.w": (7, 16), "c.b": (16,)},
            ["rnn.weight_ih_l0 | rnn.weight_hh_l0", "rnn.bias_ih_l0 + rnn.bias_hh_l0"],
        ),
    ],
)
def test_an_lstm_is_read_as_jax_has_it(jax: Shapes, labels: list[str]) -> None:
    assert [*found(RECURRENT, jax)] == labels


def test_gates_are_put_in_the_order_given() -> None:
    label = "rnn.bias_ih_l0 + rnn.bias_hh_l0"
    given = {label: ("c.b", "gates i, g, f, o")}
    matches = match_parameters(RECURRENT, {"c.w": (7, 16), "c.b": (16,)}, given)
    bias = next(m for m in matches if m.target == "c.b").convert(
        {"rnn.bias_ih_l0": np.repeat([1.0, 2, 3, 4], 4), "rnn.bias_hh_l0": np.repeat([10.0, 20, 30, 40], 4)}
    )
    np.testing.assert_array_equal(bias[::4], [11, 33, 22, 44])


def test_a_buffer_may_be_missing_in_jax_and_need_not() -> None:
    torch = {"n.weight": (4,), "n.running_mean": (4,)}
    assert [*found(torch, {"n.scale": (4,)}, required=["n.weight"])] == ["n.weight"]
    both = found(torch, {"params.n.scale": (4,), "batch_stats.n.mean": (4,)}, required=["n.weight"])
    assert both["n.running_mean"] == ("batch_stats.n.mean", "same")
