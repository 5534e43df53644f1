"""Layers and losses, under PyTorch's names: `from minidl import nn`."""

from minidl.nn import functional, init
from minidl.nn.activations import ReLU, Sigmoid, Softmax, Tanh
from minidl.nn.containers import ModuleDict, ModuleList, Sequential
from minidl.nn.conv import Conv2d
from minidl.nn.linear import Flatten, Identity, Linear
from minidl.nn.losses import CrossEntropyLoss
from minidl.nn.module import Module, Parameter
from minidl.nn.pooling import AvgPool2d, MaxPool2d

__all__ = [
    "AvgPool2d", "Conv2d", "CrossEntropyLoss", "Flatten", "Identity", "Linear", "MaxPool2d", "Module", "ModuleDict",
    "ModuleList", "Parameter", "ReLU", "Sequential", "Sigmoid", "Softmax", "Tanh", "functional", "init",
]
