"""An interrupt ends the command with one line and status 130, and what was verified until then is shown."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "gradwitness", "verify"]
HEEDING = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)  # what a shell runs in the background ignores interrupts
os.execv(sys.argv[1], sys.argv[1:])
"""


def heeds(pid: int) -> bool:
    """Whether a process has a handler for an interrupt, as Linux tells; without one it would end without a word."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return True
    (caught,) = (line.split()[1] for line in status.read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (signal.SIGINT - 1) & 1)


def interrupted(arguments: Sequence[str], folder: Path, *, after: float | str) -> tuple[int, str, str]:
    """(exit status, standard output, standard error) of the command. after: seconds, or what standard error says."""
    process = subprocess.Popen(
        [sys.executable, "-c", HEEDING, *COMMAND, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    assert process.stderr is not None
    said = ""
    if isinstance(after, str):
        while after not in said and (line := process.stderr.readline()):
            said += line
    else:
        time.sleep(after)
        while process.poll() is None and not heeds(process.pid):  # on a busy machine Python may not be so far
            time.sleep(1e-3)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    output, rest = process.communicate(timeout=60)
    return process.returncode, output, said + rest


@pytest.mark.parametrize("after", [0.05 * n for n in range(1, 21)])
def test_it_ends_with_one_line_wherever_it_is(tmp_path: Path, after: float) -> None:
    """Python's own start, imports, the run."""
    (tmp_path / "report.json").write_text("before")
    status, output, said = interrupted(["article", "--json", "report.json"], tmp_path, after=after)
    if "Fatal Python error" in said or "site.py" in said or "<frozen" in said:
        pytest.skip("Python itself had not started")
    assert (status, output) == (130, "")
    assert said == "interrupted\n"
    assert (tmp_path / "report.json").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_what_was_verified_is_shown(tmp_path: Path, jobs: str) -> None:
    networks = ["article", "mlp", "siamese", "lstm", "transformer", "convnet"]
    arguments = [*networks, "--backend", "numpy,torch", "--jobs", jobs, "--json", "report.json"]
    status, output, said = interrupted(arguments, tmp_path, after="2 of 6: ")
    assert status == 130
    assert said.endswith("interrupted\n")
    assert "Traceback" not in said
    assert output.splitlines()[-1].endswith(" agree")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.nightly
def test_several_processes_find_what_one_does(tmp_path: Path) -> None:
    for jobs in ("1", "3"):
        arguments = ["article", "mlp", "siamese", "--backend", "numpy,torch", "--jobs", jobs, "--json", f"{jobs}.json"]
        done = subprocess.run([*COMMAND, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert "3 of 3: " in done.stderr
    one, three = (json.loads((tmp_path / f"{jobs}.json").read_text()) for jobs in ("1", "3"))
    keys = ("network", "candidate", "dtype", "parameter", "verdict")
    assert [[row[key] for key in keys] for row in one["rows"]] == [[row[key] for key in keys] for row in three["rows"]]
    assert one["environment"].keys() == three["environment"].keys()
