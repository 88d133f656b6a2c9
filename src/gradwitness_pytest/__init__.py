"""The pytest plugin: the fixture `verify_gradients`, which fails a test where a gradient does not agree.

Every pytest of an environment loads this module, also those that verify nothing. So it is a package of its own, as
`gradwitness` imports NumPy, and imports the rest when a test asks for the fixture.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from collections import Counter, deque
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from gradwitness_pytest.verifier import VerifyGradients

__all__ = ["verify_gradients"]

OPTIONS = ("gradwitness_json", "gradwitness_seed")
VERIFIER = pytest.StashKey["VerifyGradients"]()
GRADIENTS, OTHERS = "gradwitness_gradients", "gradwitness_others"  # what a test's last report carries to the summary


@pytest.fixture
def verify_gradients(request: pytest.FixtureRequest) -> VerifyGradients:
    """Call it like `gradwitness.verify`. It returns the report, or fails the test and says who is wrong, and where.

    It also takes name= and seed=; see `gradwitness_pytest.verifier.VerifyGradients`.
    """
    from gradwitness_pytest.verifier import VerifyGradients  # here, as it imports gradwitness

    json, seed = (request.config.getoption(option) for option in OPTIONS)
    made = request.node.stash[VERIFIER] = VerifyGradients(request.node.name, request.node.nodeid, seed, json)
    return made


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("gradwitness", "gradients that are verified (gradwitness)")
    group.addoption(
        "--gradwitness-json",
        type=_folder,
        metavar="DIR",
        help="keep the evidence of each call of verify_gradients in DIR, a file per call",
    )
    group.addoption(
        "--gradwitness-seed",
        type=_seed,
        metavar="N|random",
        help="the seed of calls of verify_gradients that give none (default: 0)",
    )


def _folder(text: str) -> str:
    """The absolute path, as a test may change the working directory."""
    if os.path.exists(text) and not os.path.isdir(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no folder")
    return os.path.abspath(text)


def _seed(text: str) -> int:
    """As gradwitness.settings.seed_from, which would import gradwitness, also in a suite that verifies nothing."""
    if text == "random":
        return secrets.randbelow(2**31)
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number or 'random', got {text!r}")
    return int(text)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """pytest-xdist: each worker parses the options again; it is to have what was drawn here, once."""
    node.workerinput |= {option: node.config.getoption(option) for option in OPTIONS}


def pytest_configure(config: pytest.Config) -> None:
    drawn = getattr(config, "workerinput", {})
    vars(config.option).update({option: drawn[option] for option in OPTIONS if option in drawn})


def pytest_report_header(config: pytest.Config) -> list[str]:
    seed = config.getoption("gradwitness_seed")
    return [] if seed is None else [f"gradwitness: --gradwitness-seed={seed}"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed `assert gw.verify(...)` shows the table, in a section of its own. The last report of a test carries its
    counts, also from a worker of pytest-xdist."""
    report = yield
    if call.when == "call":
        refused = _refused()
        if refused and call.excinfo is not None and call.excinfo.errisinstance(AssertionError):
            report.sections.append(("gradwitness", refused.pop().table()))
    verifier = item.stash.get(VERIFIER, None)
    if call.when == "teardown" and verifier and (verifier.gradients or verifier.others):
        vars(report).update({GRADIENTS: dict(verifier.gradients), OTHERS: dict(verifier.others)})
    return report


def pytest_runtest_setup() -> None:
    _refused().clear()


def _refused() -> Any:
    """The last report that was falsy where it was asked; none in a suite that imports nothing of gradwitness."""
    module = sys.modules.get("gradwitness.report.report")
    return deque() if module is None else module.REFUSED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """One line, if a gradient was verified."""
    reports = [r for reports in terminalreporter.stats.values() for r in reports if hasattr(r, GRADIENTS)]
    if not reports or terminalreporter.verbosity < 0:
        return
    gradients, others = (_total(reports, kind) for kind in (GRADIENTS, OTHERS))
    tests = f"{len(reports)} test" + "s" * (len(reports) != 1)
    parts = [f"gradwitness: {gradients.total()} gradients in {tests}: {_counts(gradients) or 'none'}"]
    if others:
        parts.append(f"without gradients: {_counts(others)}")
    if folder := config.getoption("gradwitness_json"):
        parts.append(f"evidence in {folder}")
    terminalreporter.write_sep("-", "; ".join(parts))


def _total(reports: list[Any], kind: str) -> Counter[str]:
    return sum((Counter(getattr(report, kind)) for report in reports), Counter[str]())


def _counts(verdicts: Counter[str]) -> str:
    return ", ".join(f"{n} {verdict}" for verdict, n in verdicts.most_common())
