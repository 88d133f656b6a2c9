"""The corpus is what it says, every checker is asked fairly, and the published page is the record's."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
from click.testing import CliRunner

import gradwitness as gw
from benchmarks.sensitivity.__main__ import PAGE, README, main
from benchmarks.sensitivity.arrays import torch_namespace
from benchmarks.sensitivity.cells import REGIMES, SEEDS, Array, Cell, correct_cells, gradient_by_hand
from benchmarks.sensitivity.checkers import CHECKERS, Says, judged, run
from benchmarks.sensitivity.faults import FAULTS, KINDS, Fault, corpus_hash, effect, planted
from benchmarks.sensitivity.forms import function_candidate, jax_function, numpy_candidate, torch_function, wide
from benchmarks.sensitivity.layers import FAMILIES, LAYERS, Layer, family
from benchmarks.sensitivity.layers.attention import Attention
from benchmarks.sensitivity.limits import ERRORS, limits
from benchmarks.sensitivity.results import RESULTS, load
from benchmarks.sensitivity.table import BLOCKS, README_BLOCKS, filled, has_blocks, short_table
from benchmarks.sensitivity.trials import TOLERANCES, best_tolerances

FIRST_OF = {family(name): name for name in reversed(LAYERS)}
BLATANT = next(fault for fault in FAULTS if fault.name == "dense weight doubled")
ROUNDING = 1e-12


def silent(text: str) -> None:
    """No progress."""


def test_the_corpus_is_large_and_every_kind_and_family_is_in_it() -> None:
    assert len(FAULTS) >= 60
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    assert {fault.family for fault in FAULTS} == set(FAMILIES)
    assert {fault.kind for fault in FAULTS} == set(KINDS)
    assert {fault.regime for fault in FAULTS} <= set(REGIMES)


def test_the_correct_cells_are_every_layer_in_every_regime() -> None:
    cells = correct_cells()
    assert len(set(map(str, cells))) == len(cells) == len(LAYERS) * len(REGIMES) * len(SEEDS) >= 200


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_moves_the_gradient_where_it_says_so(fault: Fault) -> None:
    assert (effect(fault) > 0) == fault.reached


def test_a_line_that_is_not_there_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="stands 0 times in Dense"):
        planted(replace(BLATANT, old="dw = nothing"))


def autograd(layer: Layer, cell: Cell) -> tuple[Array, ...]:
    """The gradient of the layer's forward pass, by torch."""
    floats = [torch.tensor(x, requires_grad=True) for x in cell.floats.values()]
    y, _ = layer.forward(torch_namespace(), *floats, *map(torch.tensor, cell.integers.values()))
    return tuple(g.numpy() for g in torch.autograd.grad((y * torch.tensor(cell.cotangent)).sum(), floats))


def distance(cell: Cell, gradient: tuple[Array, ...]) -> float:
    """From autograd's, of the input where it is largest, over what rounding may do there.

    Data of a hundred make attention scores of 2e4, whose softmax is off by as many roundings, and enter twice more.
    """
    amplified = 2e4 * 100**2 if cell.regime == "offset" else 0.0
    slack = 2.0**-52 * amplified * float(np.max(np.abs(cell.cotangent)))
    pairs = zip(gradient, autograd(LAYERS[cell.layer](), cell), strict=True)
    return max(float(np.linalg.norm(a - b) / (ROUNDING * np.linalg.norm(b) + slack + 1e-300)) for a, b in pairs)


@pytest.mark.parametrize("cell", correct_cells(), ids=str)
def test_a_correct_twin_is_autograds_gradient(cell: Cell) -> None:
    assert distance(cell, gradient_by_hand(LAYERS[cell.layer](), cell, tuple(cell.floats.values()))) <= 1


def test_a_wrong_twin_is_not() -> None:
    cell = BLATANT.cell
    assert distance(cell, gradient_by_hand(planted(BLATANT)(), cell, tuple(cell.floats.values()))) > 1


def of_torch(layer: Layer, cell: Cell) -> list[Array]:
    floats = [torch.tensor(x, requires_grad=True) for x in cell.floats.values()]
    y = torch_function(layer)(*floats, *map(torch.tensor, cell.integers.values()))
    return [g.numpy() for g in torch.autograd.grad((y * torch.tensor(cell.cotangent)).sum(), floats)]


def of_jax(layer: Layer, cell: Cell) -> list[Array]:
    with wide("float64"):
        integers = tuple(map(jax.numpy.asarray, cell.integers.values()))
        _, pull = jax.vjp(jax_function(layer, integers), *map(jax.numpy.asarray, cell.floats.values()))
        return [np.asarray(g) for g in pull(jax.numpy.asarray(cell.cotangent))]


