"""The `gradwitness` command."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from gradwitness import __name__ as package
from gradwitness import registry
from gradwitness.errors import GradwitnessError, UnknownName
from gradwitness.targets import is_target, load

if TYPE_CHECKING:
    from gradwitness.problem import Problem
    from gradwitness.report import Report
    from gradwitness.settings import Settings

__all__ = ["main"]

FAST_NETWORKS = ("article", "mlp", "transformer")


class _Failure(click.ClickException):
    """An error of ours as one message and exit status 2."""

    exit_code = 2


class _Commands(click.Group):
    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except GradwitnessError as error:
            raise _Failure(str(error)) from None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name=package)
def cli() -> None:
    """Is this gradient right, and if not, who is wrong, where, and why?"""


def _split(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    """`a,b` as ("a", "b")."""
    names = tuple(dict.fromkeys(part.strip() for part in (value or "").split(",") if part.strip()))
    if value is not None and not names:
        raise click.BadParameter(f"expected a name, or several joined by commas, got {value!r}")
    return names


def _seed(context: click.Context, parameter: click.Parameter, value: str) -> int:
    if value == "random":
        return secrets.randbelow(2**31)
    if not value.isdecimal():
        raise click.BadParameter(f"expected a whole number or 'random', got {value!r}")
    return int(value)


def _renamed(context: click.Context, option: click.Parameter, value: Any) -> None:
    if value is not None:
        raise click.UsageError(f"--reference-seconds is now --seconds: give --seconds {value}")


def _verdicts(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    from gradwitness.verdict import Verdict

    names = _split(context, parameter, value)
    for name in names:
        if name not in list(Verdict):
            raise click.BadParameter(str(UnknownName("verdict", name, [v.value for v in Verdict])))
    return names


@cli.command()
@click.argument("networks", nargs=-1, metavar="[NETWORK|FILE.py:NAME|MODULE:NAME]...")
@click.option("--ops", is_flag=True, help="Add one small problem per op and differentiable argument.")
@click.option("--backend", "backends", callback=_split, metavar="A,B", help="Only these backends.")
@click.option("--dtype", "dtypes", callback=_split, metavar="A,B", default="float64,float32", show_default=True)
@click.option("--device", "devices", callback=_split, metavar="A,B", default="cpu", show_default=True)
@click.option("--seed", callback=_seed, metavar="N|random", default="0", show_default=True)
@click.option("--fast", is_flag=True, help=f"Only {', '.join(FAST_NETWORKS)}, and no compiling backend.")
@click.option(
    "--precision",
    type=click.Choice(["highest", "default"]),
    default="highest",
    show_default=True,
    help="Hold matmul precision at the highest, or verify what people run untouched.",
)
@click.option(
    "--reference",
    type=click.Choice(["extended", "differences"]),
    default="extended",
    show_default=True,
    help="Hold gradients against one in 256 bits, or, faster, against one that finite differences confirm.",
)
@click.option(
    "--seconds",
    type=float,
    default=30.0,
    show_default=True,
    metavar="S",
    help="What 256 bits may take for each network and dtype; beyond it they see fewer examples, or single directions.",
)
@click.option("--reference-seconds", "renamed", hidden=True, callback=_renamed)
@click.option(
    "--timeout",
    type=float,
    metavar="S",
    help="Run each candidate in a subprocess, in which preparing and any single answer may take S seconds.",
)
@click.option(
    "--paths",
    callback=_split,
    metavar="all|A,B",
    help="The ways to the gradient: each candidate along each, such as torch.func.grad or vmap, that its backend has.",
)
@click.option("--allow", callback=_verdicts, metavar="VERDICT,...", help="Verdicts that pass as well.")
@click.option("--require", callback=_split, metavar="A,B", help="Backends that must run and agree.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the evidence here.")
@click.option(
    "--repro",
    "script",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a script that shows the first wrong gradient without gradwitness here.",
)
@click.option("--verbose", is_flag=True, help="A row per gradient.")
def verify(
    networks: tuple[str, ...],
    ops: bool,
    backends: tuple[str, ...],
    dtypes: tuple[str, ...],
    devices: tuple[str, ...],
    seed: int,
    fast: bool,
    precision: str,
    reference: str,
    seconds: float,
    renamed: None,
    timeout: float | None,
    paths: tuple[str, ...],
    allow: tuple[str, ...],
    require: tuple[str, ...],
    json_file: Path | None,
    script: Path | None,
    verbose: bool,
) -> None:
    """Run NETWORKs (default: all; the name of an op is its small problems) through every backend and judge each
    gradient.

    FILE.py:NAME or MODULE:NAME is one of your own: a gradwitness.Problem, or a function that returns the report of
    gradwitness.verify, such as functools.partial(gradwitness.verify, ...), which gets the options given here.

    Exits with 0 if at least one gradient agreed and every other is accepted, 1 if not, 2 for wrong usage.
    """
    from gradwitness.paths import expect_taken
    from gradwitness.problem import Candidate
    from gradwitness.report import joined
    from gradwitness.settings import Settings
    from gradwitness.verification import expect_devices, verify_problems

    chosen = _backends(backends, fast)
    for name in (*backends, *require):
        registry.backend(name)
    for name in backends:
        registry.installed(name)  # whoever is named must be there
    settings = Settings(dtypes, devices, precision, seed, reference, seconds, timeout, paths)
    expect_devices(devices, chosen)
    expect_taken({name: Candidate(name) for name in chosen}, paths)
    _expect_writable("--json", json_file)
    _expect_writable("--repro", script)
    problems, runs = _targets(networks)
    known = tuple(name for name in dict.fromkeys(networks) if not is_target(name))
    zoo = known or ops or not networks
    cases = list(_cases(known or (FAST_NETWORKS if fast else None), ops, seed, chosen)) if zoo else []
    cases += [(problem, chosen) for problem in problems]
    with _progress() as show:
        reports = [verify_problems(cases, settings, progress=show)] if cases else []
        reports += [_reported(name, run(**_given(settings))) for name, run in runs.items()]
    report = replace(joined(reports), allow=allow, require=require)
    if json_file:
        _write("--json", json_file, report.json() + "\n")
    click.echo(report.table(verbose=verbose, color=sys.stdout.isatty() and "NO_COLOR" not in os.environ))
    for reason in report.shortfalls():
        click.echo(reason)
    if script and not report.ok:
        click.echo(_exported(report, script))
    raise SystemExit(0 if report.ok else 1)


def _backends(named: Sequence[str], fast: bool) -> tuple[str, ...]:
    if named:
        return tuple(named)
    names = registry.backend_names()
    return tuple(n for n in names if not (fast and registry.backend(n).capabilities.compiles))


def _targets(names: Sequence[str]) -> tuple[list[Problem], dict[str, Callable[..., Any]]]:
    """(the problems, the functions by what names them) among what was named."""
    problems: list[Problem] = []
    runs: dict[str, Callable[..., Any]] = {}
    for name in filter(is_target, dict.fromkeys(names)):
        found = load(name)
        if callable(found):
            runs[name] = found
        else:
            problems.append(_problem(name, found))
    return problems, runs


def _problem(name: str, found: Any) -> Problem:
    from gradwitness.problem import Problem

    if not isinstance(found, Problem):
        raise GradwitnessError(
            f"{name}: expected a gradwitness.Problem, or a function that returns the report of gradwitness.verify, got "
            f"{type(found).__name__}"
        )
    if found.loss is None:
        raise GradwitnessError(f"{name}: this Problem has no loss; name a function that verifies its candidates")
    return found


def _given(settings: Settings) -> dict[str, Any]:
    """What the command line said of how to verify, as keywords of gradwitness.verify; nothing of what it left open."""
    context = click.get_current_context()
    options = vars(settings)
    said = {name for name in options if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    return {name: value for name, value in options.items() if name in said}


def _reported(name: str, report: Any) -> Report:
    from gradwitness.report import Report

    if not isinstance(report, Report):
        raise GradwitnessError(f"{name} returned {type(report).__name__}; return what gradwitness.verify returns")
    return report


def _exported(report: Report, script: Path) -> str:
    """What became of the script; that there is none is no reason to exit otherwise."""
    try:
        report.export_repro(script)
    except GradwitnessError as error:
        return f"--repro {script}: {error}"
    return f"{script} shows the first wrong gradient by itself"


def _cases(
    networks: Sequence[str] | None, ops: bool, seed: int, backends: Sequence[str]
) -> Iterator[tuple[Problem, tuple[str, ...]]]:
    """The problems and, for each, the backends that take part in it."""
    from gradwitness.networks import NETWORKS, network
    from gradwitness.networks.single_ops import op_bundles, op_problems

    compiling = tuple(n for n in backends if registry.backend(n).capabilities.compiles)
    direct = tuple(n for n in backends if n not in compiling)
    if networks is None:
        networks = tuple(NETWORKS)
    for name in networks:
        single = [] if name in NETWORKS else [p for p in op_problems(seed) if p.name.split(".")[0] == name]
        yield from ((problem, tuple(backends)) for problem in single or [network(name, seed=seed)])
    if ops:
        if direct:
            yield from ((problem, direct) for problem in op_problems(seed))
        if compiling:  # a compilation takes seconds: one per family instead of one per op
            yield from ((problem, compiling) for problem in op_bundles(seed))


def _expect_writable(option: str, path: Path | None) -> None:
    if path is not None and not path.parent.is_dir():
        raise GradwitnessError(f"{option} {path}: the folder {path.parent} does not exist; create it first")


def _write(option: str, path: Path, text: str) -> None:
    from gradwitness.report.document import write_whole

    try:
        write_whole(path, text)
    except OSError as error:
        raise GradwitnessError(f"{option} {path}: cannot be written: {error.strerror}") from None


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """A status line on standard error while it works, on a terminal only."""
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    from rich.console import Console

    with Console(stderr=True).status("starting") as status:
        yield status.update


def _rate(context: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    if value is not None and not 0 < value < float("inf"):
        raise click.BadParameter(f"a step goes downhill at a positive, finite rate, got {value:g}")
    return value


@cli.command()
@click.argument("name", metavar="NETWORK")
@click.option("--step", "rate", type=float, callback=_rate, metavar="RATE", help="Take a step of gradient descent.")
@click.option("--svg", "svg_file", type=click.Path(dir_okay=False, path_type=Path), help="Draw the graph into a file.")
@click.option("--seed", callback=_seed, metavar="N|random", default="0", show_default=True)
def explain(name: str, rate: float | None, svg_file: Path | None, seed: int) -> None:
    """Print the whole pass of NETWORK as on paper: every value, local derivative, cotangent and gradient."""
    from gradwitness.explain import explain as explained
    from gradwitness.networks import NETWORKS, PUBLISHED, network
    from gradwitness.report.explanation import text

    _expect_writable("--svg", svg_file)
    explanation = explained(network(name, seed=seed), rate=rate, published=PUBLISHED.get(name, ()))
    summary = _summary(NETWORKS[name])
    if svg_file:
        from gradwitness.report.drawing import svg

        _write("--svg", svg_file, svg(explanation, summary))
    click.echo(text(explanation, summary))


@cli.command("list")
@click.argument("what", type=click.Choice(["networks", "backends", "ops"]))
def list_(what: str) -> None:
    """What there is: networks, backends (with versions and devices), or ops."""
    from tabulate import tabulate

    headers, rows = {"networks": _networks, "backends": _backend_rows, "ops": _ops}[what]()
    click.echo(tabulate(rows, headers, tablefmt="simple", disable_numparse=True))


def _summary(make: Callable[..., Problem]) -> str:
    """The first line of a network's docstring."""
    return (make.__doc__ or "").split("\n", maxsplit=1)[0]


