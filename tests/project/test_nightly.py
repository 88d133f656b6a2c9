"""What is left to the nightly run: cases that exist, each beside another of its test that runs every time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.nightly import CASES, runs_each_night

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("test", "nightly"),
    [
        ("core/test_locate.py::test_one_element_of_many_is_named[place1]", True),
        ("core/test_locate.py::test_one_element_of_many_is_named[place0]", False),
        ("core/test_locate.py::test_another[place1]", False),
        ("core/test_locate.py::test_one_element_of_many_is_named", False),
    ],
)
def test_a_case_is_told_by_its_test_and_its_id(test: str, nightly: bool) -> None:
    assert runs_each_night(test) is nightly


@pytest.mark.nightly
def test_each_pattern_leaves_a_case_to_every_run() -> None:
    files = [str(Path("tests", file)) for file in CASES]
    collect = [sys.executable, "-m", "pytest", "--collect-only", "--quiet", *files]
    listed = subprocess.run(collect, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tests = [line.removeprefix("tests/") for line in listed.splitlines() if line.startswith("tests/")]
    for name in (f"{file}::{test}" for file, patterns in CASES.items() for test in patterns):
        cases = [test for test in tests if test.startswith(f"{name}[")]
        at_night = [case for case in cases if runs_each_night(case)]
        assert 0 < len(at_night) < len(cases), name