@pytest.mark.parametrize("form", [of_torch, of_jax], ids=lambda form: form.__name__)
@pytest.mark.parametrize("name", FIRST_OF.values())
def test_the_same_lines_give_the_same_gradient_in_each_library(
    name: str, form: Callable[[Layer, Cell], list[Array]]
) -> None:
    cell = Cell(name)
    by_hand = gradient_by_hand(LAYERS[name](), cell, tuple(cell.floats.values()))
    for a, b in zip(form(LAYERS[name](), cell), by_hand, strict=True):
        assert np.linalg.norm(a - b) <= ROUNDING * np.linalg.norm(b)


IN_FLOAT32 = (
    "gradwitness alone",
    "gradwitness in jax",
    "gradwitness beside",
    "check_grads",
)  # gradcheck is made for float64


@pytest.mark.parametrize(
    ("checker", "dtype"), [*((name, "float64") for name in CHECKERS), *((name, "float32") for name in IN_FLOAT32)]
)
def test_each_checker_catches_a_blatant_fault_and_passes_its_twin(checker: str, dtype: str) -> None:
    assert run(CHECKERS[checker], planted(BLATANT), BLATANT.cell, dtype).says is Says.FAULT
    assert run(CHECKERS[checker], LAYERS["Dense"], BLATANT.cell, dtype).says is Says.PASS


@pytest.mark.parametrize("layer", ["Gru", "Lstm"])
def test_saturated_gates_in_float32_are_not_accused(layer: str) -> None:
    """Every run loses the same digits of a gate near 1: jittered inputs show nothing of it, perturbed results do."""
    found = run(CHECKERS["gradwitness alone"], LAYERS[layer], Cell(layer, "offset", 0), "float32")
    assert found.says is Says.INCONCLUSIVE, found.message


def test_each_check_gets_a_new_object() -> None:
    """So that no state is left from another check: the first call of this one is right."""
    fault = next(fault for fault in FAULTS if fault.name == "dense weight accumulated")
    cell = fault.cell
    layers = [planted(fault)(), planted(fault)()]
    first, second = (gradient_by_hand(layer, cell, tuple(cell.floats.values())) for layer in layers)
    again = gradient_by_hand(layers[0], cell, tuple(cell.floats.values()))
    np.testing.assert_array_equal(first[1], second[1])
    np.testing.assert_array_equal(again[1], 2 * first[1])


def test_who_blames_the_right_one_has_caught_nothing() -> None:
    mine = numpy_candidate(LAYERS["Dense"]())
    wrong = function_candidate(planted(BLATANT)())
    assert judged({"mine": mine, "torch": wrong}, BLATANT.cell, "float64")[0] is Says.WRONG_BLAME
    right = function_candidate(LAYERS["Dense"]())
    assert judged({"mine": mine, "torch": right}, BLATANT.cell, "float64")[0] is Says.PASS


def test_what_cannot_be_told_is_neither_caught_nor_passed() -> None:
    def loss(params: Any, batch: Any) -> Any:
        bent = abs(params["x"] * batch["cotangent"])
        return (bent + 1e-3 * torch.special.digamma(bent + 1)).sum()  # an op that no graph has, so values judge

    at_kink = Cell("Softplus")
    at_kink.floats["x"][0] = 0.0
    assert judged(gw.Candidate("torch", loss), at_kink, "float64")[0] is Says.INCONCLUSIVE


def test_the_best_tolerance_passes_every_cell_and_the_next_smaller_does_not() -> None:
    cells = [Cell("Dense"), Cell("LayerNorm"), Cell("Dense", "offset")]
    found = best_tolerances("gradcheck fast", cells, "float64")
    assert found["best"] >= found["best at unit scale"]

    def passes(tolerance: float, cells: list[Cell]) -> bool:
        says = [run(CHECKERS["gradcheck fast"], LAYERS[c.layer], c, "float64", tolerance).says for c in cells]
        return all(s is Says.PASS for s in says)

    for setting, asked in (("best", cells), ("best at unit scale", cells[:2])):
        assert passes(found[setting], asked)
        assert not passes(TOLERANCES[TOLERANCES.index(found[setting]) - 1], asked)


def test_an_error_of_one_coordinate_moves_that_one_alone() -> None:
    gradient = np.random.default_rng(0).standard_normal((5, 7))
    moved = ERRORS["coordinate"](gradient, 0.5) - gradient
    assert np.count_nonzero(moved) == 1
    assert np.max(moved) == pytest.approx(0.5 * np.max(np.abs(gradient)))
    assert ERRORS["whole"](gradient, 0.5) == pytest.approx(1.5 * gradient)


