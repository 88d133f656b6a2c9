"""What a loss draws is a constant of its graph where each call draws the same; where not, the remedy is named."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
import torch
from torch import nn

import gradwitness as gw
from gradwitness_torch import from_module
from tests.capture.trust import W, verdicts, verified

X = {"x": np.random.default_rng(6).standard_normal((4, 5))}


class Dropping(nn.Module):
    """Draws masks of two kinds, and noise."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second = nn.Linear(5, 6), nn.Linear(6, 2)

    def forward(self, x: Any) -> Any:
        hidden = nn.functional.dropout(torch.tanh(self.first(x)), 0.4, self.training)
        heads = hidden.reshape(1, 2, 2, 6)
        drop = 0.3 if self.training else 0.0
        mixed = nn.functional.scaled_dot_product_attention(heads, heads, heads, dropout_p=drop).reshape(4, 6)
        noise = 0.1 * torch.randn_like(mixed) if self.training else 0.0
        return self.second(mixed + noise)


def squared(module: Any, batch: Any) -> Any:
    return (module(batch["x"]) ** 2).sum()


def report_of(seed: int | None, training: bool) -> gw.Report:
    loss, params = from_module(Dropping().train(training), squared, seed=seed)
    return verified(loss, params, X)


def test_a_module_that_drops_is_captured_with_its_masks_where_it_is_seeded() -> None:
    report = report_of(0, training=True)
    assert report, repr(report)
    assert all(row.captured and not row.remarks for row in report.rows)


def test_without_a_seed_the_remedy_is_named() -> None:
    report = report_of(None, training=True)
    assert verdicts(report) == {"nondeterministic"}
    assert all("module.eval(), or from_module(..., seed=0)" in row.message for row in report.rows)


def test_in_eval_mode_it_needs_none() -> None:
    report = report_of(None, training=False)
    assert report, repr(report)
    assert all(row.captured for row in report.rows)


@pytest.mark.parametrize("seeded", [True, False])
def test_a_loss_that_draws_says_from_what(seeded: bool) -> None:
    def loss(p: Any, b: Any) -> Any:
        if seeded:
            torch.manual_seed(0)
        return (p["w"] ** 2 * torch.rand(3).double()).sum()

    report = verified(loss)
    assert verdicts(report) == ({"agree"} if seeded else {"nondeterministic"})
    assert not seeded or all(row.captured for row in report.rows)


def test_a_key_of_jax_is_data() -> None:
    def loss(p: Any, b: Any) -> Any:
        keep = jax.random.bernoulli(jax.random.wrap_key_data(b["key"].astype("uint32")), 0.5, (3,))
        return (p["w"] ** 2 * keep / 0.5).sum()

    report = verified(loss, W, {"key": np.array([0, 7])}, backend="jax")
    assert report, repr(report)
    assert all(row.captured and not row.remarks for row in report.rows)
