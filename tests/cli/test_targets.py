"""`gradwitness verify file.py:name` and `module:name`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gradwitness.cli import cli

SOURCE = """
from functools import partial

import numpy as np

import gradwitness as gw
from gradwitness import ops
from helper import scale

params, batch = {"w": np.array([0.3, -0.7, 1.1])}, {"x": np.array([1.0, 2.0, 3.0])}
problem = gw.Problem("mine", lambda p, b: (ops.tanh(p["w"] * b["x"]) * scale).sum(), params, batch)
bare = gw.Problem("bare", None, params, batch)
number = 3


def loss(p, b):
    return np.tanh(p["w"] * b["x"]).sum()


def gradient(p, b, factor=1.0):
    return {"w": factor * b["x"] / np.cosh(p["w"] * b["x"]) ** 2}


right = partial(gw.verify, gw.Candidate("numpy", loss, gradient=gradient), params, batch, name="right")
wrong = partial(gw.verify, gw.Candidate("numpy", loss, gradient=partial(gradient, factor=1.1)), params, batch)


def nothing(**options):
    return None


def given():
    return {"mine": gw.Candidate("numpy", loss, gradient=gradient)}, params, batch


def array():
    def gradient(p, b, cotangent):
        return {"w": cotangent * b["x"] / np.cosh(p["w"] * b["x"]) ** 2}

    loss = lambda p, b: np.tanh(p["w"] * b["x"])
    return {"mine": gw.Candidate("numpy", loss, gradient=gradient)}, params, batch, {"cotangent": "random"}


def pair():
    return params, batch
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own_targets.py").write_text(SOURCE)
    (tmp_path / "helper.py").write_text("scale = 2.0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["verify", *arguments])


@pytest.mark.parametrize("place", ["own_targets.py", "./own_targets.py", "own_targets"])
def test_a_problem_runs_through_every_backend(folder: Path, place: str) -> None:
    result = run(f"{place}:problem", "--backend", "numpy,torch")
    assert result.exit_code == 0, result.output
    assert "4 gradients: 4 agree" in result.output
    assert "mine" in result.output


def test_a_function_may_return_what_is_to_be_verified(folder: Path) -> None:
    result = run("own_targets.py:given", "--dtype", "float64", "--json", "report.json")
    assert result.exit_code == 0, result.output
    (row,) = json.loads((folder / "report.json").read_text())["rows"]
    assert (row["network"], row["dtype"], row["verdict"]) == ("given", "float64", "agree")
    wrong = run("own_targets.py:pair")
    assert wrong.exit_code == 2
    assert "own_targets.py:pair returned tuple; return what gradwitness.verify returns, or (candidates, params" in (
        wrong.output
    )


def test_a_bare_module_is_told_the_line_to_type(folder: Path) -> None:
    (folder / "modules.py").write_text("import torch\nmodel = torch.nn.Linear(3, 2)\n")
    result = run("modules.py:model")
    assert result.exit_code == 2
    assert "gradwitness_torch.from_module(" in result.output


def test_a_function_may_return_further_options(folder: Path) -> None:
    result = run("own_targets.py:array", "--dtype", "float64", "--json", "report.json")
    assert result.exit_code == 0, result.output
    (row,) = json.loads((folder / "report.json").read_text())["rows"]
    assert (row["network"], row["verdict"]) == ("array", "agree")


def test_a_function_that_verifies_gets_the_options_given(folder: Path) -> None:
    result = run("own_targets.py:right", "--dtype", "float32", "--seed", "7", "--json", "report.json")
    assert result.exit_code == 0, result.output
    report = json.loads((folder / "report.json").read_text())
    assert {row["dtype"] for row in report["rows"]} == {"float32"}
    assert report["environment"]["seed"] == 7
    assert {row["dtype"] for row in json_of("own_targets.py:right")} == {"float64"}, "not the command's own default"


def json_of(*arguments: str) -> list[dict[str, str]]:
    run(*arguments, "--json", "report.json")
    rows: list[dict[str, str]] = json.loads(Path("report.json").read_text())["rows"]
    return rows


def test_a_wrong_gradient_fails(folder: Path) -> None:
    result = run("own_targets.py:wrong")
    assert result.exit_code == 1
    assert "disagree: finite differences refute it" in result.output


def test_several_may_be_named_and_networks_beside(folder: Path) -> None:
    rows = json_of(
        "own_targets.py:problem", "own_targets.py:right", "article", "--backend", "numpy", "--dtype", "float64"
    )
    assert [row["network"] for row in rows] == ["article"] * 4 + ["mine", "right"]


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("absent.py:problem", "absent.py: no such file"),
        ("absent.module:problem", "absent.module: no such module; a file is named with its .py"),
        (
            "own_targets.py:typo",
            "own_targets.py has no 'typo'; its problems: problem, bare; its functions: right, wrong,",
        ),
        ("own_targets.py:", "expected path/to/file.py:name or package.module:name"),
        ("own_targets.py:number", "expected a gradwitness.Problem, or a function that returns the report"),
        ("own_targets.py:bare", "this Problem has no loss"),
        ("own_targets.py:nothing", "own_targets.py:nothing returned NoneType"),
    ],
)
def test_what_cannot_be_found_is_one_clear_error(folder: Path, target: str, says: str) -> None:
    result = run(target)
    assert result.exit_code == 2
    assert says in result.output
    assert "Traceback" not in result.output


