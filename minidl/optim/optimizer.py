"""What all optimizers share: groups of parameters with their settings, and a memory for each parameter."""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from minidl.backend import Array, as_array, as_number, backend_of, device_of, out_of_memory, quiet, xp_of
from minidl.errors import DeviceError, SettingError, ShapeError
from minidl.graph import new_tensor
from minidl.kernels.threads import together
from minidl.recording import enable_grad
from minidl.tensors import Tensor, forget_gradients

# PyTorch's ways to compute the same step faster or recorded; here is one way, so these may only be off
WAYS_TO_COMPUTE = ("foreach", "capturable", "differentiable", "fused")


class Optimizer:
    """Changes parameters by their gradients.

    A subclass writes `update`, the formula for one parameter, on arrays. Or it writes a `step` of its own on tensors,
    as for PyTorch: `for group in self.param_groups: for p in group["params"]: p.data -= group["lr"] * p.grad`.

    params: tensors, or (name, tensor) pairs, or dicts {"params": tensors, "lr": …} with settings of their own.
    param_groups: a list of such dicts, with every setting filled in; change `group["lr"]` to change the rate.
    state: parameter -> its memory (momentum, step count, …), a dict of tensors and numbers, empty at first.
    """

    from_0: ClassVar[tuple[str, ...]] = ()              # settings that are 0 or more
    from_0_to_1: ClassVar[tuple[str, ...]] = ()
    _numbers = 0                                        # of all parameters: many are worth a compiled step
    _steps_taken = 0                                    # what a scheduler asks, to warn about a wrong order

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any],
                 others: Mapping[str, Any] | None = None) -> None:
        for name, value in (others or {}).items():
            if name not in WAYS_TO_COMPUTE:
                raise SettingError(f"got a setting {name!r}, expected one of {', '.join(defaults)}", where=self._name)
            if value:
                raise SettingError(f"got {name}={value}, expected None or False: steps are computed one parameter at "
                                   f"a time; leave it out", where=self._name)
        self.defaults = defaults
        self.param_groups: list[dict[str, Any]] = []
        self.state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        if isinstance(params, Tensor):
            raise SettingError("got a tensor, expected a list of them; use [x]", where=self._name)
        params = self._as_list(params)
        if not params:
            raise SettingError("got no parameters; does the model have layers as attributes?", where=self._name)
        for group in params if isinstance(params[0], dict) else [{"params": params}]:
            self.add_param_group(group)

    @property
    def _name(self) -> str:
        return type(self).__name__

    # -- groups --

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Add parameters with settings of their own; what is not set comes from the optimizer's settings."""
        if not isinstance(param_group, Mapping) or "params" not in param_group:
            raise SettingError(f"got {type(param_group).__name__}, expected a dict with the key 'params'",
                               where=f"{self._name}.add_param_group")
        group = {"params": param_group["params"], **self.defaults, **param_group}
        pairs = [item if isinstance(item, tuple) and len(item) == 2 else (None, item)
                 for item in self._as_list(group["params"])]
        group["params"] = [p for _, p in pairs]
        names = [name for name, _ in pairs if name is not None]
        if names:
            group["param_names"] = names
        if len(names) not in (0, len(pairs)) or any(("param_names" in other) != bool(names)
                                                    for other in self.param_groups):
            raise SettingError("got parameters with and without names, expected one or the other", where=self._name)
        for p in group["params"]:
            if not isinstance(p, Tensor):
                raise SettingError(f"got {type(p).__name__} among the parameters, expected tensors; use "
                                   f"model.parameters()", where=self._name)
            if not p.is_leaf:
                raise SettingError("got a tensor that is no leaf, expected parameters; optimize the tensors that you "
                                   "made, not results", where=self._name)
        if len(set(group["params"])) < len(group["params"]):
            raise SettingError("got the same parameter twice in one group", where=self._name)
        if not {p for other in self.param_groups for p in other["params"]}.isdisjoint(group["params"]):
            raise SettingError("got the same parameter in two groups", where=self._name)
        if isinstance(group.get("lr"), Tensor):
            group["lr"] = group["lr"].item()
        self.check_settings(group)
        self.param_groups.append(group)

    def check_settings(self, group: dict[str, Any]) -> None:
        """Raise `SettingError` if a setting of a new group is outside of its range."""
        def expect(name: str, expected: str, is_fine: Callable[[float], bool]) -> None:
            number = as_number(group[name])
            if number is None or not is_fine(number):
                raise SettingError(f"got {name}={group[name]}, expected {expected}", where=self._name)

        if "lr" in group:
            expect("lr", "a positive number", lambda lr: 0 < lr < math.inf)
        for name in self.from_0:
            expect(name, "0 or more", lambda value: value >= 0)
        for name in self.from_0_to_1:
            expect(name, "0 to 1", lambda value: 0 <= value <= 1)

    def _as_list(self, params: Any) -> list[Any]:
        if isinstance(params, Tensor):
            return [params]
        if isinstance(params, set | Mapping) or not isinstance(params, Iterable):      # a set has no order to save
            raise SettingError(f"got a {type(params).__name__}, expected a list of parameters; use model.parameters()",
                               where=self._name)
        return list(params)

    # -- steps --

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        forget_gradients((p for group in self.param_groups for p in group["params"]), set_to_none)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Change every parameter that has a gradient. `closure` computes the loss first, if given."""
        self._steps_taken += 1
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        self._numbers = sum(p.array.size for group in self.param_groups for p in group["params"])
        all_with_gradients = [(p, p.grad.array, group) for group in self.param_groups for p in group["params"]
                              if p.grad is not None]
        with quiet():                                       # a run that diverges does so without NumPy's warnings
            with together():                                # the compiled ones; a formula may use kernels at once
                by_formula = [one for one in all_with_gradients if not self._step_of(*one, self.update_in_one_pass)]
            for one in by_formula:
                self._step_of(*one, self._update_by_formula)
        return loss

    def _step_of(self, p: Tensor, g: Array, group: dict[str, Any], update: Callable[..., bool]) -> bool:
        """Change p and what is remembered of it, by one of the two ways to update; whether that one could do it."""
        state = self.state[p]
        memory = {name: value.array if isinstance(value, Tensor) else value for name, value in state.items()}
        try:
            if not update(p.array, g, memory, group):
                return False
        except MemoryError as error:
            raise out_of_memory(error, backend_of(p.array), self._name) from error
        for name, value in memory.items():
            before = state.get(name)
            if not isinstance(before, Tensor) or before.array is not value:             # else it was changed in place
                state[name] = new_tensor(as_array(value)) if hasattr(value, "dtype") else value
        p.version.count += 1
        return True

    def update_in_one_pass(self, p: Array, g: Array, state: dict[str, Any], group: dict[str, Any]) -> bool:
        """`gradient` and `update` at once, of the bare gradient g, if there is compiled code for it; else False.

        What `kernels.threads.parallel` is asked for in here is done when all parameters have been gone through.
        """
        return False

    def _update_by_formula(self, p: Array, g: Array, state: dict[str, Any], group: dict[str, Any]) -> bool:
        for name, value in state.items():
            if hasattr(value, "dtype") and type(value) is not type(p):
                raise DeviceError(f'got a parameter on "{device_of(p)}" and its {name} on "{device_of(value)}", '
                                  f"expected one device; move what is remembered too, with optimizer.load_state_dict("
                                  f"optimizer.state_dict())", where=self._name)
        self.update(p, self.gradient(p, g, group), state, group)
        return True

    def gradient(self, p: Array, g: Array, group: dict[str, Any]) -> Array:
        """The g that `update` gets: -g where the aim is to maximize, plus weight_decay · p unless it is decoupled."""
        if group.get("maximize"):
            g = -g
        if group.get("weight_decay") and not group.get("decoupled_weight_decay"):
            g = g + group["weight_decay"] * p
        return as_array(g)

    def update(self, p: Array, g: Array, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Change the array `p` in place, given g (see `gradient`), the memory of p and the settings."""
        raise NotImplementedError(f"{self._name} has no update(p, g, state, group), and no step of its own")

    # -- saving --

    def state_dict(self) -> dict[str, Any]:
        """Settings and memories, with parameters numbered in the order of the groups. The memories are not copied."""
        numbers = {p: i for i, p in enumerate(p for group in self.param_groups for p in group["params"])}
        groups = [{**group, "params": [numbers[p] for p in group["params"]]} for group in self.param_groups]
        return {"state": {numbers[p]: dict(memory) for p, memory in self.state.items() if memory},
                "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned, for the same parameters in the same order."""
        where = f"{self._name}.load_state_dict"
        sizes, saved_sizes = ([len(group["params"]) for group in groups]
                              for groups in (self.param_groups, state_dict["param_groups"]))
        if sizes != saved_sizes:
            raise ShapeError(f"got groups of {saved_sizes} parameters, expected {sizes}; nothing was loaded", where)
        numbers = [int(number) for group in state_dict["param_groups"] for number in group["params"]]
        parameters = dict(zip(numbers, (p for group in self.param_groups for p in group["params"]), strict=True))
        unknown = [number for number in state_dict["state"] if int(number) not in parameters]
        if unknown:
            raise ShapeError(f"got the state of parameter {unknown[0]}, expected numbers below {len(parameters)}; "
                             f"nothing was loaded", where)
        self.param_groups = [{**ours, **copy.deepcopy(dict(theirs)), "params": ours["params"]}
                             for ours, theirs in zip(self.param_groups, state_dict["param_groups"], strict=True)]
        self.state = defaultdict(dict)
        for number, memory in state_dict["state"].items():
            p = parameters[int(number)]
            self.state[p] = {name: _copy_for(p, name, value) for name, value in memory.items()}

    def __repr__(self) -> str:
        text = f"{self._name} ("
        for i, group in enumerate(self.param_groups):
            text += f"\nParameter Group {i}\n"
            text += "".join(f"    {key}: {group[key]}\n" for key in sorted(group) if key != "params")
        return text + ")"


def zeros_at_first(state: dict[str, Any], name: str, p: Array) -> Array:
    """The array `state[name]`, which starts as zeros of the shape of p."""
    if name not in state:
        state[name] = xp_of(p).zeros_like(p)
    return state[name]


def _copy_for(p: Tensor, name: str, value: Any) -> Any:
    if not isinstance(value, Tensor):
        return copy.deepcopy(value)
    if name == "step":                                      # a tensor in PyTorch; a number can be raised to it exactly
        return value.item()
    return value.detach().to(p.device).to(p.dtype).clone()
