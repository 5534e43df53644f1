"""Every row of tests/cases.py on the device: the value (in float32 too), the gradient, and the gradient of that."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np

from minidl.backend import backend_of
from minidl.creation import tensor
from minidl.debug.gradcheck import gradcheck
from minidl.gpucheck.kernels import plain_products
from minidl.gpucheck.session import Session, from_checkout
from minidl.kernels import use_kernels
from minidl.kernels.cuda.launching import launches
from minidl.tensors import Tensor

TOLERANCE = 1e-9                    # relative to 1 + |expected|; libraries differ in the last digits of exp and erf
IN_FLOAT32 = 1e-5


def first_order(session: Session, entry: dict[str, Any]) -> str:
    """The stage: values and gradients."""
    return _run(session, entry, 1)


def second_order(session: Session, entry: dict[str, Any]) -> str:
    """The stage: gradients of gradients; in a rehearsal those of a few rows, none of which takes the simulator long."""
    return _run(session, entry, 2)


def _run(session: Session, entry: dict[str, Any], order: int) -> str:
    table = from_checkout("tests.cases")
    if table is None:
        return "not done (the table of ops is in tests/cases.py, which is not here; run this in a checkout)"
    cases = [case for case in table.CASES if case.on_fake and (order == 1 or order in case.orders)]
    cases = cases[:80:8] if session.rehearsal and order == 2 else cases
    rows = entry["rows"] = {}
    for case in cases:
        if session.left() < 0:
            break
        row = rows[case.name] = {"ok": True, "worst": 0.0, "error": ""}
        try:
            if order == 1:
                check(session, case, row)
            else:
                gradcheck(case.run, tensors(case, session.device), rtol=case.rtol, atol=case.atol, order=order)
        except ModuleNotFoundError as error:            # the fake device takes erf from SciPy
            row |= {"ok": None, "error": f"not checked: {error}"}
        except Exception as error:
            session.wrong(f"op {case.name}", error)
            row |= {"ok": False, "error": session.mismatches[-1]["error"]}
    checked = [row for row in rows.values() if row["ok"] is not None]
    worst = f"; the largest difference from the CPU is {max((float(row['worst']) for row in checked), default=0):.2g}"
    entry["result"] = (f"{len(checked)} of {len(cases)} rows, {sum(not row['ok'] for row in checked)} wrong"
                       + worst * (order == 1))
    return "done" if len(checked) == len(cases) else "partly done" + " (budget)" * (len(rows) < len(cases))


def check(session: Session, case: Any, row: dict[str, Any]) -> None:
    """Check the value and the gradients of one row; `row` gets the worst difference. Raises what is wrong."""
    ours, before = tensors(case, session.device), launches.total()
    result = case.run(*ours)
    has_kernels = launches.total() > before
    _compare(row, "the value", host(result), np.asarray(case.expected(*case.inputs(np.random.default_rng(0)))))
    _check_float32(session, case, row)
    if not case.orders:
        return
    weights = np.random.default_rng(1).normal(size=result.shape)
    result.backward(tensor(weights, device=session.device))
    with suppress(ModuleNotFoundError), use_kernels("im2col"), plain_products():        # erf on the CPU is SciPy's
        theirs = tensors(case, "cpu")
        case.run(*theirs).backward(tensor(weights))
        for i, (x, y) in enumerate(zip(ours, theirs, strict=True)):
            if y.grad is not None and x.grad is not None:
                _compare(row, f"the gradient of input {i}", host(x.grad), host(y.grad))
    if not (session.rehearsal and has_kernels):         # hundreds of launches, which the simulator takes long for
        gradcheck(case.run, tensors(case, session.device), rtol=case.rtol, atol=case.atol)


def _check_float32(session: Session, case: Any, row: dict[str, Any]) -> None:
    """The value in float32, and its type: an array library that makes float64 of it would be slow and hide it."""
    result = case.run(*tensors(case, session.device, np.float32))
    with suppress(ModuleNotFoundError), use_kernels("im2col"), plain_products():
        expected = case.run(*tensors(case, "cpu", np.float32))
        if result.dtype != expected.dtype:
            raise AssertionError(f"the value of float32 inputs is {result.dtype}, expected {expected.dtype}")
        _compare(row | {}, "the value in float32", host(result), host(expected), IN_FLOAT32)


def _compare(row: dict[str, Any], what: str, result: np.ndarray, expected: np.ndarray,
             tolerance: float = TOLERANCE) -> None:
    if result.shape != expected.shape:
        raise AssertionError(f"{what} has shape {result.shape}, expected {expected.shape}")
    expected = expected.astype(np.float64)
    worst = float((np.abs(result.astype(np.float64) - expected) / (1 + np.abs(expected))).max(initial=0))
    row["worst"] = max(row["worst"], worst) if np.isfinite(worst) else 1e300            # JSON has no nan
    if not worst <= tolerance:
        raise AssertionError(f"{what} is off by {worst:.3g}")


def tensors(case: Any, device: str, dtype: Any = np.float64) -> list[Tensor]:
    """The inputs of a row, the same in every call; floats are of that type and get a gradient."""
    arrays = case.inputs(np.random.default_rng(0))
    return [tensor(array.astype(dtype), device=device, requires_grad=True) if array.dtype.kind == "f"
            else tensor(array, device=device) for array in arrays]


def host(x: Tensor) -> np.ndarray:
    """The numbers of a tensor, on the CPU."""
    return backend_of(x.array).to_host(x.array)
