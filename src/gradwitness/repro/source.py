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
from collections.abc import Collection, Iterator
from types import MethodType, ModuleType
from typing import Any

import numpy as np

from gradwitness.errors import GradwitnessError
from gradwitness.repro.definitions import Definition, assignment_of, bare, definition_of, free_names, renamed
from gradwitness.repro.literals import framework_array, literal

__all__ = ["Sources"]

# Where public names are looked up, those first by which people know them.
PUBLIC = {
    "numpy": ("np", "import numpy as np"),
    "torch": ("torch", "import torch"),
    "torch.nn.functional": ("F", "import torch.nn.functional as F"),
    "torch.linalg": ("torch.linalg", "import torch"),
    "jax": ("jax", "import jax"),
    "jax.numpy": ("jnp", "import jax.numpy as jnp"),
    "jax.numpy.linalg": ("jnp.linalg", "import jax.numpy as jnp"),
    "jax.nn": ("jax.nn", "import jax"),
    "jax.lax": ("jax.lax", "import jax"),
    "jax.scipy.special": ("jax.scipy.special", "import jax"),
    "operator": ("operator", "import operator"),
    "math": ("math", "import math"),
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
        if isinstance(thing, ModuleType):
            return self._module(thing, hint, user)
        return (
            literal_text(self, thing)
            or self._public(thing)
            or self._made_of_parts(thing, hint)
            or self._defined(definition_of(thing, hint), thing, hint)
            or self._defined(assignment_of(hint, user), thing, hint)
            or self._without_text(thing, hint)
        )

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

    def _module(self, module: ModuleType, hint: str, user: Any) -> str:
        if self._is_installed(module.__name__):
            self._import(module, hint)
            return self.reserve(hint, module) if hint not in self._bound else hint
        self.imports["from types import SimpleNamespace"] = None
        used = sorted(_attributes(hint, user))
        parts = ", ".join(f"{name}={self.bind(name, getattr(module, name))}" for name in used)
        return f"SimpleNamespace({parts})"

    def _import(self, module: ModuleType, hint: str) -> None:
        alias = "" if hint == module.__name__ else f" as {hint}"
        self.imports[f"import {module.__name__}{alias}"] = None

    def _public(self, thing: Any) -> str | None:
        """What is installed, by the name under which people know it, or by that of its module."""
        name = getattr(thing, "__name__", "")
        for place, (prefix, statement) in PUBLIC.items():
            if name and getattr(sys.modules.get(place), name, None) is thing:
                return self._imported(prefix, statement) + f".{name}"
        home, path = getattr(thing, "__module__", None), getattr(thing, "__qualname__", "")
        if not isinstance(home, str) or not path or not self._is_installed(home):
            return None
        first, _, rest = path.partition(".")
        found = getattr(sys.modules.get(home), first, None)
        if (
            functools.reduce(lambda x, part: getattr(x, part, None), rest.split(".") if rest else [], found)
            is not thing
        ):
            return None
        if home == "builtins":
            return path
        self.imports[f"from {home} import {first}"] = None
        self._bound.setdefault(first, getattr(sys.modules[home], first))
        return path

    def _imported(self, prefix: str, statement: str) -> str:
        self.imports[statement] = None
        root = prefix.partition(".")[0]
        self._bound.setdefault(root, sys.modules[statement.split()[1]])
        self._names.setdefault(id(self._bound[root]), root)
        return prefix

    def _made_of_parts(self, thing: Any, hint: str) -> str | None:
        """A partial, a method, an instance of a dataclass, an array of a framework, a container of any of them."""
        if isinstance(thing, functools.partial):
            parts = [self.expression(thing.func, f"{hint}_function")]
            parts += [self.expression(x, f"{hint}_argument") for x in thing.args]
            parts += [f"{k}={self.expression(x, k)}" for k, x in thing.keywords.items()]
            self.imports["import functools"] = None
            return f"functools.partial({', '.join(parts)})"
        if isinstance(thing, MethodType):
            return f"{self.expression(thing.__self__, f'{hint}_self')}.{thing.__name__}"
        if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
            fields = [f for f in dataclasses.fields(thing) if f.init and getattr(thing, f.name) is not f.default]
            parts = [f"{f.name}={self.expression(getattr(thing, f.name), f.name)}" for f in fields]
            return f"{self.expression(type(thing), type(thing).__name__)}({', '.join(parts)})"
        if type(thing) in (list, tuple):
            inside = "".join(f"{self.expression(x, hint)}, " for x in thing)
            return f"({inside})" if isinstance(thing, tuple) else f"[{inside.rstrip(', ')}]"
        if type(thing) is dict:
            return (
                "{"
                + ", ".join(f"{self.expression(k, hint)}: {self.expression(x, hint)}" for k, x in thing.items())
                + "}"
            )
        if found := framework_array(thing):
            self.imports[found[0]] = None
            return found[1]
        text = repr(thing)  # torch.float32
        if text.startswith("torch.") and text.replace(".", "").isidentifier():
            return self._imported("torch", "import torch") + text.removeprefix("torch")
        return None

    def _defined(self, definition: Definition | None, thing: Any, hint: str) -> str | None:
        if definition is None:
            return None
        ours = _is_ours(getattr(thing, "__module__", None) or "")
        made_within = ours and "<locals>" in getattr(thing, "__qualname__", "")  # several ops may share its name
        name = self.reserve(hint if made_within else definition.name, thing)
        if ours:
            definition = dataclasses.replace(definition, text=bare(definition.text))
        text = self.text(definition, thing)
        self.definitions.append(renamed(text, {definition.name: name}) if name != definition.name else text)
        return name

    def _without_text(self, thing: Any, hint: str) -> str:
        raise GradwitnessError(
            f"{hint!r} is a {type(thing).__module__}.{type(thing).__qualname__}, which no source text makes: let the "
            "functions make it themselves, or take what they need of it as params, batch or constants"
        )

    def _is_installed(self, module: str) -> bool:
        root = module.partition(".")[0]
        if _is_ours(root) or root in self.own:
            return False
        if root in sys.stdlib_module_names or root == "builtins":
            return True
        file = getattr(sys.modules.get(module) or sys.modules.get(root), "__file__", None)
        return root != "__main__" and (file is None or file.startswith(INSTALLED))


def _is_ours(module: str) -> bool:
    root = module.partition(".")[0]
    return root == OURS or root.startswith(f"{OURS}_")


def literal_text(sources: Sources, thing: Any) -> str | None:
    """The text of a constant, with what it needs imported."""
    text = literal(thing)
    if text and "np." in text:
        sources.expression(np, "np")
    if text and "base64." in text:
        sources.imports["import base64"] = None
    return text


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
