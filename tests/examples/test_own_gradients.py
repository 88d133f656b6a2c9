"""The examples of gradients written by hand: what each prints, and that a fault in it would show."""

from __future__ import annotations

import linecache
import runpy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
# By example: what it ends with, and a fault: a line of its, what becomes of it, and the gradient that is wrong then.
CASES = {
    "autograd_function": ("8 gradients: 8 agree", ("by_b.sum(dim=0)", "by_b.mean(dim=0)"), "mine b"),
    "custom_vjp": ("6 gradients: 6 agree", ("(g / y)[:, None] * x", "g[:, None] * x"), "jitted w"),
    "numpy_layer": ("24 gradients: 24 agree", ("centred - normalised * along", "centred"), "mine x"),
    "attention": ("12 gradients: 12 agree", ("(g * output).sum", "0 * (g * output).sum"), "mine q"),
}


@dataclass(frozen=True)
class Ran:
    """What a program printed, and how it ended."""

    status: object
    printed: str


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[str], Ran]:
    """Runs a program in this process, which has the frameworks already."""

    def ran(source: str) -> Ran:
        path = tmp_path / "example.py"
        path.write_text(source, encoding="utf-8")
        linecache.checkcache(str(path))
        try:
            runpy.run_path(str(path), run_name="__main__")
        except SystemExit as ended:
            return Ran(ended.code, capsys.readouterr().out)
        return Ran(0, capsys.readouterr().out)

    return ran


@pytest.mark.parametrize("example", CASES)
def test_it_agrees_and_is_short(example: str, run: Callable[[str], Ran]) -> None:
    source = (EXAMPLES / f"{example}.py").read_text(encoding="utf-8")
    done = run(source)
    assert done.status == 0, done.printed
    assert done.printed.splitlines()[-1] == CASES[example][0]
    assert len(source.splitlines()) < 60


@pytest.mark.parametrize("example", CASES)
def test_a_fault_in_it_is_named(example: str, run: Callable[[str], Ran]) -> None:
    source = (EXAMPLES / f"{example}.py").read_text(encoding="utf-8")
    _, (right, wrong), gradient = CASES[example]
    assert source.count(right) == 1
    done = run(source.replace(right, wrong))
    assert done.status == 1, done.printed
    assert f"float64 {gradient}: disagree" in done.printed
