"""Functions of tensors: `minidl.exp(x)` is `x.exp()`. Those that take several tensors stand below.

A line such as `exp = of_tensor(Tensor.exp)` means what it says: the function is the method, with the tensor as first
argument.
"""

from __future__ import annotations

import builtins
import functools
import string
from collections.abc import Sequence
from typing import Any

import numpy as np

from minidl import ops
from minidl.creation import randn
from minidl.errors import DeviceError, DtypeError, SettingError, ShapeError
from minidl.graph import new_tensor
from minidl.ops.reduce import axis_of
from minidl.rng import Generator, default_generator
from minidl.tensors import Tensor, as_tuple
from minidl.tensors.arguments import Method
from minidl.tensors.arithmetic import as_operand
from minidl.tensors.shaping import where

__all__ = [
    "abs", "abs_", "absolute", "acos", "add", "addcdiv", "addcmul", "addmm", "all", "allclose", "amax", "amin", "any",
    "arccos", "arcsin", "arctan", "argmax", "argmin", "argsort", "asin", "atan", "atan2", "bernoulli", "bincount",
    "bitwise_and", "bitwise_not", "bitwise_or", "bitwise_xor", "bmm", "broadcast_tensors", "broadcast_to",
    "cartesian_prod", "cat", "cdist", "ceil", "ceil_", "chunk", "clamp", "clamp_", "clip", "clone", "concat",
    "concatenate", "cos", "cos_", "cosh", "count_nonzero", "cumprod", "cumsum", "detach", "diag", "diagonal", "diff",
    "div", "divide", "dot", "einsum", "eq", "equal", "erf", "exp", "exp2", "exp_", "expm1", "flatten", "flip", "floor",
    "floor_", "floor_divide", "fmod", "gather", "ge", "gt", "hstack", "index_add", "index_select", "inner",
    "is_floating_point", "is_tensor", "isclose", "isfinite", "isin", "isinf", "isnan", "le", "lerp", "log", "log1p",
    "log2", "log10", "log_", "log_softmax", "logaddexp", "logical_and", "logical_not", "logical_or", "logical_xor",
    "logsumexp", "lt", "masked_fill", "masked_select", "matmul", "max", "maximum", "mean", "median", "meshgrid", "min",
    "minimum", "mm", "moveaxis", "movedim", "mul", "multinomial", "multiply", "mv", "nan_to_num", "narrow", "ne",
    "neg", "neg_", "negative", "nonzero", "norm", "normal", "numel", "outer", "permute", "pow", "prod", "quantile",
    "ravel", "reciprocal", "relu", "relu_", "remainder", "repeat_interleave", "reshape", "roll", "round", "round_",
    "rsqrt", "scatter", "scatter_add", "select", "sigmoid", "sigmoid_", "sign", "sin", "sin_", "sinh", "softmax",
    "sort", "split", "sqrt", "sqrt_", "square", "squeeze", "stack", "std", "std_mean", "sub", "subtract", "sum",
    "swapaxes", "t", "take_along_dim", "tan", "tanh", "tanh_", "tensordot", "tile", "topk", "trace", "transpose",
    "tril", "tril_indices", "triu", "triu_indices", "true_divide", "trunc", "unbind", "unflatten", "unique",
    "unsqueeze", "var", "var_mean", "vstack", "where",
]


def of_tensor(method: Method) -> Method:
    """A method as a function. Its first argument must be a tensor and may be called `input`; `out` takes the result."""
    @functools.wraps(method)
    def function(*args: Any, out: Tensor | None = None, **kwargs: Any) -> Any:
        if not args and "input" in kwargs:
            args = (kwargs.pop("input"),)
        if args and not isinstance(args[0], Tensor):
            raise DtypeError(f"got {type(args[0]).__name__}, expected a tensor; use minidl.tensor(x)",
                             where=method.__name__.strip("_"))
        result = method(*args, **kwargs)
        if out is None:
            return result
        if not isinstance(result, Tensor) or out.shape != result.shape:
            raise ShapeError(f"got out of shape {out.shape}, expected {getattr(result, 'shape', 'no out')}",
                             where=method.__name__.strip("_"))
        if type(out.array) is not type(result.array):
            raise DeviceError(f'got out on "{out.device}" for a result on "{result.device}", expected one device',
                              where=method.__name__.strip("_"))
        return out.copy_(result)
    return function  # type: ignore[return-value]


