"""The gated recurrent network itself: its weights, the scan that trains it and the cached step that scores with it.

    x [F] → embed [W] → GRU (Cho et al., 2014) → + embed, + mlp(norm) → norm → head → one number for every position

A recurrent state remembers for ever, so its bits would depend on where history starts. Here it does not: time is cut into
windows of SPAN bar lengths, and a state lives for two of them. Each sequence keeps two states; the older one answers. Where a
window begins the younger takes its place and a new one starts from zero, so an answer always knows the last SPAN bar lengths,
at most 2 · SPAN, and nothing before them.

Training scans stretches of 2 · SPAN positions from zero, which is what the older state is. Scoring takes one position at a
time, for exactly BLOCK sequences at once: the same shapes for every call, hence the same instructions for a row, whoever its
neighbours are.

Shapes in comments: B sequences, T positions, W width, F inputs.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tidemill.models.sequence.layers import Dropout, Weights, feed_forward, identity, norm, random_weights, readout

SPAN = 64
BLOCK = 64


@dataclass(frozen=True)
class Recurrent:
    """The network's sizes; a `Trainable` of `sequence.training`."""

    inputs: int
    width: int = 64
    hidden: int = 128

    @property
    def history(self) -> int:
        """Earlier positions that an output may depend on."""
        return 2 * SPAN - 1

    @property
    def segment(self) -> int:
        return 2 * SPAN

    @property
    def shortest(self) -> int:
        return SPAN // 2

    @property
    def batch(self) -> int:
        # A step in time costs about the same for 20 sequences and for 50.
        return 96

    def layout(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every weight. Gates in torch's order: reset, update, new."""
        width, hidden = self.width, self.hidden
        return {
            "embed.weight": (self.inputs, width),
            "embed.bias": (width,),
            "input.weight": (3 * width, width),
            "input.bias": (3 * width,),
            "state.weight": (3 * width, width),
            "state.bias": (3 * width,),
            "mlp_norm.gain": (width,),
            "mlp_norm.bias": (width,),
            "up.weight": (width, hidden),
            "up.bias": (hidden,),
            "down.weight": (hidden, width),
            "down.bias": (width,),
            "final_norm.gain": (width,),
            "final_norm.bias": (width,),
            "head.weight": (width,),
            "head.bias": (1,),
        }

    def initial(self, generator: torch.Generator) -> Weights:
        return random_weights(self.layout(), generator)

    def forward(self, weights: Weights, x: Tensor, drop: Dropout) -> Tensor:
        """Outputs [B, T] for inputs [B, T, F], every sequence from an empty state."""
        embedded = x @ weights["embed.weight"] + weights["embed.bias"]  # [B, T, W]
        empty = torch.zeros(1, len(x), self.width)
        states, _ = torch.gru(embedded, empty, _gates(weights), True, 1, 0.0, True, False, True)  # [B, T, W]
        return _answer(weights, embedded + drop(states), drop)


def _gates(weights: Weights) -> list[Tensor]:
    return [weights["input.weight"], weights["state.weight"], weights["input.bias"], weights["state.bias"]]


def _answer(weights: Weights, h: Tensor, drop: Dropout) -> Tensor:
    return readout(weights, h + drop(feed_forward(weights, norm(weights, "mlp_norm", h))))


class States:
    """Streaming state of BLOCK sequences: the older and the younger state of each, and the window it is in."""

    def __init__(self, weights: Weights, network: Recurrent) -> None:
        self._weights = weights
        self._gates = _gates(weights)
        self._older = torch.zeros(BLOCK, network.width)
        self._younger = torch.zeros(BLOCK, network.width)
        self._window = torch.full((BLOCK,), torch.iinfo(torch.int64).min // 2)

    def step(self, x: Tensor, window: Tensor, present: Tensor | None = None) -> Tensor:
        """Outputs [BLOCK] for the next position [BLOCK, F] of every sequence, which lies in `window` [BLOCK], counted in SPANs.

        present: bool [BLOCK]; a sequence that is not present keeps its state, and its output means nothing.
        """
        older, younger = self._at(window)
        embedded = torch.addmm(self._weights["embed.bias"], x, self._weights["embed.weight"])  # [BLOCK, W]
        both = torch.gru_cell(torch.cat((embedded, embedded)), torch.cat((older, younger)), *self._gates)  # [2 · BLOCK, W]
        older, younger = both[:BLOCK], both[BLOCK:]
        output = _answer(self._weights, embedded + older, identity)
        self._keep(older, younger, window, present)
        return output

    def _at(self, window: Tensor) -> tuple[Tensor, Tensor]:
        """Both states as `window` begins or goes on. After a gap of a whole window nothing is left of either."""
        moved = (window - self._window)[:, None]
        if not bool(moved.any()):
            return self._older, self._younger
        empty = torch.zeros_like(self._older)
        older = torch.where(moved == 0, self._older, torch.where(moved == 1, self._younger, empty))
        return older, torch.where(moved == 0, self._younger, empty)

    def _keep(self, older: Tensor, younger: Tensor, window: Tensor, present: Tensor | None) -> None:
        if present is None:
            self._older, self._younger, self._window = older, younger, window
            return
        there = present[:, None]
        self._older = torch.where(there, older, self._older)
        self._younger = torch.where(there, younger, self._younger)
        self._window = torch.where(present, window, self._window)
