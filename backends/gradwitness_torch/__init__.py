"""The backends "torch" (`eager`, by autograd) and "torch.compile" (`compiled`), and `from_module`, which makes of a
module a loss of its parameters. torch is imported when one of them is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradwitness_torch.modules import from_module

__all__ = ["from_module"]


def __getattr__(name: str) -> Any:
    """`from_module`, whose own module imports torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from gradwitness_torch.modules import from_module

    return from_module
