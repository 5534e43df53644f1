"""The differentiable operations, one idea a file; forward and backward stand side by side.

`elementwise` · `reduce` · `shape` · `index` · `linalg` · `activation` · `conv` · `unfold` · `pool` · `norm` · `loss`
"""

from minidl.graph import BroadcastTo, Cast, SumTo
from minidl.ops.activation import (
    ELU,
    GELU,
    HardTanh,
    LeakyReLU,
    LogSoftmax,
    PReLU,
    ReLU,
    ReLUGrad,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from minidl.ops.conv import Conv2d, Conv2dInputGrad, Conv2dWeightGrad
from minidl.ops.elementwise import (
    Abs,
    Acos,
    Add,
    And,
    Asin,
    Atan,
    Atan2,
    Ceil,
    Clamp,
    Clone,
    Cos,
    Cosh,
    Div,
    Equal,
    Erf,
    Exp,
    Expm1,
    Floor,
    FloorDiv,
    Fmod,
    Greater,
    GreaterEqual,
    Log,
    Log1p,
    Log2,
    Log10,
    Maximum,
    Minimum,
    Mul,
    Neg,
    Not,
    NotEqual,
    Or,
    Pow,
    Remainder,
    Round,
    Sign,
    Sin,
    Sinh,
    Sqrt,
    Sub,
    ToDevice,
    Trunc,
    Where,
    Xor,
)
from minidl.ops.index import Diagonal, Gather, Index, IndexAdd, IndexPut, ScatterAdd
from minidl.ops.linalg import Einsum, Linear, MatMul, SumOfOuterProducts
from minidl.ops.loss import (
    BCE,
    CrossEntropy,
    CrossEntropyGrad,
    LabelCrossEntropy,
    LabelCrossEntropyGrad,
    MeanSquaredError,
    ScaledDifference,
)
from minidl.ops.norm import Normalize, ScaleShift
from minidl.ops.pool import (
    AvgPool2d,
    AvgPool2dInputGrad,
    MaxPool2d,
    MaxPool2dInputGrad,
    Repeat2d,
    Repeat2dInputGrad,
)
from minidl.ops.reduce import All, Any, ArgMax, ArgMin, ArgSort, CumSum, LogSumExp, Mean, Norm, Sum
from minidl.ops.shape import Cat, Permute, Reshape
from minidl.ops.unfold import Fold, Unfold

__all__ = [
    "BCE", "ELU", "GELU", "Abs", "Acos", "Add", "All", "And", "Any", "ArgMax", "ArgMin", "ArgSort", "Asin", "Atan",
    "Atan2", "AvgPool2d", "AvgPool2dInputGrad", "BroadcastTo", "Cast", "Cat", "Ceil", "Clamp", "Clone", "Conv2d",
    "Conv2dInputGrad", "Conv2dWeightGrad", "Cos", "Cosh", "CrossEntropy", "CrossEntropyGrad", "CumSum", "Diagonal",
    "Div", "Einsum", "Equal", "Erf", "Exp", "Expm1", "Floor", "FloorDiv", "Fmod", "Fold", "Gather", "Greater",
    "GreaterEqual", "HardTanh", "Index", "IndexAdd", "IndexPut", "LabelCrossEntropy", "LabelCrossEntropyGrad",
    "LeakyReLU", "Linear", "Log", "Log1p", "Log2", "Log10",
    "LogSoftmax", "LogSumExp", "MatMul", "MaxPool2d", "MaxPool2dInputGrad", "Maximum", "Mean", "MeanSquaredError",
    "Minimum", "Mul", "Neg", "Norm", "Normalize", "Not", "NotEqual", "Or", "PReLU", "Permute", "Pow", "ReLU",
    "ReLUGrad", "Remainder", "Repeat2d", "Repeat2dInputGrad", "Reshape", "Round", "ScaleShift", "ScaledDifference",
    "ScatterAdd", "SiLU", "Sigmoid", "Sign", "Sin", "Sinh", "Softmax", "Softplus", "Sqrt", "Sub", "Sum",
    "SumOfOuterProducts", "SumTo", "Tanh", "ToDevice", "Trunc", "Unfold", "Where", "Xor",
]
