"""A suite that does not use the plugin does not pay for it: nothing is imported, and starting takes as long."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.project.test_imports import FRAMEWORKS, imported, python, seconds

HEAVY = ("gradwitness", "numpy", "scipy", *FRAMEWORKS)
LIMIT = 1.4  # times what pytest takes without the plugin


def pytest_run(folder: Path, plugin: str, test: str = "def test_nothing(): pass\n") -> str:
    """Code that runs a suite of one test with no plugin but this one."""
    file = folder / "test_one.py"
    file.write_text(test)
    arguments = ["-p", plugin, "--rootdir", str(folder), str(file)]
    return f"""
import os, sys, pytest
os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
sys.path.insert(0, {str(folder)!r})
assert pytest.main({arguments}) == 0
"""


def test_nothing_is_imported_before_the_fixture_is_used(tmp_path: Path) -> None:
    assert imported("import gradwitness_pytest", *HEAVY) == set()
    assert imported(pytest_run(tmp_path, "gradwitness_pytest"), *HEAVY) == set()


def test_the_fixture_imports_no_framework(tmp_path: Path) -> None:
    used = pytest_run(tmp_path, "gradwitness_pytest", "def test_it(verify_gradients): pass\n")
    assert imported(used, *HEAVY) == {"gradwitness", "numpy"}


@pytest.fixture
def heavy(tmp_path: Path) -> str:
    """A plugin that imports what verifies."""
    (tmp_path / "heavy.py").write_text("import gradwitness.verification\n")
    return "heavy"


def test_pytest_starts_as_fast_as_without(tmp_path: Path, heavy: str) -> None:
    """And a plugin that imports what verifies would be seen."""
    runs = [python(pytest_run(tmp_path, plugin)) for plugin in ("no:gradwitness", "gradwitness_pytest", heavy)]
    without, light, planted = seconds(*runs)
    print(f"of pytest alone ({without:.3f} s): with the plugin {light / without:.2f}, planted {planted / without:.2f}")
    assert light <= LIMIT * without < planted
