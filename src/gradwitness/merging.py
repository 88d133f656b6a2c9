"""The documents of all shards of a run as one: that of the whole run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations, islice
from typing import Any

from gradwitness.errors import GradwitnessError
from gradwitness.report import joined_environments
from gradwitness.run.environment import expect_same_environment

__all__ = ["merged"]

Document = Mapping[str, Any]
KEPT = {"number", "of", "asked", "cells"}  # of every shard
KINDS = {"rows": "schema", "timings": "benchmark"}  # by where the records are: where the number of the schema is


def merged(documents: Mapping[str, Document]) -> dict[str, Any]:
    """One document of those that the shards of a run wrote, by their names: every record in its place, as if nothing
    had been split. What the exit status depends on stays under "shard".

    Raises GradwitnessError, by name, for a document of a whole run, for shards that are there twice or not at all, and
    for those of runs that differ in kind, schema, options, versions or settings.
    """
    if not documents:
        raise GradwitnessError("nothing to merge: give the files that the shards wrote")
    for name, document in documents.items():
        if "shard" not in document:
            raise GradwitnessError(f"{name} is of a whole run: merge joins what --shard i/n --json wrote")
        lacking = KEPT - set(document["shard"])
        if lacking:
            raise GradwitnessError(
                f"{name}: its shard lacks {', '.join(sorted(lacking))}: give the files as they were written"
            )
    key = _kind(documents)
    for (name, document), (other, another) in combinations(documents.items(), 2):
        _expect_one_run(name, document, other, another)
    _expect_all_shards(documents)
    cells = sorted(_cells(documents.values(), key), key=lambda cell: cell[0])
    if [number for number, _ in cells] != list(range(len(cells))):
        raise GradwitnessError("the files do not hold each cell once: let the same gradwitness write all of them")
    every = list(documents.values())
    found = {**every[0], "environment": joined_environments([document["environment"] for document in every])}
    found[key] = [record for _, records in cells for record in records]
    if key == "rows":
        found["exercise"] = _exercise(found[key], every)
        found["shard"] = _demands(every)
    else:
        del found["shard"]
    return found


def _kind(documents: Mapping[str, Document]) -> str:
    """Where the records are. All documents are of one kind, and of one schema."""
    found: dict[tuple[str, Any], str] = {}
    for name, document in documents.items():
        key = "rows" if "rows" in document else "timings"
        found.setdefault((key, document.get(KINDS[key])), name)
    (kind, schema), *others = found
    for key, number in others:
        what = {"rows": "verify", "timings": "bench"}
        raise GradwitnessError(
            f"{found[kind, schema]} is of {what[kind]}, schema {schema}, and {found[key, number]} of {what[key]}, "
            f"schema {number}: merge joins the shards of one run"
        )
    return kind


def _expect_one_run(name: str, document: Document, other: str, another: Document) -> None:
    """Raise GradwitnessError where two shards are not of the same run, in the same versions."""
    one, two = document["shard"], another["shard"]
    if one["of"] != two["of"]:
        raise GradwitnessError(f"{name} is one of {one['of']} shards and {other} one of {two['of']}: split both alike")
    asked, wanted = one["asked"] | {"allow": one.get("allow")}, two["asked"] | {"allow": two.get("allow")}
    for option in {**asked, **wanted}:
        mine, its = asked.get(option), wanted.get(option)
        if mine != its:
            raise GradwitnessError(
                f"{option} is {_said(mine)} in {name} and {_said(its)} in {other}: merge joins the shards of one run"
            )
    expect_same_environment(document["environment"], another["environment"], f"in {name}", f"in {other}")


def _said(value: Any) -> str:
    return ",".join(map(str, value)) or "not given" if isinstance(value, list) else str(value)


def _expect_all_shards(documents: Mapping[str, Document]) -> None:
    whose: dict[int, str] = {}
    for name, document in documents.items():
        number, of = document["shard"]["number"], document["shard"]["of"]
        if number in whose:
            raise GradwitnessError(f"{whose[number]} and {name} both are shard {number}/{of}: give each once")
        whose[number] = name
    of = next(iter(documents.values()))["shard"]["of"]
    missing = [f"{number}/{of}" for number in range(1, of + 1) if number not in whose]
    if missing:
        raise GradwitnessError(f"shard {' and '.join(missing)} is missing: give the files of all {of}")


def _cells(documents: Iterable[Document], key: str) -> Iterator[tuple[int, list[Any]]]:
    """(number of a cell, its records)."""
    for document in documents:
        records = iter(document[key])
        for cell in document["shard"]["cells"]:
            yield cell["cell"], list(islice(records, cell["records"]))


def _exercise(rows: Sequence[Document], documents: Sequence[Document]) -> dict[str, Any]:
    """In the order of the rows, as a whole run has it."""
    known = {network: calls for document in documents for network, calls in document["exercise"].items()}
    order = dict.fromkeys(row["network"] for row in rows)
    return {network: known[network] for network in order if network in known}


def _demands(documents: Sequence[Document]) -> dict[str, Any]:
    """What the exit status depends on beside the rows. What a user's own functions allow or require, some shards know
    alone."""
    kept = [document["shard"] for document in documents]
    require = dict.fromkeys(name for shard in kept for name in shard["require"])
    allowed: dict[str, list[str]] = {}
    for shard in kept:
        for network, verdicts in shard["allowed"].items():
            allowed[network] = [one for one in verdicts if one in allowed.get(network, verdicts)]
    return {"allow": kept[0]["allow"], "allowed": allowed, "require": list(require)}
