"""The text in which a function or a class was defined, and the names that it takes from outside."""

from __future__ import annotations

import ast
import builtins
import inspect
import linecache
import re
import symtable
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any

from gradwitness.errors import GradwitnessError

__all__ = ["Definition", "assignment_of", "bare", "definition_of", "free_names", "renamed"]

Def = ast.FunctionDef | ast.AsyncFunctionDef
CUT = "\0"
SCOPES = (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True)
class Definition:
    """Text that binds `name`, and what the names in it that it does not bind itself stand for."""

    name: str
    text: str
    namespace: Mapping[str, Any]


def definition_of(thing: Any, hint: str) -> Definition | None:
    """Of a function, a class, or what decorators have made of one, with the statements that complete it
    (`f.defvjp(...)`). hint: the name for a lambda. None for what a definition does not make.

    Raises GradwitnessError where the text cannot be had.
    """
    if isinstance(thing, type):
        return _of_class(thing)
    inner = inspect.unwrap(thing) if callable(thing) else thing
    if not isinstance(inner, FunctionType):
        return None
    tree, lines = _parsed(inner.__code__, hint)
    node = _node_of(inner.__code__, tree, hint)
    space = {**inner.__globals__, **_cells(inner), **_defaults(inner, node)}
    if isinstance(node, ast.Lambda):
        return Definition(
            hint, f"{hint} = {_one_expression(ast.get_source_segment(''.join(lines), node) or '')}", space
        )
    if thing is not inner and not node.decorator_list:
        return None  # `g = jax.jit(f)`: what makes it is an assignment
    first = node.decorator_list[0].lineno if thing is not inner else node.lineno
    text = _dedented(lines, first, node.end_lineno)
    for statement in _completing(node, tree):
        begin = min([statement.lineno, *(d.lineno for d in getattr(statement, "decorator_list", ()))])
        text += "\n\n\n" + _dedented(lines, begin, statement.end_lineno)
    return Definition(node.name, text, {**space, **_cells(thing)})


def assignment_of(name: str, function: Any) -> Definition | None:
    """The statement that assigns this name of the function's; None if there is none, or several, or it takes names
    that the function does not know."""
    inner = inspect.unwrap(function) if callable(function) else function
    if not isinstance(inner, FunctionType):
        return None
    tree, lines = _parsed(inner.__code__, name)
    found = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.AnnAssign) and name in {n.id for n in _targets(node)}
    ]
    if len(found) != 1:
        return None
    text, space = _dedented(lines, found[0].lineno, found[0].end_lineno), {**inner.__globals__, **_cells(inner)}
    return Definition(name, text, space) if set(free_names(text)) <= set(space) else None


def free_names(text: str) -> list[str]:
    """The names that the text takes from outside of it, annotations apart, in order of their first use."""
    bare = _Bare().visit(ast.parse(text))
    top = symtable.symtable(ast.unparse(bare), "<definition>", "exec")
    bound = {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported()}
    used = {name for table in _tables(top) for name in _global_names(table)}
    free = used - bound - set(dir(builtins))
    in_order = dict.fromkeys(n.id for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Name))
    return [name for name in in_order if name in free]


def renamed(text: str, names: Mapping[str, str]) -> str:
    """The text with other names instead of these, wherever they stand for a value or are defined."""
    changes = []
    lines = text.splitlines(keepends=True)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Name) and node.id in names:
            changes.append((node.lineno, node.col_offset, node.id))
        elif isinstance(node, Def | ast.ClassDef) and node.name in names and not node.col_offset:
            column = lines[node.lineno - 1].encode().index(node.name.encode(), len(b"def "))
            changes.append((node.lineno, column, node.name))
    for line, column, name in sorted(changes, reverse=True):
        raw = lines[line - 1].encode()
        lines[line - 1] = (raw[:column] + names[name].encode() + raw[column + len(name.encode()) :]).decode()
    return "".join(lines)


def bare(text: str) -> str:
    """The text without annotations of parameters, and without what its comments tell linters."""
    lines = [re.sub(r"  # (noqa|type:).*", "", line) for line in text.splitlines()]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.arg) and node.annotation is not None:
            _cut(lines, (node.lineno, node.col_offset + len(node.arg)), node.annotation)
        elif isinstance(node, Def) and node.returns is not None:
            line = lines[node.returns.lineno - 1]
            _cut(lines, (node.returns.lineno, line.rindex(" ->", 0, node.returns.col_offset)), node.returns)
    return "\n".join(re.sub(f"{CUT}+ = ", "=", line).replace(CUT, "") for line in lines)


def _cut(lines: list[str], start: tuple[int, int], until: ast.expr) -> None:
    """Blank what is between two places of one line: columns stay as they are."""
    line, column = start
    end = until.end_col_offset or 0
    if until.end_lineno == line:
        lines[line - 1] = lines[line - 1][:column] + CUT * (end - column) + lines[line - 1][end:]


class _Bare(ast.NodeTransformer):
    """Without annotations, which are never evaluated in the script."""

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:  # named by ast
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant("")
        return self.generic_visit(node)


