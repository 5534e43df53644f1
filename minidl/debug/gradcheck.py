"""Check gradients against finite differences: every element, in float64, with a report that says where it is wrong.

For y = f(x) backward must give  dy_j/dx_i;  the definition of a derivative gives, with a small step e,

    (f(x + e·1_i)_j - f(x - e·1_i)_j) / 2e.

Both are computed for all i and j and compared. The step is a compromise: the formula is wrong by about e² and rounding
adds about 1e-16/e, so float64 with e = 1e-6 leaves nine digits or so, and float32 would leave two.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minidl import autograd, creation
from minidl.backend import backend_of
from minidl.errors import DtypeError, MinidlError, SettingError
from minidl.tensors import Tensor


class GradcheckError(MinidlError, AssertionError):
    """A gradient differs from the finite difference."""


def gradcheck(fn: Callable[..., Any], inputs: Tensor | Sequence[Tensor], eps: float = 1e-6, atol: float = 1e-5,
              rtol: float = 1e-3, order: int = 1, raise_exception: bool = True) -> bool:
    """Check the gradients of `fn` at `inputs` with respect to every input that requires grad.

    fn: takes the inputs, returns a tensor or a tuple of tensors. Inputs: float64 tensors. A gradient passes if
    |backward - finite difference| <= atol + rtol · |finite difference| for every element. order=2 checks, after that,
    the gradients of the gradients.

    Returns True. Raises `GradcheckError` naming op, input, element and both values, and saying whether the function has
    a kink there; or returns False with raise_exception=False. Raises `DtypeError` for float32 inputs.
    """
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    if order not in (1, 2):
        raise SettingError(f"got order={order!r}, expected 1 or 2", where="gradcheck")
    checked = [i for i, x in enumerate(inputs) if isinstance(x, Tensor) and x.requires_grad]
    if not checked:
        raise SettingError("got no input that requires grad; pass tensor(..., requires_grad=True)", where="gradcheck")
    if len({inputs[i] for i in checked}) < len(checked):
        raise SettingError("got the same tensor twice, so one difference would move both; pass a clone()",
                           where="gradcheck")
    for i in checked:
        if inputs[i].dtype != np.float64:
            raise DtypeError(f"got {inputs[i].dtype} for input {i}, expected float64: a finite difference in "
                             f"{inputs[i].dtype} has only about two right digits; use x.double()", where="gradcheck")
    try:
        _check_first_order(fn, inputs, checked, eps, atol, rtol)
        if order == 2:
            _check_second_order(fn, inputs, checked, eps, atol, rtol)
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def _check_first_order(fn: Callable[..., Any], inputs: list[Tensor], checked: list[int], eps: float, atol: float,
                       rtol: float) -> None:
    outputs = _differentiable(fn(*inputs))
    if not outputs:
        raise GradcheckError("no output requires grad: the function is not differentiable, or runs under no_grad()",
                             where="gradcheck")
    by_backward = [_rows_by_backward(output, [inputs[i] for i in checked]) for output in outputs]
    for position, i in enumerate(checked):
        for element in np.ndindex(inputs[i].shape):
            columns = _column_by_difference(fn, inputs, i, element, eps)
            for o, (output, column) in enumerate(zip(outputs, columns, strict=True)):
                analytic = by_backward[o][position][(..., *element)]     # d(every element of output)/dx[element]
                wrong = ~(np.abs(analytic - column) <= atol + rtol * np.abs(column))
                if wrong.any():
                    at = np.unravel_index(int(np.argmax(np.where(wrong, np.abs(analytic - column), -1))), wrong.shape)
                    place = tuple(map(int, at))
                    raise _mismatch(fn, inputs, i, element, output, o, place, analytic[at], column[at], eps)


def _check_second_order(fn: Callable[..., Any], inputs: list[Tensor], checked: list[int], eps: float, atol: float,
                        rtol: float) -> None:
    """Gradients are functions too: of the inputs and of the gradient that comes from above. Check theirs."""
    outputs = _differentiable(fn(*inputs))
    rng = np.random.default_rng(0)
    from_above = [_like(output, rng.uniform(0.5, 1.5, output.shape)).requires_grad_() for output in outputs]

    def gradient(*arguments: Tensor) -> tuple[Tensor, ...]:
        xs, gs = list(arguments[:len(inputs)]), arguments[len(inputs):]
        results = autograd.grad(_differentiable(fn(*xs)), [xs[i] for i in checked], list(gs), create_graph=True,
                                allow_unused=True)
        # a gradient that does not depend on anything (y = x + 1) has second derivative 0
        return tuple(xs[i] * 0 if g is None else g + xs[i] * 0 for i, g in zip(checked, results, strict=True))

    gradient.__name__ = f"the gradient of {_name(fn)}"
    arguments = [*inputs, *from_above]
    positions = [*checked, *range(len(inputs), len(arguments))]
    _check_first_order(gradient, arguments, positions, eps, atol, rtol)


def _rows_by_backward(output: Tensor, inputs: list[Tensor]) -> list[np.ndarray]:
    """d(output)/d(input) for each input, shape output.shape + input.shape: one backward per element of the output."""
    rows = [np.zeros((*output.shape, *x.shape)) for x in inputs]
    for element in np.ndindex(output.shape):
        one = np.zeros(output.shape)
        one[element] = 1
        gradients = autograd.grad(output, inputs, _like(output, one), retain_graph=True, allow_unused=True)
        for row, gradient in zip(rows, gradients, strict=True):
            if gradient is not None:
                row[element] = _host(gradient)
    return rows


def _column_by_difference(fn: Callable[..., Any], inputs: list[Tensor], i: int, element: tuple[int, ...],
                          eps: float) -> list[np.ndarray]:
    """d(each output)/d(inputs[i][element]) by a central difference."""
    above, below = (_values(fn, inputs, i, element, step) for step in (eps, -eps))
    return [(a - b) / (2 * eps) for a, b in zip(above, below, strict=True)]


def _values(fn: Callable[..., Any], inputs: list[Tensor], i: int, element: tuple[int, ...],
            step: float) -> list[np.ndarray]:
    """The outputs with one number of one input moved by `step`; the inputs themselves stay untouched."""
    moved = _host(inputs[i]).copy()
    moved[element] += step
    arguments = list(inputs)
    arguments[i] = _like(inputs[i], moved).requires_grad_()
    return [_host(output) for output in _differentiable(fn(*arguments))]


def _mismatch(fn: Callable[..., Any], inputs: list[Tensor], i: int, element: tuple[int, ...], output: Tensor, o: int,
              at: tuple[int, ...], analytic: float, numeric: float, eps: float) -> GradcheckError:
    """The error for the worst element, after asking whether the function has a kink there."""
    value = _host(inputs[i])[element]
    place = f"d output{o}{list(at)} / d input{i}{list(element)} at {value:.6g}"
    slopes = _one_sided_slopes(fn, inputs, i, element, o, at, eps)
    if slopes is not None:
        left, right = slopes
        return GradcheckError(
            f"{place} sits on a kink: the slope is {left:.6g} to the left and {right:.6g} to the right, backward says "
            f"{analytic:.6g}; no gradient is right there, move the input away", where=f"gradcheck of {_name(fn)}")
    ratio = f", {analytic / numeric:.6g} times too much" if numeric and math.isfinite(analytic / numeric) else ""
    return GradcheckError(f"{place}: backward says {analytic:.9g}, the finite difference {numeric:.9g}{ratio}; "
                          f"{_blame(fn, inputs, eps)}", where=f"gradcheck of {_name(fn)}")


def _blame(fn: Callable[..., Any], inputs: list[Tensor], eps: float) -> str:
    """Which op's backward is wrong: every op that ran is checked by itself, and the first bad one is named."""
    recorder = _Calls()
    autograd.observers.append(recorder)
    try:
        fn(*inputs)
    finally:
        autograd.observers.remove(recorder)
    for op, arguments, output in recorder.calls:
        if output.node is not None and output.dtype == np.float64 and _is_wrong_alone(op, arguments, output, eps):
            return f"look at the backward of {op}, called at {output.node.where}"
    return "each op by itself is right, so look for a detach() or a change in place on the way"


