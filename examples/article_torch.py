"""The 2-2-1 network of `gradwitness explain article`, as one writes it in PyTorch. The loss has shape [1]."""

from functools import partial

import torch
from torch import nn

tensor = partial(torch.tensor, dtype=torch.float64)  # a float32 tensor copied into float64 keeps float32's rounding


class Article(nn.Module):
    """Two inputs, two sigmoid neurons, one linear output, with the article's weights."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(2, 2, dtype=torch.float64)
        self.output = nn.Linear(2, 1, dtype=torch.float64)
        with torch.no_grad():
            self.hidden.weight.copy_(tensor([[0.3, -0.1], [0.5, 0.2]]))  # a row per neuron
            self.hidden.bias.copy_(tensor([0.1, -0.2]))
            self.output.weight.copy_(tensor([[0.4, -0.3]]))
            self.output.bias.copy_(tensor([0.05]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.output(torch.sigmoid(self.hidden(x)))
        return y


def run() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The loss, and the gradients by name."""
    model = Article()
    x, target = tensor([0.5, 0.8]), tensor([1.0])
    loss = 0.5 * (model(x) - target) ** 2
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


if __name__ == "__main__":
    total, gradients = run()
    print("loss", total.tolist())
    for name, gradient in gradients.items():
        print(name, gradient.tolist())
