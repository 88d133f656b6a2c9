"""The 2-2-1 network of `gradwitness explain article` through torch.compile: loss and backward as compiled graphs."""

from functools import partial

import torch

tensor = partial(torch.tensor, dtype=torch.float64)

PARAMS = {
    "hidden.weight": [[0.3, -0.1], [0.5, 0.2]],  # a row per neuron
    "hidden.bias": [0.1, -0.2],
    "output.weight": [[0.4, -0.3]],
    "output.bias": [0.05],
}


@torch.compile(fullgraph=True)
def loss(params: dict[str, torch.Tensor], x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Half the squared error of one example, of shape [1]."""
    hidden = torch.sigmoid(torch.nn.functional.linear(x, params["hidden.weight"], params["hidden.bias"]))
    y = torch.nn.functional.linear(hidden, params["output.weight"], params["output.bias"])
    return 0.5 * (y - target) ** 2


def run() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The loss, and the gradients by name."""
    params = {name: tensor(p, requires_grad=True) for name, p in PARAMS.items()}
    x, target = tensor([0.5, 0.8]), tensor([1.0])
    total = loss(params, x, target)
    total.backward()
    return total.detach(), {name: p.grad for name, p in params.items() if p.grad is not None}


if __name__ == "__main__":
    total, gradients = run()
    print("loss", total.tolist())
    for name, gradient in gradients.items():
        print(name, gradient.tolist())
