"""Nested dicts, lists and tuples of arrays, and their leaves by dotted path (`layers.0.weight`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gradwitness.errors import ProblemError

__all__ = ["flatten", "listed", "rebuild"]

LISTED = 12


def flatten(tree: Any, root: str) -> dict[str, Any]:
    """The leaves of `tree` by path. A bare leaf takes the path `root` ("params" or "batch").

    A key may hold dots itself, as torch's names of parameters do. Raises ProblemError for an empty key, for two
    leaves with one path, and for what is nested without end.
    """
    leaves: dict[str, Any] = {}
    try:
        for path, leaf in _walk(tree, (), root):
            name = ".".join(path) or root
            if name in leaves:
                raise ProblemError(f"{root}: two leaves have the path {name!r}; rename one of the keys")
            leaves[name] = leaf
    except RecursionError:
        raise ProblemError(f"{root}: nested too deeply, or within itself: give a tree of arrays") from None
    return leaves


def listed(params: Any, batch: Any) -> str:
    """The paths of both, in words: "params has w, b; batch has x". Of many the first."""
    parts = []
    for root, nested in (("params", params), ("batch", batch)):
        paths = list(flatten(nested, root))
        more = f" and {len(paths) - LISTED} more" if len(paths) > LISTED else ""
        parts.append(f"{root} has {', '.join(paths[:LISTED]) or 'nothing'}{more}")
    return "; ".join(parts)


def rebuild(tree: Any, leaves: Mapping[str, Any], root: str) -> Any:
    """A tree of the structure of `tree` holding `leaves`."""
    return _rebuild(tree, leaves, (), root)


def _walk(tree: Any, path: tuple[str, ...], root: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    children = _children(tree)
    if children is None:
        yield path, tree
        return
    for key, child in children:
        name = str(key)
        if not name:
            raise ProblemError(
                f"an empty key in {'.'.join(path) or root}: paths are made of keys, so each needs a name"
            )
        yield from _walk(child, (*path, name), root)


def _children(tree: Any) -> list[tuple[Any, Any]] | None:
    if isinstance(tree, Mapping):
        return list(tree.items())
    if isinstance(tree, list | tuple):
        return list(enumerate(tree))
    return None


def _rebuild(tree: Any, leaves: Mapping[str, Any], path: tuple[str, ...], root: str) -> Any:
    if isinstance(tree, Mapping):
        return {key: _rebuild(child, leaves, (*path, str(key)), root) for key, child in tree.items()}
    if isinstance(tree, list | tuple):
        children = [_rebuild(child, leaves, (*path, str(i)), root) for i, child in enumerate(tree)]
        if hasattr(tree, "_fields"):
            return type(tree)(*children)
        return type(tree)(children)
    return leaves[".".join(path) or root]
