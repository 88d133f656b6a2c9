"""The backends "torch" (`eager`, by autograd) and "torch.compile" (`compiled`). torch is imported when they prepare."""
