"""The differentiable operations, one idea a file; forward and backward stand side by side.

`elementwise` · `reduce` · `shape` · `index` · `linalg` · `activation` · `conv` · `pool` · `loss`
"""

from minidl.graph import BroadcastTo, Cast, SumTo
from minidl.ops.activation import LogSoftmax, ReLU, Sigmoid, Softmax, Tanh
from minidl.ops.conv import Conv2d, Conv2dInputGrad, Conv2dWeightGrad
from minidl.ops.elementwise import (
    Add,
    Clone,
    Div,
    Equal,
    Exp,
    Greater,
    GreaterEqual,
    Log,
    Mul,
    Neg,
    NotEqual,
    Pow,
    Sub,
    ToDevice,
    Where,
)
from minidl.ops.index import Gather, Index, IndexAdd, IndexPut, ScatterAdd
from minidl.ops.linalg import Linear, MatMul
from minidl.ops.loss import CrossEntropy
from minidl.ops.pool import AvgPool2d, AvgPool2dInputGrad, MaxPool2d, MaxPool2dInputGrad
from minidl.ops.reduce import ArgMax, ArgMin, Mean, Sum
from minidl.ops.shape import Permute, Reshape

__all__ = [
    "Add", "ArgMax", "ArgMin", "AvgPool2d", "AvgPool2dInputGrad", "BroadcastTo", "Cast", "Clone", "Conv2d",
    "Conv2dInputGrad", "Conv2dWeightGrad", "CrossEntropy", "Div", "Equal", "Exp", "Gather", "Greater", "GreaterEqual",
    "Index", "IndexAdd", "IndexPut", "Linear", "Log", "LogSoftmax", "MatMul", "MaxPool2d", "MaxPool2dInputGrad", "Mean",
    "Mul", "Neg", "NotEqual", "Permute", "Pow", "ReLU", "Reshape", "ScatterAdd", "Sigmoid", "Softmax", "Sub", "Sum",
    "SumTo", "Tanh", "ToDevice", "Where",
]
