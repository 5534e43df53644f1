"""Modules made of modules: Sequential, ModuleList, ModuleDict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from minidl.errors import ModuleError
from minidl.nn.module import Module, Parameter
from minidl.tensors import Tensor


class _Numbered(Module):
    """Modules under the names "0", "1", "2", …"""

    def __init__(self, modules: Iterable[Module]) -> None:
        super().__init__()
        for module in modules:
            self.append(module)

    def append(self, module: Module) -> Any:
        """Add a module at the end. Returns the container."""
        if not isinstance(module, Module):
            raise ModuleError(f"got a {type(module).__name__}, expected a module; functions have modules of their own, "
                              f"such as nn.ReLU() for F.relu", where=type(self).__name__)
        setattr(self, str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Any:
        """Add several modules at the end. Returns the container."""
        for module in modules:
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> None:
        """Put a module in front of the one that stands at `index`."""
        modules = self._all()
        modules.insert(index, module)
        self._put(modules)

    def __delitem__(self, i: int | slice) -> None:
        modules = self._all()
        del modules[i]
        self._put(modules)

    def pop(self, i: int = -1) -> Module:
        """Take a module out and return it."""
        module = self._all()[i]
        del self[i]
        return module

    def __add__(self, other: Iterable[Module]) -> Any:
        return type(self)._of([*self._all(), *other])

    def __iadd__(self, other: Iterable[Module]) -> Any:
        return self.extend(other)

    def _put(self, modules: list[Module]) -> None:
        """These modules in place of those that are there, numbered anew."""
        for name, _ in self._named():
            delattr(self, name)
        self.extend(modules)

    def _named(self) -> list[tuple[str, Module]]:
        return [(name, value) for name, value in vars(self).items() if isinstance(value, Module)]

    def _all(self) -> list[Module]:
        return [value for value in vars(self).values() if isinstance(value, Module)]

    def __len__(self) -> int:
        return len(self._all())

    def __iter__(self) -> Iterator[Module]:
        return iter(self._all())

    def __getitem__(self, i: int | slice) -> Any:
        if isinstance(i, slice):
            return type(self)._of(self._all()[i])
        return self._all()[i]

    def __setitem__(self, i: int, module: Module) -> None:
        names = [name for name, value in vars(self).items() if isinstance(value, Module)]
        setattr(self, names[i], module)

    @classmethod
    def _of(cls, modules: list[Module]) -> Any:
        return cls(modules)


class Sequential(_Numbered):
    """Each module's output is the next one's input: `Sequential(nn.Linear(4, 8), nn.ReLU())`, or a dict with names."""

    def __init__(self, *modules: Any) -> None:
        super().__init__([])
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            for name, module in modules[0].items():
                self.add_module(name, module)
        else:
            for module in modules:
                self.append(module)

    @classmethod
    def _of(cls, modules: list[Module]) -> Any:
        return cls(*modules)

    def __getitem__(self, i: int | slice) -> Any:
        # a part keeps the names, so its state dict fits that of the whole
        return type(self)(dict(self._named()[i])) if isinstance(i, slice) else self._all()[i]

    def forward(self, x: Any) -> Any:
        """All modules, one after the other."""
        for module in self._all():
            x = module(x)
        return x


class ModuleList(_Numbered):
    """A list of modules whose parameters are found, `self.layers = nn.ModuleList([...])`; it has no forward."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__(modules)

    def __repr__(self) -> str:
        if not len(self):
            return "ModuleList()"
        runs: list[tuple[int, int, str]] = []               # (first, last, text): equal ones in a row are one line
        for i, text in enumerate(map(repr, self)):
            first = runs.pop()[0] if runs and runs[-1][2] == text else i
            runs.append((first, i, text))
        lines = [f"({i}): {text}" if first == i else f"({first}-{i}): {i - first + 1} x {text}"
                 for first, i, text in runs]
        return "\n".join(["ModuleList(", *("  " + part for line in lines for part in line.split("\n")), ")"])


class _Named(Module):
    """Things of one kind under names of their own."""

    kind: type

    def __getitem__(self, name: str) -> Any:
        return dict(self.items())[name]

    def __len__(self) -> int:
        return len(self.items())

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __contains__(self, name: str) -> bool:
        return name in self.keys()

    def __delitem__(self, name: str) -> None:
        delattr(self, name)

    def pop(self, name: str) -> Any:
        """Take one out and return it."""
        value = self[name]
        delattr(self, name)
        return value

    def items(self) -> list[tuple[str, Any]]:
        """(name, value) in the order in which they were set."""
        return [(name, value) for name, value in vars(self).items() if isinstance(value, self.kind)]

    def keys(self) -> list[str]:
        """The names."""
        return [name for name, _ in self.items()]

    def values(self) -> list[Any]:
        """The values."""
        return [value for _, value in self.items()]

    def update(self, values: Any) -> None:
        """Add from a dict or from (name, value) pairs."""
        for name, value in values.items() if hasattr(values, "items") else values:
            self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        raise NotImplementedError


class ModuleDict(_Named):
    """A dict of modules whose parameters are found; it has no forward."""

    kind = Module

    def __init__(self, modules: Any = None) -> None:
        super().__init__()
        self.update(modules or {})

    def __setitem__(self, name: str, module: Module) -> None:
        self.add_module(name, module)


class ParameterList(Module):
    """A list of parameters that are found; it has no forward. Tensors are made parameters."""

    def __init__(self, values: Iterable[Tensor] = ()) -> None:
        super().__init__()
        for value in values:
            self.append(value)

    def append(self, value: Tensor) -> ParameterList:
        """Add a parameter at the end. Returns the list."""
        setattr(self, str(len(self)), value if isinstance(value, Parameter) else Parameter(value))
        return self

    def _all(self) -> list[Parameter]:
        return [value for value in vars(self).values() if isinstance(value, Parameter)]

    def __len__(self) -> int:
        return len(self._all())

    def __iter__(self) -> Iterator[Parameter]:
        return iter(self._all())

    def __getitem__(self, i: int) -> Parameter:
        return self._all()[i]

    def __repr__(self) -> str:
        lines = [f"  ({i}): {_described(value, str(value.dtype))}" for i, value in enumerate(self)]
        return "ParameterList(" + "\n".join(lines) + ")"   # PyTorch's has no line break here


class ParameterDict(_Named):
    """A dict of parameters that are found; it has no forward. Tensors are made parameters."""

    kind = Parameter

    def __init__(self, values: Any = None) -> None:
        super().__init__()
        self.update(values or {})

    def __setitem__(self, name: str, value: Tensor) -> None:
        self.register_parameter(name, value if isinstance(value, Parameter) else Parameter(value))

    def __repr__(self) -> str:
        kinds = {"float32": "FloatTensor", "float64": "DoubleTensor", "float16": "HalfTensor"}
        lines = [f"    ({name}): {_described(value, kinds[str(value.dtype)])}" for name, value in self.items()]
        return "\n".join(["ParameterDict(", *lines, ")"]) if lines else "ParameterDict()"


def _described(p: Parameter, kind: str) -> str:
    return f"Parameter containing: [{kind} of size {'x'.join(map(str, p.shape))}]"
