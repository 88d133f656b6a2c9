"""The examples of gradients written by hand: what each prints, and that a fault in it would show."""

from __future__ import annotations

import subprocess
import sys
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


def run(source: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = folder / "example.py"
    path.write_text(source, encoding="utf-8")
    return subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("example", CASES)
def test_it_agrees_and_is_short(example: str, tmp_path: Path) -> None:
    source = (EXAMPLES / f"{example}.py").read_text(encoding="utf-8")
    done = run(source, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == CASES[example][0]
    assert len(source.splitlines()) < 60


@pytest.mark.parametrize("example", CASES)
def test_a_fault_in_it_is_named(example: str, tmp_path: Path) -> None:
    source = (EXAMPLES / f"{example}.py").read_text(encoding="utf-8")
    _, (right, wrong), gradient = CASES[example]
    assert source.count(right) == 1
    done = run(source.replace(right, wrong), tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"float64 {gradient}: disagree" in done.stdout
