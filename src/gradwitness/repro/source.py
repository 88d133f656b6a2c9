"""What a function needs to run elsewhere, as text: its own source, and that of all that it refers to.

What is installed (NumPy, the framework, other libraries, Python's own modules) is imported; what is the user's own, or
gradwitness's, is written out. Constants and arrays are written as values.
"""

from __future__ import annotations

import ast
import builtins
import dataclasses
import functools
import inspect
import sys
import sysconfig
from collections.abc import Collection, Iterable, Iterator, Mapping
from importlib import import_module
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from gradwitness.errors import GradwitnessError
from gradwitness.protocol import WRITER
from gradwitness.repro.definitions import Definition, assignment_of, bare, definition_of, free_names, renamed
from gradwitness.repro.literals import framework_array, literal

__all__ = ["Sources"]

# Where public names are looked up, those first by which people know them: what is imported, and as what.
PUBLIC = {
    "numpy": ("numpy", "np"),
    "torch": ("torch", "torch"),
    "torch.nn.functional": ("torch.nn.functional", "F"),
    "torch.linalg": ("torch", "torch"),
    "jax": ("jax", "jax"),
    "jax.numpy": ("jax.numpy", "jnp"),
    "jax.numpy.linalg": ("jax.numpy", "jnp"),
    "jax.nn": ("jax", "jax"),
    "jax.lax": ("jax", "jax"),
    "jax.scipy.special": ("jax", "jax"),
    "operator": ("operator", "operator"),
    "math": ("math", "math"),
}
INSTALLED = tuple({sysconfig.get_path(kind) for kind in ("purelib", "platlib", "stdlib", "platstdlib")})
OURS = "gradwitness"