def test_the_smallest_error_caught_lies_near_the_limit_that_is_printed() -> None:
    for found in limits([Cell("Dense")], ["article"], ["float64"], progress=silent):
        assert found["never"] == found["beyond_printed"] == []
        assert 2.0**-52 <= found["median"] <= found["worst"] < 1e-9
        assert found["printed_median"] / 16 < found["median"] < 16 * found["printed_median"]


def test_the_record_is_of_this_corpus() -> None:
    assert load()["corpus"]["hash"] == corpus_hash()
    assert [fault["name"] for fault in load()["corpus"]["faults"]] == [fault.name for fault in FAULTS]


def test_gradwitness_missed_nothing_and_in_float64_blamed_nobody_who_was_right() -> None:
    results = load()
    for trial in results["trials"]:
        if trial["checker"].startswith("gradwitness"):
            asked = {f["name"] for f in results["corpus"]["faults"] if f["reached"] and trial["dtype"] in f["dtypes"]}
            assert asked == set(trial["caught"])
            assert trial["blamed_another"] == []
            assert trial["alarms"] == [] or trial["dtype"] == "float32"  # the page says which, and why


def test_the_page_is_what_the_record_says() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert filled(text, load(), BLOCKS) == text
    short = README.read_text(encoding="utf-8")
    if has_blocks(short, README_BLOCKS):
        assert filled(short, load(), README_BLOCKS) == short


def test_the_short_table_fits_the_readme() -> None:
    text = "before\n<!-- table: sensitivity -->\n```\nold\n```\nafter\n"
    written = filled(text, load(), README_BLOCKS)
    assert written == text.replace("old", short_table(load()))
    assert max(map(len, written.splitlines())) <= 120


def test_a_page_without_a_block_is_refused() -> None:
    with pytest.raises(ValueError, match="no block <!-- table: run -->"):
        filled("no blocks", load(), BLOCKS)


def test_a_miss_and_an_alarm_reach_the_table() -> None:
    results = load()
    (first, *_) = results["trials"]
    missed = first["caught"].pop()
    first["alarms"].append("Dense generic 0")
    page = filled(PAGE.read_text(encoding="utf-8"), results, BLOCKS)
    assert f"{first['checker']}, default, float64: {missed} (" in page
    assert f"{first['checker']}, default, float64: Dense generic 0" in page
    line = next(line for line in short_table(results).splitlines() if line.startswith(first["checker"]))
    assert f"{len(first['caught'])} of {len(first['caught']) + 1}" in line
    assert f"1 of {len(results['cells']['float64'])}" in line


def test_a_sample_is_not_published() -> None:
    found = CliRunner().invoke(main, ["--quick"])
    assert found.exit_code == 2
    assert "give --results and --page" in found.output


@pytest.mark.nightly
def test_a_sample_from_end_to_end(tmp_path: Path) -> None:
    page, record = tmp_path / "page.md", tmp_path / "record.json"
    page.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    before = RESULTS.read_bytes()
    found = CliRunner().invoke(main, ["--quick", "--results", str(record), "--page", str(page)])
    assert found.exit_code == 0, found.output
    results = json.loads(record.read_text(encoding="utf-8"))
    assert {trial["checker"] for trial in results["trials"]} == set(CHECKERS)
    assert results["limits"][0]["never"] == []
    assert filled(page.read_text(encoding="utf-8"), results, BLOCKS) == page.read_text(encoding="utf-8")
    assert RESULTS.read_bytes() == before


class TooLarge(Attention):
    """Wrong in any digits."""

    def backward(self, xp: Any, saved: Any, g: Any) -> Any:
        dq, *others = super().backward(xp, saved, g)
        return (dq * 1.5, *others)


@pytest.mark.parametrize(("layer", "says"), [(Attention, Says.INCONCLUSIVE), (TooLarge, Says.FAULT)])
def test_a_formula_that_only_loses_digits_is_not_accused(layer: Any, says: Says) -> None:
    """Scores of 10,000 leave a tenth of a tiny element to rounding: in long double the same formula is right."""
    (cell,) = (cell for cell in correct_cells() if str(cell) == "Attention offset 1")
    outcome = run(CHECKERS["gradwitness beside"], layer, cell, "float64", None)
    assert outcome.says is says, outcome.message
    assert ("in more digits the same function is right" in outcome.message) is (says is Says.INCONCLUSIVE)
