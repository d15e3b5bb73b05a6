"""Stores that go past the cache, eight numbers at a time.

A panel's features are many times what a cache holds, and nothing reads them before all are made. An ordinary store first
fetches the line that it is about to overwrite, and drives what the next operator needs out of the cache.
"""

from typing import TYPE_CHECKING

import numpy as np

from tidemill.compiled import kernel
from tidemill.features.arrays import Floats

_WIDTH = 8
_BYTES = 8

if TYPE_CHECKING:

    def store_eight(out: Floats, values: Floats, first: int) -> None:
        """out[first : first + 8] = values[first : first + 8], past the cache; any NaN becomes the one NaN. `out` + first is at
        a multiple of 64 bytes."""

    def settle_stores() -> None:
        """Wait until other threads see what was stored past the cache."""

else:
    from llvmlite import ir
    from numba.core import types
    from numba.extending import intrinsic

    @intrinsic
    def store_eight(typing_context, out, values, first):
        """out[first : first + 8] = values[first : first + 8], past the cache; any NaN becomes the one NaN. `out` + first is at
        a multiple of 64 bytes."""

        def build(context, builder, signature, arguments):
            eight = ir.VectorType(ir.DoubleType(), _WIDTH)
            into, source = (
                builder.bitcast(
                    builder.gep(context.make_array(kind)(context, builder, array).data, [arguments[2]]), eight.as_pointer()
                )
                for kind, array in zip(signature.args[:2], arguments[:2], strict=True)
            )
            value = builder.load(source, align=_BYTES)
            same = ir.Constant(eight, [ir.Constant(ir.DoubleType(), float("nan"))] * _WIDTH)
            value = builder.select(builder.fcmp_ordered("ord", value, value), value, same)
            store = builder.store(value, into, align=_WIDTH * _BYTES)
            store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
            return context.get_dummy_value()

        return types.void(out, values, first), build

    @intrinsic
    def settle_stores(typing_context):
        """Wait until other threads see what was stored past the cache."""

        def build(context, builder, signature, arguments):
            builder.fence("seq_cst")
            return context.get_dummy_value()

        return types.void(), build


@kernel
def copy_numbers(out: Floats, values: Floats, first: int, end: int) -> None:
    """out = values from first to end - 1; every NaN becomes the same NaN, whatever operation made it."""
    for i in range(first, end):
        value = values[i]
        out[i] = value if value == value else np.nan


@kernel
def copy_past_cache(out: Floats, values: Floats) -> None:
    """`copy_numbers` of all, past the cache but for the ends, whose lines belong to others as well."""
    first = min(len(out), -(out.ctypes.data // _BYTES) % _WIDTH)
    end = first + (len(out) - first) // _WIDTH * _WIDTH
    copy_numbers(out, values, 0, first)
    for i in range(first, end, _WIDTH):
        store_eight(out, values, i)
    copy_numbers(out, values, end, len(out))