ENDINGS = {
    "as it is imported": "import sys\nsys.exit({})\n",
    "when it is called": "import sys\ndef problem(**options): sys.exit({})\n",
}


@pytest.mark.parametrize("status", ["0", "", "3", "'done'"])
@pytest.mark.parametrize("when", ENDINGS)
def test_a_file_that_ends_python_is_wrong_usage(folder: Path, when: str, status: str) -> None:
    (folder / "ending.py").write_text(ENDINGS[when].format(status))
    result = run("ending.py:problem")
    assert result.exit_code == 2
    assert f"ended with sys.exit({status or None})" in result.output


def test_a_builtin_that_ends_python_is_wrong_usage(folder: Path) -> None:
    result = run("sys:exit")
    assert (result.exit_code, "sys:exit ended with sys.exit(None)" in result.output) == (2, True)


def test_a_plain_loss_is_told_what_it_lacks(folder: Path) -> None:
    result = run("own_targets.py:loss")
    assert result.exit_code == 2
    assert "own_targets.py:loss takes p, b. If it is a loss, it needs a point" in result.output
    assert '`def problem(): return {"torch": loss}, params, batch`' in result.output


def test_a_file_without_a_name_is_told_what_there_is(folder: Path) -> None:
    result = run("own_targets.py")
    assert result.exit_code == 2
    assert "name the object in it to verify, as in own_targets.py:problem; its problems: problem, bare" in result.output
    assert "; its functions: right, wrong, nothing, given, array, pair" in " ".join(result.output.split())
    assert "helper.py: name the object in it to verify: a gradwitness.Problem" in run("helper.py").output
    (folder / "only.py").write_text("from os.path import join\ndef check(): ...\ndef _private(): ...\n")
    assert "as in only.py:check; its functions: check" in " ".join(run("only.py").output.split())
    assert run("only.py").output.rstrip().endswith("check")
    assert "missing.py: no such file" in run("missing.py").output


def test_a_file_of_a_loss_alone_is_not_told_to_name_that(folder: Path) -> None:
    (folder / "losses.py").write_text("def loss(params, batch): ...\n")
    said = " ".join(run("losses.py").output.split())
    assert "losses.py:loss" not in said
    assert "a function without arguments that returns (candidates, params, batch); its functions with arg" in said


def test_a_target_that_raises_costs_the_others_nothing(folder: Path) -> None:
    source = (
        SOURCE + "\ndef raising(**o): raise KeyError('no such thing')\ndef refused(**o): gw.verify(5, {'w': 1.0})\n"
    )
    (folder / "own_targets.py").write_text(source)
    result = run("own_targets.py:right", "own_targets.py:raising", "--json", "report.json")
    assert result.exit_code == 2
    assert "1 gradient: 1 agree" in result.output
    assert "Error: own_targets.py:raising raised KeyError: 'no such thing' (at own_targets.py:" in result.output
    assert not (folder / "report.json").exists()
    assert "Error: own_targets.py:refused: expected a loss(params, batch)" in run("own_targets.py:refused").output


def test_what_a_target_allows_it_is_allowed(folder: Path) -> None:
    source = SOURCE + '\nlenient = partial(wrong, allow="disagree", name="lenient")\n'
    (folder / "own_targets.py").write_text(source)
    assert run("own_targets.py:wrong").exit_code == 1
    assert run("own_targets.py:lenient", "own_targets.py:right").exit_code == 0
    assert run("own_targets.py:lenient", "own_targets.py:wrong").exit_code == 1


def test_a_function_that_takes_one_option_by_name_gets_it(folder: Path) -> None:
    source = SOURCE + "\ndef seeded(seed): return right(seed=seed)\ndef deaf(): return right()\n"
    (folder / "own_targets.py").write_text(source)
    assert run("own_targets.py:seeded", "--seed", "3").exit_code == 0
    assert run("own_targets.py:deaf").exit_code == 0
    result = run("own_targets.py:deaf", "--dtype", "float32")
    assert result.exit_code == 2
    assert "own_targets.py:deaf: got an unexpected keyword argument 'dtypes'; let it take **options" in result.output


def test_backends_that_are_named_run_a_loss_of_ones_own_too(folder: Path) -> None:
    source = "\ndef tuple_of_three():\n    return {'torch': lambda p, b: (p['w'] ** 2).sum()}, {'w': np.ones(3)}, {}\n"
    Path("own_targets.py").write_text(SOURCE + source)
    result = run("own_targets.py:tuple_of_three", "--backend", "numpy")
    assert "2 gradients: 2 agree" in result.output, result.output
    assert "5 gradients: 5 agree" in run("own_targets.py:tuple_of_three", "--backend", "all").output
