"""What goes wrong with gradients that are right: they vanish, explode, die, or are all rounding."""

from gradwitness.diagnosis.measuring import Health, health

__all__ = ["Health", "health"]
