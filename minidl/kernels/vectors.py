"""A tile: a small table of numbers that stays in the processor's vector registers while a kernel works on it.

A vector register holds several numbers (16 float32 with AVX-512), and one instruction multiplies and adds them all. But
a number that has to be fetched from memory for each multiplication would keep that instruction waiting. So a kernel
holds a tile of results, ROWS × WIDTH, in registers, and adds outer products to it:

    tile[i, j] += rows[i][k] * line[k][j]          one step of "outer": ROWS + WIDTH numbers are fetched,
                                                   ROWS · WIDTH multiplications are done with them

Where results are narrower, so are tiles: 16 numbers wide, or 8.

Each function here is an *intrinsic*: inside compiled code it becomes a few instructions of LLVM, the compiler under
Numba. Under NUMBA_DISABLE_JIT=1 the functions at the end stand in for them; a tile is then a NumPy array of shape
(rows, width), and every step can be looked at in a debugger. Read those first: they say what the others do.

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
NARROW = 8                  # those of the vectors in the narrowest tiles

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
ROWS, WIDTH = (14, 2 * LANES) if has_wide_registers() else (6, LANES)
WIDTHS = sorted({NARROW, LANES, WIDTH})

_FLOAT, _INT32, _INT = ir.FloatType(), ir.IntType(32), ir.IntType(64)


class Tile(types.Type):
    """The type of a tile in compiled code: rows × vectors, each vector of so many lanes."""

    def __init__(self, rows: int, width: int) -> None:
        self.rows, self.lanes = rows, min(width, LANES)
        self.vectors = width // self.lanes
        self.vector = ir.VectorType(_FLOAT, self.lanes)
        super().__init__(name=f"Tile({rows}, {width})")


@register_model(Tile)
class _TileModel(models.PrimitiveModel):
    def __init__(self, manager: Any, tile: Tile) -> None:
        super().__init__(manager, tile, ir.ArrayType(tile.vector, tile.rows * tile.vectors))


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


def _vector_at(builder: Any, tile: Tile, data: Any, at: Any, vector: int) -> Any:
    """The address of data[at + lanes · vector], as that of one of the tile's vectors."""
    at = builder.add(at, ir.Constant(at.type, tile.lanes * vector))
    return builder.bitcast(builder.gep(data, [at]), tile.vector.as_pointer())


def _spread(builder: Any, number: Any, lanes: int) -> Any:
    """A vector with `number` in every lane."""
    undefined = ir.Constant(ir.VectorType(number.type, lanes), ir.Undefined)
    first = builder.insert_element(undefined, number, ir.Constant(_INT32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_INT32, lanes), [0] * lanes))


def _opaque(builder: Any, number: Any) -> Any:
    """The same number, of which LLVM does not know how it changes from one round of a loop to the next.

    Otherwise LLVM counts up an address for each row of a tile, instead of one index for all of them. There are not
    registers for so many; counting them in memory took narrow tiles more time than multiplying.
    """
    same = ir.InlineAsm(ir.FunctionType(number.type, [number.type]), "", "=r,0", side_effect=False)
    return builder.call(same, [number])


def _fused_multiply_add(builder: Any, tile: Tile) -> Any:
    """LLVM's a · b + c of the tile's vectors, rounded once."""
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(tile.vector, [tile.vector] * 3),
                                          f"llvm.fma.v{tile.lanes}f32")


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
def zeros(typing: Any, rows: Any, width: Any) -> Any:
    """A tile of zeros; rows and width are constants."""
    tile = Tile(rows.literal_value, width.literal_value)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        count, zero = tile.rows * tile.vectors, ir.Constant(tile.vector, [0.0] * tile.lanes)
        return ir.Constant(ir.ArrayType(tile.vector, count), [zero] * count)

    return tile(rows, width), code


@intrinsic
def copies(typing: Any, tile: Any, line: Any, at: Any) -> Any:
    """A tile like `tile`, every row of which is line[at:at + width]."""
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        result, data = arguments[0], _data(context, builder, line, arguments[1])
        for v in range(tile.vectors):
            vector = builder.load(_vector_at(builder, tile, data, arguments[2], v), align=4)
            for i in range(tile.rows):
                result = builder.insert_value(result, vector, i * tile.vectors + v)
        return result

    return tile(tile, line, at), code


