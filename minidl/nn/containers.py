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

    def forward(self, x: Any) -> Any:
        """All modules, one after the other."""
        for module in self._all():
            x = module(x)
        return x


class ModuleList(_Numbered):
    """A list of modules whose parameters are found, `self.layers = nn.ModuleList([...])`; it has no forward."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__(modules)

    def extend(self, modules: Iterable[Module]) -> ModuleList:
        """Add several modules at the end. Returns the list."""
        for module in modules:
            self.append(module)
        return self


class ModuleDict(Module):
    """A dict of modules whose parameters are found; it has no forward."""

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        super().__init__()
        for name, module in (modules or {}).items():
            self[name] = module

    def __getitem__(self, name: str) -> Module:
        return dict(self.items())[name]

    def __setitem__(self, name: str, module: Module) -> None:
        self.add_module(name, module)

    def __len__(self) -> int:
        return len(self.items())

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __contains__(self, name: str) -> bool:
        return name in self.keys()

    def items(self) -> list[tuple[str, Module]]:
        """(name, module) in the order in which they were set."""
        return [(name, value) for name, value in vars(self).items() if isinstance(value, Module)]

    def keys(self) -> list[str]:
        """The names."""
        return [name for name, _ in self.items()]

    def values(self) -> list[Module]:
        """The modules."""
        return [module for _, module in self.items()]


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