# -- arithmetic and functions of single elements --
add = of_tensor(Tensor.add)
sub = of_tensor(Tensor.sub)
mul = of_tensor(Tensor.mul)
div = of_tensor(Tensor.div)
neg = of_tensor(Tensor.neg)
abs = of_tensor(Tensor.abs)
subtract = of_tensor(Tensor.sub)
multiply = of_tensor(Tensor.mul)
divide = of_tensor(Tensor.div)
true_divide = of_tensor(Tensor.div)
negative = of_tensor(Tensor.neg)
absolute = of_tensor(Tensor.abs)
floor_divide = of_tensor(Tensor.floor_divide)
remainder = of_tensor(Tensor.remainder)
eq = of_tensor(Tensor.eq)
ne = of_tensor(Tensor.ne)
gt = of_tensor(Tensor.gt)
ge = of_tensor(Tensor.ge)
lt = of_tensor(Tensor.lt)
le = of_tensor(Tensor.le)
exp = of_tensor(Tensor.exp)
expm1 = of_tensor(Tensor.expm1)
exp2 = of_tensor(Tensor.exp2)
log = of_tensor(Tensor.log)
log1p = of_tensor(Tensor.log1p)
log2 = of_tensor(Tensor.log2)
log10 = of_tensor(Tensor.log10)
sqrt = of_tensor(Tensor.sqrt)
rsqrt = of_tensor(Tensor.rsqrt)
square = of_tensor(Tensor.square)
reciprocal = of_tensor(Tensor.reciprocal)
sin = of_tensor(Tensor.sin)
cos = of_tensor(Tensor.cos)
tan = of_tensor(Tensor.tan)
atan = of_tensor(Tensor.atan)
arctan = of_tensor(Tensor.atan)
asin = of_tensor(Tensor.asin)
acos = of_tensor(Tensor.acos)
atan2 = of_tensor(Tensor.atan2)
sinh = of_tensor(Tensor.sinh)
cosh = of_tensor(Tensor.cosh)
tanh = of_tensor(Tensor.tanh)
arcsin = of_tensor(Tensor.asin)
arccos = of_tensor(Tensor.acos)
fmod = of_tensor(Tensor.fmod)
nan_to_num = of_tensor(Tensor.nan_to_num)
logaddexp = of_tensor(Tensor.logaddexp)
quantile = of_tensor(Tensor.quantile)
sigmoid = of_tensor(Tensor.sigmoid)
relu = of_tensor(Tensor.relu)
erf = of_tensor(Tensor.erf)
sign = of_tensor(Tensor.sign)
floor = of_tensor(Tensor.floor)
ceil = of_tensor(Tensor.ceil)
trunc = of_tensor(Tensor.trunc)
round = of_tensor(Tensor.round)
clamp = of_tensor(Tensor.clamp)
clip = of_tensor(Tensor.clamp)
maximum = of_tensor(Tensor.maximum)
minimum = of_tensor(Tensor.minimum)
lerp = of_tensor(Tensor.lerp)
addcmul = of_tensor(Tensor.addcmul)
addcdiv = of_tensor(Tensor.addcdiv)
isnan = of_tensor(Tensor.isnan)
isinf = of_tensor(Tensor.isinf)
isfinite = of_tensor(Tensor.isfinite)
isclose = of_tensor(Tensor.isclose)
allclose = of_tensor(Tensor.allclose)
equal = of_tensor(Tensor.equal)
logical_and = of_tensor(Tensor.logical_and)
logical_or = of_tensor(Tensor.logical_or)
logical_xor = of_tensor(Tensor.logical_xor)
logical_not = of_tensor(Tensor.logical_not)

