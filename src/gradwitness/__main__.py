"""The command: `gradwitness`, or `python -m gradwitness`."""

import os
import signal
import sys
from types import FrameType

__all__ = ["main"]

INTERRUPTED = 130  # the exit status, as of a shell: 128 and SIGINT


def main() -> None:
    """The console script. An interrupt ends it with one line, also while modules are imported."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # and not ignored, as in the background
        signal.signal(signal.SIGINT, _interrupt)
    try:
        from gradwitness.cli import cli
        from gradwitness.terminal import open_standard_streams

        open_standard_streams()
        cli(prog_name="gradwitness", standalone_mode=True)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt; but in an import end at once, as a framework that is imported by half may crash Python
    where it ends."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os.write(2, b"interrupted\n")
            os._exit(INTERRUPTED)
        frame = frame.f_back
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
