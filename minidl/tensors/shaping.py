"""The same numbers in another shape or order, and picking some of them."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl import dtypes, ops, uploads
from minidl.backend import backend_of, xp_of
from minidl.errors import DeviceError, DtypeError, OutOfRangeError, SettingError, ShapeError
from minidl.graph import is_tensor, new_tensor
from minidl.ops.index import along_axis, check_arrays, check_gather, split_key
from minidl.ops.reduce import axes_of, axis_of
from minidl.ops.shape import full_shape
from minidl.tensors.arguments import Dim, as_tuple, numpy_names
from minidl.tensors.arithmetic import Arithmetic, as_operand

if TYPE_CHECKING:
    from minidl.tensors import Tensor


class Shaping(Arithmetic):
    """What Tensor does without computing: other shapes, other orders, parts."""

    __slots__ = ()

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("len() of a tensor without dimensions")
        return self.shape[0]  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[Tensor]:
        if self.ndim == 0:
            raise TypeError("iteration over a tensor without dimensions")
        return (self[i] for i in range(len(self)))

    def __contains__(self, value: Any) -> bool:
        return bool((self == value)._on_host().any())

    # -- other shapes --

    def reshape(self, *sizes: Any, shape: Any = None, size: Any = None) -> Tensor:
        """The same elements, in order, in another shape; one size may be -1."""
        wanted = as_tuple(sizes) if shape is None and size is None else tuple(shape or size)
        return ops.Reshape(full_shape(wanted, self.numel()))(self)

    view = reshape                                          # copies where the memory does not allow a view

    def reshape_as(self, other: Tensor) -> Tensor:
        """In the shape of another tensor."""
        return self.reshape(other.shape)

    view_as = reshape_as

    def contiguous(self) -> Tensor:
        """Itself if its memory is in C order, else a copy that is."""
        # clone() keeps the memory order, so flatten first, which puts the elements into C order
        same: Any = self
        return same if self.is_contiguous() else self.flatten().clone().reshape(self.shape)

    @numpy_names
    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        """The axes from `start_dim` to `end_dim` as one."""
        first, last = axis_of(start_dim, self.ndim), axis_of(end_dim, self.ndim)
        if first > last:
            raise ShapeError(f"got start_dim={start_dim} behind end_dim={end_dim}", where="flatten")
        one = math.prod(self.shape[first:last + 1])         # (a, b, c, d) -> (a, b·c, d) for the axes 1 to 2
        return self.reshape(*self.shape[:first], one, *self.shape[last + 1:])

    def ravel(self) -> Tensor:
        """All elements as one axis."""
        return self.reshape(-1 if self.numel() else 0)

    def unflatten(self, dim: int, sizes: Sequence[int]) -> Tensor:
        """One axis as several, (a, b·c) -> (a, b, c); one of the sizes may be -1."""
        axis = axis_of(dim, self.ndim)
        inner = full_shape(tuple(sizes), self.shape[axis])
        return self.reshape(*self.shape[:axis], *inner, *self.shape[axis + 1:])

    @numpy_names
    def squeeze(self, dim: Dim = None) -> Tensor:
        """Without the axes of size 1 (of those named by `dim`)."""
        axes = axes_of(dim, self.ndim)
        return self.reshape(*(n for i, n in enumerate(self.shape) if not (n == 1 and i in axes)))

    @numpy_names
    def unsqueeze(self, dim: int) -> Tensor:
        """With a new axis of size 1 at `dim`."""
        axis = axis_of(dim, self.ndim + 1)
        return self.reshape(*self.shape[:axis], 1, *self.shape[axis:])

    def expand(self, *sizes: Any, size: Any = None) -> Tensor:
        """Axes of size 1 repeated without copying; -1 leaves an axis as it is."""
        shape = as_tuple(sizes) if size is None else tuple(size)
        added = len(shape) - self.ndim
        own = (1,) * added + tuple(self.shape)
        full = tuple(o if n == -1 else n for o, n in zip(own, shape, strict=False))
        if added < 0 or -1 in shape[:added] or any(o not in (1, n) for o, n in zip(own, full, strict=True)):
            raise ShapeError(f"got a tensor of shape {self.shape}, expected sizes that repeat to {shape}: each 1 or "
                             f"equal", where="expand")
        return ops.BroadcastTo(full)(self)

    broadcast_to = expand

    def expand_as(self, other: Tensor) -> Tensor:
        """Expanded to the shape of another tensor."""
        return self.expand(other.shape)

    def repeat(self, *repeats: Any) -> Tensor:
        """The whole tensor `repeats[k]` times along axis k, as a copy; more repeats than axes add axes in front."""
        times = as_tuple(repeats)
        if len(times) < self.ndim:
            raise ShapeError(f"got {len(times)} numbers of repeats for a tensor with {self.ndim} dimensions, expected "
                             f"at least one for each", where="repeat")
        if any(n < 0 for n in times):
            raise SettingError(f"got {times}, expected numbers of repeats of 0 or more", where="repeat")
        own = (1,) * (len(times) - self.ndim) + tuple(self.shape)
        # (a, b) repeated (r, s) times: (1, a, 1, b) -> (r, a, s, b) -> (r·a, s·b)
        between = self.reshape(tuple(n for size in own for n in (1, size)))
        stretched = between.expand(tuple(n for r, size in zip(times, own, strict=True) for n in (r, size)))
        return self._unshared(stretched.reshape(tuple(r * size for r, size in zip(times, own, strict=True))))

    def tile(self, *repeats: Any) -> Tensor:
        """Like `repeat`, with missing numbers of repeats taken as 1."""
        times = as_tuple(repeats)
        return self.repeat((1,) * (self.ndim - len(times)) + tuple(times))

    def repeat_interleave(self, repeats: Any, dim: int | None = None) -> Tensor:
        """Each element `repeats` times, one beside the other: 1, 2 -> 1, 1, 2, 2. Or each as often as a tensor says."""
        if dim is None:
            return self.ravel().repeat_interleave(repeats, 0)
        axis = axis_of(dim, self.ndim)
        if is_tensor(repeats):
            places = np.repeat(np.arange(self.shape[axis]), repeats._on_host())
            return self.index_select(axis, new_tensor(places).to(self.device))
        if repeats < 0:
            raise SettingError(f"got repeats={repeats}, expected 0 or more", where="repeat_interleave")
        shape = (*self.shape[:axis + 1], repeats, *self.shape[axis + 1:])
        repeated = self.unsqueeze(axis + 1).expand(shape)                        # (a, b) -> (a, r, b)
        return self._unshared(repeated.flatten(axis, axis + 1))                  # (a, r, b) -> (a·r, b)

    # -- other orders --

    def permute(self, *axes_in_order: Any, dims: Any = None) -> Tensor:
        """The axes in another order, as a view: axis k of the result is axis dims[k]."""
        dims = as_tuple(axes_in_order) if dims is None else tuple(dims)
        axes = tuple(axis_of(d, self.ndim) for d in dims)
        if sorted(axes) != list(range(self.ndim)):
            raise ShapeError(f"got dims={dims}, expected each axis of a tensor with {self.ndim} dimensions "
                             f"once", where="permute")
        return ops.Permute(axes)(self)

    def transpose(self, dim0: int, dim1: int) -> Tensor:
        """Two axes exchanged, as a view."""
        axes = list(range(self.ndim))
        first, second = axis_of(dim0, self.ndim), axis_of(dim1, self.ndim)
        if axes:
            axes[first], axes[second] = axes[second], axes[first]
        return ops.Permute(tuple(axes))(self)

    swapaxes = swapdims = transpose

    def movedim(self, source: Any, destination: Any) -> Tensor:
        """One axis (or several) moved to another place, as a view; the others keep their order."""
        several = isinstance(source, tuple | list)
        sources = [axis_of(d, self.ndim) for d in (source if several else [source])]
        places = [axis_of(d, self.ndim) for d in (destination if several else [destination])]
        axes = [axis for axis in range(self.ndim) if axis not in sources]
        for place, axis in sorted(zip(places, sources, strict=True)):
            axes.insert(place, axis)
        return self.permute(axes)

    moveaxis = movedim

    def t(self) -> Tensor:
        """The transpose of a matrix; a vector is its own."""
        if self.ndim > 2:
            raise ShapeError(f"got a tensor with {self.ndim} dimensions, expected a matrix; use transpose or mT",
                             where="t")
        return self.T

    @property
    def T(self) -> Tensor:
        """All axes in reverse order: the transpose of a matrix."""
        return ops.Permute(tuple(reversed(range(self.ndim))))(self)

    @property
    def mT(self) -> Tensor:
        """The last two axes exchanged: the transpose of each matrix in a batch."""
        return self.transpose(-2, -1)

    def flip(self, *axes_to_flip: Any, dims: Any = None) -> Tensor:
        """The elements along the axes `dims` in reverse order."""
        given = as_tuple(axes_to_flip if dims is None else (dims,))
        axes = axes_of(given, self.ndim) if given else ()
        backwards = tuple(slice(None, None, -1) if axis in axes else slice(None) for axis in range(self.ndim))
        return self[backwards].clone()                      # its own memory, unlike NumPy's

    def roll(self, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None) -> Tensor:
        """The elements moved along an axis; what falls off the end comes in at the start."""
        if dims is None:
            if not isinstance(shifts, int):
                raise SettingError(f"got shifts={shifts} without dims, expected one number", where="roll")
            return self.ravel().roll(shifts, 0).reshape(self.shape)
        if not isinstance(shifts, int) or not isinstance(dims, int):
            rolled: Any = self
            for shift, dim in zip(shifts, dims, strict=True):  # type: ignore[arg-type]
                rolled = rolled.roll(shift, dim)
            return rolled  # type: ignore[no-any-return]
        axis = axis_of(dims, self.ndim)
        n = self.shape[axis]
        cut = n - shifts % n if n else 0
        return ops.Cat(axis)(self.narrow(axis, cut, n - cut), self.narrow(axis, 0, cut))

    # -- parts --

    def __getitem__(self, key: Any) -> Tensor:
        keys, indices = split_key(key, self._index)
        if len(keys) == 1:
            check_arrays(self.shape, keys[0], indices)
        picked = ops.Index(keys[0])(self, *indices) if len(keys) == 1 else ops.Index(keys[0])(self)
        if len(keys) == 2:
            check_arrays(picked.shape, keys[1], indices)
            return ops.Index(keys[1])(picked, *indices)
        if keys[0].is_basic:
            picked._view_of = (weakref.ref(self), keys[0])  # for `x[0] += v`, see inplace.py
        return picked

    def _index(self, part: Any) -> Tensor:
        """A list, array or tensor between brackets, on this tensor's device."""
        part = list(part) if isinstance(part, range) else part
        part = np.zeros(0, np.int64) if isinstance(part, list) and not part else part
        index = as_operand(part)
        if not backend_of(index.array).is_host and type(index.array) is not type(self.array):
            raise DeviceError(f'got a tensor on "{self.device}" and indices on "{index.device}", expected them '
                              f'there or on the CPU; use indices.to("{self.device}")', where="index")
        return index.to(self.device)

    def narrow(self, dim: int, start: int, length: int) -> Tensor:
        """`length` elements along an axis, from `start` on."""
        axis = axis_of(dim, self.ndim)
        first = start + self.shape[axis] if start < 0 else start
        if not 0 <= first <= first + length <= self.shape[axis]:
            raise ShapeError(f"got start={start} and length={length}, expected a part of the {self.shape[axis]} along "
                             f"dim {dim}", where="narrow")
        return self[(slice(None),) * axis + (slice(first, first + length),)]

    def select(self, dim: int, index: int) -> Tensor:
        """Element `index` along an axis, which disappears."""
        return self[(slice(None),) * axis_of(dim, self.ndim) + (index,)]

    @numpy_names
    def split(self, split_size_or_sections: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
        """Parts along an axis: of that many elements each (the last may be smaller), or of the sizes in a list."""
        axis, split_size = axis_of(dim, self.ndim), split_size_or_sections
        n = self.shape[axis]
        if isinstance(split_size, int):
            if split_size < 1:
                raise SettingError(f"got split_size={split_size}, expected 1 or more", where="split")
            sizes = [min(split_size, n - start) for start in range(0, n, split_size)] or [0]
        else:
            sizes = list(split_size)
        if sum(sizes) != n or min(sizes, default=0) < 0:
            raise ShapeError(f"got sizes {sizes} for {n} elements along dim {dim}, expected them to add up",
                             where="split")
        starts = [sum(sizes[:k]) for k in range(len(sizes))]
        return tuple(self.narrow(axis, start, size) for start, size in zip(starts, sizes, strict=True))

    @numpy_names
    def chunk(self, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
        """At most `chunks` parts of equal size along an axis; the last may be smaller."""
        if chunks < 1:
            raise SettingError(f"got chunks={chunks}, expected 1 or more", where="chunk")
        return self.split(max(1, -(-self.shape[axis_of(dim, self.ndim)] // chunks)), dim)

    @numpy_names
    def unbind(self, dim: int = 0) -> tuple[Tensor, ...]:
        """The elements along an axis, one by one."""
        return tuple(self.select(dim, i) for i in range(self.shape[axis_of(dim, self.ndim)]))

    @numpy_names
    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """The elements at the positions `index` along an axis."""
        axis = axis_of(dim, self.ndim)
        self._check_positions(axis, index, "index_select")
        return self[(slice(None),) * axis + (index.ravel(),)]

    def _check_positions(self, axis: int, index: Any, where: str) -> None:
        """Raise unless the index is one axis of whole numbers that are positions along `axis`."""
        if not is_tensor(index) or index.ndim > 1 or index.dtype.kind not in "iu":
            got = f"{index.dtype} of shape {index.shape}" if is_tensor(index) else type(index).__name__
            raise ShapeError(f"got an index of {got}, expected one axis of integers", where=where)
        numbers = uploads.on_host(index)
        if numbers is not None and numbers.size:
            low, high, n = int(numbers.min()), int(numbers.max()), self.shape[axis] if self.ndim else 1
            if low < 0 or high >= n:
                raise OutOfRangeError(f"got the index {low if low < 0 else high}, expected 0 to {n - 1}", where=where)

    @numpy_names
    def gather(self, dim: int, index: Tensor) -> Tensor:
        """y[i, j] = x[i, index[i, j]] for dim=1, and so on."""
        axis = axis_of(dim, self.ndim)
        check_gather(self, axis, index)  # type: ignore[arg-type]
        return ops.Gather(axis)(self, index)

    @numpy_names
    def take_along_dim(self, indices: Tensor, dim: int | None = None) -> Tensor:
        """y[i, j] = x[i, indices[i, j]] for dim=1, and so on; the other axes are broadcast."""
        if dim is None:
            return self.ravel().take_along_dim(indices.ravel(), 0)
        axis = axis_of(dim, self.ndim)
        if indices.ndim != self.ndim:
            raise ShapeError(f"got {indices.shape} for {self.shape}, expected as many axes", where="take_along_dim")
        pairs = list(zip(self.shape, indices.shape, strict=True))
        x = self.expand(tuple(n if k == axis or m == 1 else m for k, (n, m) in enumerate(pairs)))
        return x.gather(axis, indices.expand(tuple(m if k == axis or n == 1 else n for k, (n, m) in enumerate(pairs))))

    @numpy_names
    def scatter(self, dim: int, index: Tensor, src: Any = None, *, value: Any = None) -> Tensor:
        """y = x, but y[i, index[i, j]] = src[i, j] for dim=1, and so on; src may be a number."""
        axis, src = axis_of(dim, self.ndim), value if src is None else src
        if is_tensor(index) and index.ndim == 0 and self.ndim == 1:
            index = index.reshape(1)
        check_gather(self, axis, index, "scatter")  # type: ignore[arg-type]
        if not is_tensor(src) and not isinstance(src, int | float):
            raise SettingError(f"got src={src!r}, expected a tensor or a number", where="scatter")
        if is_tensor(src):
            src = _part_for(index, src, self, "scatter")
        places = along_axis(self.array, index.array, axis)
        return ops.IndexPut(ops.index.Key((ops.index.Key.ARRAY,) * self.ndim))(self, src, *map(new_tensor, places))

    @numpy_names
    def scatter_add(self, dim: int, index: Tensor, src: Tensor) -> Tensor:
        """y = x, then y[i, index[i, j]] += src[i, j] for dim=1, and so on."""
        axis = axis_of(dim, self.ndim)
        check_gather(self, axis, index, "scatter_add")  # type: ignore[arg-type]
        part = _part_for(index, src, self, "scatter_add")
        return self + ops.ScatterAdd(axis, tuple(self.shape))(part, index)

    @numpy_names
    def index_add(self, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1) -> Tensor:
        """y = x, then y[:, index[j]] += source[:, j] for dim=1, and so on."""
        axis = axis_of(dim, self.ndim)
        self._check_positions(axis, index, "index_add")
        expected = (*self.shape[:axis], index.numel(), *self.shape[axis + 1:])
        if not is_tensor(source) or source.dtype != self.dtype or source.shape != expected:
            got = f"{source.dtype} {source.shape}" if is_tensor(source) else type(source).__name__
            raise ShapeError(f"got a source of {got}, expected {self.dtype} {expected}", where="index_add")
        key = ops.index.Key((slice(None),) * axis + (ops.index.Key.ARRAY,))
        placed = ops.IndexAdd(key, tuple(self.shape))(source, index.ravel())
        return self.add(placed, alpha=alpha)

    def masked_fill(self, mask: Tensor, value: Any) -> Tensor:
        """x, but `value` where the mask is True."""
        _check_mask(mask, "masked_fill")
        if is_tensor(value) and value.ndim:
            raise ShapeError(f"got a value of shape {value.shape}, expected a number", where="masked_fill")
        if isinstance(value, float) and not self.is_floating_point():
            raise DtypeError(f"got {value} for a tensor of {self.dtype}, which cannot hold it; use x.float()",
                             where="masked_fill")
        if not is_tensor(value) and not isinstance(value, int | float):
            raise DtypeError(f"got {value!r}, expected a number", where="masked_fill")
        value = bool(value) if self.dtype.kind == "b" else value
        return ops.Where()(mask, value.to(self.dtype) if is_tensor(value) else value, self)

    def masked_select(self, mask: Tensor) -> Tensor:
        """The elements where the mask is True, as one axis."""
        _check_mask(mask, "masked_select")
        shape = np.broadcast_shapes(self.shape, mask.shape)
        return self.expand(shape)[mask.expand(shape)]

    def where(self, condition: Tensor, other: Any) -> Tensor:
        """x where the condition holds, else `other`."""
        picked: Tensor = where(condition, self, other)
        return picked

    def diagonal(self, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
        """x[i, i + offset] of two axes, as the last axis of the result."""
        first, second = axis_of(dim1, self.ndim), axis_of(dim2, self.ndim)
        if first == second:
            raise ShapeError(f"got dim1={dim1} and dim2={dim2}, expected two axes", where="diagonal")
        others = [axis for axis in range(self.ndim) if axis not in (first, second)]
        return ops.Diagonal(offset)(self.permute(*others, first, second))        # (…, n, m) -> (…, length)

    def diag(self, diagonal: int = 0) -> Tensor:
        """A vector as the diagonal of a matrix of zeros; of a matrix, its diagonal."""
        if self.ndim == 2:
            return self.diagonal(diagonal)
        if self.ndim != 1:
            raise ShapeError(f"got {self.shape}, expected a vector or a matrix", where="diag")
        steps = new_tensor(xp_of(self.array).arange(self.numel()))
        n, key = self.numel() + abs(diagonal), ops.index.Key((ops.index.Key.ARRAY,) * 2)
        return ops.IndexAdd(key, (n, n))(self, steps + max(-diagonal, 0), steps + max(diagonal, 0))

    def tril(self, diagonal: int = 0) -> Tensor:
        """The matrix below and on the diagonal, 0 above."""
        return ops.Where()(self._column_minus_row() <= diagonal, self, False if self.dtype.kind == "b" else 0)

    def triu(self, diagonal: int = 0) -> Tensor:
        """The matrix above and on the diagonal, 0 below."""
        return ops.Where()(self._column_minus_row() >= diagonal, self, False if self.dtype.kind == "b" else 0)

    def _column_minus_row(self) -> Tensor:
        if self.ndim < 2:
            raise ShapeError(f"got {self.shape}, expected a matrix", where="tril")
        xp = xp_of(self.array)
        return new_tensor(xp.arange(self.shape[-1]) - xp.arange(self.shape[-2])[:, None])     # (n, m)

    def nonzero(self, as_tuple: bool = False) -> Any:
        """The indices of all elements that are not 0, as rows (K, ndim); as_tuple: one tensor for each axis."""
        places = xp_of(self.array).nonzero(self.array)
        if as_tuple:
            return tuple(new_tensor(place) for place in places)
        return new_tensor(xp_of(self.array).stack(places, axis=1)) if places else new_tensor(np.zeros((0, 0), np.int64))

    def unfold(self, dimension: int, size: int, step: int) -> Tensor:
        """All windows of `size` elements, `step` apart, along an axis; the window is a new last axis."""
        axis = axis_of(dimension, self.ndim)
        n = self.shape[axis]
        if not 1 <= size <= n or step < 1:
            raise SettingError(f"got size={size} and step={step} for {n} elements, expected a size from 1 to {n} and "
                               f"a step of 1 or more", where="unfold")
        xp = xp_of(self.array)
        index = xp.arange(0, n - size + 1, step)[:, None] + xp.arange(size)
        windows = self[(slice(None),) * axis + (new_tensor(index),)].movedim(axis + 1, -1)
        if backend_of(windows.array).is_host:
            windows.array.flags.writeable = False           # in PyTorch a view: a change in place is not to get lost
        return windows


def where(condition: Tensor, input: Any = None, other: Any = None) -> Any:
    """`input` where the condition holds, else `other`; with the condition alone, where it holds, a tensor per axis."""
    if input is None and other is None:
        return condition.nonzero(as_tuple=True)
    _check_mask(condition, "where")
    operands = (input, other)
    target = dtypes.result_type([(x.dtype, x.ndim) for x in operands if is_tensor(x)],
                                [x for x in operands if not is_tensor(x)])
    xp = xp_of(condition.array)
    a, b = (x.to(target) if is_tensor(x) else new_tensor(xp.asarray(dtypes.wrapped(x, target), dtype=target))
            for x in operands)
    return ops.Where()(condition, a, b)


def _part_for(index: Tensor, src: Any, x: Any, where: str) -> Tensor:
    """The part of src that the index has places for."""
    if not is_tensor(src) or src.dtype != x.dtype or src.ndim != index.ndim or any(
            i > n for i, n in zip(index.shape, src.shape, strict=True)):
        got = f"{src.dtype} {src.shape}" if is_tensor(src) else type(src).__name__
        raise ShapeError(f"got a src of {got}, expected {x.dtype} of at least {index.shape}", where=where)
    return src[tuple(slice(n) for n in index.shape)]  # type: ignore[no-any-return]


def _check_mask(mask: Any, where: str) -> None:
    if not is_tensor(mask) or mask.dtype.kind != "b":
        got = f"a tensor of {mask.dtype}" if is_tensor(mask) else type(mask).__name__
        raise SettingError(f"got {got} as a mask, expected a tensor of booleans; use x > 0 or mask.bool()",
                           where=where)