# -- the same in place --
exp_ = of_tensor(Tensor.exp_)
log_ = of_tensor(Tensor.log_)
sqrt_ = of_tensor(Tensor.sqrt_)
abs_ = of_tensor(Tensor.abs_)
neg_ = of_tensor(Tensor.neg_)
sin_ = of_tensor(Tensor.sin_)
cos_ = of_tensor(Tensor.cos_)
tanh_ = of_tensor(Tensor.tanh_)
sigmoid_ = of_tensor(Tensor.sigmoid_)
relu_ = of_tensor(Tensor.relu_)
clamp_ = of_tensor(Tensor.clamp_)
round_ = of_tensor(Tensor.round_)
floor_ = of_tensor(Tensor.floor_)
ceil_ = of_tensor(Tensor.ceil_)
bitwise_and = of_tensor(Tensor.__and__)
bitwise_or = of_tensor(Tensor.__or__)
bitwise_xor = of_tensor(Tensor.__xor__)
bitwise_not = of_tensor(Tensor.__invert__)

# -- reductions and order --
sum = of_tensor(Tensor.sum)
mean = of_tensor(Tensor.mean)
var = of_tensor(Tensor.var)
std = of_tensor(Tensor.std)
norm = of_tensor(Tensor.norm)
logsumexp = of_tensor(Tensor.logsumexp)
prod = of_tensor(Tensor.prod)
cumsum = of_tensor(Tensor.cumsum)
cumprod = of_tensor(Tensor.cumprod)
softmax = of_tensor(Tensor.softmax)
log_softmax = of_tensor(Tensor.log_softmax)
max = of_tensor(Tensor.max)
min = of_tensor(Tensor.min)
amax = of_tensor(Tensor.amax)
amin = of_tensor(Tensor.amin)
argmax = of_tensor(Tensor.argmax)
argmin = of_tensor(Tensor.argmin)
any = of_tensor(Tensor.any)
all = of_tensor(Tensor.all)
count_nonzero = of_tensor(Tensor.count_nonzero)
sort = of_tensor(Tensor.sort)
argsort = of_tensor(Tensor.argsort)
topk = of_tensor(Tensor.topk)
median = of_tensor(Tensor.median)
unique = of_tensor(Tensor.unique)
bincount = of_tensor(Tensor.bincount)
multinomial = of_tensor(Tensor.multinomial)
trace = of_tensor(Tensor.trace)

# -- shape and parts --
reshape = of_tensor(Tensor.reshape)
flatten = of_tensor(Tensor.flatten)
ravel = of_tensor(Tensor.ravel)
unflatten = of_tensor(Tensor.unflatten)
squeeze = of_tensor(Tensor.squeeze)
unsqueeze = of_tensor(Tensor.unsqueeze)
broadcast_to = of_tensor(Tensor.broadcast_to)
tile = of_tensor(Tensor.tile)
repeat_interleave = of_tensor(Tensor.repeat_interleave)
permute = of_tensor(Tensor.permute)
transpose = of_tensor(Tensor.transpose)
swapaxes = of_tensor(Tensor.swapaxes)
t = of_tensor(Tensor.t)
movedim = of_tensor(Tensor.movedim)
moveaxis = of_tensor(Tensor.movedim)
flip = of_tensor(Tensor.flip)
roll = of_tensor(Tensor.roll)
narrow = of_tensor(Tensor.narrow)
select = of_tensor(Tensor.select)
split = of_tensor(Tensor.split)
chunk = of_tensor(Tensor.chunk)
unbind = of_tensor(Tensor.unbind)
take_along_dim = of_tensor(Tensor.take_along_dim)
gather = of_tensor(Tensor.gather)
scatter = of_tensor(Tensor.scatter)
scatter_add = of_tensor(Tensor.scatter_add)
index_select = of_tensor(Tensor.index_select)
index_add = of_tensor(Tensor.index_add)
masked_fill = of_tensor(Tensor.masked_fill)
masked_select = of_tensor(Tensor.masked_select)
nonzero = of_tensor(Tensor.nonzero)
diagonal = of_tensor(Tensor.diagonal)
diag = of_tensor(Tensor.diag)
tril = of_tensor(Tensor.tril)
triu = of_tensor(Tensor.triu)
numel = of_tensor(Tensor.numel)
clone = of_tensor(Tensor.clone)
detach = of_tensor(Tensor.detach)
is_floating_point = of_tensor(Tensor.is_floating_point)

