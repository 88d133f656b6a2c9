"""An attacker's corpus against the judge: gradients known to be wrong, and gradients known to be right."""
