"""The record as text: the blocks of docs/sensitivity.md, and the few lines of the README."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from tabulate import tabulate

from benchmarks.sensitivity.layers import FAMILIES

__all__ = ["BLOCKS", "README_BLOCKS", "filled", "has_blocks", "short_table"]

Results = dict[str, Any]
SETTINGS = ("default", "best", "best at unit scale")


Blocks = Mapping[str, Callable[[Results], str]]


def filled(text: str, results: Results, blocks: Blocks) -> str:
    """A page with each block `<!-- table: NAME -->` written anew. Raises ValueError for a name that is not there."""
    for name, block in blocks.items():
        if not has_blocks(text, [name]):
            raise ValueError(f"the page has no block <!-- table: {name} --> followed by a fence")
        text = re.sub(_pattern(name), partial(_refenced, block(results)), text, flags=re.DOTALL)
    return text


def has_blocks(text: str, names: Iterable[str]) -> bool:
    """Whether the page has all of these."""
    return all(re.search(_pattern(name), text, re.DOTALL) for name in names)


def _pattern(name: str) -> str:
    return rf"(<!-- table: {name} -->\n```\n).*?(```\n)"


def _refenced(body: str, found: re.Match[str]) -> str:
    return f"{found[1]}{body}\n{found[2]}"


def short_table(results: Results) -> str:
    """Defaults and best tolerances in float64, gradwitness first."""
    shown = [trial for trial in _trials(results, "float64") if trial["setting"] != "best at unit scale"]
    return _trial_table(results, shown)


def _run(results: Results) -> str:
    corpus, cells, environment = results["corpus"], results["cells"], results["environment"]
    unreached = len(corpus["faults"]) - len(_reached(results, "float64"))
    return "\n".join(
        [
            f"corpus version {corpus['version']}, sha256 {corpus['hash']}",
            f"{len({cell.split()[0] for cell in cells['float64']})} layers, "
            f"{len(corpus['faults'])} faults, {unreached} of them at points that they do not reach; "
            f"{len(cells['float64'])} correct cells, {len(cells['float32'])} of them in float32 too",
            ", ".join(f"{name} {value}" for name, value in environment.items()),
        ]
    )


def _float64(results: Results) -> str:
    return _trial_table(results, _trials(results, "float64"))


def _float32(results: Results) -> str:
    return _trial_table(results, _trials(results, "float32"))


def _trial_table(results: Results, trials: Iterable[Results]) -> str:
    rows = []
    for trial in trials:
        reached = _reached(results, trial["dtype"])
        cells = len(results["cells"][trial["dtype"]])
        rows.append(
            [
                trial["checker"],
                trial["setting"],
                _tolerance(trial),
                f"{len(reached) - len(_missed(results, trial))} of {len(reached)}",
                f"{len(trial['alarms'])} of {cells}",
                len(trial["inconclusive"]) if trial["checker"].startswith("gradwitness") else "",
                trial["seconds_faults"],
                trial["seconds_cells"],
            ]
        )
    heads = ["checker", "setting", "atol = rtol", "caught", "false alarms", "inconclusive", "s, faults", "s, cells"]
    return tabulate(rows, heads, disable_numparse=True, missingval="", colalign=["left"] * 3 + ["right"] * 5)


def _tolerance(trial: Results) -> str:
    if trial["tolerance"] is None:
        return ""
    return f"{trial['tolerance']:.0e}" if math.isfinite(trial["tolerance"]) else "none"


def _families(results: Results) -> str:
    trials = [trial for trial in _trials(results, "float64") if trial["setting"] == "default"]
    rows = []
    for family in FAMILIES:
        names = [fault["name"] for fault in _reached(results, "float64") if fault["family"] == family]
        rows.append([family, len(names), *(len(set(names) & set(trial["caught"])) for trial in trials)])
    return tabulate(rows, ["family", "faults", *(trial["checker"] for trial in trials)])


def _misses(results: Results) -> str:
    def lines(trial: Results) -> list[str]:
        return [f"{fault['name']} ({fault['effect']:.0e})" for fault in _missed(results, trial)]

    return _listed(_trials(results, "float64"), lines)


def _alarms(results: Results) -> str:
    return _listed(_trials(results, "float64"), lambda trial: trial["alarms"])


def _alarms_in_float32(results: Results) -> str:
    """gradwitness's own; gradcheck's would fill a page."""
    trials = [trial for trial in _trials(results, "float32") if "gradwitness" in trial["checker"]]
    return _listed(trials, lambda trial: trial["alarms"])


def _inconclusive(results: Results) -> str:
    trials = [t for dtype in ("float64", "float32") for t in _trials(results, dtype) if "gradwitness" in t["checker"]]
    return _listed(trials, lambda trial: trial["inconclusive"] + [f"{name} (fault)" for name in trial["doubted"]])


def _listed(trials: Iterable[Results], names: Callable[[Results], Sequence[str]]) -> str:
    found = []
    for trial in trials:
        title = f"{trial['checker']}, {trial['setting']}, {trial['dtype']}"
        body = ", ".join(names(trial)) or "none"
        found.append(textwrap.fill(f"{title}: {body}", 118, subsequent_indent="    ", break_on_hyphens=False))
    return "\n".join(found)


def _limits(results: Results) -> str:
    rows = [
        [
            limit["dtype"],
            {"whole": "whole tensor", "coordinate": "one coordinate"}[limit["error"]],
            limit["how"],
            limit["tensors"],
            _short(limit["median"]),
            _short(limit["worst"]),
            limit["worst_at"],
            len(limit["never"]),
            _short(limit["printed_median"]) if limit["error"] == "whole" else "",
            len(limit["beyond_printed"]) if limit["error"] == "whole" else "",
        ]
        for limit in results["limits"]
    ]
    heads = ["dtype", "error of", "judged", "tensors", "median", "worst", "at", "never", "limit, median", "beyond it"]
    return tabulate(rows, heads, disable_numparse=True, missingval="")


def _short(number: float | None) -> str:
    return "" if number is None else f"{number:.1e}"


def _corpus(results: Results) -> str:
    lines = []
    for fault in results["corpus"]["faults"]:
        effect = f"{fault['effect']:.1e}" if fault["reached"] else "not reached here"
        lines.append(f"{fault['name']} [{fault['kind']}; {fault['layer']}, {fault['regime']}; {effect}]")
        lines += [f"    - {_one_line(fault['old'])}", f"    + {_one_line(fault['new'])}"]
    return "\n".join(lines)


def _one_line(code: str) -> str:
    return " ".join(code.split())


def _trials(results: Results, dtype: str) -> list[Results]:
    return [trial for trial in results["trials"] if trial["dtype"] == dtype]


def _reached(results: Results, dtype: str) -> list[Results]:
    return [fault for fault in results["corpus"]["faults"] if fault["reached"] and dtype in fault["dtypes"]]


def _missed(results: Results, trial: Results) -> list[Results]:
    return [fault for fault in _reached(results, trial["dtype"]) if fault["name"] not in trial["caught"]]


README_BLOCKS: Blocks = {"sensitivity": short_table}
BLOCKS: Blocks = {
    "run": _run,
    "float64": _float64,
    "families": _families,
    "missed": _misses,
    "alarms": _alarms,
    "inconclusive": _inconclusive,
    "float32": _float32,
    "alarms in float32": _alarms_in_float32,
    "limits": _limits,
    "corpus": _corpus,
}
