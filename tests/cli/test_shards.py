"""A run that is split: what its shards wrote, merged, is what the whole run writes, shows and exits with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from gradwitness import bench
from gradwitness.cli import cli
from gradwitness.report import Address, Report
from gradwitness.report.document import schema
from gradwitness.shards import Shard
from gradwitness.timing import Timing
from gradwitness.timing.roofline import Rates, Work
from gradwitness.timing.statistics import Interval

RUN = (
    "article",
    "softmax_classifier",
    "--backend",
    "numpy,torch,jax",
    "--require",
    "jax",
    "--reference",
    "differences",
    "--jobs",
    "1",
)
OWN = """
import numpy as np
import gradwitness as gw

def problem():
    def loss(p, b):
        return (p["w"] ** 3).sum()
    return {"torch": loss, "mine": gw.Candidate("torch", loss, gradient=lambda p, b: {"w": FACTOR * p["w"] ** 2})}, {
        "w": np.array([1.0, 2.0])
    }, {}
"""


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def written(folder: Path, shards: int, *arguments: str) -> list[Path]:
    """The files of all shards of a run."""
    files = [folder / f"{number}.json" for number in range(1, shards + 1)]
    for number, file in enumerate(files, 1):
        result = run(*arguments, "--shard", f"{number}/{shards}", "--json", file)
        assert file.is_file(), result.output
    return files


def timeless(path: Path) -> Any:
    """What a file says, but for how long preparing took."""
    document = json.loads(path.read_text(encoding="utf-8"))
    for row in document["rows"]:
        del row["setup_seconds"]
    return document


def table(result: Result) -> list[str]:
    return [line for line in result.output.splitlines() if " of 4: " not in line and " of 2: " not in line]


# Who does what


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=40), st.data())
def test_each_cell_is_in_one_shard_and_no_shard_has_much_more_than_its_share(weights: list[int], data: Any) -> None:
    of = data.draw(st.integers(1, len(weights)))
    shares = [Shard(number, of).cells(weights) for number in range(1, of + 1)]
    assert sorted(cell for share in shares for cell in share) == list(range(len(weights)))
    assert all(shares), "a shard without any cell would verify nothing"
    heaviest = max(sum(weights[cell] for cell in share) for share in shares)
    assert heaviest <= sum(weights) / of + max(weights) * (1 - 1 / of) + 1e-9  # Graham's bound for any list


def test_the_split_is_as_it_was() -> None:
    """On every machine, and in every version: the shards of a run may be verified months apart."""
    assert [Shard(number, 3).cells([5, 5, 4, 3, 3, 3, 1]) for number in (1, 2, 3)] == [[0, 4], [1, 5], [2, 3, 6]]


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2", "1/2/3", "1.5/2", ""])
@pytest.mark.parametrize("command", ["verify", "bench"])
def test_what_is_no_share_is_one_error(command: str, text: str) -> None:
    result = run(command, "article", f"--shard={text}")
    assert result.exit_code == 2
    assert f"expected i/n, the i-th of n shards, such as 1/4 to 4/4, got {text!r}" in result.output


@pytest.mark.parametrize("command", ["verify", "bench"])
def test_more_shards_than_cells_are_one_error_in_each(command: str) -> None:
    for number in (1, 3):
        result = run(command, "article", "--dtype", "float64,float32", "--shard", f"{number}/3")
        assert result.exit_code == 2
        assert f"--shard {number}/3: there are only 2 cells to split: ask for at most 2 shards" in result.output


# What comes of it


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return written(tmp_path_factory.mktemp("shards"), 4, "verify", *RUN)


def test_four_shards_merged_are_the_whole_run_row_for_row(shards: list[Path], tmp_path: Path) -> None:
    whole = run("verify", *RUN, "--json", tmp_path / "whole.json")
    joint = run("merge", *reversed(shards), "--json", tmp_path / "joint.json")
    assert timeless(tmp_path / "joint.json") == timeless(tmp_path / "whole.json")
    assert table(joint) == table(whole)
    assert (joint.exit_code, whole.exit_code) == (0, 0)
    for file in shards:
        document = json.loads(file.read_text())
        jsonschema.validate(document, schema())
        assert len({(row["network"], row["dtype"]) for row in document["rows"]}) == 1


@pytest.mark.parametrize("factor", [3, 4])
def test_a_function_of_ones_own_is_a_cell_and_its_fault_is_that_of_the_whole(tmp_path: Path, factor: int) -> None:
    own = tmp_path / f"own{factor}.py"
    own.write_text(OWN.replace("FACTOR", str(factor)))
    arguments = ("verify", f"{own}:problem", "article", "--backend", "numpy,torch", "--dtype", "float64")
    files = written(tmp_path, 2, *arguments)
    whole = run(*arguments, "--json", tmp_path / "whole.json")
    joint = run("merge", *files, "--json", tmp_path / "joint.json")
    assert joint.exit_code == whole.exit_code == (0 if factor == 3 else 1)
    assert timeless(tmp_path / "joint.json") == timeless(tmp_path / "whole.json")
    assert table(joint) == table(whole)


def test_who_is_required_must_have_agreed_in_the_whole_run(shards: list[Path], tmp_path: Path) -> None:
    for number, file in enumerate(shards):
        document = json.loads(file.read_text())
        document["shard"]["require"] = ["torch.compile"]
        (tmp_path / f"{number}.json").write_text(json.dumps(document))
    result = run("merge", *sorted(tmp_path.iterdir()))
    assert result.exit_code == 1
    assert "torch.compile is required, and did not agree everywhere it was asked" in result.output


def changed(document: Any, place: tuple[Any, ...], value: Any) -> Any:
    found = deepcopy(document)
    inner = found
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return found


REFUSED: dict[str, tuple[tuple[Any, ...], Any, str]] = {
    "another seed": (("shard", "asked", "seed"), 7, "seed is 0 in 1.json and 7 in 2.json"),
    "other dtypes": (("shard", "asked", "dtypes"), ["float32"], "dtypes is float64,float32 in 1.json and float32 in 2"),
    "other networks": (
        ("shard", "asked", "networks"),
        [],
        "networks is article,softmax_classifier in 1.json and not giv",
    ),
    "allowed": (("shard", "allow"), ["inconclusive"], "allow is not given in 1.json and inconclusive in 2.json"),
    "more shards": (("shard", "of"), 5, "1.json is one of 4 shards and 2.json one of 5"),
    "the same shard": (("shard", "number"), 1, "1.json and 2.json both are shard 1/4"),
    "another schema": (("schema",), 3, "1.json is of verify, schema 2, and 2.json of verify, schema 3"),
    "another version": (("environment", "versions", "jax"), "0.1", "in 1.json and 0.1 in 2.json"),
    "another setting": (("environment", "settings", "jax", "jax_default_matmul_precision"), "low", "and low in 2.json"),
    "the same cells": (("shard", "cells"), [{"cell": 0, "records": 6}], "do not hold each cell once"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_of_one_run_is_one_error_by_name(
    shards: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    place, value, says = REFUSED[name]
    for file in shards:
        (tmp_path / file.name).write_text(file.read_text())
    (tmp_path / "2.json").write_text(json.dumps(changed(json.loads(shards[1].read_text()), place, value)))
    monkeypatch.chdir(tmp_path)
    result = run("merge", *(file.name for file in shards))
    assert result.exit_code == 2
    assert says in result.output
    assert result.output.count("\n") == 1


def test_what_is_missing_or_whole_is_one_error(shards: list[Path], tmp_path: Path) -> None:
    result = run("merge", *shards[1:3])
    assert (result.exit_code, result.output) == (2, "Error: shard 1/4 and 4/4 is missing: give the files of all 4\n")
    document = json.loads(shards[0].read_text())
    del document["shard"]
    (tmp_path / "whole.json").write_text(json.dumps(document))
    result = run("merge", *shards, tmp_path / "whole.json")
    assert result.exit_code == 2
    assert "whole.json is of a whole run" in result.output
    (tmp_path / "whole.json").write_text(json.dumps(document | {"shard": {"number": 1}}))
    result = run("merge", tmp_path / "whole.json")
    assert result.exit_code == 2
    assert "whole.json: its shard lacks asked, cells, of: give the files as they were written" in result.output


# Times


def told(report: Report, **how: Any) -> Iterator[Timing]:
    """In the place of measuring, times that say whose they are."""
    for network, dtype, candidate, device in dict.fromkeys(row.cell for row in report.rows):
        where = Address(network, candidate, candidate, device, dtype)
        seconds = len(network + candidate + dtype) / 3
        times = {"backward": Interval(seconds, seconds / 2, float("inf"))}
        known: Any = {"samples": {"backward": [[seconds]]}, "setup_seconds": 0.1, "memory": 7}
        limit: Any = {"work": {"backward": Work(5.0, 7.0)}, "rates": Rates(2.0, 3.0)}
        yield Timing(where, 3, "agree", 1, times=times, ratios=times, **known, **limit)


def test_shards_of_bench_merged_are_the_whole_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "timings", told)
    arguments = ("bench", "article", "mlp", "--size", "small", "--backend", "numpy,torch")
    files = written(tmp_path, 2, *arguments)
    whole = run(*arguments, "--json", tmp_path / "whole.json")
    joint = run("merge", *files, "--json", tmp_path / "joint.json")
    assert (tmp_path / "joint.json").read_text() == (tmp_path / "whole.json").read_text()
    assert table(joint) == table(whole)
    assert (joint.exit_code, whole.exit_code) == (0, 0)
    assert [len(json.loads(file.read_text())["timings"]) for file in files] == [2, 2]


def test_times_and_gradients_are_not_joined(
    shards: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "timings", told)
    (file,) = written(tmp_path, 1, "bench", "article", "--size", "small", "--backend", "numpy")
    result = run("merge", shards[0], file)
    assert result.exit_code == 2
    assert "1.json is of verify, schema 2, and" in result.output
    assert "1.json of bench, schema 1" in result.output
