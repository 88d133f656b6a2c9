"""A fault as a script that needs NumPy and one framework: what is on trial, the point, and both derivatives."""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module, metadata
from types import FunctionType
from typing import TYPE_CHECKING, Any

import numpy as np

from gradwitness import registry
from gradwitness.dtypes import find_dtype
from gradwitness.errors import GradwitnessError
from gradwitness.graph import Graph
from gradwitness.lowering import runnable
from gradwitness.problem import COTANGENT
from gradwitness.protocol import Script, Scripted
from gradwitness.repro.cut import replayed
from gradwitness.repro.difference import central_difference, explained
from gradwitness.repro.fault import Fault, Seen, look
from gradwitness.repro.literals import array_text, literal, printable, quoted
from gradwitness.repro.source import Sources

if TYPE_CHECKING:
    from gradwitness.report import Row

__all__ = ["script"]

IMPORTS = "{imports}"  # stands for them until all else is written; nothing of the user's goes before it
FRAME = '''"""{title}

{about}
"""

{imports}

# What is on trial:

{candidate}


# The point, in numbers that {dtype} can hold:

{point}


# How its gradient is taken, and the derivative of its loss:

{harness}


def {leaf}({arguments}):
    return {access}


def {loss_at}(x):
    """The loss in float64 with that element at x."""
    moved = copy.deepcopy(({arguments}))
    {leaf}(*moved){index} = x
    return {value}({loss}, moved, "float64", "{device}")


arguments = ({arguments})
found = {gradient}
given = None if found is None else float(found{index})
difference, bound, step = {central_difference}({loss_at}, float({leaf}(*arguments){index}))
reproduces = not {explained}(given or 0.0, difference, bound, {unit_roundoff!r})

print("Python", sys.version.split()[0], {versions})
print("loss              ", {value}({loss}, arguments, "{dtype}", "{device}"))
print("{label:<18}", given, {where})
{autograd}print("finite difference ", difference, f"+- {{bound:.0e}} (float64, step {{step:.0e}})")
{others}print("reproduces" if reproduces else "does not reproduce")
sys.exit(1 if reproduces else 0)
'''


def script(fault: Fault, seen: Seen, row: Row, others: Mapping[str, float]) -> str:
    """The text. others: what other candidates gave for the element, by label.

    Raises GradwitnessError for a candidate whose source cannot be had, or whose backend runs in no script.
    """
    backend = registry.installed(fault.candidate.backend)
    if not isinstance(backend, Scripted):
        raise GradwitnessError(
            f"backend {backend.name!r} runs in no script: it has no method `script`, see gradwitness.protocol.Scripted"
        )
    return _Writing(fault, backend.script(fault.dtype)).text(seen, row, others)


