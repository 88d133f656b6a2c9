"""What is timed is right, and on the device asked for; and nothing is timed unasked."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from benchmarks.measured import CASES, absence
from gradwitness import registry
from gradwitness.networks import NETWORKS
from gradwitness.timing.turns import FEWEST

ROOT = Path(__file__).parents[2]
PLAIN = "raise SystemExit(pytest.main(sys.argv[1:]))"
PLANTED = f"from tests.project.readme import planted_sign\nwith planted_sign():\n    {PLAIN}"


def run(*arguments: str, code: str = PLAIN) -> str:
    """What a pytest of its own says about the benchmarks."""
    command = [sys.executable, "-c", f"import sys, pytest\n{code}", "benchmarks", "-p", "no:cacheprovider", *arguments]
    path = os.pathsep.join([str(ROOT), *sys.path])
    found = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert found.returncode in (0, 1), found.stdout + found.stderr
    return found.stdout


def counted(output: str) -> dict[str, int]:
    """Outcomes of the last line: {"passed": 1, ...}."""
    return {
        what: int(count) for count, what in re.findall(r"(\d+) (passed|failed|skipped|error)", output.splitlines()[-1])
    }


def test_a_plain_run_times_nothing() -> None:
    output = run()
    assert counted(output) == {"skipped": 3 * len(CASES) * len(registry.backend_names())}
    assert "--benchmark-skip active" in output


def test_a_device_that_is_not_there_is_a_reason_to_skip() -> None:
    output = run("--benchmark-only", "--gradwitness-device", "cuda", "-k", "mlp-small and not _mlp and numpy")
    assert counted(output) == {"skipped": 3}
    assert "numpy does not run on cuda here (it has cpu)" in output


def test_where_it_is_there_nothing_is_skipped() -> None:
    names = [name for name in registry.backend_names() if not registry.missing_modules(name)]
    assert [reason for name in names if (reason := absence(name, "cpu"))] == []


def test_every_network_is_there_and_four_are_larger_too() -> None:
    assert {name for name, size in CASES if size == "small"} == set(NETWORKS)
    for larger in ("medium", "large"):
        assert {name for name, size in CASES if size == larger} == {"mlp", "convnet", "lstm", "transformer"}


def test_a_wrong_gradient_is_not_timed_and_a_right_one_is_with_all_that_is_known(tmp_path: Path) -> None:
    kept = tmp_path / "times.json"
    selected = "mlp-small and not _mlp and forward_backward and (numpy or torch) and not compile"
    output = run("--benchmark-only", "-k", selected, "--benchmark-json", str(kept), code=PLANTED)
    assert counted(output) == {"passed": 1, "failed": 1}
    assert timed(output) == {"torch"}
    assert re.search(r"not timed: disagree: mlp-small float32 numpy layers\.\d\.(bias|weight): disagree", output), (
        output
    )
    (found,) = json.loads(kept.read_text())["benchmarks"]
    assert found["name"] == "torch"
    assert found["group"] == "mlp small, float32, cpu: forward + backward"
    known, stats = found["extra_info"], found["stats"]
    assert stats["rounds"] == len(stats["data"]) >= FEWEST
    assert 0 < stats["min"] <= stats["median"] < known["setup_seconds"]
    assert (known["verdict"], known["parameters"]) == ("agree", 879)
    assert 879 * 4 < known["bytes"] < known["flops"]
    assert known["peak_memory"] is None or known["peak_memory"] >= 0
    assert 0 < known["of_limit"] < 1


def timed(output: str) -> set[str]:
    """The backends that have a row in the tables."""
    return set(re.findall(rf"^({'|'.join(map(re.escape, registry.backend_names()))}) +\d", output, re.MULTILINE))
