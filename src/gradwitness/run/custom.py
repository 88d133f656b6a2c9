"""Did the rules that a user wrote have a part in the gradient, and does their framework find them sound?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from gradwitness.errors import BypassedError, GradwitnessError
from gradwitness.problem import Candidate
from gradwitness.protocol import CustomRule, Prepared, Primals, RuleTelling
from gradwitness.report import Address, Row
from gradwitness.verdict import Judgement, Verdict

__all__ = ["custom_rules", "expect_ran", "fault_rows", "observed"]


def observed(prepared: Prepared, primals: Primals) -> tuple[CustomRule, ...] | None:
    """The custom rules that a candidate's gradient is made of; None where it cannot be told."""
    return prepared.custom_rules(primals) if isinstance(prepared, RuleTelling) else None


def custom_rules(candidate: Candidate, prepared: Prepared, primals: Primals) -> tuple[CustomRule, ...] | None:
    """The custom rules that were found; None where it cannot be told.

    Raises BypassedError where one that the candidate names did not run.
    """
    try:
        rules = observed(prepared, primals)
    except GradwitnessError:
        raise
    except Exception:  # torch.cond, say, fails under the eyes of who watches, and its gradient is there
        if candidate.custom:
            raise
        return None
    if rules is not None:
        expect_ran(candidate, rules)
    return rules


def expect_ran(candidate: Candidate, rules: Iterable[CustomRule]) -> None:
    """Raise BypassedError for a rule of `Candidate.custom` that did not run."""
    ran = {rule.name for rule in rules if rule.ran}
    given = candidate.custom
    for rule in given if isinstance(given, list | tuple | set | frozenset) else (given,):
        if (name := _name(rule)) not in ran:
            raise BypassedError(
                f"the backward of {name} never ran, so this gradient is that of something else"
                + (f"; what ran: {', '.join(sorted(ran))}" if ran else "; no custom rule ran")
            )


def _name(rule: Any) -> str:
    if isinstance(rule, str):
        return rule
    return str(getattr(rule, "__name__", None) or getattr(rule, "_qualname", None) or type(rule).__name__)


def fault_rows(address: Address, rules: Iterable[CustomRule]) -> list[Row]:
    """Rows that stand for a rule: an `error` for what is wrong with it; where paths are tried, an `unsupported` for
    what it lacks for some of them."""
    found = []
    for rule in rules:
        its = replace(address, candidate=f"{address.label} {rule.name}")
        lacking = rule.lacking if address.path else {}
        for verdict, failures in ((Verdict.ERROR, rule.faults), (Verdict.UNSUPPORTED, lacking)):
            found += [Row.of(its, Judgement(verdict, f"fails {test}: {why}")) for test, why in failures.items()]
    return found
