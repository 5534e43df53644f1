"""A tile: a small table of numbers that stays in the processor's vector registers while a kernel works on it.

A vector register holds several numbers (16 float32 with AVX-512), and one instruction multiplies and adds them all. But
a number that has to be fetched from memory for each multiplication would keep that instruction waiting. So a kernel
holds a tile of results, ROWS × (VECTORS · 16), in registers, and adds outer products to it:

    tile[i, j] += rows[i][k] * line[k][j]          one step of "outer": ROWS + 16 · VECTORS numbers are fetched,
                                                   ROWS · 16 · VECTORS multiplications are done with them

Each function here is an *intrinsic*: inside compiled code it becomes a few instructions of LLVM, the compiler under
Numba. Under NUMBA_DISABLE_JIT=1 the functions at the end stand in for them; a tile is then a NumPy array of shape
(ROWS, 16 · VECTORS), and every step can be looked at in a debugger. Read those first: they say what the others do.

Ref: Goto and van de Geijn 2008, "Anatomy of High-Performance Matrix Multiplication", ACM TOMS 34(3)
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

LANES = 16                  # float32 numbers in a vector; where registers hold fewer, LLVM uses several for one vector

_WITH_AVX512 = ("znver4", "znver5", "skylake-avx512", "cascadelake", "cooperlake", "cannonlake", "icelake-client",
                "icelake-server", "tigerlake", "rocketlake", "sapphirerapids", "emeraldrapids", "graniterapids",
                "graniterapids-d", "diamondrapids", "knl", "knm", "x86-64-v4")


def has_wide_registers() -> bool:
    """Whether compiled code may use 32 registers of 16 float32 (AVX-512) instead of 16 registers of 8 (AVX2)."""
    name = numba.config.CPU_NAME
    if name not in (None, "", "host"):                      # NUMBA_CPU_NAME: compile for another processor
        return name in _WITH_AVX512
    return bool(binding.get_host_cpu_features().get("avx512f", False))


# As many rows as fit: all registers but a few, which the rows and the line that are multiplied pass through.
ROWS, VECTORS = (14, 2) if has_wide_registers() else (6, 1)

_FLOAT, _INT32, _INT = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_VECTOR = ir.VectorType(_FLOAT, LANES)
_ZERO = ir.Constant(_VECTOR, [0.0] * LANES)


class Tile(types.Type):
    """The type of a tile in compiled code: rows × vectors registers."""

    def __init__(self, rows: int, vectors: int) -> None:
        self.rows, self.vectors = rows, vectors
        super().__init__(name=f"Tile({rows}, {vectors})")


@register_model(Tile)
class _TileModel(models.PrimitiveModel):
    def __init__(self, manager: Any, tile: Tile) -> None:
        super().__init__(manager, tile, ir.ArrayType(_VECTOR, tile.rows * tile.vectors))


class Pointers(types.Type):
    """The type of what `pointers` returns: where each row of a tile begins."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        super().__init__(name=f"Pointers({rows})")


@register_model(Pointers)
class _PointersModel(models.PrimitiveModel):
    def __init__(self, manager: Any, pointers: Pointers) -> None:
        super().__init__(manager, pointers, ir.ArrayType(ir.IntType(64), pointers.rows))


def _data(context: Any, builder: Any, kind: Any, array: Any) -> Any:
    """The address of an array's first number."""
    return context.make_array(kind)(context, builder, array).data


def _vector_at(builder: Any, data: Any, at: Any, vector: int) -> Any:
    """The address of data[at + 16 · vector], as that of a vector."""
    at = builder.add(at, ir.Constant(at.type, LANES * vector))
    return builder.bitcast(builder.gep(data, [at]), _VECTOR.as_pointer())


def _spread(builder: Any, number: Any) -> Any:
    """A vector with `number` in every lane."""
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    first = builder.insert_element(undefined, number, ir.Constant(_INT32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_INT32, LANES), [0] * LANES))


@intrinsic
def stay_apart(typing: Any) -> Any:
    """Called first in a function: LLVM is not to merge it into its callers.

    Registers are shared out within a function. Alone, the loop that multiplies gets all of them; amid the loops around
    it LLVM kept half of the tile in memory.
    """
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), code


@intrinsic(prefer_literal=True)
def zeros(typing: Any, rows: Any, vectors: Any) -> Any:
    """A tile of zeros; rows and vectors are constants."""
    tile = Tile(rows.literal_value, vectors.literal_value)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return ir.Constant(ir.ArrayType(_VECTOR, tile.rows * tile.vectors), [_ZERO] * (tile.rows * tile.vectors))

    return tile(rows, vectors), code


@intrinsic
def copies(typing: Any, tile: Any, line: Any, at: Any) -> Any:
    """A tile like `tile`, every row of which is line[at:at + 16 · VECTORS]."""
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        result, data = arguments[0], _data(context, builder, line, arguments[1])
        for v in range(tile.vectors):
            vector = builder.load(_vector_at(builder, data, arguments[2], v), align=4)
            for i in range(tile.rows):
                result = builder.insert_value(result, vector, i * tile.vectors + v)
        return result

    return tile(tile, line, at), code