# -- matrix products --
mv = of_tensor(Tensor.mv)
dot = of_tensor(Tensor.dot)
inner = of_tensor(Tensor.inner)
outer = of_tensor(Tensor.outer)
addmm = of_tensor(Tensor.addmm)
bmm = of_tensor(Tensor.bmm)
matmul = of_tensor(Tensor.matmul)
mm = of_tensor(Tensor.mm)


def pow(input: Any, exponent: Any) -> Tensor:
    """input to the power of exponent; one of the two may be a number."""
    return ops.Pow()(input, exponent)


def is_tensor(value: Any) -> bool:
    """Whether this is a Tensor."""
    return isinstance(value, Tensor)


# -- putting tensors together --------------------------------------------------------------------------------------

def cat(tensors: Sequence[Tensor], dim: int = 0, axis: int | None = None) -> Tensor:
    """The tensors one behind the other along an axis; the other axes must be equal."""
    tensors, dim = _checked(tensors, "cat"), dim if axis is None else axis
    # PyTorch leaves out empty vectors, with which lists of results often start
    kept = [x for x in tensors if x.shape != (0,)] or tensors[:1]
    shapes = [tuple(x.shape) for x in kept]
    along = axis_of(dim, kept[0].ndim)
    if kept[0].ndim == 0 or len({shape[:along] + shape[along + 1:] for shape in shapes}) > 1 or (
            len({len(shape) for shape in shapes}) > 1):
        raise ShapeError(f"got shapes {', '.join(map(str, shapes))}, expected the same sizes except along dim {dim}"
                         f"{'; use stack for numbers' if kept[0].ndim == 0 else ''}", where="cat")
    return ops.Cat(along)(*kept)


concat = concatenate = cat


def stack(tensors: Sequence[Tensor], dim: int = 0, axis: int | None = None) -> Tensor:
    """The tensors one behind the other along a new axis; all of one shape."""
    tensors, dim = _checked(tensors, "stack"), dim if axis is None else axis
    if len({tuple(x.shape) for x in tensors}) > 1:
        raise ShapeError(f"got shapes {', '.join(str(x.shape) for x in tensors)}, expected them all equal; use cat to "
                         f"join along an axis that is there", where="stack")
    return ops.Cat(axis_of(dim, tensors[0].ndim + 1))(*(x.unsqueeze(dim) for x in tensors))


def _checked(tensors: Sequence[Tensor], where: str) -> list[Tensor]:
    if isinstance(tensors, Tensor) or not tensors:
        raise DtypeError(f"got {'a tensor' if isinstance(tensors, Tensor) else 'an empty list'}, expected a list of "
                         f"tensors", where=where)
    for x in tensors:
        if not isinstance(x, Tensor):
            raise DtypeError(f"got {type(x).__name__} in the list, expected tensors; use minidl.tensor(x)", where=where)
    return list(tensors)


def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """Vectors, or matrices, one below the other."""
    return cat([x.reshape(1, -1) if x.ndim < 2 else x for x in _checked(tensors, "vstack")], 0)


def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """Vectors one behind the other, or matrices side by side."""
    tensors = [x.reshape(1) if x.ndim == 0 else x for x in _checked(tensors, "hstack")]
    return cat(tensors, 0 if tensors[0].ndim == 1 else 1)


def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple[Tensor, ...]:
    """The coordinates of all points of a grid: one tensor of the grid's shape for each axis."""
    if indexing not in ("ij", "xy"):
        raise SettingError(f'got indexing={indexing!r}, expected "ij" or "xy"', where="meshgrid")
    axes = list(tensors[0]) if len(tensors) == 1 and isinstance(tensors[0], list | tuple) else list(tensors)
    _checked(axes, "meshgrid")
    if builtins.any(x.ndim > 1 for x in axes):
        raise ShapeError("got a tensor with several axes, expected vectors", where="meshgrid")
    shape = [x.numel() for x in axes]
    grids = [x.reshape(tuple(-1 if i == k else 1 for i in range(len(axes)))).expand(shape)
             for k, x in enumerate(axes)]
    return tuple(grid.transpose(0, 1) for grid in grids) if indexing == "xy" and len(axes) > 1 else tuple(grids)


