"""The causal transformer itself: the parallel pass over whole sequences, which trains it and scores on a GPU.

    x [F] → embed [W] → layers × ( + attention(norm(h)),  + mlp(norm(h)) ) → norm → head → one number for every position

Attention is banded: a position sees itself and the CONTEXT - 1 positions before it, with a learnt bias for each distance and
head. So after two layers a position depends on 2 · (CONTEXT - 1) earlier ones and on nothing before them. A sequence is cut
into chunks of CONTEXT; each chunk attends to itself and the one before. The cached step that scores on a CPU is in `kernel`.

Shapes in comments: B sequences, T positions, C chunks, W width, H heads, D = W / H, F inputs.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tidemill.models.sequence.layers import Dropout, Weights, feed_forward, identity, layer_of, norm, random_weights, readout
from tidemill.models.sequence.shape import CONTEXT, Shape, layout


@dataclass(frozen=True)
class Network(Shape):
    """A `Trainable` of `sequence.training`."""

    @property
    def segment(self) -> int:
        return 3 * CONTEXT

    @property
    def shortest(self) -> int:
        return CONTEXT

    @property
    def batch(self) -> int:
        return 24

    def layout(self) -> dict[str, tuple[int, ...]]:
        return layout(self)

    def initial(self, generator: torch.Generator) -> Weights:
        return initial_weights(self, generator)

    def forward(self, weights: Weights, x: Tensor, drop: Dropout) -> Tensor:
        return forward(weights, self, x, drop)


def initial_weights(shape: Shape, generator: torch.Generator) -> Weights:
    return random_weights(layout(shape), generator)


def forward(weights: Weights, shape: Shape, x: Tensor, dropout: Dropout | None = None) -> Tensor:
    """Outputs [B, T] for inputs [B, T, F]; T is a multiple of CONTEXT. Padding belongs at the end, where nothing sees it."""
    drop = dropout or identity
    h = x @ weights["embed.weight"] + weights["embed.bias"]  # [B, T, W]
    for layer in range(shape.layers):
        own = layer_of(weights, layer)
        h = h + drop(_banded_attention(own, shape, norm(own, "attention_norm", h)))
        h = h + drop(feed_forward(own, norm(own, "mlp_norm", h)))
    return readout(weights, h)


def _banded_attention(own: Weights, shape: Shape, h: Tensor) -> Tensor:
    batch, length, width = h.shape
    chunks = length // CONTEXT
    qkv = (h @ own["attention.weight"] + own["attention.bias"]).view(batch, chunks, CONTEXT, 3, shape.heads, shape.head_width)
    q, k, v = qkv.permute(3, 0, 4, 1, 2, 5)  # each [B, H, C, 64, D]
    keys, values = (_with_chunk_before(part) for part in (k, v))  # each [B, H, C, 128, D]
    scores = q @ keys.transpose(-1, -2) * shape.head_width**-0.5 + _band(
        own["attention.distance"], chunks
    )  # [B, H, C, 64, 128]
    mixed: Tensor = scores.softmax(-1) @ values  # [B, H, C, 64, D]
    return mixed.permute(0, 2, 3, 1, 4).reshape(batch, length, width) @ own["mix.weight"] + own["mix.bias"]


def _with_chunk_before(part: Tensor) -> Tensor:
    return torch.cat((functional.pad(part[:, :, :-1], (0, 0, 0, 0, 1, 0)), part), dim=3)


def _band(distance: Tensor, chunks: int) -> Tensor:
    """Bias [H, C, 64, 128] of the keys of two chunks: learnt in the band, minus infinity outside and before the sequence."""
    positions = torch.arange(2 * CONTEXT, device=distance.device)
    apart = positions[:CONTEXT, None] + CONTEXT - positions[None, :]
    inside = (apart >= 0) & (apart < CONTEXT)
    bias = distance[:, apart.clamp(0, CONTEXT - 1)]  # [H, 64, 128]
    allowed = inside.expand(chunks, -1, -1).clone()  # [C, 64, 128]
    allowed[0, :, :CONTEXT] = False
    return torch.where(allowed, bias[:, None], float("-inf"))
