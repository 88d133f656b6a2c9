"""The worked example as each framework's users write it: every program finds the same loss and gradients."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.explain.truth import DIGITS, GRADIENTS, LOSS

EXAMPLES = Path(__file__).parents[2] / "examples"
each_example = pytest.mark.parametrize("example", ["torch", "jax", pytest.param("compile", marks=pytest.mark.slow)])


@cache
def printed(example: str) -> dict[str, Any]:
    """What the example prints when it is run by itself: the loss, and the gradients by path."""
    program = [sys.executable, str(EXAMPLES / f"article_{example}.py")]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = (line.split(" ", 1) for line in done.stdout.splitlines())
    return {name: ast.literal_eval(value) for name, value in lines}


def expected(example: str, path: str) -> Any:
    """torch holds a row per neuron, where the article has a row per input."""
    return np.transpose(GRADIENTS[path]) if path == "hidden.weight" and example != "jax" else GRADIENTS[path]


@each_example
def test_gradients_to_twelve_digits(example: str) -> None:
    assert set(printed(example)) == {"loss", *GRADIENTS}
    for path in GRADIENTS:
        right = np.ravel(expected(example, path))
        np.testing.assert_allclose(np.ravel(printed(example)[path]), right, rtol=DIGITS, atol=0)


@each_example
def test_the_loss(example: str) -> None:
    loss = np.asarray(printed(example)["loss"])
    assert loss.shape == (() if example == "jax" else (1,))
    np.testing.assert_allclose(np.ravel(loss), [LOSS], rtol=DIGITS)


@pytest.mark.slow
def test_the_programs_agree_with_each_other() -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "article_verified.py")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "12 gradients: 12 agree"
    assert {line.split()[2] for line in done.stdout.splitlines() if line.startswith("article")} == {
        "torch",
        "compiled",
        "jax",
    }
