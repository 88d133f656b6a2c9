"""docs/ci.md and docs/coming-from-gradcheck.md: what stands there runs, and says what they promise."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from textwrap import indent
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from gradwitness.cli import cli
from tests.plugin.options import PLUGIN
from tests.project.readme import README, blocks

DOCS = README.parent / "docs"
GATE = re.compile(r"- run: (pinned|proposed)/bin/gradwitness (.+?)( \|\| \[ \$\? -eq 1 \])?$", re.MULTILINE)
COMMAND = re.compile(r"^gradwitness (verify .*)$", re.MULTILINE)


def ci_file(folder: Path) -> None:
    problem, elsewhere, timed, metrics = blocks(DOCS / "ci.md")
    called = indent(f"{metrics}assert check_elsewhere()", "    ")
    (folder / "gradients.py").write_text(f"{problem}\n\n{timed}", encoding="utf-8")
    (folder / "metrics.py").write_text(
        f'{problem}\n\n{elsewhere}\n\nif __name__ == "__main__":\n{called}\n', encoding="utf-8"
    )


def ran(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, *arguments]
    return subprocess.run(
        program, cwd=folder, capture_output=True, text=True, check=False, env=os.environ | environment
    )


@pytest.mark.slow
def test_the_command_of_the_page_writes_what_it_says(tmp_path: Path) -> None:
    ci_file(tmp_path)
    (command,) = COMMAND.findall((DOCS / "ci.md").read_text(encoding="utf-8"))
    page = tmp_path / "summary.md"
    page.write_text("what was there\n")
    done = ran(tmp_path, "-m", "gradwitness", *shlex.split(command), GITHUB_STEP_SUMMARY=str(page))
    assert done.returncode == 0, done.stdout + done.stderr
    suite = ElementTree.parse(tmp_path / "gradients.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "0", "0")
    assert json.loads((tmp_path / "gradients.json").read_text())["ok"] is True
    assert page.read_text().startswith("what was there\n### ✅ gradwitness: 2 gradients: 2 agree\n")


def test_the_command_of_the_workflow_is_one_that_runs() -> None:
    text = (DOCS / "ci.md").read_text(encoding="utf-8")
    assert "- run: gradwitness verify gradients.py:check --require torch --junit gradients.xml" in text


def test_metrics_are_numbers_and_a_pool_of_processes_carries_the_cells(tmp_path: Path) -> None:
    ci_file(tmp_path)
    done = ran(tmp_path, "metrics.py")
    assert done.returncode == 0, done.stderr


FAULT = """
import os

if os.environ.get("ENVIRONMENT") == "proposed":
    class Tanh(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return torch.tanh(x)

        @staticmethod
        def backward(ctx, g):
            return 1.01 * g / torch.cosh(ctx.saved_tensors[0]) ** 2

    def loss(params, batch):
        return ((Tanh.apply(batch["x"] @ params["w"]) - batch["y"]) ** 2).mean()
"""


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["", FAULT], ids=["none", "a wrong tanh"])
def test_the_gate_of_an_upgrade_opens_unless_something_got_worse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """Its commands that verify and compare are run; those that time take long, and are only read."""
    ci_file(tmp_path)
    with (tmp_path / "gradients.py").open("a") as stream:
        stream.write(fault)
    monkeypatch.chdir(tmp_path)
    steps = GATE.findall((DOCS / "ci.md").read_text(encoding="utf-8"))
    assert [words.split()[0] for _, words, _ in steps] == ["verify", "verify", "bench", "bench", "diff", "diff"]
    statuses = []
    for environment, words, otherwise in steps:
        monkeypatch.setenv("ENVIRONMENT", environment)
        name, *arguments = shlex.split(words)
        if "times" in words:
            cli.commands[name].make_context(name, arguments)
            continue
        status = CliRunner().invoke(cli, [name, *arguments]).exit_code
        statuses.append(0 if otherwise and status == 1 else status)
    assert statuses == [0, 0, 1 if fault else 0]


@pytest.mark.slow
def test_both_forms_of_each_test_pass(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("\n\n".join(blocks(DOCS / "coming-from-gradcheck.md")))
    pytester.runpytest_subprocess(*PLUGIN).assert_outcomes(passed=4)
