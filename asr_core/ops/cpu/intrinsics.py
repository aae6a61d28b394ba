"""The few LLVM instructions that numba has no function for."""

from typing import Any, Callable, Sequence, Tuple

from llvmlite import ir
from numba import types
from numba.core.base import BaseContext
from numba.extending import intrinsic

# A parameter of a function that stands in for another when kernels are compiled: its type outside,
# its value in the compiled code.
TypeOrValue = Any
_Values = Sequence[ir.Value]
_Typed = Tuple[object, Callable]  # a signature, and what generates the code


def _intrinsic(function: Callable[..., _Typed]) -> Callable[..., Any]:
    """Make an intrinsic.

    Numba's annotations ask callers for the typing context, which the compiler adds.
    """
    return intrinsic(function)


@_intrinsic
def fetch_add(typingctx: object, pointer: types.Type) -> _Typed:
    """Atomically add 1 to the int64 at ``pointer``; return its old value."""

    def codegen(context: BaseContext, builder: ir.IRBuilder, signature: object, args: _Values) -> ir.Value:
        return builder.atomic_rmw("add", args[0], ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(pointer), codegen


@_intrinsic
def as_f64_pointer(typingctx: object, pointer: types.Type) -> _Typed:
    """Return the same pointer, to float64."""
    target = types.CPointer(types.float64)

    def codegen(context: BaseContext, builder: ir.IRBuilder, signature: object, args: _Values) -> ir.Value:
        return builder.bitcast(args[0], context.get_value_type(target))

    return target(pointer), codegen


def pointer_to(element: types.Type) -> Callable[..., Any]:
    """Return an intrinsic: an int64 address -> a pointer to elements of this type."""
    target = types.CPointer(element)

    @_intrinsic
    def as_pointer(typingctx: object, address: types.Type) -> _Typed:
        def codegen(
            context: BaseContext, builder: ir.IRBuilder, signature: object, args: _Values
        ) -> ir.Value:
            return builder.inttoptr(args[0], context.get_value_type(target))

        return target(types.int64), codegen

    return as_pointer


@_intrinsic
def float_bits(typingctx: object, value: types.Type) -> _Typed:
    """Return the bits of a float32 as an int32."""

    def codegen(context: BaseContext, builder: ir.IRBuilder, signature: object, args: _Values) -> ir.Value:
        return builder.bitcast(args[0], ir.IntType(32))

    return types.int32(types.float32), codegen


@_intrinsic
def bits_float(typingctx: object, value: types.Type) -> _Typed:
    """Return the float32 that has these int32 bits."""

    def codegen(context: BaseContext, builder: ir.IRBuilder, signature: object, args: _Values) -> ir.Value:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), codegen