@intrinsic
def load(typing: Any, array: Any, at: Any) -> Any:
    """array[at:at + 16] as a tile of one vector."""
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = _data(context, builder, array, arguments[0])
        vector = builder.load(_vector_at(builder, data, arguments[1], 0), align=4)
        return builder.insert_value(ir.Constant(ir.ArrayType(_VECTOR, 1), ir.Undefined), vector, 0)

    return Tile(1, 1)(array, types.intp), code


@intrinsic
def save(typing: Any, array: Any, at: Any, vector: Any) -> Any:
    """array[at:at + 16] = vector, a tile of one vector."""
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _vector_at(builder, _data(context, builder, array, arguments[0]), arguments[1], 0)
        builder.store(builder.extract_value(arguments[2], 0), place, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), code


def _elementwise(name: str) -> Any:
    """The intrinsic for a + b or a - b of two tiles."""
    @intrinsic
    def operation(typing: Any, a: Any, b: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            result = arguments[0]
            for i in range(a.rows * a.vectors):
                pair = (builder.extract_value(value, i) for value in arguments)
                result = builder.insert_value(result, getattr(builder, name)(*pair), i)
            return result

        return a(a, b), code

    return operation


plus, minus = _elementwise("fadd"), _elementwise("fsub")


@intrinsic
def pointers(typing: Any, tile: Any, array: Any, start: Any, offsets: Any, first: Any) -> Any:
    """Row i of a tile begins at array[start + offsets[first + i]]."""
    result_type = Pointers(tile.rows)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, array_value, start_value, offsets_value, first_value = arguments
        data = _data(context, builder, array, array_value)
        table = _data(context, builder, offsets, offsets_value)
        result = ir.Constant(ir.ArrayType(_INT, tile.rows), ir.Undefined)
        for i in range(tile.rows):
            place = builder.gep(table, [builder.add(first_value, ir.Constant(first_value.type, i))])
            offset = builder.add(start_value, builder.load(place))
            address = builder.ptrtoint(builder.gep(data, [offset]), _INT)
            result = builder.insert_value(result, address, i)
        return result

    return result_type(tile, array, types.intp, offsets, types.intp), code


@intrinsic
def outer(typing: Any, tile: Any, rows: Any, k: Any, line: Any, at: Any) -> Any:
    """tile[i, j] += rows[i][k] * line[at + j], for all i and j: one outer product."""
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        result, pointer_values, k_value, line_value, at_value = arguments
        data = _data(context, builder, line, line_value)
        lines = [builder.load(_vector_at(builder, data, at_value, v), align=4) for v in range(tile.vectors)]
        fused = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_VECTOR, [_VECTOR] * 3),
                                               f"llvm.fma.v{LANES}f32")
        for i in range(tile.rows):
            row = builder.inttoptr(builder.extract_value(pointer_values, i), _FLOAT.as_pointer())
            number = _spread(builder, builder.load(builder.gep(row, [k_value])))
            for v in range(tile.vectors):
                place = i * tile.vectors + v
                total = builder.call(fused, [number, lines[v], builder.extract_value(result, place)])
                result = builder.insert_value(result, total, place)
        return result

    return tile(tile, rows, types.intp, line, types.intp), code


@intrinsic
def inner(typing: Any, tile: Any, rows: Any, k: Any, line: Any, at: Any) -> Any:
    """tile[i, j] += rows[i][k + j] * line[at + j], for all i and j; for tiles of one vector.

    Summed over j at the end (`store_sums`), the rows of the tile are inner products with the line.
    """
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        result, pointer_values, k_value, line_value, at_value = arguments
        vector = builder.load(_vector_at(builder, _data(context, builder, line, line_value), at_value, 0), align=4)
        fused = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_VECTOR, [_VECTOR] * 3),
                                               f"llvm.fma.v{LANES}f32")
        for i in range(tile.rows):
            row = builder.inttoptr(builder.extract_value(pointer_values, i), _FLOAT.as_pointer())
            numbers = builder.load(_vector_at(builder, row, k_value, 0), align=4)
            total = builder.call(fused, [numbers, vector, builder.extract_value(result, i)])
            result = builder.insert_value(result, total, i)
        return result

    return tile(tile, rows, types.intp, line, types.intp), code


@intrinsic
def store_sums(typing: Any, tile: Any, array: Any, start: Any, offsets: Any, first: Any, number: Any) -> Any:
    """array[start + offsets[first + i]] = number + sum over j of tile[i, j]."""
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, array_value, start_value, offsets_value, first_value, number_value = arguments
        data = _data(context, builder, array, array_value)
        table = _data(context, builder, offsets, offsets_value)
        add_up = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_FLOAT, [_FLOAT, _VECTOR]),
                                                f"llvm.vector.reduce.fadd.v{LANES}f32")
        for i in range(tile.rows):
            place = builder.gep(table, [builder.add(first_value, ir.Constant(first_value.type, i))])
            at = builder.add(start_value, builder.load(place))
            total = builder.call(add_up, [number_value, builder.extract_value(value, i)], fastmath=("reassoc",))
            builder.store(total, builder.gep(data, [at]))
        return context.get_dummy_value()

    return types.void(tile, array, types.intp, offsets, types.intp, types.float32), code