class _Writing:
    """The parts of one script, which share its names."""

    def __init__(self, fault: Fault, how: Script) -> None:
        self.fault, self.how, self.candidate = fault, how, fault.candidate
        functions = (self.candidate.loss, self.candidate.gradient, self.candidate.value_and_gradient)
        users = [inspect.unwrap(f) for f in functions if callable(f)]
        self.sources = Sources([f.__module__ for f in users if isinstance(f, FunctionType) and f.__module__])
        names = ("params", "batch") if fault.problem.cotangent is None else ("params", "batch", COTANGENT)
        self.arguments = [self.sources.reserve(name, object()) for name in names]
        for name in ("arguments", "found", "given", "difference", "bound", "step", "reproduces", "sys", "copy"):
            self.sources.reserve(name, object())

    def text(self, seen: Seen, row: Row, others: Mapping[str, float]) -> str:
        fault, sources = self.fault, self.sources
        loss, function = self._loss(), self._by_hand()
        on_trial = self._taken()
        point = self._point()
        leaf, loss_at = (sources.reserve(name, object()) for name in ("leaf", "loss_at"))
        names = {f.__name__: sources.bind(f.__name__, f) for f in (central_difference, explained)}
        value = sources.bind("value", self.how.value)
        gradient, autograd = self._gradient(loss, function, leaf), self._autograd(loss, function, leaf)
        harness = self._taken()
        requires = registry.backend(self.candidate.backend).capabilities.requires
        body = FRAME.format(
            title=_title(seen, fault),
            about=_about(row, requires),
            imports=IMPORTS,
            candidate=on_trial,
            dtype=fault.dtype,
            point=point,
            harness=harness,
            leaf=leaf,
            arguments=", ".join(self.arguments),
            access=self._access(fault.path),
            loss_at=loss_at,
            where=quoted(printable(f"({fault.dtype}, {_element(fault)})")),
            index=_index(fault),
            value=value,
            loss=loss,
            device=fault.device,
            gradient=gradient,
            unit_roundoff=find_dtype(fault.dtype).unit_roundoff,
            versions=_printed_versions(sources, requires),
            label="gradient by hand" if function else "gradient",
            autograd=autograd,
            others="".join(_recorded(label, given) for label, given in others.items()),
            **names,
        )
        return body.replace(IMPORTS, _imports(sources, body), 1)

    def _taken(self) -> str:
        """What has been defined since this was last asked for."""
        parts, self.sources.definitions = self.sources.definitions, []
        text = ""
        for part in parts:
            both_short = "\n" not in part and text and "\n" not in text.rpartition("\n\n\n")[2]
            text += ("\n" if both_short else "\n\n\n") + part if text else part
        return text

    def _loss(self) -> str:
        """The name of the loss, of all arguments."""
        given, problem, sources = self.candidate.loss, self.fault.problem, self.sources
        if isinstance(given, Graph) or (given is None and problem.loss is not None):
            return self._of_graph(given if isinstance(given, Graph) else problem.graph)
        weighted = problem.cotangent is not None
        if callable(given):
            name = sources.bind("loss", given)
            if not weighted:
                return name
            inner = f"({name}({', '.join(self.arguments[:2])}) * {self.arguments[2]}).sum()"
        else:
            name = sources.bind("value_and_gradient", self.candidate.value_and_gradient)
            inner = f"{name}({', '.join(self.arguments)})[0]"
            inner = f"({inner} * {self.arguments[2]}).sum()" if weighted else inner
        outer = sources.reserve("weighted_loss" if weighted else "loss", object())
        sources.definitions.append(f"def {outer}({', '.join(self.arguments)}):\n    return {inner}")
        return outer

    def _of_graph(self, graph: Graph) -> str:
        if unknown := [path for path in graph.leaves if path not in self.fault.problem.leaves]:
            raise GradwitnessError(f"the loss closes over arrays ({', '.join(unknown)}): put them into batch")
        graph = replayed(runnable(graph, self.how.ops), self.fault.problem.leaves)[0]  # which numbers its values anew
        ops = {name: self.sources.expression(self.how.ops[name], name) for name in graph.op_names}
        leaves = {path: self._access(path) for path in graph.leaves}
        name = self.sources.reserve("loss", object())
        text = graph.source(f"{name}({', '.join(self.arguments)})", leaves=leaves, ops=ops, places=True).rstrip()
        for constant in ("inf", "nan"):
            if constant in {n.id for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Name)}:
                self.sources.imports[f"from math import {constant}"] = None
        self.sources.definitions.append(text)
        return name

    def _by_hand(self) -> str:
        """The name of the user's own gradient; empty if the framework's is on trial."""
        candidate, sources = self.candidate, self.sources
        if candidate.gradient is not None:
            return sources.bind("gradient", candidate.gradient)
        if candidate.value_and_gradient is None:
            return ""
        inner = sources.bind("value_and_gradient", candidate.value_and_gradient)
        name, taken = sources.reserve("gradient", object()), ", ".join(self.arguments)
        sources.definitions.append(f"def {name}({taken}):\n    return {inner}({taken})[1]")
        return name

    def _gradient(self, loss: str, function: str, leaf: str) -> str:
        """The call that gives the gradient on trial."""
        where = f'arguments, "{self.fault.dtype}", "{self.fault.device}"'
        if function:
            taker = self.sources.bind("by_hand", self.how.by_hand)
            return f"{taker}({function}, lambda tree: {_taken_from_gradient(self.fault)}, {where})"
        taker = self.sources.bind("gradient", self.how.gradient)
        options = "".join(f", {k}={self.sources.expression(v, k)}" for k, v in self.candidate.options.items())
        return f"{taker}({loss}, {leaf}, {where}{options})"

    def _autograd(self, loss: str, function: str, leaf: str) -> str:
        """Beside a gradient by hand, what the framework's own differentiation of the same loss gives, if it does."""
        alone = replace(self.candidate, gradient=None, value_and_gradient=None)
        if not function or alone.loss is None:
            return ""
        try:
            if look(replace(self.fault, candidate=alone)).gradient is None:
                return ""
        except Exception:  # noqa: BLE001  # NumPy differentiates nothing, and a framework not everything
            return ""
        taker = self.sources.bind("gradient", self.how.gradient)
        call = f'{taker}({loss}, {leaf}, arguments, "{self.fault.dtype}", "{self.fault.device}")'
        return f'print("by the framework  ", float({call}{_index(self.fault)}))\n'

    def _point(self) -> str:
        problem = self.fault.problem
        params, batch = problem.arguments(problem.leaves)
        given = [params, batch] if problem.cotangent is None else [params, batch, problem.leaves[COTANGENT]]
        self.sources.expression(np, "np")
        return "\n".join(f"{name} = {self._tree(tree)}" for name, tree in zip(self.arguments, given, strict=True))

    def _tree(self, tree: Any) -> str:
        if isinstance(tree, Mapping):
            return _laid_out("{", [f"{quoted(key)}: {self._tree(child)}" for key, child in tree.items()], "}")
        if hasattr(tree, "_fields"):
            inside = [f"{key}={self._tree(child)}" for key, child in zip(tree._fields, tree, strict=True)]
            return _laid_out(f"{self.sources.expression(type(tree), type(tree).__name__)}(", inside, ")")
        if isinstance(tree, list | tuple):
            frame = "[]" if isinstance(tree, list) else "()"
            inside = [self._tree(child) for child in tree]
            return _laid_out(frame[0], inside, ",)" if frame == "()" and len(inside) == 1 else frame[1])
        return array_text(tree)

    def _access(self, path: str) -> str:
        """The text that takes the leaf out of the arguments."""
        problem = self.fault.problem
        for name, tree, root in zip(self.arguments, (problem.params, problem.batch), ("params", "batch"), strict=False):
            keys = _keys(tree, path, root)
            if keys is not None:
                return name + "".join(f"[{quoted(key)}]" for key in keys)
        return self.arguments[-1]  # the cotangent


