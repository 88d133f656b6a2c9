"""One candidate along several execution paths: each is a candidate of its own, and judged as any other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from gradwitness import registry
from gradwitness.errors import GradwitnessError, UnknownName
from gradwitness.problem import Candidate

__all__ = ["ALL", "along_paths", "expect_paths", "expect_taken"]

ALL = "all"


def expect_paths(paths: Sequence[str]) -> None:
    """Raise UnknownName for a path that no backend has."""
    known = {path for name in registry.backend_names() for path in registry.backend(name).capabilities.paths}
    for path in paths:
        if path not in known and path != ALL:
            raise UnknownName("path", path, {*known, ALL})


def expect_taken(candidates: Mapping[str, Candidate], paths: Sequence[str]) -> None:
    """Raise GradwitnessError for a path that none of these candidates can take."""
    for path in paths:
        if not any(_taken(candidate, [path]) for candidate in candidates.values()):
            raise GradwitnessError(
                f"paths: {path!r} is for no candidate here: a path is a way to differentiate a loss of its framework, "
                "and a gradient written by hand takes none"
            )


def along_paths(candidates: Mapping[str, Candidate], paths: Sequence[str]) -> dict[str, Candidate]:
    """Each candidate along each of these paths that its backend has, by its label and the path: "mine [vmap]".

    One that takes none of them stays as it is: that of a backend without paths, or with a gradient by hand.
    """
    found: dict[str, Candidate] = {}
    for label, candidate in candidates.items():
        taken = _taken(candidate, paths)
        found |= {f"{label} [{path}]": replace(candidate, path=path) for path in taken} or {label: candidate}
    return found


def _taken(candidate: Candidate, paths: Sequence[str]) -> list[str]:
    if candidate.is_written_by_hand or candidate.path:
        return []
    known = registry.backend(candidate.backend).capabilities.paths
    return [path for path in known if path in paths or ALL in paths]
