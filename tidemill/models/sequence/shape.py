"""The size of the causal transformer and the names of its weights; free of torch, so that scoring does not import it."""

from dataclasses import dataclass

CONTEXT = 64


@dataclass(frozen=True)
class Shape:
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


def layer_layout(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight of one layer."""
    width, hidden = shape.width, shape.hidden
    return {
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


def layout(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight."""
    width = shape.width
    made: dict[str, tuple[int, ...]] = {"embed.weight": (shape.inputs, width), "embed.bias": (width,)}
    for layer in range(shape.layers):
        made |= {f"layer{layer}.{name}": size for name, size in layer_layout(shape).items()}
    return made | {"final_norm.gain": (width,), "final_norm.bias": (width,), "head.weight": (width,), "head.bias": (1,)}