class Sources:
    """The text of a script as it grows: imports, and definitions in the order in which they are needed."""

    def __init__(self, own: Collection[str] = ()) -> None:
        self.own = {name.partition(".")[0] for name in own}  # packages that are written out although installed
        self.imports: dict[str, None] = {}
        self.definitions: list[str] = []
        self._bound: dict[str, Any] = {}  # by name, what it stands for: held, so that an id stays its own
        self._names: dict[int, str] = {}

    def bind(self, name: str, thing: Any, user: Any = None) -> str:
        """Have a name, or another if it is taken, stand for this; returns it. user: the function that uses the name."""
        if name in self._bound and self._bound[name] is thing:
            return name
        text = self.expression(thing, name, user)
        if text.isidentifier():
            return text
        name = self.reserve(name, thing)
        self.definitions.append(f"{name} = {text}")
        return name

    def expression(self, thing: Any, hint: str, user: Any = None) -> str:
        """The text by which the script refers to it. Raises GradwitnessError for what has none."""
        if id(thing) in self._names:
            return self._names[id(thing)]
        made, write = getattr(thing, WRITER, (None, None))
        if made is thing and write is not None:
            self._names[id(thing)] = written = write(self, hint)
            return str(written)
        if isinstance(thing, ModuleType):
            return self._module(thing, hint, user)
        text = self._constant(thing) or self._public(thing) or self._made_of_parts(thing, hint)
        if text:
            return text
        made = assignment_of(hint, user)
        if not self._is_installed(_home(thing)):  # of a closure that a library made, the user's call says more
            made = definition_of(thing, hint) or made
        if made is None:
            raise _without_text(thing, hint)
        return self._defined(made, thing, hint)

    def text(self, definition: Definition, user: Any) -> str:
        """The definition, all that it refers to defined before it."""
        others = {}
        for name in free_names(definition.text):
            if name in definition.namespace:
                used = self.bind(name, definition.namespace[name], user)
                if used != name:
                    others[name] = used
        return renamed(definition.text, others) if others else definition.text

    def reserve(self, name: str, thing: Any) -> str:
        """A name that nothing else has, for this from now on."""
        free = next(n for n in _numbered(name) if n not in self._bound)
        self._bound[free] = thing
        if literal(thing) is None:  # equal constants under two names may be one object
            self._names[id(thing)] = free
        return free

    def _constant(self, thing: Any) -> str | None:
        text = literal(thing)
        if text and "np." in text:
            self.expression(np, "np")
        if text and "base64." in text:
            self.imports["import base64"] = None
        return text

    def _module(self, module: ModuleType, hint: str, user: Any) -> str:
        if self._is_installed(module.__name__):
            name = self.reserve(hint, module)
            self.imports[f"import {module.__name__}" + ("" if name == module.__name__ else f" as {name}")] = None
            return name
        self.imports["from types import SimpleNamespace"] = None
        used = sorted(_attributes(hint, user))
        return f"SimpleNamespace({', '.join(f'{name}={self.bind(name, getattr(module, name))}' for name in used)})"

    def _public(self, thing: Any) -> str | None:
        """What is installed, by the name under which people know it, or by that of its module."""
        name = getattr(thing, "__name__", "")
        for place, (module, alias) in PUBLIC.items():
            if name and getattr(sys.modules.get(place), name, None) is thing:
                return f"{self._imported(module, alias)}{place.removeprefix(module)}.{name}"
        home, path = _home(thing), getattr(thing, "__qualname__", "")
        if not path or not self._is_installed(home) or _looked_up(home, path) is not thing:
            return None
        return path if home == "builtins" else self._taken_from(home, path)

    def _imported(self, module: str, alias: str) -> str:
        return self.expression(import_module(module), alias)

    def _taken_from(self, home: str, path: str) -> str:
        """`from home import first`, and the rest of the path."""
        first, dot, rest = path.partition(".")
        found = getattr(sys.modules[home], first)
        if id(found) not in self._names:
            name = self.reserve(first, found)
            self.imports[f"from {home} import {first}" + ("" if name == first else f" as {name}")] = None
        return self._names[id(found)] + dot + rest

    def _made_of_parts(self, thing: Any, hint: str) -> str | None:
        """A partial, a method, an instance of a dataclass, a container, an array or dtype of a framework."""
        if isinstance(thing, functools.partial):
            keywords = {key: self.expression(x, key) for key, x in thing.keywords.items()}
            given = [self.expression(x, f"{hint}_part") for x in (thing.func, *thing.args)]
            return _call(self._imported("functools", "functools") + ".partial", given, keywords)
        if isinstance(thing, MethodType):
            return f"{self.expression(thing.__self__, f'{hint}_self')}.{thing.__name__}"
        if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
            fields = {f.name: getattr(thing, f.name) for f in dataclasses.fields(thing) if f.init}
            keywords = {name: self.expression(x, name) for name, x in fields.items()}
            return _call(self.expression(type(thing), type(thing).__name__), (), keywords)
        if type(thing) in (list, tuple):
            inside = ", ".join(self.expression(x, hint) for x in thing)
            return f"({inside},)" if isinstance(thing, tuple) else f"[{inside}]"
        if type(thing) is dict:
            pairs = [(self.expression(key, hint), self.expression(x, hint)) for key, x in thing.items()]
            return "{" + ", ".join(f"{key}: {x}" for key, x in pairs) + "}"
        return self._of_framework(thing)

    def _of_framework(self, thing: Any) -> str | None:
        if found := framework_array(thing):
            module, alias, text = found
            return text.replace(alias, self._imported(module, alias))
        dtype = repr(thing)
        if dtype.startswith("torch.") and dtype.replace(".", "").isidentifier():
            return self._imported("torch", "torch") + dtype.removeprefix("torch")
        return None

    def _defined(self, definition: Definition, thing: Any, hint: str) -> str:
        ours = _is_ours(_home(thing))
        made_within = ours and "<locals>" in getattr(thing, "__qualname__", "")  # several ops may share its name
        name = self.reserve(hint if made_within else definition.name, thing)
        if ours:
            definition = dataclasses.replace(definition, text=bare(definition.text))
        text = self.text(definition, thing)
        self.definitions.append(renamed(text, {definition.name: name}) if name != definition.name else text)
        return name

    def _is_installed(self, module: str) -> bool:
        root = module.partition(".")[0]
        if _is_ours(root) or root in self.own:
            return False
        if root in sys.stdlib_module_names or root == "builtins":
            return True
        known = sys.modules.get(module) or sys.modules.get(root)
        file = getattr(known, "__file__", None)
        return known is not None and root != "__main__" and (file is None or file.startswith(INSTALLED))


def _is_ours(module: str) -> bool:
    root = module.partition(".")[0]
    return root == OURS or root.startswith(f"{OURS}_")


def _home(thing: Any) -> str:
    """The module that a thing says it is from; of code that was executed without one it says Python's own."""
    found = getattr(thing, "__module__", None)
    nameless = isinstance(thing, FunctionType) and found == "builtins"
    return found if isinstance(found, str) and not nameless else ""


def _looked_up(home: str, path: str) -> Any:
    found: Any = sys.modules.get(home)
    for part in path.split("."):
        found = getattr(found, part, None)
    return found


def _call(function: str, parts: Iterable[str], keywords: Mapping[str, str]) -> str:
    return f"{function}({', '.join([*parts, *(f'{key}={text}' for key, text in keywords.items())])})"


def _without_text(thing: Any, hint: str) -> GradwitnessError:
    return GradwitnessError(
        f"{hint!r} is a {type(thing).__module__}.{type(thing).__qualname__}, which no source text makes: let the "
        "functions make it themselves, or take what they need of it as params, batch or constants"
    )


def _attributes(name: str, user: Any) -> set[str]:
    """What a function looks up on the module that it knows by this name."""
    tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(user))) if user is not None else ast.Module([], [])
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == name
    }


def _numbered(name: str) -> Iterator[str]:
    """The name, or the next best; none of Python's own, which the rest of the script may need."""
    if hasattr(builtins, name):
        name += "_"
    yield name
    number = 2
    while True:
        yield f"{name}_{number}"
        number += 1