def _networks() -> tuple[list[str], list[list[Any]]]:
    from gradwitness.networks import NETWORKS, network

    rows = []
    for name, make in NETWORKS.items():
        problem = network(name)
        size = sum(array.size for array in problem.primals.values())
        rows.append([name, len(problem.differentiated), size, _summary(make)])
    return ["network", "tensors", "parameters", "what"], rows


def _backend_rows() -> tuple[list[str], list[list[Any]]]:
    rows = []
    for name in registry.backend_names():
        capabilities = registry.backend(name).capabilities
        missing = registry.missing_modules(name)
        state = f"not installed: {capabilities.install}" if missing else ", ".join(registry.backend(name).devices())
        versions = ", ".join(f"{m} {v}" for m, v in registry.versions(name).items())
        rows.append([name, versions, state, ", ".join(capabilities.dtypes)])
    return ["backend", "versions", "devices", "dtypes"], rows


def _ops() -> tuple[list[str], list[list[Any]]]:
    """Each op, and how each framework runs it: by a function of its own, or as a composition."""
    from gradwitness.ops import OPS

    names = [n for n in registry.backend_names() if not registry.backend(n).capabilities.interpreter]
    capabilities = [registry.backend(name).capabilities for name in names]
    ways = {
        op: ["composed" if op in c.composed else "native" if op in c.ops else "-" for c in capabilities] for op in OPS
    }
    rows = [[op.name, "fused" if op.definition else "elementary", *ways[op.name], op.summary] for op in OPS.values()]
    return ["op", "kind", *names, "what"], rows


def main() -> None:
    """The console script."""
    cli(prog_name="gradwitness")
