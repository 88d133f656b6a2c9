"""Standard streams that are closed, full or a pipe that nobody reads: one line at most, and the exit status is true."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

VERIFY = f"{sys.executable} -m gradwitness verify article --backend numpy --dtype float64"


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=False)


def test_a_closed_standard_error_costs_nothing(tmp_path: Path) -> None:
    done = shell(f"{VERIFY} 2>&-", tmp_path)
    assert done.returncode == 0
    assert done.stdout.endswith("4 gradients: 4 agree\n")
    assert shell(f"{VERIFY} --json missing/report.json 2>&-", tmp_path).returncode == 2


@pytest.mark.parametrize(
    ("redirect", "says"),
    [
        (">&-", "standard output is closed"),
        ("> /dev/full", "standard output cannot be written: No space left on device"),
    ],
)
def test_a_table_that_cannot_be_shown_is_an_error_of_one_line(tmp_path: Path, redirect: str, says: str) -> None:
    done = shell(f"{VERIFY} {redirect}", tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"Error: {says}")


def test_nobody_reads_on(tmp_path: Path) -> None:
    done = shell(f"{sys.executable} -m gradwitness list ops | head -1", tmp_path)
    assert (done.stdout.split()[0], done.stderr) == ("op", "")


def test_every_descriptor_may_be_closed(tmp_path: Path) -> None:
    done = shell(f"{VERIFY} --json report.json <&- 2>&- > table.txt", tmp_path)
    assert done.returncode == 0
    assert json.loads((tmp_path / "report.json").read_text())["ok"] is True
    assert (tmp_path / "table.txt").read_text().endswith("4 gradients: 4 agree\n")


@pytest.mark.parametrize("name", ["-", "/dev/stdout"])
def test_the_table_makes_way_for_json_on_standard_output(tmp_path: Path, name: str) -> None:
    done = shell(f"{VERIFY} --json {name}", tmp_path)
    assert json.loads(done.stdout)["ok"] is True
    assert done.stderr.endswith("4 gradients: 4 agree\n")
    assert list(tmp_path.iterdir()) == []


def test_what_was_asked_for_is_written_whoever_reads_the_table(tmp_path: Path) -> None:
    for redirect in ("| head -0", "2>&1 | head -0", "> /dev/full"):
        shell(f"{VERIFY} --json report.json {redirect}", tmp_path)
        assert json.loads((tmp_path / "report.json").read_text())["ok"] is True
        (tmp_path / "report.json").unlink()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--json - >&-", "standard output is closed"),
        ("--json - > /dev/full", "No space left on device"),
        ("--json - --junit -", "only one of them can go to standard output"),
    ],
)
def test_json_that_cannot_go_to_standard_output_is_an_error_of_one_line(
    tmp_path: Path, options: str, says: str
) -> None:
    done = shell(f"{VERIFY} {options}", tmp_path)
    assert done.returncode == 2
    assert says in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_page_of_ci_that_is_not_there_costs_nothing(tmp_path: Path) -> None:
    done = shell(f"GITHUB_STEP_SUMMARY=missing/page.md {VERIFY}", tmp_path)
    assert done.returncode == 0
    assert done.stderr == "GITHUB_STEP_SUMMARY missing/page.md: cannot be written: No such file or directory\n"


def test_a_terminal_of_plain_ascii_shows_what_it_can(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import numpy as np, gradwitness as gw\n"
        "def check(**o):\n"
        "    loss, gradient = lambda p, b: float((p['w'] ** 2).sum()), lambda p, b: {'w': 2 * p['w']}\n"
        "    mine = gw.Candidate('numpy', loss, gradient=gradient)\n"
        "    return gw.verify({'größe \\ud800': mine}, {'w': np.ones(2)}, {}, **o)\n"
    )
    done = shell(f"PYTHONIOENCODING=ascii {sys.executable} -m gradwitness verify own.py:check", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "gr\\xf6\\xdfe \\ud800" in done.stdout
