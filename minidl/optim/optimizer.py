"""What all optimizers share: groups of parameters with their settings, and a memory for each parameter."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from minidl.backend import Array
from minidl.errors import SettingError, ShapeError
from minidl.graph import new_tensor
from minidl.recording import enable_grad
from minidl.tensors import Tensor, forget_gradients


class Optimizer:
    """Changes parameters by their gradients. A subclass writes `update`, the formula for one parameter.

    params: tensors, or dicts {"params": tensors, "lr": …} with settings of their own.
    param_groups: a list of such dicts, with every setting filled in; change `group["lr"]` to change the rate.
    state: parameter -> its memory (momentum, step count, …), as arrays and numbers.
    """

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self.param_groups: list[dict[str, Any]] = []
        self.state: dict[Tensor, dict[str, Any]] = {}
        if isinstance(params, Tensor):
            raise SettingError("got a tensor, expected a list of them; use [x]", where=type(self).__name__)
        params = list(params)
        if not params:
            raise SettingError("got no parameters; does the model have layers as attributes?",
                               where=type(self).__name__)
        for group in params if isinstance(params[0], dict) else [{"params": params}]:
            self.add_param_group(group)

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Add parameters with settings of their own; what is not set comes from the optimizer's settings."""
        group = {**self.defaults, **group}
        given = group["params"]
        group["params"] = [given] if isinstance(given, Tensor) else list(given)
        if not group["lr"] > 0:
            raise SettingError(f"got lr={group['lr']}, expected a positive number", where=type(self).__name__)
        known = {p for other in self.param_groups for p in other["params"]}
        if len(set(group["params"])) < len(group["params"]):
            raise SettingError("got the same parameter twice in one group", where=type(self).__name__)
        for p in group["params"]:
            if not isinstance(p, Tensor) or not p.is_leaf:
                raise SettingError(f"got {type(p).__name__} that is no leaf, expected parameters; optimize the tensors "
                                   f"that you made, not results", where=type(self).__name__)
            if p in known:
                raise SettingError("got the same parameter in two groups", where=type(self).__name__)
        self.param_groups.append(group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        forget_gradients((p for group in self.param_groups for p in group["params"]), set_to_none)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Change every parameter that has a gradient. `closure` computes the loss first, if given."""
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.update(p.array, p.grad.array, self.state.setdefault(p, {}), group)
                    p.version.count += 1
        return loss

    def update(self, p: Array, g: Array, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Change the array `p` in place, given its gradient `g`, its memory and its settings."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Settings and memories, with parameters numbered in the order of the groups."""
        numbers = {p: i for i, p in enumerate(p for group in self.param_groups for p in group["params"])}
        groups = [{**group, "params": [numbers[p] for p in group["params"]]} for group in self.param_groups]
        state = {numbers[p]: {k: new_tensor(v) if hasattr(v, "dtype") else v for k, v in memory.items()}
                 for p, memory in self.state.items()}
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned, for the same parameters in the same order."""
        sizes = [len(group["params"]) for group in self.param_groups]
        saved_sizes = [len(group["params"]) for group in saved["param_groups"]]
        if sizes != saved_sizes:
            raise ShapeError(f"got groups of {saved_sizes} parameters, expected {sizes}; nothing was loaded",
                             where=f"{type(self).__name__}.load_state_dict")
        parameters = [p for group in self.param_groups for p in group["params"]]
        unknown = [number for number in saved["state"] if not 0 <= int(number) < len(parameters)]
        if unknown:
            raise ShapeError(f"got the state of parameter {unknown[0]}, expected numbers below {len(parameters)}; "
                             f"nothing was loaded", where=f"{type(self).__name__}.load_state_dict")
        self.param_groups = [{**copy.deepcopy(dict(theirs)), "params": ours["params"]}
                             for ours, theirs in zip(self.param_groups, saved["param_groups"], strict=True)]
        self.state = {}
        for number, memory in saved["state"].items():
            self.state[parameters[int(number)]] = {
                name: value.clone().array if isinstance(value, Tensor) else value for name, value in memory.items()}

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
        return "\n".join([*lines, ")"])