@intrinsic
def load(typing: Any, array: Any, at: Any) -> Any:
    """array[at:at + 16] as a tile of one vector."""
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = _data(context, builder, array, arguments[0])
        vector = builder.load(_vector_at(builder, one, data, arguments[1], 0), align=4)
        return builder.insert_value(ir.Constant(ir.ArrayType(one.vector, 1), ir.Undefined), vector, 0)

    one = Tile(1, LANES)
    return one(array, types.intp), code


@intrinsic
def save(typing: Any, array: Any, at: Any, vector: Any) -> Any:
    """array[at:at + 16] = vector, a tile of one vector."""
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _vector_at(builder, vector, _data(context, builder, array, arguments[0]), arguments[1], 0)
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
        if tile.vectors == 1:
            k_value = _opaque(builder, k_value)
        lines = [builder.load(_vector_at(builder, tile, data, at_value, v), align=4) for v in range(tile.vectors)]
        fused = _fused_multiply_add(builder, tile)
        for i in range(tile.rows):
            row = builder.inttoptr(builder.extract_value(pointer_values, i), _FLOAT.as_pointer())
            number = _spread(builder, builder.load(builder.gep(row, [k_value])), tile.lanes)
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
        data, k_value = _data(context, builder, line, line_value), _opaque(builder, k_value)
        vector = builder.load(_vector_at(builder, tile, data, at_value, 0), align=4)
        fused = _fused_multiply_add(builder, tile)
        for i in range(tile.rows):
            row = builder.inttoptr(builder.extract_value(pointer_values, i), _FLOAT.as_pointer())
            numbers = builder.load(_vector_at(builder, tile, row, k_value, 0), align=4)
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
        add_up = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_FLOAT, [_FLOAT, tile.vector]),
                                                f"llvm.vector.reduce.fadd.v{tile.lanes}f32")
        for i in range(tile.rows):
            place = builder.gep(table, [builder.add(first_value, ir.Constant(first_value.type, i))])
            at = builder.add(start_value, builder.load(place))
            total = builder.call(add_up, [number_value, builder.extract_value(value, i)], fastmath=("reassoc",))
            builder.store(total, builder.gep(data, [at]))
        return context.get_dummy_value()

    return types.void(tile, array, types.intp, offsets, types.intp, types.float32), code


def _lanes_below(builder: Any, tile: Tile, count: Any, vector: int) -> Any:
    """A mask: which lanes of the given vector are numbers 0 … count - 1 of its row."""
    lane = ir.Constant(ir.VectorType(_INT32, tile.lanes), [tile.lanes * vector + i for i in range(tile.lanes)])
    return builder.icmp_signed("<", lane, _spread(builder, builder.trunc(count, _INT32), tile.lanes))


def _places(builder: Any, tile: Tile, data: Any, start: Any, table: Any, first: Any) -> Any:
    """(row, vector, address of data[start + table[first + row] + lanes · vector]) for all vectors of a tile."""
    for i in range(tile.rows):
        place = builder.gep(table, [builder.add(first, ir.Constant(first.type, i))])
        at = builder.add(start, builder.load(place))
        for v in range(tile.vectors):
            yield i, v, _vector_at(builder, tile, data, at, v)


@intrinsic
def store(typing: Any, tile: Any, array: Any, start: Any, offsets: Any, first: Any, width: Any) -> Any:
    """array[start + offsets[first + i] + j] = tile[i, j], for j < width."""
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, array_value, start_value, offsets_value, first_value, width_value = arguments
        data, table = _data(context, builder, array, array_value), _data(context, builder, offsets, offsets_value)
        masks = [_lanes_below(builder, tile, width_value, v) for v in range(tile.vectors)]
        masked = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [tile.vector, tile.vector.as_pointer(), _INT32,
                                                            masks[0].type]),
            f"llvm.masked.store.v{tile.lanes}f32.p0")
        whole = builder.icmp_signed(">=", width_value, ir.Constant(width_value.type, tile.lanes * tile.vectors))
        with builder.if_else(whole) as (then, otherwise):
            with then:
                for i, v, place in _places(builder, tile, data, start_value, table, first_value):
                    builder.store(builder.extract_value(value, i * tile.vectors + v), place, align=4)
            with otherwise:
                for i, v, place in _places(builder, tile, data, start_value, table, first_value):
                    number = builder.extract_value(value, i * tile.vectors + v)
                    builder.call(masked, [number, place, ir.Constant(_INT32, 4), masks[v]])
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
                place = _vector_at(builder, tile, data, at, v)
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

    def zeros(rows: int, width: int) -> np.ndarray:
        return np.zeros((rows, width), np.float32)

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
