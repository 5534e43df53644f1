"""A little linear algebra under PyTorch's names. Norms have gradients; the rest is NumPy's, for data, without."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from minidl.errors import GraphError, SettingError, ShapeError, no_such_name
from minidl.graph import new_tensor
from minidl.ops.reduce import axes_of, axis_of
from minidl.tensors import Tensor

__all__ = ["cholesky", "det", "eigh", "eigvalsh", "inv", "lstsq", "matrix_norm", "matrix_rank", "norm", "pinv", "qr",
           "solve", "svd", "vector_norm"]


class EigenValuesAndVectors(NamedTuple):
    """What `eigh` returns: eigenvalues in rising order, and the eigenvectors as columns."""

    eigenvalues: Tensor
    eigenvectors: Tensor


class QR(NamedTuple):
    """What `qr` returns: orthonormal columns, and an upper triangle."""

    Q: Tensor
    R: Tensor


class SVD(NamedTuple):
    """What `svd` returns: x = U · diag(S) · Vh."""

    U: Tensor
    S: Tensor
    Vh: Tensor


class LeastSquares(NamedTuple):
    """What `lstsq` returns; the other results of PyTorch are not there."""

    solution: Tensor


def vector_norm(x: Tensor, ord: float = 2, dim: Any = None, keepdim: bool = False) -> Tensor:
    """(sum of |x|^ord)^(1/ord) over the axes `dim` (all, if None)."""
    return x.norm(ord, dim, keepdim)


def matrix_norm(x: Tensor, ord: Any = "fro", dim: tuple[int, int] = (-2, -1), keepdim: bool = False) -> Tensor:
    """Of each matrix: "fro", √(sum of x²); 1 or inf, the largest sum of |x| over a column or over a row."""
    rows, columns = (axis_of(d, x.ndim) for d in dim)
    if ord == "fro":
        return x.norm(2, dim, keepdim)
    if ord not in (1, math.inf):
        raise SettingError(f'got ord={ord!r}, expected "fro", 1 or inf; for 2 use svd(x).S[..., 0]',
                           where="matrix_norm")
    along, across = (rows, columns) if ord == 1 else (columns, rows)
    largest = abs(x).sum(along, keepdim=True).amax(across, keepdim=True)
    return largest if keepdim else largest.squeeze((rows, columns))


def norm(x: Tensor, ord: Any = None, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Without `ord` the length, √(sum of x²); with one, the norm of vectors, or of matrices if there are two axes."""
    axes = axes_of(dim, x.ndim)
    if ord is not None and len(axes) == 2 and (dim is not None or x.ndim == 2):
        return matrix_norm(x, ord, (axes[0], axes[1]), keepdim)
    return x.norm(2 if ord is None else ord, dim, keepdim)


def _by_numpy(name: str, function: Callable[..., Any], *tensors: Tensor) -> tuple[Tensor, ...]:
    for x in tensors:
        if x.requires_grad:
            raise GraphError("got a tensor that requires grad, but there is no gradient of this; use x.detach()",
                             where=name)
        if x.ndim < 2 and x is tensors[0]:
            raise ShapeError(f"got {x.shape}, expected matrices", where=name)
    try:
        results = function(*(x._on_host() for x in tensors))
    except np.linalg.LinAlgError as error:
        raise ShapeError(f"got {' and '.join(str(x.shape) for x in tensors)}: {error}", where=name) from None
    arrays = results if isinstance(results, tuple) else (results,)
    return tuple(new_tensor(np.asarray(array)).to(tensors[0].device) for array in arrays)


def inv(A: Tensor) -> Tensor:
    """The inverse of a square matrix."""
    return _by_numpy("inv", np.linalg.inv, A)[0]


def pinv(A: Tensor) -> Tensor:
    """The pseudo-inverse of a matrix."""
    return _by_numpy("pinv", np.linalg.pinv, A)[0]


def det(A: Tensor) -> Tensor:
    """The determinant of a square matrix."""
    return _by_numpy("det", np.linalg.det, A)[0]


def solve(A: Tensor, B: Tensor) -> Tensor:
    """The x of A x = B."""
    return _by_numpy("solve", np.linalg.solve, A, B)[0]


def lstsq(A: Tensor, B: Tensor) -> LeastSquares:
    """The x that brings A x closest to B."""
    return LeastSquares(_by_numpy("lstsq", lambda a, b: np.linalg.lstsq(a, b, rcond=None)[0], A, B)[0])


def eigh(A: Tensor) -> EigenValuesAndVectors:
    """Eigenvalues, rising, and eigenvectors (columns) of a symmetric matrix."""
    return EigenValuesAndVectors(*_by_numpy("eigh", lambda a: tuple(np.linalg.eigh(a)), A))


def eigvalsh(A: Tensor) -> Tensor:
    """Eigenvalues of a symmetric matrix, rising."""
    return _by_numpy("eigvalsh", np.linalg.eigvalsh, A)[0]


def svd(A: Tensor, full_matrices: bool = True) -> SVD:
    """The singular value decomposition: A = U · diag(S) · Vh."""
    return SVD(*_by_numpy("svd", lambda a: tuple(np.linalg.svd(a, full_matrices)), A))


def qr(A: Tensor) -> QR:
    """Orthonormal columns times an upper triangle."""
    return QR(*_by_numpy("qr", lambda a: tuple(np.linalg.qr(a)), A))


def cholesky(A: Tensor) -> Tensor:
    """The lower triangle L with L Lᵀ = A, for a positive definite matrix."""
    return _by_numpy("cholesky", np.linalg.cholesky, A)[0]


def matrix_rank(A: Tensor) -> Tensor:
    """How many rows of a matrix are independent."""
    return _by_numpy("matrix_rank", np.linalg.matrix_rank, A)[0]


def __getattr__(name: str) -> Any:
    raise no_such_name("minidl.linalg", name, __all__)
