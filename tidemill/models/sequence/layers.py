"""What the sequence networks have in common: small layers as plain functions of named weights.

Shapes in comments: W width; leading dimensions are free.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

Weights = dict[str, Tensor]
Dropout = Callable[[Tensor], Tensor]
Layout = Mapping[str, tuple[int, ...]]


def random_weights(layout: Layout, generator: torch.Generator) -> Weights:
    """Small random matrices; the head starts at zero, so an untrained network predicts the mean."""
    made: Weights = {}
    for name, size in layout.items():
        if name.endswith(".gain"):
            made[name] = torch.ones(size)
        elif name.endswith(".weight") and name != "head.weight":
            made[name] = torch.randn(size, generator=generator) * size[0] ** -0.5
        else:
            made[name] = torch.zeros(size)
    return made


def dropout(probability: float, generator: torch.Generator) -> Dropout:
    """Zeroes each number with `probability`. Its own generator, since training runs in two threads."""
    if probability == 0.0:
        return identity
    return lambda h: h * torch.empty_like(h).bernoulli_(1.0 - probability, generator=generator).div_(1.0 - probability)


def identity(h: Tensor) -> Tensor:
    return h


def layer_of(weights: Weights, layer: int) -> Weights:
    prefix = f"layer{layer}."
    return {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}


def norm(own: Weights, name: str, h: Tensor) -> Tensor:
    return functional.layer_norm(h, (h.shape[-1],), own[f"{name}.gain"], own[f"{name}.bias"])


def feed_forward(own: Weights, h: Tensor) -> Tensor:
    flat = h.reshape(-1, h.shape[-1])
    hidden = functional.gelu(torch.addmm(own["up.bias"], flat, own["up.weight"]), approximate="tanh")
    return torch.addmm(own["down.bias"], hidden, own["down.weight"]).view(h.shape)


def readout(weights: Weights, h: Tensor) -> Tensor:
    """One number for each [..., W]."""
    return (norm(weights, "final_norm", h) * weights["head.weight"]).sum(-1) + weights["head.bias"]
