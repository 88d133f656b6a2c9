"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from gradwitness.errors import GradwitnessError
from gradwitness.settings import OPTIONS, Settings, names
from gradwitness.shards import shard_from

__all__ = ["FILE", "HTML", "NAMES", "SHARD", "Command", "option", "settings"]

Command = Callable[..., Any]


def _read_by(reads: Callable[[str], Any]) -> dict[str, Any]:
    """What click is told of an option whose text this function reads, or refuses."""

    def read(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
        try:
            return reads(value) if isinstance(value, str) else value
        except GradwitnessError as error:
            raise click.BadParameter(str(error)) from None

    return {"type": click.UNPROCESSED, "callback": read}


FILE: dict[str, Any] = {"type": click.Path(path_type=Path), "metavar": "FILE"}


HTML = click.option("--html", "html_file", **FILE, help="Write everything as a page here (needs gradwitness[html]).")


NAMES = {"default": (), "metavar": "A,B", **_read_by(names)}


SHARD = click.option(
    "--shard",
    metavar="i/n",
    default=None,
    help="Only the i-th of n shares, for n machines; gradwitness merge joins what they write by --json.",
    **_read_by(shard_from),
)


def option(name: str) -> Callable[[Command], Command]:
    """The option that gives one of the Settings, with the default that it has there."""
    option = OPTIONS[name]
    known: dict[Any, dict[str, Any]] = {str: {"type": click.Choice(option.choices)}, float: {"type": float}}
    how = known.get(option.reads) or _read_by(option.reads)
    shown: dict[str, Any] = {"metavar": option.metavar, "help": option.help, "show_default": True}
    return click.option(option.flag, name, default=getattr(Settings, name), **shown, **how)


def settings(command: Command) -> Command:
    """With an option for each of the Settings."""
    for name in reversed(OPTIONS):
        command = option(name)(command)
    return command