def _tables(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    yield table
    for child in table.get_children():
        yield from _tables(child)


def _global_names(table: symtable.SymbolTable) -> set[str]:
    return {s.get_name() for s in table.get_symbols() if s.is_global() or (table.get_type() == "module")}


def _of_class(thing: type) -> Definition:
    methods = [m for m in map(_function_in, vars(thing).values()) if m is not None]
    own = [
        m
        for m in methods
        if m.__qualname__.startswith(f"{thing.__qualname__}.")
        and m.__globals__.get("__name__") == thing.__module__
        and linecache.getlines(m.__code__.co_filename)
    ]  # others are inherited, or made by a decorator or namedtuple
    space: dict[str, Any] = dict(vars(inspect.getmodule(thing) or builtins))
    for method in own:
        space |= {**method.__globals__, **_cells(method)}
    tree, lines = _parsed(own[0].__code__, thing.__name__) if own else _module_of(thing)
    found = [
        n
        for n in ast.walk(tree)
        if isinstance(n, ast.ClassDef)
        and n.name == thing.__name__
        and (not own or any(n.lineno <= m.__code__.co_firstlineno <= (n.end_lineno or 0) for m in own))
    ]
    if not found:
        raise _lost(thing.__name__)
    node = found[-1]
    first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
    return Definition(node.name, _dedented(lines, first, node.end_lineno), space)


def _function_in(attribute: Any) -> FunctionType | None:
    inner = getattr(attribute, "__func__", getattr(attribute, "fget", attribute))
    inner = inspect.unwrap(inner) if callable(inner) else inner
    return inner if isinstance(inner, FunctionType) else None


def _module_of(thing: type) -> tuple[ast.Module, list[str]]:
    try:
        lines = inspect.findsource(thing)[0]
    except (OSError, TypeError):
        raise _lost(thing.__name__) from None
    return ast.parse("".join(lines)), lines


def _parsed(code: CodeType, name: str) -> tuple[ast.Module, list[str]]:
    lines = linecache.getlines(code.co_filename)
    try:
        return ast.parse("".join(lines)), lines
    except SyntaxError:  # a page of documentation, say, whose code was executed
        raise _lost(name) from None


def _node_of(code: CodeType, tree: ast.Module, name: str) -> Def | ast.Lambda:
    """Where the code was compiled from. Lines of decorators count as a function's first."""
    wanted = ast.Lambda if code.co_name == "<lambda>" else Def
    for node in ast.walk(tree):
        if not isinstance(node, wanted):
            continue
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
        if first == code.co_firstlineno and _has_name(node, code) and _holds(node, code):
            return node
    raise _lost(name)


def _has_name(node: Any, code: CodeType) -> bool:
    return isinstance(node, ast.Lambda) or node.name == code.co_name


def _holds(node: Def | ast.Lambda, code: CodeType) -> bool:
    """Whether a lambda's body is where the code's instructions are from: several may share a line."""
    if not isinstance(node, ast.Lambda):
        return True
    places = [(line, column) for line, _, column, _ in code.co_positions() if line and column is not None]
    body = node.body
    inside = [(line, column) for line, column in places if line > code.co_firstlineno or column > node.col_offset]
    begin, end = (body.lineno, body.col_offset), (body.end_lineno or 0, body.end_col_offset or 0)
    return bool(inside) and begin <= max(inside) < end and min(inside) >= begin


def _completing(node: Def, tree: ast.Module) -> list[ast.stmt]:
    """The statements of its block that call its methods, or decorate by them."""
    block = next(s.body for s in ast.walk(tree) if isinstance(s, SCOPES) and node in s.body)
    return [s for s in block if s.lineno > node.lineno and node.name in map(_root, _calls(s))]


def _calls(statement: ast.stmt) -> list[ast.expr]:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        return [statement.value.func]
    return list(statement.decorator_list) if isinstance(statement, Def) else []


def _root(expression: ast.expr) -> str:
    """The name on which an attribute is looked up: f of `f.defvjp`; empty for anything else."""
    target = expression.func if isinstance(expression, ast.Call) else expression
    if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name):
        return target.value.id
    return ""


def _targets(node: ast.Assign | ast.AnnAssign) -> Iterator[ast.Name]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return (n for target in targets for n in ast.walk(target) if isinstance(n, ast.Name))


def _cells(function: Any) -> dict[str, Any]:
    """What a function closes over, by name."""
    if not isinstance(function, FunctionType) or not function.__closure__:
        return {}
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__, strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return found


def _defaults(function: FunctionType, node: Def | ast.Lambda) -> dict[str, Any]:
    """What the names stood for that are defaults of parameters: they may be those of a scope that is gone."""
    positional = zip(node.args.defaults, function.__defaults__ or (), strict=False)
    by_keyword = ((d, (function.__kwdefaults__ or {}).get(a.arg)) for a, d in _keyword_defaults(node))
    return {default.id: value for default, value in (*positional, *by_keyword) if isinstance(default, ast.Name)}


def _keyword_defaults(node: Def | ast.Lambda) -> Iterator[tuple[ast.arg, ast.expr]]:
    pairs = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
    return ((argument, default) for argument, default in pairs if default is not None)


def _dedented(lines: list[str], first: int, last: int | None) -> str:
    return textwrap.dedent("".join(lines[first - 1 : last])).rstrip()


def _one_expression(text: str) -> str:
    return f"({text})" if "\n" in text else text


def _lost(name: str) -> GradwitnessError:
    return GradwitnessError(
        f"the source of {name!r} cannot be had, and a script needs its text: define it in a file or a notebook cell"
    )
