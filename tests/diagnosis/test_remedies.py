"""What is said to help does, measured on every backend beside what theory foretells."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from gradwitness.diagnosis import remedies
from gradwitness.diagnosis.comparison import comparison_json, comparison_page, comparison_table
from gradwitness.diagnosis.remedies import REMEDIES, Compared, Remedy, compared
from gradwitness.settings import Settings
from tests.page.checked import checked, text_of

SETTINGS = Settings(dtypes=("float32",), reference="differences")
NAMED = {remedy.name: remedy for remedy in REMEDIES}
LEVEL = [name for name in NAMED if any(word in name for word in ("He", "residual", "norm")) and "twice" not in name]
BACKENDS = ["numpy", "torch", "jax"]


def measured(name: str, depth: int, backends: list[str], monkeypatch: pytest.MonkeyPatch) -> Compared:
    monkeypatch.setattr(remedies, "REMEDIES", (replace(NAMED[name], depths=(depth,)),))
    (found,) = compared(SETTINGS, backends)
    return found


def is_the_same(found: Compared) -> bool:
    return not found.why and len(found.used) == len(BACKENDS) and all(used <= 1 for used in found.used.values())


def test_behind_ten_sigmoids_the_gradient_has_vanished_on_every_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured("sigmoid, Xavier", 10, BACKENDS, monkeypatch)
    assert found.ratio < 1e-5
    assert found.ratio < (found.foretold or 0.0) == 0.25**9
    assert is_the_same(found)


@pytest.mark.parametrize("name", LEVEL)
def test_what_helps_keeps_it_within_a_factor_of_ten(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured(name, 10, BACKENDS, monkeypatch)
    assert 0.1 < found.ratio < 10
    assert is_the_same(found)


def test_what_does_not_help_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured("ReLU, Xavier", 10, ["numpy"], monkeypatch)
    assert found.ratio < 0.1
    assert found.ratio == pytest.approx(found.foretold, rel=1.0)


def test_clipping_bounds_the_norm_and_leaves_the_direction(monkeypatch: pytest.MonkeyPatch) -> None:
    free = measured("ReLU, twice He", 10, ["numpy"], monkeypatch)
    clipped = measured("ReLU, twice He, clipped", 10, ["numpy"], monkeypatch)
    assert free.norm > 100
    assert clipped.norm == pytest.approx(1.0)
    assert clipped.ratio == pytest.approx(free.ratio)


def test_gates_keep_what_a_plain_cell_loses(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, lstm, gru = (
        measured(name, 30, ["numpy"], monkeypatch).ratio for name in ("plain recurrent cell", "LSTM", "GRU")
    )
    assert plain < 1e-3 < gru < lstm


@pytest.mark.nightly
@pytest.mark.parametrize("remedy", REMEDIES, ids=lambda remedy: remedy.name)
def test_at_every_depth_all_backends_give_the_same(remedy: Remedy, monkeypatch: pytest.MonkeyPatch) -> None:
    for depth in remedy.depths:
        found = measured(remedy.name, depth, BACKENDS, monkeypatch)
        assert is_the_same(found), found.used
        if found.foretold is not None and found.gradients:
            each = (found.ratio / found.foretold) ** (1 / (depth - 1))
            assert 0.8 < each < 1.25, "theory is off at every layer"


def test_text_json_and_page_have_every_network(monkeypatch: pytest.MonkeyPatch) -> None:
    few = tuple(replace(NAMED[name], depths=(10,)) for name in ("ReLU, He", "sigmoid, Xavier"))
    monkeypatch.setattr(remedies, "REMEDIES", (*few, replace(NAMED["LSTM"], depths=(5,))))
    found = compared(SETTINGS, ["numpy"])
    text = comparison_table(found)
    page = checked(comparison_page(found, {"seed": 0}, {}))
    record = json.loads(comparison_json({}, found))["networks"]
    for one in found:
        assert one.remedy.name in text
        assert one.remedy.name in text_of(page)
    assert [one["network"] for one in record] == ["ReLU, He", "sigmoid, Xavier", "LSTM"]
    assert math.isclose(record[0]["ratio"], found[0].ratio)
    assert "the same on 1" in text


def test_one_that_differs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured("ReLU, He", 10, ["numpy"], monkeypatch)
    apart = replace(found, used={"numpy": 0.2, "torch": 7.0})
    assert "NOT the same: torch" in comparison_table([found, apart])
    assert "Not the same on all backends" in text_of(checked(comparison_page([apart], {}, {})))