def broadcast_tensors(*tensors: Tensor) -> tuple[Tensor, ...]:
    """All tensors expanded to the shape that they broadcast to."""
    _checked(tensors, "broadcast_tensors")
    try:
        shape = np.broadcast_shapes(*(x.shape for x in tensors))
    except ValueError:
        shapes = " and ".join(str(x.shape) for x in tensors)
        raise ShapeError(f"got shapes {shapes}, which do not broadcast: from the last axis on, sizes must be equal or "
                         f"1", where="broadcast_tensors") from None
    return tuple(x.expand(shape) for x in tensors)


def cartesian_prod(*tensors: Tensor) -> Tensor:
    """All combinations of one element of each vector, as rows."""
    return stack([grid.ravel() for grid in meshgrid(*tensors)], 1) if len(tensors) > 1 else tensors[0]


def tril_indices(row: int, col: int, offset: int = 0) -> Tensor:
    """Rows and columns of the elements below and on the diagonal, (2, K)."""
    return new_tensor(np.stack(np.tril_indices(row, offset, col)))


def triu_indices(row: int, col: int, offset: int = 0) -> Tensor:
    """Rows and columns of the elements above and on the diagonal, (2, K)."""
    return new_tensor(np.stack(np.triu_indices(row, offset, col)))


def diff(input: Tensor, n: int = 1, dim: int = -1) -> Tensor:
    """The differences of neighbours along `dim`, n times in turn."""
    for _ in range(n):
        length = input.shape[axis_of(dim, input.ndim)]
        input = input.narrow(dim, 1, length - 1) - input.narrow(dim, 0, length - 1)
    return input


def isin(elements: Tensor, test_elements: Any) -> Tensor:
    """Which elements are among the test elements."""
    among = as_operand(test_elements).to(elements.device).ravel()
    return (elements.unsqueeze(-1) == among).any(-1)                         # (…, 1) == (K,) -> (…, K) -> (…)


