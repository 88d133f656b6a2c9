"""Neighbours are drawn again rather than kept, and the same ones."""

from __future__ import annotations

import numpy as np

from gradwitness.dtypes import round_to
from gradwitness.evidence.neighbours import draw_neighbours

PRIMALS = {"w": np.linspace(1.0, 2.0, 6).reshape(2, 3), "b": np.zeros(())}


def test_they_are_the_same_whenever_they_are_asked_for() -> None:
    found = draw_neighbours(PRIMALS, lambda leaves: True, "float32", seed=(0,))
    assert len(found) == 2
    first, second = found
    for path, x in PRIMALS.items():
        np.testing.assert_array_equal(found[0][path], first[path])
        np.testing.assert_array_equal(first[path], round_to(first[path], "float32"))
        assert first[path].shape == x.shape
        assert not np.array_equal(first[path], second[path])
        assert not np.array_equal(first[path], x)


def test_one_that_is_not_usable_is_drawn_anew() -> None:
    asked = iter([False, True, False, True])
    found = draw_neighbours(PRIMALS, lambda leaves: next(asked), "float64", seed=(0,))
    assert found.draws == (1, 3)


def test_nothing_is_usable() -> None:
    found = draw_neighbours(PRIMALS, lambda leaves: False, "float64", seed=(0,))
    assert list(found) == []
    assert not found
