"""The example of a port: its planted fault is named, and without it all agrees."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "port.py"


def test_the_fault_is_named_and_the_right_port_agrees() -> None:
    done = subprocess.run([sys.executable, str(EXAMPLE)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[1].startswith("first difference: 3 (jax: linear2): relative error")
    assert lines[2] == "cause: 3.weight is as it is in jax's linear2.kernel, not transposed"
    assert lines[-1] == "16 gradients: 16 agree"


def test_it_is_short() -> None:
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) < 60
