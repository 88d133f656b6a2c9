"""What a command line names as `path/to/file.py:name` or `package.module:name`."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from gradwitness.errors import GradwitnessError
from gradwitness.problem import Problem

__all__ = ["arguments", "expected_arguments", "is_target", "load"]

PARTS = 3  # of what is to be verified: candidates, params, batch
WITH_ARGUMENTS = "functions with arguments"


def is_target(name: str) -> bool:
    """Whether it names an object in a file or module, or forgets to."""
    return ":" in name or name.endswith(".py")


def load(target: str) -> Any:
    """The object. Raises GradwitnessError, saying what there is, if it cannot be found, or if its module cannot be
    imported, saying where."""
    place, colon, name = (target, "", "") if target.endswith(".py") else target.rpartition(":")
    if not place or (colon and not name):
        raise GradwitnessError(f"{target!r}: expected path/to/file.py:name or package.module:name")
    try:
        module = _from_file(Path(place)) if place.endswith(".py") else _by_name(place)
    except SystemExit as error:
        raise GradwitnessError(
            f"{place} ended with sys.exit({error.code!r}) as it was imported: put that below "
            '`if __name__ == "__main__":`'
        ) from None
    except GradwitnessError:
        raise
    except Exception as error:
        raise GradwitnessError(f"{place} cannot be imported: {_said(error)}") from error
    if name and hasattr(module, name):
        return getattr(module, name)
    there = _there(module)
    known = "".join(f"; its {kind}: {', '.join(names)}" for kind, names in there.items() if names)
    known = known or "; it has neither a gradwitness.Problem nor a function"
    if name:
        raise GradwitnessError(f"{target}: {place} has no {name!r}{known}")
    example = next((names[0] for kind, names in there.items() if names and kind != WITH_ARGUMENTS), None)
    if example is not None:
        raise GradwitnessError(f"{target}: name the object in it to verify, as in {target}:{example}{known}")
    raise GradwitnessError(
        f"{target}: name the object in it to verify: a gradwitness.Problem, or a function without arguments that "
        f"returns (candidates, params, batch){known}"
    )


def _said(error: Exception) -> str:
    """What a user's own code raised, and where; a SyntaxError says that itself."""
    said = f"{type(error).__name__}: {error}".partition("\n")[0]
    if isinstance(error, SyntaxError):
        return said
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{said} ({frame.filename}:{frame.lineno}, {frame.name})"


def _there(module: ModuleType) -> dict[str, list[str]]:
    """The names of what may be meant, by kind: what the module defines itself, and does not keep private."""
    public = {key: value for key, value in vars(module).items() if not key.startswith("_")}
    functions = {key: value for key, value in public.items() if _is_function_of(module, value)}
    return {
        "problems": [key for key, value in public.items() if isinstance(value, Problem)],
        "functions": [key for key, value in functions.items() if _can_be_called(value)],
        WITH_ARGUMENTS: [key for key, value in functions.items() if not _can_be_called(value)],
    }


def _is_function_of(module: ModuleType, value: Any) -> bool:
    own = inspect.isfunction(value) and value.__module__ == module.__name__
    return own or isinstance(value, functools.partial)


def _can_be_called(function: Any) -> bool:
    """Whether it can be called without arguments."""
    try:
        inspect.signature(function).bind()
    except TypeError:
        return False
    return True


def arguments(found: Any) -> tuple[Any, Any, Any, dict[str, Any]] | None:
    """(candidates, params, batch, further options of `gradwitness.verify`): what a user's function returns, a tuple of
    the first three or of all four. None if it returns anything else."""
    if not isinstance(found, tuple) or len(found) not in (PARTS, PARTS + 1):
        return None
    candidates, params, batch, *more = found
    options = dict(more[0]) if more and isinstance(more[0], dict) else {}
    return None if more and not isinstance(more[0], dict) else (candidates, params, batch, options)


def expected_arguments(name: str, found: Any, *, beside: str = "") -> tuple[Any, Any, Any, dict[str, Any]]:
    """The same of what a command line names: a function without arguments, or what such a one returns.

    beside: what else may stand there, for the message. Raises GradwitnessError for anything else.
    """
    try:
        given = found() if callable(found) else found
    except GradwitnessError:
        raise
    except Exception as error:
        raise GradwitnessError(f"{name} raised {_said(error)}") from error
    if (parts := arguments(given)) is None:
        raise GradwitnessError(
            f"{name}: expected {beside}a function without arguments that returns (candidates, params, batch), got "
            f"{type(given).__name__}"
        )
    return parts


def _from_file(path: Path) -> ModuleType:
    """The module that the file is, with its folder on the path, as for a script."""
    if not path.is_file():
        raise GradwitnessError(f"{path}: no such file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with _importable(path.parent):
        sys.modules[path.stem] = module  # so that what it defines can be pickled, and its dataclasses find it
        spec.loader.exec_module(module)
    return module


def _by_name(name: str) -> ModuleType:
    with _importable(Path()):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise
            raise GradwitnessError(f"{name}: no such module; a file is named with its .py") from None


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    where = str(folder.resolve())
    if where not in sys.path:
        sys.path.insert(0, where)
    yield
