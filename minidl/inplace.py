"""Changing a tensor in place: `w -= lr * w.grad`, `x[i] = v`, `x.zero_()`.

Where nothing is recorded (no operand requires grad, or under no_grad) the numbers are written into the tensor's own
memory, the array stays the same, and its `Version` counts the write; a value that backward had kept is then found to be
stale and raises.

Where the change is recorded it is a step of the graph like any other: the result is computed out of place, and the
tensor takes over the result's array and node. The old memory stays as the graph has kept it. That is only right if
nobody else looks at the old memory, so a tensor that shares it with a living view is refused; but a view made with
brackets, `b[0] += v`, passes its change on to the tensor that it is a part of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minidl import dtypes, ops
from minidl.backend import is_same_place, is_writable
from minidl.errors import DeviceError, DtypeError, GraphError, MinidlError, ShapeError
from minidl.graph import is_tensor
from minidl.ops.index import Key, check_arrays
from minidl.recording import is_grad_enabled

if TYPE_CHECKING:
    from minidl.tensors import Tensor


def become(x: Tensor, result: Tensor, name: str) -> Tensor:
    """Change x to `result`, as `name` ("+=") demands. Returns x."""
    if result.shape != x.shape:
        raise ShapeError(f"got a result of shape {result.shape} for a tensor of shape {x.shape}, which it cannot hold; "
                         f"use the out-of-place operation", where=name)
    if dtypes.category(result.dtype) > dtypes.category(x.dtype):
        raise DtypeError(f"got a result of {result.dtype} for a tensor of {x.dtype}, which cannot hold it; convert the "
                         f"tensor first, x = x.to(minidl.{result.dtype})", where=name)
    if result.node is None:
        check_writable(x)
        x.array[...] = result.array
        x.version.count += 1
        return x
    if x.node is not None and x.is_leaf:
        raise GraphError("got a leaf that requires grad, whose changes would be lost to its gradient; do it under "
                         "minidl.no_grad(), or out of place: x = x + 1", where=name)
    if x.version.is_shared():
        base, key = x.view_of()
        if base is not None and key is not None:
            return _through_the_base(x, base, key, result)
        raise GraphError("got a tensor that shares its memory with a view, and the change would be recorded for only "
                         "one of the two; do it out of place, x = x + 1, or to a part, b[i] = b[i] + 1", where=name)
    if result.dtype != x.dtype:
        result = ops.Cast(x.dtype)(result)
    before = x.node
    x.array, x.node, x.version = result.array, result.node, result.version
    if before is not None and before.retains_grad:          # the wish goes along to the new value
        before.retains_grad = False
        x.retain_grad()
    return x


def _through_the_base(x: Tensor, base: Tensor, key: Key, result: Tensor) -> Tensor:
    """`b[0] += v` changes a view of b: so a part of b changes, and then the view is taken of the new b."""
    shared = x.version
    shared.left_by(x)                                       # x gives the memory up, and with it b may do so too
    try:
        assign(base, [key], [], result)
    except MinidlError:
        shared.shared_by(x)
        raise
    anew = ops.Index(key)(base)
    x.array, x.node, x.version = anew.array, anew.node, anew.version
    x.version.shared_by(x)
    return x


def assign(x: Tensor, keys: list[Key], indices: list[Tensor], value: Any) -> None:
    """x[...] = value, with what `split_key` made of the key; value: a tensor of the dtype of x, or a number."""
    if is_tensor(value) and value.device != x.device:
        raise DeviceError(f"got a value on '{value.device}' for a tensor on '{x.device}', expected one device; move it "
                          f"with .to(device)", where="x[...] = value")
    if is_tensor(value) and value.version is x.version and len(keys) == 1 and keys[0].is_basic and is_same_place(
            value.array, x.array[keys[0].with_arrays(())]):
        return                                              # the second half of `b[0] += v`: it is there already
    if indices:
        check_arrays(x.shape if len(keys) == 1 else x.array[keys[0].with_arrays(())].shape, keys[-1], indices)
    is_recorded = is_grad_enabled() and any(is_tensor(t) and t.node is not None for t in (x, value))
    try:
        if is_recorded:
            changed = _with_part(x, keys, indices, value)
        else:
            _write_part(x, keys, indices, value)
    except ValueError as error:                             # a ShapeError, or NumPy's own
        raise ShapeError(f"got a value of shape {getattr(value, 'shape', ())} for a part of a tensor of shape "
                         f"{x.shape}, which it does not broadcast to", where="x[...] = value") from error
    if is_recorded:
        become(x, changed, "x[...] = value")


def _with_part(x: Tensor, keys: list[Key], indices: list[Tensor], value: Any) -> Tensor:
    """A copy of x in which a part has another value, as a step of the graph."""
    if len(keys) == 1:
        return ops.IndexPut(keys[0])(x, value, *indices)
    part = ops.IndexPut(keys[1])(ops.Index(keys[0])(x), value, *indices)
    return ops.IndexPut(keys[0])(x, part)


def _write_part(x: Tensor, keys: list[Key], indices: list[Tensor], value: Any) -> None:
    """Put a value into a part of x's memory."""
    check_writable(x)
    target = x.array if len(keys) == 1 else x.array[keys[0].with_arrays(())]
    key = keys[-1].with_arrays(tuple(index.array for index in indices))
    target[key] = value.array if is_tensor(value) else value
    x.version.count += 1


def check_writable(x: Tensor) -> None:
    """Raise for memory that stands for several elements at once, or that may only be read."""
    steps = zip(x.array.strides, x.shape, strict=True)
    if x.numel() and any(stride == 0 and n > 1 for stride, n in steps):
        raise GraphError("got an expanded tensor, in which one number stands in several places; clone() it first",
                         where="in-place change")
    if not is_writable(x.array):
        raise GraphError("got memory that may only be read, such as a part of an expanded tensor or a locked array; "
                         "clone() it first", where="in-place change")