def _lanes_below(builder: Any, count: Any, vector: int) -> Any:
    """A mask: which lanes of the given vector are numbers 0 … count - 1 of its row."""
    lane = ir.Constant(ir.VectorType(_INT32, LANES), list(range(LANES * vector, LANES * (vector + 1))))
    undefined = ir.Constant(lane.type, ir.Undefined)
    first = builder.insert_element(undefined, builder.trunc(count, _INT32), ir.Constant(_INT32, 0))
    limit = builder.shuffle_vector(first, undefined, ir.Constant(lane.type, [0] * LANES))
    return builder.icmp_signed("<", lane, limit)


@intrinsic
def store(typing: Any, tile: Any, array: Any, start: Any, offsets: Any, first: Any, width: Any) -> Any:
    """array[start + offsets[first + i] + j] = tile[i, j], for j < width."""
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, array_value, start_value, offsets_value, first_value, width_value = arguments
        data = _data(context, builder, array, array_value)
        table = _data(context, builder, offsets, offsets_value)
        mask_type = ir.VectorType(ir.IntType(1), LANES)
        masked = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [_VECTOR, _VECTOR.as_pointer(), _INT32, mask_type]),
            f"llvm.masked.store.v{LANES}f32.p0")
        for v in range(tile.vectors):
            mask = _lanes_below(builder, width_value, v)
            for i in range(tile.rows):
                place = builder.gep(table, [builder.add(first_value, ir.Constant(first_value.type, i))])
                at = builder.add(start_value, builder.load(place))
                builder.call(masked, [builder.extract_value(value, i * tile.vectors + v),
                                      _vector_at(builder, data, at, v), ir.Constant(_INT32, 4), mask])
        return context.get_dummy_value()

    return types.void(tile, array, types.intp, offsets, types.intp, types.intp), code


@intrinsic
def add_to(typing: Any, array: Any, start: Any, stride: Any, tile: Any) -> Any:
    """array[start + i · stride + j] += tile[i, j]."""
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array_value, at, stride_value, value = arguments
        data = _data(context, builder, array, array_value)
        for i in range(tile.rows):
            for v in range(tile.vectors):
                place = _vector_at(builder, data, at, v)
                total = builder.fadd(builder.load(place, align=4), builder.extract_value(value, i * tile.vectors + v))
                builder.store(total, place, align=4)
            at = builder.add(at, stride_value)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, tile), code


def _stepwise() -> None:
    """Put plain Python in the place of the instructions: under NUMBA_DISABLE_JIT=1 a tile is a NumPy array."""
    def stay_apart() -> None:
        pass

    def load(array: np.ndarray, at: int) -> np.ndarray:
        return array[at:at + LANES].reshape(1, LANES).copy()

    def save(array: np.ndarray, at: int, vector: np.ndarray) -> None:
        array[at:at + LANES] = vector[0]

    def zeros(rows: int, vectors: int) -> np.ndarray:
        return np.zeros((rows, vectors * LANES), np.float32)

    def copies(tile: np.ndarray, line: np.ndarray, at: int) -> np.ndarray:
        return np.tile(line[at:at + tile.shape[1]], (len(tile), 1))

    def pointers(tile: np.ndarray, array: np.ndarray, start: int, offsets: np.ndarray,
                 first: int) -> tuple[np.ndarray, np.ndarray]:
        return array, start + offsets[first:first + len(tile)]

    def outer(tile: np.ndarray, rows: tuple[np.ndarray, np.ndarray], k: int, line: np.ndarray, at: int) -> np.ndarray:
        array, starts = rows
        result: np.ndarray = tile + np.outer(array[starts + k], line[at:at + tile.shape[1]])
        return result

    def store(tile: np.ndarray, array: np.ndarray, start: int, offsets: np.ndarray, first: int, width: int) -> None:
        width = min(width, tile.shape[1])
        for i in range(len(tile)):
            at = start + offsets[first + i]
            array[at:at + width] = tile[i, :width]

    def add_to(array: np.ndarray, start: int, stride: int, tile: np.ndarray) -> None:
        for i in range(len(tile)):
            array[start + i * stride:start + i * stride + tile.shape[1]] += tile[i]

    def inner(tile: np.ndarray, rows: tuple[np.ndarray, np.ndarray], k: int, line: np.ndarray, at: int) -> np.ndarray:
        array, starts = rows
        result: np.ndarray = tile + array[starts[:, None] + k + np.arange(LANES)] * line[at:at + LANES]
        return result

    def store_sums(tile: np.ndarray, array: np.ndarray, start: int, offsets: np.ndarray, first: int,
                   number: float) -> None:
        array[start + offsets[first:first + len(tile)]] = number + tile.sum(axis=1)

    globals().update(stay_apart=stay_apart, zeros=zeros, copies=copies, load=load, save=save, plus=np.add,
                     minus=np.subtract, pointers=pointers, outer=outer, inner=inner, add_to=add_to, store=store,
                     store_sums=store_sums)


if numba.config.DISABLE_JIT:
    _stepwise()
