"""How a script is run where there is nothing but NumPy and one framework."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["Said", "fixed", "run"]

ELSEWHERE = ("gradwitness", "gradwitness_numpy", "gradwitness_torch", "gradwitness_jax", "tests")
FRAMEWORKS = ("torch", "jax", "jaxlib", "scipy", "flint")
ALONE = """
import runpy, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"{{name}} is not there")

sys.meta_path.insert(0, Absent())
runpy.run_path({script!r}, run_name="__main__")
"""


class Said:
    """What a script printed, by the words that a line begins with, and its exit status."""

    def __init__(self, status: int, text: str) -> None:
        self.status, self.text = status, text

    def number(self, label: str) -> float:
        found = re.search(rf"^{label} +(\S+)", self.text, re.MULTILINE)
        assert found, self.text
        return float(found[1])


def run(script: Path, *, beside: Sequence[str] = ()) -> Said:
    """In an interpreter of its own that ignores PYTHONPATH and the script's folder, and in which gradwitness and all
    frameworks but those named cannot be imported. jax stands on scipy, so it has that as well."""
    absent = [name for name in (*ELSEWHERE, *FRAMEWORKS) if name not in beside]
    code = ALONE.format(absent=absent, script=str(script))
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert "Traceback" not in done.stderr, done.stderr
    return Said(done.returncode, done.stdout)


def fixed(script: Path, wrong: str, right: str) -> Path:
    """The same script with a line mended."""
    text = script.read_text()
    assert text.count(wrong) == 1, text
    mended = script.with_name("mended.py")
    mended.write_text(text.replace(wrong, right))
    return mended
