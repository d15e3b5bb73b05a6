"""The causal transformer itself: its weights, the parallel pass that trains it and the cached step that scores with it.

    x [F] → embed [W] → layers × ( + attention(norm(h)),  + mlp(norm(h)) ) → norm → head → one number for every position

Attention is banded: a position sees itself and the CONTEXT - 1 positions before it, with a learnt bias for each distance and
head. So after two layers a position depends on 2 · (CONTEXT - 1) earlier ones and on nothing before them.

Training cuts a sequence into chunks of CONTEXT; each chunk attends to itself and the one before. Scoring keeps keys and
values of the last CONTEXT positions and takes one position at a time, for exactly BLOCK sequences at once: the same shapes
for every call, hence the same instructions for a row, whoever its neighbours are.

Shapes in comments: B sequences, T positions, C chunks, W width, H heads, D = W / H, F inputs.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tidemill.models.sequence.layers import Dropout, Weights, feed_forward, identity, layer_of, norm, random_weights, readout

CONTEXT = 64
BLOCK = 64
_RING = 2 * CONTEXT  # keys and values are moved once in CONTEXT steps instead of in every step


@dataclass(frozen=True)
class Shape:
    """The network's sizes; a `Trainable` of `sequence.training`."""

    inputs: int
    width: int = 64
    layers: int = 2
    heads: int = 2
    hidden: int = 128

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def history(self) -> int:
        """Earlier positions that an output depends on."""
        return self.layers * (CONTEXT - 1)

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


def layout(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight."""
    width, hidden = shape.width, shape.hidden
    made: dict[str, tuple[int, ...]] = {"embed.weight": (shape.inputs, width), "embed.bias": (width,)}
    for layer in range(shape.layers):
        parts = {
            "attention_norm.gain": (width,),
            "attention_norm.bias": (width,),
            "attention.weight": (width, 3 * width),
            "attention.bias": (3 * width,),
            "attention.distance": (shape.heads, CONTEXT),
            "mix.weight": (width, width),
            "mix.bias": (width,),
            "mlp_norm.gain": (width,),
            "mlp_norm.bias": (width,),
            "up.weight": (width, hidden),
            "up.bias": (hidden,),
            "down.weight": (hidden, width),
            "down.bias": (width,),
        }
        made |= {f"layer{layer}.{name}": size for name, size in parts.items()}
    return made | {"final_norm.gain": (width,), "final_norm.bias": (width,), "head.weight": (width,), "head.bias": (1,)}


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
    apart = torch.arange(CONTEXT)[:, None] + CONTEXT - torch.arange(2 * CONTEXT)[None, :]
    inside = (apart >= 0) & (apart < CONTEXT)
    bias = distance[:, apart.clamp(0, CONTEXT - 1)]  # [H, 64, 128]
    allowed = inside.expand(chunks, -1, -1).clone()  # [C, 64, 128]
    allowed[0, :, :CONTEXT] = False
    return torch.where(allowed, bias[:, None], float("-inf"))


class Block:
    """Streaming state of BLOCK sequences: keys and values of the last CONTEXT positions of each, for each layer."""

    def __init__(self, weights: Weights, shape: Shape) -> None:
        self._weights, self._shape = weights, shape
        self._layers = [layer_of(weights, layer) for layer in range(shape.layers)]
        # In a window the newest key is last, so its distances run from CONTEXT - 1 down to 0.
        self._bias = [own["attention.distance"].flip(1)[None] for own in self._layers]  # [1, H, 64]
        size = (BLOCK, shape.heads, _RING, shape.head_width)
        self._keys = [torch.zeros(size) for _ in self._layers]
        self._values = [torch.zeros(size) for _ in self._layers]
        self._age = torch.arange(CONTEXT - 1, -1, -1)[None]  # [1, 64]
        self._seen = torch.zeros(BLOCK, 1, dtype=torch.int64)
        self._slot = CONTEXT - 1

    def step(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        """Outputs [BLOCK] for the next position [BLOCK, F] of every sequence.

        present: bool [BLOCK]; a sequence that is not present keeps its state, and its output means nothing.
        """
        self._seen += 1
        absent = self._absent(present)
        mask = torch.where(self._age < self._seen, 0.0, float("-inf"))[:, None]  # [BLOCK, 1, 64]
        h = torch.addmm(self._weights["embed.bias"], x, self._weights["embed.weight"])  # [BLOCK, W]
        for layer, own in enumerate(self._layers):
            h = h + self._attend(layer, own, norm(own, "attention_norm", h), mask)
            h = h + feed_forward(own, norm(own, "mlp_norm", h))
        self._hold(absent)
        self._advance()
        return readout(self._weights, h)

    def _attend(self, layer: int, own: Weights, h: Tensor, mask: Tensor) -> Tensor:
        heads, depth, window = self._shape.heads, self._shape.head_width, slice(self._slot + 1 - CONTEXT, self._slot + 1)
        qkv = torch.addmm(own["attention.bias"], h, own["attention.weight"]).view(BLOCK, 3, heads, depth)
        self._keys[layer][:, :, self._slot] = qkv[:, 1]
        self._values[layer][:, :, self._slot] = qkv[:, 2]
        keys = self._keys[layer].view(BLOCK * heads, _RING, depth)[:, window]
        values = self._values[layer].view(BLOCK * heads, _RING, depth)[:, window]
        q = (qkv[:, 0] * depth**-0.5).reshape(BLOCK * heads, 1, depth)
        scores = torch.bmm(q, keys.transpose(1, 2)).view(BLOCK, heads, CONTEXT)
        attention = (scores + self._bias[layer] + mask).softmax(-1)
        mixed = torch.bmm(attention.view(BLOCK * heads, 1, CONTEXT), values).view(BLOCK, heads * depth)
        return torch.addmm(own["mix.bias"], mixed, own["mix.weight"])

    def _absent(self, present: Tensor | None) -> Tensor | None:
        if present is None or bool(present.all()):
            return None
        return torch.nonzero(~present).flatten()

    def _hold(self, absent: Tensor | None) -> None:
        """Undo the step for absent sequences: their window moves on with the common slot, so its content moves along."""
        if absent is None:
            return
        self._seen[absent] -= 1
        for ring in (*self._keys, *self._values):
            ring[absent, :, 1 : self._slot + 1] = ring[absent, :, : self._slot].clone()

    def _advance(self) -> None:
        self._slot += 1
        if self._slot == _RING:
            for ring in (*self._keys, *self._values):
                ring[:, :, : CONTEXT - 1] = ring[:, :, CONTEXT + 1 :].clone()
            self._slot = CONTEXT - 1
