"""torch's own recurrent modules are read into graphs, step by step."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import gradwitness as gw
from gradwitness_torch import from_module

KINDS: dict[str, dict[str, Any]] = {
    "LSTM": {},
    "GRU": {},
    "RNN": {},
    "LSTM of two layers": {"num_layers": 2},
    "GRU both ways": {"bidirectional": True},
}


class Read(torch.nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.cell = getattr(torch.nn, kind.split()[0])(3, 4, batch_first=True, **KINDS[kind])
        self.output = torch.nn.LazyLinear(2)

    def forward(self, x: Any) -> Any:
        return self.output(self.cell(x)[0])


def loss_of(kind: str) -> tuple[Any, Any, Any]:
    torch.manual_seed(0)
    module, batch = Read(kind), {"x": torch.randn(2, 3, 3)}
    module(batch["x"])  # which gives the lazy layer its shape
    return (*from_module(module.eval(), lambda m, b: (m(b["x"]) ** 2).mean()), batch)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_captured_and_agrees_on_another_backend_too(kind: str) -> None:
    loss, params, batch = loss_of(kind)
    report = gw.verify({"torch": loss}, params, batch, backends="numpy", dtypes="float64")
    assert report, repr(report)
    assert all(row.captured for row in report.rows if row.candidate == "torch")


def test_its_steps_are_uses_of_one_layer() -> None:
    loss, params, batch = loss_of("RNN")
    report = gw.health({"torch": loss}, params, batch, backends="numpy")
    assert [stage.use for stage in report.stages if stage.layer == "cell"] == [1, 2, 3, 4]
    assert report.stages[-1].layer == "output"
