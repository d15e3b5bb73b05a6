"""Arrays that own nothing. Each slice of an owning array costs two atomic counts, in all some 70 ns an operator and block."""

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

Array = TypeVar("Array", bound="np.ndarray[Any, Any]")

if TYPE_CHECKING:

    def borrowed(array: Array) -> Array:
        """The same array without a reference to its owner, who must outlive it. For kernels."""
        return array

else:
    from numba.core import cgutils
    from numba.extending import intrinsic

    @intrinsic
    def borrowed(typing_context, array):
        """The same array without a reference to its owner, who must outlive it. For kernels."""

        def build(context, builder, signature, arguments):
            view = context.make_array(array)(context, builder, arguments[0])
            view.meminfo = cgutils.get_null_value(view.meminfo.type)
            view.parent = cgutils.get_null_value(view.parent.type)
            return view._getvalue()

        return array(array), build
