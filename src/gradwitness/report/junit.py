"""The report as JUnit's XML, which CI systems show: a suite for each network, a case for each gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from gradwitness.report.findings import findings
from gradwitness.report.row import Row
from gradwitness.verdict import Verdict

__all__ = ["to_junit"]

SUITE = "gradwitness"


def to_junit(rows: Sequence[Row], passes: Callable[[Row], bool], shortfalls: Sequence[str]) -> str:
    """passes: whether a row is no failure. shortfalls: what fails the run as a whole, a case each.

    An `error` is an error, `unsupported` is skipped, and any other verdict that does not pass is a failure.
    """
    root = Element("testsuites", name=SUITE)
    for network, mine in groupby(rows, lambda row: row.network):
        suite = SubElement(root, "testsuite", name=_text(network))
        for row in mine:
            _case(suite, row, passes)
        _count(suite)
    if shortfalls:
        suite = SubElement(root, "testsuite", name="the run as a whole")
        for reason in shortfalls:
            case = SubElement(suite, "testcase", classname=SUITE, name=_text(reason))
            SubElement(case, "failure", message=_text(reason))
        _count(suite)
    indent(root)
    return tostring(root, encoding="unicode", xml_declaration=True)


def _case(suite: Element, row: Row, passes: Callable[[Row], bool]) -> None:
    where = f"{row.network}.{row.dtype}.{row.candidate}" + ("" if row.device == "cpu" else f".{row.device}")
    case = SubElement(suite, "testcase", classname=_text(where), name=_text(row.parameter or "(all)"))
    if row.verdict is Verdict.UNSUPPORTED:
        SubElement(case, "skipped", message=_text(row.message))
    elif not passes(row):
        kind = "error" if row.verdict is Verdict.ERROR else "failure"
        (line,) = findings([row])
        SubElement(case, kind, type=str(row.verdict), message=_text(row.message)).text = _text(line)


def _count(suite: Element) -> None:
    suite.set("tests", str(len(suite)))
    for attribute, kind in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(attribute, str(sum(case.find(kind) is not None for case in suite)))


def _text(text: str) -> str:
    """Without what XML 1.0 cannot hold: control characters, and surrogates."""
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)
