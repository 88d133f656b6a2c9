"""What verifying costs: counted in passes, and beside gradcheck."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.cost.__main__ import DOCS, with_block
from benchmarks.cost.measure import (
    WIDTHS,
    Counting,
    Passes,
    checkers,
    in_turn,
    parameters,
    passes,
    reference_time,
    tanh_mlp,
)
from gradwitness.evidence.reference import reference
from gradwitness.networks import network
from gradwitness.protocol import Interpreter
from gradwitness_torch.functions import FUNCTIONS

SEEN = 300  # values of the loss that differences may take


def test_passes_do_not_grow_with_the_network() -> None:
    """From 10,000 to 1,000,000 parameters; what differences see of them takes at most three hundred values."""
    small, large = tanh_mlp(WIDTHS[0]), tanh_mlp(WIDTHS[-1])
    assert parameters(large) > 90 * parameters(small)
    one, other = passes(small, seconds=0), passes(large, seconds=0)
    assert (one.whole, one.backward) == (other.whole, other.backward)
    assert max(one.part, other.part) <= SEEN
    assert parameters(small) / 20 > SEEN


def test_every_pass_in_256_bits_is_counted(interpreter: Interpreter) -> None:
    problem, counted = network("article"), Passes()
    reference(Counting(interpreter, counted), problem, seed=[0])
    assert (counted.backward, counted.part) == (1, 2 * 2), "up and down, along two directions through all tensors"
    without, with_it = passes(problem, seconds=0), passes(problem, seconds=30)
    assert with_it.backward == without.backward + 1
    assert with_it.part - counted.part < without.part, "a validated gradient needs fewer differences"


@pytest.mark.nightly
def test_verifying_takes_a_small_part_of_what_gradcheck_takes() -> None:
    """Asked for are a fiftieth and a fourth, which docs/cost.md has from a quiet machine; here noise has room."""
    works = checkers(tanh_mlp())
    seconds = in_turn({name: work for name, work in works.items() if name != "gradcheck, fast"}, 1)
    slow = seconds["gradcheck, slow"]
    assert seconds["gradwitness --reference differences"] < slow / 20
    assert seconds["gradwitness, 256 bits"] < slow / 2


def test_a_wrong_gradient_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its value is right and half of its slope is detached, which none of the checkers may let pass."""
    monkeypatch.setitem(FUNCTIONS, "tanh", lambda x: (torch.tanh(x) + torch.tanh(x).detach()) / 2)
    for work in checkers(network("mlp")).values():
        with pytest.raises((AssertionError, RuntimeError)):
            work()


def test_a_gradient_in_256_bits_is_timed_beside_its_estimate() -> None:
    seconds, estimate, refused = reference_time(network("mlp"))
    assert 0 < seconds < 100 * estimate
    assert refused == []


def test_a_page_gets_its_blocks_anew(tmp_path: Path) -> None:
    page = "a\n<!-- table: sizes -->\n```\nold\n```\nz"
    assert with_block(page, "sizes", "new") == "a\n<!-- table: sizes -->\n```\nnew\n```\nz"
    assert all(f"<!-- table: {name} -->" in (DOCS / "cost.md").read_text() for name in ("beside", "sizes", "reference"))
