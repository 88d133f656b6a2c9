"""Two reports: what got worse is said and exits with 1; what is the same is not mentioned."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from click.testing import CliRunner

from gradwitness.cli import cli

ROW = {"network": "mlp", "candidate": "jax", "device": "cpu", "dtype": "float32", "parameter": "w", "message": ""}
VERIFIED = {
    "rows": [
        {**ROW, "verdict": "agree", "error": 1e-7, "floor": 2e-7},
        {**ROW, "parameter": "b", "verdict": "inconclusive", "error": None, "floor": 2e-7},
        {**ROW, "parameter": None, "candidate": "torch", "verdict": "unsupported", "error": None, "floor": None},
    ]
}


def times(*milliseconds: float) -> Any:
    """A backward of these medians, one for each process."""
    turns = [[1e-3 * one] for one in milliseconds]
    middle = 1e-3 * median(milliseconds)
    interval = {"middle": middle, "low": 1e-3 * min(milliseconds), "high": 1e-3 * max(milliseconds)}
    return {"times": {"backward": interval}, "samples": {"backward": turns}}


TIMED = {"timings": [{**ROW, "parameter": None, "verdict": "agree", "why": "", **times(0.97, 1.0, 1.03)}]}


def run(tmp_path: Path, old: Any, new: Any) -> tuple[int, str]:
    paths = [tmp_path / "old.json", tmp_path / "new.json"]
    for path, document in zip(paths, (old, new), strict=True):
        path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    result = CliRunner().invoke(cli, ["diff", *map(str, paths)])
    return result.exit_code, result.output


def changed(document: Any, key: str, number: int, **values: Any) -> Any:
    found = deepcopy(document)
    found[key][number] |= values
    return found


@pytest.mark.parametrize("document", [VERIFIED, TIMED])
def test_the_same_twice_is_silence(tmp_path: Path, document: Any) -> None:
    assert run(tmp_path, document, document) == (0, "nothing changed\n")


WORSE: dict[str, tuple[Any, Any, str]] = {
    "a verdict": (VERIFIED, ("rows", 0, {"verdict": "disagree", "message": "off by 2"}), "agree -> disagree: off by 2"),
    "an error": (VERIFIED, ("rows", 0, {"error": 6e-7}), "the error grew from 1e-07 to 6e-07, 2.5 noise floors"),
    "a time": (
        TIMED,
        ("timings", 0, times(1.45, 1.5, 1.55)),
        "mlp float32 jax: backward is 1.50 times slower: 1 ms -> 1.5 ms",
    ),
    "no time": (TIMED, ("timings", 0, {"times": {}, "samples": {}}), "backward is no longer timed"),
}


@pytest.mark.parametrize("name", WORSE)
def test_what_got_worse_exits_with_1(tmp_path: Path, name: str) -> None:
    document, (key, number, values), says = WORSE[name]
    status, output = run(tmp_path, document, changed(document, key, number, **values))
    assert status == 1
    assert "worse: mlp float32 jax" in output
    assert says in output
    assert output.endswith("1 worse, 0 otherwise changed\n")


BETTER: dict[str, tuple[Any, Any, str]] = {
    "a verdict": (VERIFIED, ("rows", 1, {"verdict": "agree"}), "changed: mlp float32 jax b: inconclusive -> agree"),
    "a time": (
        TIMED,
        ("timings", 0, times(0.49, 0.5, 0.51)),
        "backward is 2.00 times faster",
    ),
}


@pytest.mark.parametrize("name", BETTER)
def test_what_got_better_is_said_and_exits_with_0(tmp_path: Path, name: str) -> None:
    document, (key, number, values), says = BETTER[name]
    status, output = run(tmp_path, document, changed(document, key, number, **values))
    assert status == 0
    assert says in output


WITHIN: dict[str, tuple[Any, Any]] = {
    "an error": (VERIFIED, ("rows", 0, {"error": 3e-7})),
    "a time": (TIMED, ("timings", 0, times(1.05, 1.1, 1.15))),
    "times of processes that are a quarter apart": (TIMED, ("timings", 0, times(0.9, 1.15, 1.45))),
}


@pytest.mark.parametrize("name", WITHIN)
def test_what_chance_explains_is_not_mentioned(tmp_path: Path, name: str) -> None:
    document, (key, number, values) = WITHIN[name]
    assert run(tmp_path, document, changed(document, key, number, **values)) == (0, "nothing changed\n")


def test_one_process_each_leaves_nothing_to_compare_times_by(tmp_path: Path) -> None:
    once = changed(TIMED, "timings", 0, **times(1.0))
    status, output = run(tmp_path, once, changed(TIMED, "timings", 0, **times(5.0)))
    assert status == 0
    assert "backward cannot be compared: it was timed in one process each, give bench --processes 3" in output


def candidates(**milliseconds: tuple[float, ...]) -> Any:
    """A document of candidates that took turns."""
    return {"timings": [TIMED["timings"][0] | {"candidate": name} | times(*ms) for name, ms in milliseconds.items()]}


BEFORE = candidates(numpy=(0.97, 1.0, 1.03), torch=(1.94, 2.0, 2.06), jax=(0.48, 0.5, 0.52))


def test_a_machine_that_got_slower_is_told_beside_and_is_no_change(tmp_path: Path) -> None:
    slower = candidates(numpy=(1.3, 1.35, 1.4), torch=(2.6, 2.7, 2.8), jax=(0.65, 0.68, 0.7))
    status, output = run(tmp_path, BEFORE, slower)
    assert (status, output.splitlines()[1:]) == (0, ["nothing changed"])
    assert output.startswith(
        "beside: mlp float32: all candidates are 1.35 times slower: the machine, or what they share"
    )


def test_one_of_several_that_got_slower_is_told_whatever_the_machine_does(tmp_path: Path) -> None:
    alone = candidates(numpy=(0.97, 1.0, 1.03), torch=(1.94, 2.0, 2.06), jax=(0.72, 0.75, 0.78))
    status, output = run(tmp_path, BEFORE, alone)
    assert (status, output.count("slower")) == (1, 1)
    assert "worse: mlp float32 jax: backward is 1.50 times slower: 0.5 ms -> 0.75 ms" in output
    also = candidates(numpy=(1.26, 1.3, 1.34), torch=(2.5, 2.6, 2.7), jax=(0.94, 0.975, 1.01))
    status, output = run(tmp_path, BEFORE, also)
    assert status == 1
    assert "worse: mlp float32 jax: backward is 1.95 times slower, all candidates 1.30 times slower" in output


def test_what_is_gone_is_worse_and_what_is_new_is_not(tmp_path: Path) -> None:
    fewer = {"rows": VERIFIED["rows"][:2]}
    status, output = run(tmp_path, VERIFIED, fewer)
    assert status == 1
    assert "worse: mlp float32 torch: is no longer there" in output
    status, output = run(tmp_path, fewer, VERIFIED)
    assert status == 0
    assert "changed: mlp float32 torch: is new" in output


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (VERIFIED, TIMED, "give two of a kind"),
        ("{", TIMED, "is no JSON"),
        ({"a": 1}, TIMED, "neither rows nor timings"),
        ([1], TIMED, "neither rows nor timings"),
    ],
)
def test_what_cannot_be_compared_is_one_error(tmp_path: Path, old: Any, new: Any, says: str) -> None:
    status, output = run(tmp_path, old, new)
    assert status == 2
    assert says in output
    assert output.count("\n") == 1