def _keys(tree: Any, path: str, root: str, above: tuple[str, ...] = ()) -> list[Any] | None:
    """The keys that lead to a leaf; None if it is not there."""
    if isinstance(tree, Mapping | list | tuple):
        for key, child in tree.items() if isinstance(tree, Mapping) else enumerate(tree):
            below = _keys(child, path, root, (*above, str(key)))
            if below is not None:
                return [key, *below]
        return None
    return [] if (".".join(above) or root) == path else None


def _taken_from_gradient(fault: Fault) -> str:
    """The text that takes the leaf out of what the user's own gradient returns: its structure is seen by a call."""
    trees: list[Any] = []
    by_hand, both = fault.candidate.gradient, fault.candidate.value_and_gradient

    def gradient(*given: Any) -> Any:
        assert by_hand is not None
        trees.append(by_hand(*given))
        return trees[-1]

    def value_and_gradient(*given: Any) -> Any:
        assert both is not None
        value, tree = both(*given)
        trees.append(tree)
        return value, tree

    spy: dict[str, Any] = {"gradient": gradient} if by_hand is not None else {"value_and_gradient": value_and_gradient}
    spying = replace(fault.candidate, **spy)
    look(replace(fault, candidate=spying, settings=replace(fault.settings, timeout=None)))
    keys = _keys(trees[0], fault.path, "params")
    return "None" if keys is None else "tree" + "".join(f"[{quoted(key)}]" for key in keys)


def _laid_out(opening: str, parts: list[str], closing: str) -> str:
    """On one line if it is short, else a line for each."""
    line = opening + ", ".join(parts) + closing
    if len(line) <= 100 and "\n" not in line:
        return line
    inside = textwrap.indent(",\n".join(parts), "    ")
    return f"{opening}\n{inside},\n{closing.removeprefix(',')}"


def _index(fault: Fault) -> str:
    return f"[{', '.join(map(str, fault.index))}]" if fault.index else "[()]"


def _element(fault: Fault) -> str:
    return fault.path + (f"[{', '.join(map(str, fault.index))}]" if fault.index else "")


def _title(seen: Seen, fault: Fault) -> str:
    """In numbers alone: what is the user's own text stands in this script as quoted data only."""
    given = "None" if seen.gradient is None else f"{seen.gradient:.9g}"
    return f"A {fault.dtype} gradient that is {given}, where the finite difference is {seen.difference:.9g}."


def _recorded(label: str, given: float) -> str:
    padded = quoted(printable(f"{label} gave").ljust(18))
    return f'print({padded}, {literal(given)}, "(when this script was made)")\n'


def _about(row: Row, requires: tuple[str, ...]) -> str:
    versions = {"numpy": metadata.version("numpy")} | registry.versions(row.backend)
    made_with = " and ".join(f"{name} {versions[name]}" for name in ("numpy", *_framework(requires)))
    return (
        f"Exits with 1 while that is so, and with 0 once it is not. Written by gradwitness with {made_with};\n"
        "it needs nothing else."
    )


def _framework(requires: tuple[str, ...]) -> tuple[str, ...]:
    """The module that people know the framework by, if it is not NumPy."""
    return () if "numpy" in requires else requires[:1]


def _printed_versions(sources: Sources, requires: tuple[str, ...]) -> str:
    names = {"numpy": "np"}
    for name in _framework(requires):
        names[name] = sources.expression(import_module(name), name)
    return ", ".join(f'"{name}", {text}.__version__' for name, text in names.items())


def _imports(sources: Sources, body: str) -> str:
    """Python's own, then the others; annotations are left unread, as what they name may not be there."""
    every = sorted({*sources.imports, "import copy", "import sys"}, key=lambda line: (line.startswith("from"), line))
    own = [line for line in every if line.split()[1].partition(".")[0] in sys.stdlib_module_names]
    nodes = ast.walk(ast.parse(body.replace(IMPORTS, "", 1)))
    annotated = any(getattr(n, "annotation", None) or getattr(n, "returns", None) for n in nodes)
    first = ["from __future__ import annotations", ""] if annotated else []
    return "\n".join([*first, *own, "", *(line for line in every if line not in own)])
