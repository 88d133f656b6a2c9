"""Losses of `from_module` in a script: the module is made again from text, with the source of what is a user's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gradwitness as gw
from gradwitness_torch import from_module
from tests.repro.faulty_torch import WrongTanh


class Words(nn.Module):
    """Tied weights, a buffer, a frozen parameter, attributes, containers, layers in eval mode."""

    def __init__(self, words: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        self.norm = nn.BatchNorm1d(width)
        self.block = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width), nn.Dropout(0.5))
        self.output = nn.Linear(width, words)
        self.output.weight = self.embedding.weight
        self.scale, self.act = 0.5, F.gelu
        self.register_buffer("offset", torch.ones(width))
        self.frozen = nn.Parameter(torch.full((width,), 2.0), requires_grad=False)
        self.block.eval()

    def forward(self, i: Any) -> Any:
        x = self.norm(self.embedding(i)) * self.frozen + self.offset
        return self.output(WrongTanh.apply(self.act(self.block(x)) * self.scale))  # type: ignore[no-untyped-call]


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.ModuleList([nn.GRU(3, 3, batch_first=True), nn.LSTM(3, 3, batch_first=True)])
        self.attention = nn.MultiheadAttention(3, 1, batch_first=True)

    def forward(self, x: Any) -> Any:
        for cell in self.cells:
            x = cell(x)[0]
        return WrongTanh.apply(self.attention(x, x, x)[0])  # type: ignore[no-untyped-call]


def cross_entropy(module: Any, batch: Any) -> Any:
    return F.cross_entropy(module(batch["i"]), batch["t"])


def squared(module: Any, batch: Any) -> Any:
    return (module(batch["x"]) ** 2).mean()


def words() -> Any:
    return Words(5, 3), cross_entropy, {"i": torch.randint(5, (6,)), "t": torch.randint(5, (6,))}


def recurrent() -> Any:
    return Recurrent(), squared, {"x": torch.randn(2, 4, 3)}


class Odd(nn.Module):
    """A mask of infinities, a submodule under two names, an attribute that is no name, and a dropout at work."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.again = self.first
        self.nothing: nn.Module | None = None
        self.register_buffer("mask", torch.full((3, 3), -torch.inf).triu(1))
        self.drop = nn.Dropout(0.3)
        setattr(self, "lambda", 0.5)
        self.__dict__['x = 1\n    open("PWNED", "w").write("x") #'] = 1.0

    def forward(self, x: Any) -> Any:
        scores = torch.softmax(self.first(x)[:, None] * getattr(self, "lambda") + self.mask, dim=-1)
        return WrongTanh.apply(self.drop(self.again(scores)))  # type: ignore[no-untyped-call]


def odd() -> Any:
    return Odd(), squared, {"x": torch.randn(4, 3)}


def plain() -> Any:
    module = nn.Sequential(nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, 1))
    return module, lambda m, b: (WrongTanh.apply(m(b["x"])) ** 2).mean(), {"x": torch.randn(5, 3)}  # type: ignore[no-untyped-call]


@pytest.mark.slow
@pytest.mark.parametrize("make", [odd, plain, words, recurrent])
def test_a_wrong_rule_in_a_module_is_shown_by_torch_alone(tmp_path: Path, make: Any) -> None:
    torch.manual_seed(0)
    module, loss, batch = make()
    of_params, params = from_module(module, loss, seed=0)
    report = gw.verify({"torch": of_params}, params, batch, dtypes="float64")
    assert not report
    script = tmp_path / "bug.py"
    report.export_repro(script, seconds=1.0)
    text = script.read_text()
    assert "gradwitness" not in text.replace("Written by gradwitness", "")
    done = subprocess.run([sys.executable, "-I", str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    mended = tmp_path / "mended.py"
    mended.write_text(text.replace("g * (1 - y)", "g * (1 - y * y)"))
    done = subprocess.run([sys.executable, "-I", str(mended)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "does not reproduce")


@pytest.mark.parametrize("place", ["", "0"])
def test_what_no_text_makes_is_named(tmp_path: Path, place: str) -> None:
    module, loss, batch = plain()
    module.get_submodule(place).register_forward_hook(lambda *given: None)
    of_params, params = from_module(module, loss)
    report = gw.verify({"torch": of_params}, params, batch, dtypes="float64")
    with pytest.raises(gw.GradwitnessError, match="the module has _forward_hooks, which no text makes"):
        report.export_repro(tmp_path / "bug.py", seconds=0.1)
    assert list(tmp_path.iterdir()) == []
