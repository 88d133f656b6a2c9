"""The command itself: what all of it has in common."""

from __future__ import annotations

import shlex
from typing import Any

import click

from gradwitness import __name__ as package
from gradwitness.errors import GradwitnessError
from gradwitness.interrupts import INTERRUPTED, has_come

__all__ = ["TYPED", "cli"]

TYPED = f"{package}.typed"  # what the command line was, for whoever reads a page


class _Failure(click.ClickException):
    """An error of ours as one message and exit status 2."""

    exit_code = 2


class _Commands(click.Group):
    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        context.meta[TYPED] = shlex.join((package, *args))
        return super().parse_args(context, args)

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except GradwitnessError as error:
            raise _Failure(str(error)) from None
        except KeyboardInterrupt:  # click would say that it was aborted, and exit with 1
            has_come()
            click.echo("interrupted", err=True)
            raise SystemExit(INTERRUPTED) from None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name=package)
def cli() -> None:
    """Is this gradient right, and if not, who is wrong, where, and why?"""
