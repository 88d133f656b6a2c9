"""Further derivatives of a loss, each as the gradient of another graph, so that they are judged as gradients are.

`tangents`: forward mode along a direction; its gradient is a product with the Hessian. `steps`: the loss as a function
of steps along directions; its gradient is the jvp. `examples`: the loss at a copy of the params for each example; its
gradient is that of each example.
"""

from gradwitness.derivatives.examples import by_example, of_example
from gradwitness.derivatives.steps import stepped
from gradwitness.derivatives.tangents import RULES, tangent

__all__ = ["RULES", "by_example", "of_example", "stepped", "tangent"]
