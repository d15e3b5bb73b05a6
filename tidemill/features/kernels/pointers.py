"""Arrays by address. A pointer is one number: nothing is counted, checked or wrapped around when it is passed on or indexed.

numba spends some 70 ns on each array that it takes from Python, and within kernels an array is seven numbers and an owner that
is counted at every slice and call. On one bar of one symbol that was most of the time.
"""

from typing import TYPE_CHECKING

from tidemill.compiled import kernel
from tidemill.features.arrays import Flags, Floats, Integers

if TYPE_CHECKING:

    def floats_from(address: int) -> Floats:
        """The float64 that begin at an address. Whoever indexes it answers for its bounds; slices and len there are none."""

    def integers_from(address: int) -> Integers:
        """The int64 that begin at an address; see floats_from."""

    def flags_from(address: int) -> Flags:
        """The bool that begin at an address; see floats_from."""

    def further(pointer: Floats, count: int) -> Floats:
        """A pointer to the number that stands `count` places after that of `pointer`."""

else:
    from numba import types
    from numba.extending import intrinsic

    def _pointer(kind):
        @intrinsic
        def pointer(typing_context, address):
            made = types.CPointer(kind)

            def build(context, builder, signature, arguments):
                return builder.inttoptr(arguments[0], context.get_value_type(made))

            return made(address), build

        return pointer

    @intrinsic
    def further(typing_context, pointer, count):
        def build(context, builder, signature, arguments):
            return builder.gep(arguments[0], [arguments[1]])

        return pointer(pointer, count), build

    floats_from, integers_from, flags_from = _pointer(types.float64), _pointer(types.int64), _pointer(types.boolean)


@kernel
def floats_of(array: Floats) -> Floats:
    """A pointer to the first number of an array in C order."""
    return floats_from(array.ctypes.data)


@kernel
def integers_of(array: Integers) -> Integers:
    return integers_from(array.ctypes.data)
