"""One wrong element of a large gradient is found by group testing, in a black box that stands alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradwitness as gw

SIZE = (400, 400)
RNG = np.random.default_rng(0)
PARAMS = {"w": 0.5 * RNG.standard_normal(SIZE)}
BATCH = {"x": RNG.standard_normal(SIZE)}


class Counted:
    """A loss of 160,000 parameters, with a gradient by hand of which one element is off by 1%."""

    def __init__(self, place: tuple[int, int] | None, factor: float = 1.01) -> None:
        self.place, self.factor, self.values = place, factor, 0

    def loss(self, p: Any, d: Any) -> Any:
        self.values += 1
        return np.mean(np.tanh(p["w"] * d["x"]) ** 2) + np.mean(p["w"][:, ::7])

    def gradient(self, p: Any, d: Any) -> Any:
        t = np.tanh(p["w"] * d["x"])
        g = 2 * t * (1 - t * t) * d["x"] / t.size
        g[:, ::7] += 1 / p["w"][:, ::7].size
        if self.place is not None:
            g[self.place] *= self.factor
        return {"w": g}


def verify(counted: Counted, **options: Any) -> gw.Report:
    candidate = gw.Candidate("numpy", counted.loss, gradient=counted.gradient)
    return gw.verify(candidate, PARAMS, BATCH, **options)


@pytest.mark.parametrize("place", [(0, 0), (123, 357), (399, 399)])
def test_one_element_of_many_is_named(place: tuple[int, int]) -> None:
    right, wrong = Counted(None), Counted(place)
    assert verify(right)
    report = verify(wrong)
    (row,) = report.rows
    assert str(row.verdict) == "disagree"
    assert f"finite differences refute it at [{place[0]}, {place[1]}]" in row.message
    assert wrong.values - right.values <= 200


def test_an_error_everywhere_is_shown_at_some_element() -> None:
    class Scaled(Counted):
        def gradient(self, p: Any, d: Any) -> Any:
            return {"w": 1.001 * super().gradient(p, d)["w"]}

    (row,) = verify(Scaled(None)).rows
    assert str(row.verdict) == "disagree"
    assert "finite differences refute it at [" in row.message
