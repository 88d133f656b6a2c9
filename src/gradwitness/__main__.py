"""The command: `gradwitness`, or `python -m gradwitness`."""

import sys

from gradwitness.interrupts import INTERRUPTED, end, install

__all__ = ["main"]


def main() -> None:
    """The console script. An interrupt ends it with one line, also while modules are imported."""
    install()
    try:
        from gradwitness.cli import cli
        from gradwitness.terminal import open_standard_streams

        open_standard_streams()
        cli(prog_name="gradwitness", standalone_mode=True)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        end()
    except SystemExit as ended:
        if ended.code == INTERRUPTED:
            end()
        raise


if __name__ == "__main__":
    main()
