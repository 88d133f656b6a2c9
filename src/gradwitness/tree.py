"""Nested dicts, lists and tuples of arrays, and their leaves by dotted path (`layers.0.weight`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gradwitness.errors import ProblemError

__all__ = ["flatten", "rebuild"]


def flatten(tree: Any, root: str) -> dict[str, Any]:
    """The leaves of `tree` by path. A bare leaf takes the path `root` ("params" or "batch").

    Raises ProblemError for a key with a dot in it and for two leaves with one path.
    """
    leaves: dict[str, Any] = {}
    for path, leaf in _walk(tree, ()):
        name = ".".join(path) or root
        if name in leaves:
            raise ProblemError(f"{root}: two leaves have the path {name!r}; rename one of the keys")
        leaves[name] = leaf
    return leaves


def rebuild(tree: Any, leaves: Mapping[str, Any], root: str) -> Any:
    """A tree of the structure of `tree` holding `leaves`."""
    return _rebuild(tree, leaves, (), root)


def _walk(tree: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    children = _children(tree)
    if children is None:
        yield path, tree
        return
    for key, child in children:
        name = str(key)
        if "." in name or not name:
            where = ".".join(path) or "the top level"
            raise ProblemError(
                f"key {name!r} in {where}: a dot joins levels in paths, so keys must be free of dots and not empty"
            )
        yield from _walk(child, (*path, name))


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