def _is_wrong_alone(op: autograd.Op, arguments: list[Any], output: Tensor, eps: float) -> bool:
    """Compare v · dy/dx of one op with its finite differences, for one arbitrary v."""
    def again(*xs: Any) -> Tensor:
        twin = copy.copy(op)                                # an op object is one call
        twin._recorded = False
        return twin(*xs)

    alone = [x.detach().clone().requires_grad_() if isinstance(x, Tensor) and x.requires_grad else x for x in arguments]
    v = np.random.default_rng(0).uniform(0.5, 1.5, output.shape)
    for i, x in enumerate(alone):
        if isinstance(x, Tensor) and x.requires_grad and x.dtype == np.float64 and op.contract.wants_gradient(i):
            by_backward = _host(autograd.grad(again(*alone), x, _like(output, v))[0])
            for element in np.ndindex(x.shape):
                (column,) = _column_by_difference(again, alone, i, element, eps)
                if not np.allclose(by_backward[element], (v * column).sum(), rtol=1e-5, atol=1e-7):
                    return True
    return False


class _Calls(autograd.Observer):
    """Remembers all calls of ops that can be differentiated."""

    def __init__(self) -> None:
        self.calls: list[tuple[autograd.Op, list[Any], Tensor]] = []

    def op_called(self, op: autograd.Op, inputs: Sequence[Any], output: Tensor) -> None:
        """Called by the engine."""
        if output.node is not None:
            self.calls.append((op, list(inputs), output))


def _one_sided_slopes(fn: Callable[..., Any], inputs: list[Tensor], i: int, element: tuple[int, ...], o: int,
                      at: tuple[int, ...], eps: float) -> tuple[float, float] | None:
    """The slopes on either side, if they differ and stay different as the step shrinks; None for a smooth function."""
    gaps = []
    for step in (eps, eps / 4):
        here, above, below = (_values(fn, inputs, i, element, s)[o][at] for s in (0.0, step, -step))
        left, right = (here - below) / step, (above - here) / step
        gaps.append(abs(right - left))
        if step == eps:
            slopes = float(left), float(right)
    rounding = 1e-8 * (1 + abs(slopes[0]) + abs(slopes[1])) + 1e-15 * abs(here) / eps
    is_kink = gaps[0] > 100 * rounding and gaps[1] > 0.5 * gaps[0]
    return slopes if is_kink else None


def _differentiable(outputs: Any) -> list[Tensor]:
    outputs = outputs if isinstance(outputs, tuple | list) else [outputs]
    return [y for y in outputs if isinstance(y, Tensor) and y.requires_grad]


def _host(tensor: Tensor) -> np.ndarray:
    return backend_of(tensor.array).to_host(tensor.array)


def _like(tensor: Tensor, values: np.ndarray) -> Tensor:
    return creation.tensor(values, device=tensor.device)


def _name(fn: Callable[..., Any]) -> str:
    return getattr(fn, "__name__", type(fn).__name__)
