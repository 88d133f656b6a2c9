"""The examples with modules: what each prints when it is run by itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def printed(example: str) -> list[str]:
    """The lines that an example prints; it must succeed."""
    program = [sys.executable, str(EXAMPLES / f"{example}.py")]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


@pytest.mark.nightly
def test_a_torch_module() -> None:
    assert printed("nn_module")[-1] == "24 gradients: 24 agree"


def test_an_equinox_module() -> None:
    pytest.importorskip("equinox", reason="equinox is not installed")
    assert printed("equinox_module")[-1] == "14 gradients: 14 agree"


@pytest.mark.parametrize("example", ["nn_module", "equinox_module"])
def test_an_example_is_short(example: str) -> None:
    assert len((EXAMPLES / f"{example}.py").read_text(encoding="utf-8").splitlines()) < 60