def var_mean(input: Tensor, dim: Any = None, *, correction: float = 1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """(variance, mean) over the axes `dim`."""
    return input.var(dim, correction=correction, keepdim=keepdim), input.mean(dim, keepdim)


def std_mean(input: Tensor, dim: Any = None, *, correction: float = 1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """(standard deviation, mean) over the axes `dim`."""
    return input.std(dim, correction=correction, keepdim=keepdim), input.mean(dim, keepdim)


# -- sums of products ----------------------------------------------------------------------------------------------

def einsum(equation: str, *operands: Any) -> Tensor:
    """A sum of products, written with one letter for each axis: `einsum("bij,bjk->bik", a, b)` is `a @ b`.

    A letter that is not behind the arrow is summed over; without an arrow the output has the letters that occur once,
    in alphabetical order. "..." stands for any axes. A letter twice in one operand takes its diagonal.
    """
    listed = len(operands) == 1 and isinstance(operands[0], list | tuple)
    tensors = _checked(operands[0] if listed else operands, "einsum")
    letters, output = _parsed(equation, [x.ndim for x in tensors])
    for k, (text, x) in enumerate(zip(letters, tensors, strict=True)):
        if len(text) != x.ndim:
            raise ShapeError(f"got {x.shape} for {text!r} in {equation!r}, expected {len(text)} axes", where="einsum")
        letters[k], tensors[k] = _with_single_letters(text, x)
    sizes: dict[str, int] = {}
    for text, x in zip(letters, tensors, strict=True):
        for letter, n in zip(text, x.shape, strict=True):
            known = sizes.get(letter, 1)
            if 1 not in (known, n) and known != n:
                raise ShapeError(f"got the sizes {known} and {n} for {letter!r} in {equation!r}, expected one",
                                 where="einsum")
            sizes[letter] = n if known == 1 else known
    tensors = [x.expand(tuple(sizes[c] for c in text)) for text, x in zip(letters, tensors, strict=True)]
    if len(set(output)) < len(output) or not set(output) <= set(sizes):
        raise ShapeError(f"got the output {output!r} in {equation!r}, expected letters of the inputs, each once",
                         where="einsum")
    return ops.Einsum(letters, output)(*tensors)


def _parsed(equation: str, ndims: Sequence[int]) -> tuple[list[str], str]:
    """The letters of each operand and of the output, with letters in place of "..."."""
    left, arrow, output = equation.replace(" ", "").partition("->")
    letters = left.split(",")
    if len(letters) != len(ndims):
        raise ShapeError(f"got {len(ndims)} tensors for {equation!r}, expected {len(letters)}", where="einsum")
    if builtins.any(text.count(".") not in (0, 3) or text.replace("...", "").count(".") for text in (*letters, output)):
        raise ShapeError(f"got {equation!r}, expected \"...\" at most once in each operand", where="einsum")
    # the axes behind "..." are aligned at the end, as in broadcasting
    dots = [ndim - len(text) + 3 if "..." in text else 0 for text, ndim in zip(letters, ndims, strict=True)]
    unused = [c for c in string.ascii_letters if c not in equation][:builtins.max(0, *dots)]
    letters = [text.replace("...", "".join(unused[len(unused) - n:])) for text, n in zip(letters, dots, strict=True)]
    shared = "".join(unused)
    if arrow:
        return letters, output.replace("...", shared)
    together = "".join(letters)
    return letters, shared + "".join(sorted(c for c in set(together) - set(shared) if together.count(c) == 1))


def _with_single_letters(letters: str, x: Tensor) -> tuple[str, Tensor]:
    """The diagonals of x for letters that occur twice: "iij" -> "ji"."""
    for letter in letters:
        while letters.count(letter) > 1:
            first = letters.index(letter)
            second = letters.index(letter, first + 1)
            if x.shape[first] != x.shape[second]:
                raise ShapeError(f"got the sizes {x.shape[first]} and {x.shape[second]} for {letter!r}, expected one",
                                 where="einsum")
            x = x.diagonal(0, first, second)                # the two axes become one, the last
            letters = letters[:first] + letters[first + 1:second] + letters[second + 1:] + letter
    return letters, x


def tensordot(a: Tensor, b: Tensor, dims: Any = 2) -> Tensor:
    """Sums of products over axes: the last `dims` of a with the first of b, or two lists of axes."""
    of_a, of_b = (range(a.ndim - dims, a.ndim), range(dims)) if isinstance(dims, int) else dims
    summed_a, summed_b = [axis_of(d, a.ndim) for d in of_a], [axis_of(d, b.ndim) for d in of_b]
    letters_a = list(string.ascii_letters[:a.ndim])
    letters_b = list(string.ascii_letters[a.ndim:a.ndim + b.ndim])
    for i, j in zip(summed_a, summed_b, strict=True):
        letters_b[j] = letters_a[i]
    output = [c for k, c in enumerate(letters_a) if k not in summed_a]
    output += [c for k, c in enumerate(letters_b) if k not in summed_b]
    return einsum(f"{''.join(letters_a)},{''.join(letters_b)}->{''.join(output)}", a, b)


def cdist(x1: Tensor, x2: Tensor, p: float = 2.0) -> Tensor:
    """The distances between all rows of two matrices: (…, n, d) and (…, m, d) -> (…, n, m)."""
    return (x1.unsqueeze(-2) - x2.unsqueeze(-3)).norm(p, -1)                 # (…, n, 1, d) - (…, 1, m, d)


# -- random --------------------------------------------------------------------------------------------------------

def bernoulli(input: Tensor, *, generator: Generator | None = None) -> Tensor:
    """1 with the chance that stands in `input`, else 0."""
    draws = (generator or default_generator).numpy.random(tuple(input.shape))
    chances = input.detach()._on_host()
    if not ((chances >= 0) & (chances <= 1)).all():
        raise SettingError("got a chance outside of 0 to 1", where="bernoulli")
    return as_operand(draws < chances).to(input.device).to(input.dtype)


def normal(mean: Any, std: Any = 1.0, size: Any = None, *, generator: Generator | None = None) -> Tensor:
    """Normal draws with the given means and standard deviations, numbers or tensors."""
    shape = as_tuple((size,)) if size is not None else np.broadcast_shapes(*(
        tuple(x.shape) if isinstance(x, Tensor) else () for x in (mean, std)))
    if not isinstance(std, Tensor) and not std >= 0:
        raise SettingError(f"got std={std}, expected 0 or more", where="normal")
    place = next((x.device for x in (mean, std) if isinstance(x, Tensor)), None)
    return ops.Add()(randn(shape, device=place, generator=generator) * std, mean)
