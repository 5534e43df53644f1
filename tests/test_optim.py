"""Optimizers and schedulers against PyTorch's, what is saved of them, what lessons write with them, bad settings."""

from __future__ import annotations

import contextlib
import copy
import inspect
import json
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidl
from minidl import nn, optim
from minidl.backend import xp_of
from minidl.errors import MinidlError, SettingError, ShapeError
from minidl.optim import lr_scheduler
from tests.helpers import f64

NAMES = ["SGD", "RMSprop", "Adagrad", "Adadelta", "Adam", "AdamW"]
ONLY_PYTORCHS = {"foreach", "fused", "capturable", "differentiable"}


# -- a hundred steps ---------------------------------------------------------------------------------------------------

@dataclass
class Run:
    """A small problem with many valleys, whose parameter `rare` has no gradient in two of three steps."""

    library: Any
    name: str
    settings: dict[str, Any]
    groups: tuple[dict[str, Any], ...] | None = None            # settings of a group for (w, b) and one for the others

    def __post_init__(self):
        draw = np.random.default_rng(3).normal
        x, target = draw(size=(8, 3)), draw(size=(8, 2))
        start = [draw(size=(3, 2)), draw(size=2), draw(size=()), draw(size=2)]
        self.x, self.target = (self.library.tensor(values) for values in (x, target))
        self.parameters = [self.library.tensor(values).requires_grad_() for values in start]
        params = self.parameters if self.groups is None else [
            {"params": self.parameters[:2], **self.groups[0]}, {"params": self.parameters[2:], **self.groups[1]}]
        self.optimizer = getattr(self.library.optim, self.name)(params, **self.settings)
        self.steps = 0

    def loss(self):
        w, b, scale, rare = self.parameters
        hidden = (self.x @ w + b).tanh() * 2
        if self.steps % 3 == 1:
            hidden = hidden + rare * rare
        return ((hidden * scale).tanh() - self.target).pow(2).mean()

    def step(self, count=1):
        for _ in range(count):
            self.optimizer.zero_grad()
            self.loss().backward()
            self.optimizer.step()
            self.steps += 1
        return self

    def values(self):
        return np.concatenate([p.detach().numpy().ravel() for p in self.parameters])


def equal_values(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-14)


def as_plain(value):
    return value.tolist() if hasattr(value, "tolist") else value


def equal_states(ours, theirs):
    """The keys are PyTorch's, the values its values."""
    started = {number: memory for number, memory in theirs["state"].items() if memory.get("step") != 0}
    assert ours["state"].keys() == started.keys()               # its Adagrad has sums before there is a gradient
    for number, memory in started.items():
        assert ours["state"][number].keys() == memory.keys()
        for name, value in memory.items():
            equal_values(as_plain(ours["state"][number][name]), as_plain(value))
    for mine, other in zip(ours["param_groups"], theirs["param_groups"], strict=True):
        assert mine == {name: value for name, value in other.items() if name not in ONLY_PYTORCHS}


SETTINGS = [
    ("SGD", {}), ("SGD", {"lr": 0.1}), ("SGD", {"lr": 0.05, "momentum": 0.9}), ("SGD", {"lr": 0.05, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True}), ("SGD", {"lr": 0.01, "momentum": 0.5, "maximize": True}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01, "maximize": True}),
    ("RMSprop", {}), ("RMSprop", {"alpha": 0.9, "eps": 1e-3}), ("RMSprop", {"centered": True}),
    ("RMSprop", {"momentum": 0.9, "lr": 1e-3}), ("RMSprop", {"maximize": True, "weight_decay": 0.1}),
    ("RMSprop", {"centered": True, "momentum": 0.5, "weight_decay": 0.1, "alpha": 0.9, "lr": 1e-3}),
    ("Adagrad", {}), ("Adagrad", {"lr": 0.5, "lr_decay": 0.1}), ("Adagrad", {"initial_accumulator_value": 0.5, "eps": 1e-3}),
    ("Adagrad", {"lr": 0.1, "weight_decay": 0.1}), ("Adagrad", {"maximize": True, "weight_decay": 0.1, "lr_decay": 0.01}),
    ("Adadelta", {}), ("Adadelta", {"rho": 0.5, "eps": 1e-3}), ("Adadelta", {"lr": 0.5, "weight_decay": 0.1}),
    ("Adadelta", {"maximize": True}),
    ("Adam", {}), ("Adam", {"lr": 0.05, "betas": (0.5, 0.9), "eps": 1e-3}), ("Adam", {"lr": 0.05, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.05, "amsgrad": True, "betas": (0.9, 0.5)}), ("Adam", {"maximize": True, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.05, "decoupled_weight_decay": True, "weight_decay": 0.5}), ("Adam", {"betas": (0.0, 0.0)}),
    ("AdamW", {}), ("AdamW", {"lr": 0.05, "weight_decay": 0.5}), ("AdamW", {"lr": 0.05, "weight_decay": 0.0}),
    ("AdamW", {"lr": 0.05, "amsgrad": True, "betas": (0.9, 0.5), "maximize": True}),
]


@pytest.mark.torch
@pytest.mark.parametrize(("name", "chosen"), SETTINGS, ids=str)
def test_a_hundred_steps_equal_pytorchs(name, chosen, torch):
    ours, theirs = Run(minidl, name, chosen), Run(torch, name, chosen)
    for count in (1, 2, 97):
        equal_values(ours.step(count).values(), theirs.step(count).values())
        equal_states(ours.optimizer.state_dict(), theirs.optimizer.state_dict())
    assert np.abs(ours.values() - Run(minidl, name, chosen).values()).min() > 1e-6         # every number has moved


OTHER_SETTINGS = {
    "SGD": ({"lr": 0.1, "momentum": 0.9}, {"weight_decay": 0.1, "momentum": 0.5, "nesterov": True}),
    "RMSprop": ({"lr": 1e-3, "momentum": 0.9}, {"centered": True, "alpha": 0.5, "maximize": True}),
    "Adagrad": ({"lr": 0.5, "lr_decay": 0.1}, {"eps": 1e-2, "weight_decay": 0.1}),
    "Adadelta": ({"lr": 0.5, "rho": 0.5}, {"eps": 1e-2, "weight_decay": 0.1}),
    "Adam": ({"lr": 0.05, "amsgrad": True}, {"betas": (0.5, 0.9), "weight_decay": 0.1}),
    "AdamW": ({"lr": 0.05, "weight_decay": 0.5}, {"betas": (0.5, 0.9), "maximize": True}),
}


@pytest.mark.torch
@pytest.mark.parametrize("name", NAMES)
def test_groups_with_settings_of_their_own_equal_pytorchs(name, torch):
    ours, theirs = (Run(library, name, {"lr": 0.01}, OTHER_SETTINGS[name]) for library in (minidl, torch))
    for run in (ours, theirs):
        run.step(30).optimizer.param_groups[1]["lr"] = 0.02                               # by hand, in mid-run
        late = run.library.ones(2, dtype=run.library.float64, requires_grad=True)
        run.optimizer.add_param_group({"params": late, "lr": 0.5})
        (late * late).sum().backward()
        run.optimizer.step()
        run.optimizer.param_groups.pop()
        run.step(70)
        run.late = late.detach().numpy()
    equal_values(ours.values(), theirs.values())
    equal_values(ours.late, theirs.late)


positive = st.floats(1e-4, 0.1)
decay = st.sampled_from([0.0, 1e-3, 0.1])
flag = st.booleans()
DRAWN = {
    "SGD": {"lr": positive, "momentum": st.floats(0, 0.95), "dampening": st.floats(0, 1), "weight_decay": decay, "maximize": flag},
    "RMSprop": {"lr": positive, "alpha": st.floats(0.1, 0.999), "eps": st.floats(1e-8, 1e-2), "weight_decay": decay,
                "momentum": st.sampled_from([0.0, 0.9]), "centered": flag, "maximize": flag},
    "Adagrad": {"lr": positive, "lr_decay": st.floats(0, 1), "weight_decay": decay, "initial_accumulator_value": st.floats(0, 1),
                "eps": st.floats(1e-10, 1e-2), "maximize": flag},
    "Adadelta": {"lr": st.floats(0.01, 2), "rho": st.floats(0.1, 0.99), "eps": st.floats(1e-7, 1e-2), "weight_decay": decay,
                 "maximize": flag},
    "Adam": {"lr": positive, "betas": st.tuples(st.floats(0, 0.99), st.floats(0, 0.999)), "eps": st.floats(1e-8, 1e-2),
             "weight_decay": decay, "amsgrad": flag, "maximize": flag, "decoupled_weight_decay": flag},
}


@pytest.mark.torch
@pytest.mark.parametrize("name", DRAWN)
@given(st.data())
@settings(max_examples=25, deadline=None, derandomize=True)
def test_drawn_settings_equal_pytorchs(name, data):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    drawn = data.draw(st.fixed_dictionaries({}, optional=DRAWN[name]))
    ours, theirs = Run(minidl, name, drawn), Run(torch, name, drawn)
    np.testing.assert_allclose(ours.step(20).values(), theirs.step(20).values(), rtol=1e-8, atol=1e-12)
    assert ours.optimizer.state_dict()["param_groups"][0].items() <= theirs.optimizer.state_dict()["param_groups"][0].items()


@pytest.mark.torch
@pytest.mark.parametrize("name", NAMES)
def test_names_order_and_defaults_are_pytorchs(name, torch):
    ours, theirs = (inspect.signature(getattr(library.optim, name)).parameters for library in (minidl, torch))
    theirs = {key: parameter.default for key, parameter in theirs.items() if key not in ONLY_PYTORCHS}
    assert {key: parameter.default for key, parameter in ours.items() if key != "others"} == theirs
    positional = [key for key, parameter in ours.items() if parameter.kind == parameter.POSITIONAL_OR_KEYWORD]
    assert positional == list(theirs)[:len(positional)]
    assert set(theirs) - set(positional) <= {"maximize", "decoupled_weight_decay"}


@pytest.mark.torch
@pytest.mark.parametrize("name", NAMES)
def test_optimizers_print_as_pytorchs_do(name, torch):
    def lines(library):
        w, b = library.ones(1, requires_grad=True), library.ones(1, requires_grad=True)
        optimizer = getattr(library.optim, name)([{"params": [("w", w)]}, {"params": [("b", b)], "lr": 0.5}])
        return repr(optimizer).split("\n")

    theirs = [line for line in lines(torch) if line.split(":")[0].strip() not in ONLY_PYTORCHS]
    assert lines(minidl) == theirs
    assert "    param_names: ['b']" in theirs


# -- what an optimizer does to its tensors -----------------------------------------------------------------------------

@pytest.mark.parametrize("name", NAMES)
def test_a_step_keeps_array_number_type_and_gradient(name):
    w = minidl.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    optimizer = getattr(optim, name)([w])
    array = w.array
    for _ in range(3):
        optimizer.zero_grad()
        (w * w).sum().backward()
        before, version, numbers = w.grad.clone(), w.version.count, array.copy()
        optimizer.step()
        assert w.array is array
        assert w.version.count > version
        assert w.grad.tolist() == before.tolist()
        assert (array < numbers).all()                              # downhill
    for value in optimizer.state[w].values():
        assert not isinstance(value, minidl.Tensor) or (value.dtype, value.shape) == (minidl.float32, (2, 2))


@pytest.mark.parametrize("name", NAMES)
def test_memory_lies_as_the_parameter_does(name):
    """A weight in channels-last order has its averages in that order; mixed orders would be slow."""
    w = minidl.tensor(np.ones((2, 3, 4, 5), "f4").transpose(0, 2, 3, 1)).permute(0, 3, 1, 2)
    w = w.detach().requires_grad_()
    optimizer = getattr(optim, name)([w], lr=0.1, **({"momentum": 0.9} if name == "SGD" else {}))
    (w * w).sum().backward()
    optimizer.step()
    memories = [value.array.strides for value in optimizer.state[w].values() if isinstance(value, minidl.Tensor)]
    assert memories
    assert set(memories) == {w.array.strides}


@pytest.mark.parametrize("name", NAMES)
def test_the_strict_device_computes_the_same(name):
    def run(device):
        w = minidl.tensor([1.0, -2.0, 3.0], device=device).requires_grad_()
        optimizer = getattr(optim, name)([w], lr=0.1, **OTHER_SETTINGS[name][1])
        for _ in range(5):
            optimizer.zero_grad()
            (w * w).sum().backward()
            optimizer.step()
            twin = getattr(optim, name)([w], lr=0.5)
            twin.load_state_dict(optimizer.state_dict())
            optimizer = twin
        return w.tolist()

    assert run("fake") == run("cpu")


def test_a_constant_gradient_leaves_centered_rmsprop_finite():
    """v - m² is 0 in the end, and rounds to less."""
    w = f64([0.0] * 50)
    optimizer = optim.RMSprop([w], alpha=0.1, centered=True)
    w.grad = minidl.tensor(np.linspace(0.1, 5, 50))
    for _ in range(60):
        optimizer.step()
    assert np.isfinite(w.detach().numpy()).all()


def test_a_diverging_run_gives_no_warnings():
    w = minidl.tensor([1.0], requires_grad=True)
    optimizer = optim.SGD([w], lr=1e38)
    for _ in range(3):
        (w * 1e3).sum().backward()
        optimizer.step()
    assert not np.isfinite(w.item())


def test_a_rate_may_be_a_tensor_of_one_number():
    w = f64([1.0])
    assert optim.SGD([w], lr=minidl.tensor(0.5)).param_groups[0]["lr"] == 0.5


# -- saving ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("name", "chosen"), SETTINGS, ids=str)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(name, chosen):
    whole = Run(minidl, name, chosen).step(20)
    first = Run(minidl, name, chosen).step(11)
    second = Run(minidl, name, {"lr": 0.7})
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    second.steps = first.steps
    for p, q in zip(second.parameters, first.parameters, strict=True):
        p.data = q.detach().clone()
    first.step(5)                                                   # changes nothing in the second
    second.step(9)
    assert second.values().tolist() == whole.values().tolist()
    assert repr(second.optimizer) == repr(whole.optimizer)


@pytest.mark.torch
@pytest.mark.parametrize("name", NAMES)
def test_a_state_that_pytorch_wrote_is_continued(name, torch):
    """Steps are tensors there, and there are settings that are not here."""
    theirs = Run(torch, name, OTHER_SETTINGS[name][0] | {"lr": 0.01}).step(10)
    saved = copy.deepcopy(theirs.optimizer.state_dict())
    for memory in saved["state"].values():
        memory.update({key: minidl.tensor(value.numpy()) for key, value in memory.items()})
    ours = Run(minidl, name, {})
    ours.optimizer.load_state_dict(saved)
    ours.steps = theirs.steps
    for p, q in zip(ours.parameters, theirs.parameters, strict=True):
        p.data = minidl.tensor(q.detach().numpy().copy())
    equal_values(ours.step(30).values(), theirs.step(30).values())


def test_states_go_to_the_number_type_of_the_parameter():
    run = Run(minidl, "Adam", {}).step(2)
    single = [minidl.tensor(p.detach().numpy().astype("f4")).requires_grad_() for p in run.parameters]
    optimizer, saved = optim.Adam(single), copy.deepcopy(run.optimizer.state_dict())
    saved["state"][0]["step"] = minidl.tensor(2.0)                  # as PyTorch has it
    optimizer.load_state_dict(saved)
    memory = optimizer.state[single[0]]
    assert memory["exp_avg"].dtype == minidl.float32
    assert memory["step"] == 2
    assert not isinstance(memory["step"], minidl.Tensor)            # β ** step would be rounded to float32


def test_adamw_stays_decoupled_with_a_state_of_adam():
    run, w = Run(minidl, "Adam", {"weight_decay": 0.1}).step(2), Run(minidl, "AdamW", {})
    w.optimizer.load_state_dict(run.optimizer.state_dict())
    assert (w.optimizer.param_groups[0]["decoupled_weight_decay"], w.optimizer.param_groups[0]["weight_decay"]) == (True, 0.1)


def test_an_older_state_without_a_setting_leaves_it_as_it_is():
    run = Run(minidl, "Adam", {"amsgrad": True})
    saved = run.optimizer.state_dict()
    del saved["param_groups"][0]["amsgrad"]
    run.optimizer.load_state_dict(saved)
    assert run.optimizer.param_groups[0]["amsgrad"] is True


def test_numbers_as_words_as_in_a_json_file():
    run, other = Run(minidl, "SGD", {"momentum": 0.9}).step(2), Run(minidl, "SGD", {})
    saved = run.optimizer.state_dict()
    other.optimizer.load_state_dict({**saved, "state": {str(number): memory for number, memory in saved["state"].items()}})
    assert other.optimizer.state_dict()["state"].keys() == saved["state"].keys()


@pytest.mark.parametrize("change", [
    lambda saved: saved["param_groups"].pop(), lambda saved: saved["state"].update({9: {"step": 3}}),
    lambda saved: saved["param_groups"][0]["params"].pop(),
], ids=["a group less", "a parameter that is not there", "a parameter less"])
def test_a_state_that_does_not_fit_changes_nothing(change):
    run = Run(minidl, "Adam", {}).step(2)
    before, saved = copy.deepcopy(run.optimizer.state_dict()), copy.deepcopy(run.optimizer.state_dict())
    change(saved)
    with pytest.raises(ShapeError, match="nothing was loaded"):
        run.optimizer.load_state_dict(saved)
    after = run.optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"]
    assert str(after["state"]) == str(before["state"])


def test_a_deep_copy_trains_on_its_own():
    model = nn.Linear(2, 1)
    optimizer = optim.Adam(model.parameters(), lr=0.1)

    def step(model, optimizer):
        optimizer.zero_grad()
        model(minidl.ones(3, 2)).sum().backward()
        optimizer.step()
        return model.weight.tolist()

    step(model, optimizer)
    twin, its_optimizer = copy.deepcopy((model, optimizer))
    before = model.weight.tolist()
    moved = step(twin, its_optimizer)
    assert model.weight.tolist() == before
    assert step(model, optimizer) == moved


# -- what lessons write ------------------------------------------------------------------------------------------------

def lesson_optimizer(library):
    class MySGD(library.optim.Optimizer):
        def __init__(self, params, lr):
            super().__init__(params, {"lr": lr})

        def step(self):
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        p.data -= group["lr"] * p.grad
    return MySGD


def momentum_optimizer(library):
    class Momentum(library.optim.Optimizer):
        """State in tensors, no setting called lr."""

        def __init__(self, params, rate=0.1, mu=0.9):
            super().__init__(params, {"rate": rate, "mu": mu})

        @library.no_grad()
        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is None:
                        continue
                    state = self.state[p]
                    if len(state) == 0:
                        state["step"], state["v"] = 0, library.zeros_like(p)
                    state["step"] += 1
                    state["v"].mul_(group["mu"]).add_(p.grad)
                    p.add_(-group["rate"] * state["v"])
    return Momentum


@pytest.mark.torch
@pytest.mark.parametrize(("make", "arguments"), [(lesson_optimizer, (0.1,)), (momentum_optimizer, ())], ids=["MySGD", "Momentum"])
def test_an_optimizer_written_for_pytorch_works(make, arguments, torch):
    ours, theirs = Run(minidl, "SGD", {}), Run(torch, "SGD", {})
    for run in (ours, theirs):
        run.optimizer = make(run.library)(run.parameters, *arguments)
        run.step(10)
        saved = copy.deepcopy(run.optimizer.state_dict())
        run.optimizer = make(run.library)(run.parameters, *arguments)
        run.optimizer.load_state_dict(saved)
        run.step(10)
    equal_values(ours.values(), theirs.values())
    equal_states(ours.optimizer.state_dict(), theirs.optimizer.state_dict())
    assert repr(ours.optimizer) == repr(theirs.optimizer)


def test_an_optimizer_of_ones_own_is_a_formula():
    class Sign(optim.Optimizer):
        def __init__(self, params, lr, weight_decay=0.0):
            super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "maximize": True})

        def update(self, p, g, state, group):
            state["sum"] = state.get("sum", 0) + g              # a new array, not in place
            p -= group["lr"] * np.sign(state["sum"])

    w = f64([1.0, -1.0])
    optimizer = Sign([w], lr=0.25, weight_decay=3.0)
    (w * 2).sum().backward()
    optimizer.step()                                            # g = -2 + 3 w
    optimizer.step()
    assert w.tolist() == [1 - 0.5, -1 + 0.5]
    assert optimizer.state[w]["sum"].tolist() == [1 + 0.25, -5 - 4.25]


def test_a_formula_gets_arrays_also_for_a_single_number():
    class Recorded(optim.Optimizer):
        def update(self, p, g, state, group):
            state["kinds"] = (xp_of(p), xp_of(g))

    w = f64(2.0)
    (w * 3).backward()
    for settings_ in ({}, {"weight_decay": 0.1}, {"maximize": True}):
        optimizer = Recorded([w], settings_)
        optimizer.step()
        assert optimizer.state[w]["kinds"] == (np, np)


def test_the_memory_of_a_parameter_is_a_dict_of_tensors():
    run = Run(minidl, "Adam", {}).step(1)
    w = run.parameters[0]
    assert run.optimizer.state[w]["exp_avg"].pow(2).sum().item() > 0
    assert run.optimizer.state[f64([1.0])] == {}
    before = run.optimizer.state[w]["exp_avg"]
    run.step(1)
    assert before.tolist() == run.optimizer.state[w]["exp_avg"].tolist()     # the same memory, as in PyTorch


def test_named_parameters_keep_their_names():
    model = nn.Linear(2, 1)
    optimizer = optim.SGD(model.named_parameters(), lr=0.1)
    assert optimizer.param_groups[0]["params"] == list(model.parameters())
    assert optimizer.param_groups[0]["param_names"] == ["weight", "bias"]
    unnamed = optim.SGD(model.parameters(), lr=0.1)
    optimizer.load_state_dict(unnamed.state_dict())
    assert optimizer.param_groups[0]["param_names"] == ["weight", "bias"]
    grouped = optim.SGD([{"params": model.named_parameters(), "lr": 0.5}], lr=0.1)
    assert grouped.state_dict()["param_groups"][0]["param_names"] == ["weight", "bias"]


def test_groups_that_were_given_are_left_alone():
    given, defaults = {"params": [f64([1.0])]}, {"lr": 0.5}
    optimizer = optim.Optimizer([given], defaults)
    optimizer.param_groups[0]["lr"] = 2
    assert given.keys() == {"params"}
    assert defaults == {"lr": 0.5}


def test_pytorchs_ways_to_compute_may_be_named_and_off():
    optimizer = optim.Adam([f64([1.0])], foreach=None, fused=False, capturable=False, differentiable=False)
    assert not ONLY_PYTORCHS & optimizer.param_groups[0].keys()


# -- bad input ---------------------------------------------------------------------------------------------------------

@dataclass
class Row:
    call: Callable[[], Any]
    message: str


W, V = f64([1.0]), f64([2.0])


def sgd(**chosen):
    return optim.SGD([W], lr=0.1, **chosen)


BAD = {
    "a misspelled setting": Row(lambda: sgd(momentun=0.9), "SGD: got a setting 'momentun', expected one of lr, momentum"),
    "fused": Row(lambda: optim.Adam([W], fused=True), "Adam: got fused=True, expected None or False"),
    "differentiable": Row(lambda: sgd(differentiable=True), "SGD: got differentiable=True"),
    "a negative rate": Row(lambda: optim.Adagrad([W], lr=-1), "Adagrad: got lr=-1, expected a positive number"),
    "an infinite rate": Row(lambda: optim.SGD([W], lr=float("inf")), "SGD: got lr=inf, expected a positive number"),
    "a rate in words": Row(lambda: optim.AdamW([W], lr="fast"), "AdamW: got lr=fast, expected a positive number"),
    "a bad rate of a group": Row(lambda: optim.SGD([{"params": [W], "lr": 0}], lr=1), "SGD: got lr=0"),
    "a bad setting of a group": Row(lambda: optim.Adam([{"params": [W], "eps": -1}]), "Adam: got eps=-1, expected 0 or more"),
    "a negative eps": Row(lambda: optim.Adadelta([W], eps=-1e-3), "Adadelta: got eps=-0.001, expected 0 or more"),
    "an eps that is nan": Row(lambda: optim.Adam([W], eps=float("nan")), "Adam: got eps=nan, expected 0 or more"),
    "a negative weight decay": Row(lambda: optim.AdamW([W], weight_decay=-1), "AdamW: got weight_decay=-1, expected 0 or more"),
    "a negative lr_decay": Row(lambda: optim.Adagrad([W], lr_decay=-1), "Adagrad: got lr_decay=-1"),
    "a negative start": Row(lambda: optim.Adagrad([W], initial_accumulator_value=-1), "Adagrad: got initial_accumulator_value=-1"),
    "a negative momentum": Row(lambda: optim.RMSprop([W], momentum=-0.5), "RMSprop: got momentum=-0.5"),
    "an alpha above 1": Row(lambda: optim.RMSprop([W], alpha=1.1), "RMSprop: got alpha=1.1, expected 0 to 1"),
    "a rho below 0": Row(lambda: optim.Adadelta([W], rho=-0.1), "Adadelta: got rho=-0.1, expected 0 to 1"),
    "three betas": Row(lambda: optim.Adam([W], betas=(0.9, 0.9, 0.9)), "Adam: got betas=(0.9, 0.9, 0.9), expected two numbers"),
    "one beta": Row(lambda: optim.AdamW([W], betas=0.9), "AdamW: got betas=0.9, expected two numbers from 0 to below 1"),
    "nesterov without momentum": Row(lambda: sgd(nesterov=True), "SGD: got nesterov=True with momentum=0, dampening=0, expected"),
    "nesterov with dampening": Row(lambda: sgd(nesterov=True, momentum=0.9, dampening=0.1), "SGD: got nesterov=True with momentum=0.9"),
    "a model": Row(lambda: optim.SGD(nn.Linear(1, 1)), "SGD: got a Linear, expected a list of parameters; use model.parameters()"),
    "layers": Row(lambda: optim.SGD(nn.Sequential(nn.Linear(1, 1))), "SGD: got Linear among the parameters, expected tensors"),
    "a state dict": Row(lambda: optim.SGD(nn.Linear(1, 1).state_dict()), "SGD: got a OrderedDict, expected a list of parameters"),
    "a set": Row(lambda: optim.SGD({W, V}), "SGD: got a set, expected a list of parameters"),
    "a tensor": Row(lambda: optim.SGD(W), "SGD: got a tensor, expected a list of them; use [x]"),
    "a group without parameters": Row(lambda: sgd().add_param_group({"lr": 1}), "SGD.add_param_group: got dict, expected a dict with"),
    "a group that is a list": Row(lambda: sgd().add_param_group([V]), "SGD.add_param_group: got list, expected a dict with"),
    "a parameter again": Row(lambda: sgd().add_param_group({"params": W}), "SGD: got the same parameter in two groups"),
    "some names": Row(lambda: optim.SGD([("w", W), V]), "SGD: got parameters with and without names, expected one or the other"),
    "a group with names": Row(lambda: sgd().add_param_group({"params": [("v", V)]}), "SGD: got parameters with and without names"),
    # -- schedulers --
    "no optimizer": Row(lambda: lr_scheduler.StepLR(nn.Linear(1, 1), 3), "StepLR: got a Linear, expected an optimizer"),
    "no optimizer, of a cycle": Row(lambda: lr_scheduler.OneCycleLR(W, 1, 9), "OneCycleLR: got a Tensor, expected an optimizer"),
    "resumed without a state": Row(lambda: lr_scheduler.StepLR(sgd(), 3, last_epoch=4),
                                   "StepLR: got last_epoch=4 and an optimizer that had no schedule, expected initial_lr in its groups"),
    "no step": Row(lambda: lr_scheduler.StepLR(sgd(), 0), "StepLR: got step_size=0, expected a positive integer"),
    "no T_max": Row(lambda: lr_scheduler.CosineAnnealingLR(sgd(), 0), "CosineAnnealingLR: got T_max=0, expected a positive integer"),
    "half a T_0": Row(lambda: lr_scheduler.CosineAnnealingWarmRestarts(sgd(), 1.5), "CosineAnnealingWarmRestarts: got T_0=1.5"),
    "a T_mult of 0": Row(lambda: lr_scheduler.CosineAnnealingWarmRestarts(sgd(), 1, 0), "CosineAnnealingWarmRestarts: got T_mult=0"),
    "an epoch before the first": Row(lambda: lr_scheduler.CosineAnnealingWarmRestarts(sgd(), 1).step(-1),
                                     "CosineAnnealingWarmRestarts: got epoch=-1, expected 0 or more"),
    "a factor above 1": Row(lambda: lr_scheduler.ConstantLR(sgd(), 2), "ConstantLR: got factor=2, expected above 0 and at most 1"),
    "a constant for no time": Row(lambda: lr_scheduler.ConstantLR(sgd(), total_iters=0), "ConstantLR: got total_iters=0, expected a positive integer"),
    "a start of 0": Row(lambda: lr_scheduler.LinearLR(sgd(), 0), "LinearLR: got start_factor=0, expected above 0 and at most 1"),
    "an end above 1": Row(lambda: lr_scheduler.LinearLR(sgd(), end_factor=2), "LinearLR: got end_factor=2, expected 0 to 1"),
    "no iterations": Row(lambda: lr_scheduler.LinearLR(sgd(), total_iters=0), "LinearLR: got total_iters=0"),
    "no iterations of a polynomial": Row(lambda: lr_scheduler.PolynomialLR(sgd(), 0), "PolynomialLR: got total_iters=0"),
    "two functions": Row(lambda: lr_scheduler.LambdaLR(sgd(), [abs, abs]), "LambdaLR: got 2 values of lr_lambda, expected one for each of 1"),
    "a number for a function": Row(lambda: lr_scheduler.LambdaLR(sgd(), 0.5), "LambdaLR: got lr_lambda=0.5, expected a function"),
    "a plateau's factor of 1": Row(lambda: lr_scheduler.ReduceLROnPlateau(sgd(), factor=1), "ReduceLROnPlateau: got factor=1, expected 0 to below 1"),
    "a plateau's mode": Row(lambda: lr_scheduler.ReduceLROnPlateau(sgd(), "loss"), "ReduceLROnPlateau: got mode='loss', expected 'min' or 'max'"),
    "a threshold mode": Row(lambda: lr_scheduler.ReduceLROnPlateau(sgd(), threshold_mode="x"), "got threshold_mode='x', expected 'rel' or 'abs'"),
    "two least rates": Row(lambda: lr_scheduler.ReduceLROnPlateau(sgd(), min_lr=[0, 0]), "got 2 values of min_lr, expected one for each of 1"),
    "a cycle of no length": Row(lambda: lr_scheduler.OneCycleLR(sgd(), 1), "OneCycleLR: got total_steps=0, epochs=None, steps_per_epoch=None"),
    "a cycle of half a step": Row(lambda: lr_scheduler.OneCycleLR(sgd(), 1, 1.5), "OneCycleLR: got total_steps=1.5"),
    "a share above 1": Row(lambda: lr_scheduler.OneCycleLR(sgd(), 1, 9, pct_start=30), "OneCycleLR: got pct_start=30, expected 0 to 1"),
    "a strategy": Row(lambda: lr_scheduler.OneCycleLR(sgd(), 1, 9, anneal_strategy="sin"), "got anneal_strategy='sin', expected 'cos' or 'linear'"),
    "two highest rates": Row(lambda: lr_scheduler.OneCycleLR(sgd(), [1, 2], 9), "OneCycleLR: got 2 values of max_lr"),
    "no momentum to cycle": Row(lambda: lr_scheduler.OneCycleLR(optim.Adagrad([W]), 1, 9),
                                "OneCycleLR: got cycle_momentum=True for Adagrad, which has no momentum, expected cycle_momentum=False"),
    "schedulers of another optimizer": Row(lambda: lr_scheduler.SequentialLR(sgd(), [lr_scheduler.StepLR(sgd(), 3)], []),
                                           "SequentialLR: got a StepLR of another optimizer, expected schedulers of this one"),
    "a plateau in a row": Row(lambda: lr_scheduler.SequentialLR(sgd(), [lr_scheduler.ReduceLROnPlateau(sgd())], []),
                              "SequentialLR: got a ReduceLROnPlateau, expected schedulers that need to be told nothing"),
    "too many milestones": Row(lambda: in_sequence(sgd(), 1, [3]), "SequentialLR: got 1 schedulers and 1 milestones"),
    "milestones out of order": Row(lambda: in_sequence(sgd(), 3, [5, 3]), "SequentialLR: got milestones=[5, 3], expected them in increasing order"),
    "no schedulers": Row(lambda: in_sequence(sgd(), 0, []), "SequentialLR: got 0 schedulers and 0 milestones"),
    "the state of another scheduler": Row(lambda: lr_scheduler.StepLR(sgd(), 3).load_state_dict(lr_scheduler.ExponentialLR(sgd(), 0.5).state_dict()),
                                          "StepLR: got a state without step_size, expected one of this kind of scheduler; nothing was loaded"),
}


def in_sequence(optimizer, count, milestones):
    return lr_scheduler.SequentialLR(optimizer, [lr_scheduler.StepLR(optimizer, 3) for _ in range(count)], milestones)


@pytest.mark.parametrize("row", BAD.values(), ids=BAD)
def test_bad_settings_get_one_sentence(row):
    with pytest.raises(SettingError) as caught:
        row.call()
    assert row.message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert W.tolist() == [1.0]


def test_a_bad_group_is_not_added():
    optimizer = sgd()
    for bad in ({"params": [V], "lr": -1}, {"params": [V], "momentum": -1}, {"params": [V, W]}, {"params": [V * 2]}):
        with pytest.raises(SettingError):
            optimizer.add_param_group(bad)
    assert len(optimizer.param_groups) == 1


def test_a_bad_cycle_leaves_the_groups_alone():
    optimizer = sgd()
    before = dict(optimizer.param_groups[0])
    for bad in ({"pct_start": 2}, {"anneal_strategy": "x"}, {"base_momentum": [1, 2]}, {"max_momentum": [1, 2]}):
        with pytest.raises(SettingError):
            lr_scheduler.OneCycleLR(optimizer, 1, 9, **bad)
    assert optimizer.param_groups[0] == before


def test_a_step_after_the_cycle_changes_nothing():
    optimizer = sgd(momentum=0.9)
    scheduler = lr_scheduler.OneCycleLR(optimizer, 1.0, 3)
    optimizer.step()
    for _ in range(3):
        scheduler.step()
    state, group = copy.deepcopy(scheduler.state_dict()), dict(optimizer.param_groups[0])
    with pytest.raises(SettingError, match=r"OneCycleLR: got step 4, expected no more than total_steps=3"):
        scheduler.step()
    assert (scheduler.state_dict(), optimizer.param_groups[0]) == (state, group)


@pytest.mark.parametrize(("place", "name", "part"), [
    (optim, "LBFGS", "minidl.optim has no 'LBFGS'; use SGD with momentum, or write one"),
    (optim, "NAdam", "the nearest is 'Adam'"), (optim, "Adagrab", "the nearest is 'Adagrad'"), (optim, "SparseAdam", "use 'Adam'"),
    (lr_scheduler, "CyclicLR", "minidl.optim.lr_scheduler has no 'CyclicLR'; the nearest is 'OneCycleLR'"),
    (lr_scheduler, "CosineAnnealing", "the nearest is 'CosineAnnealingLR'"),
])
def test_a_name_that_is_not_there(place, name, part):
    with pytest.raises(AttributeError) as caught:
        getattr(place, name)
    assert part in str(caught.value)
    assert not hasattr(place, name)


def test_all_names_are_there():
    for place in (optim, lr_scheduler):
        for name in place.__all__:
            assert getattr(place, name).__doc__
    assert issubclass(lr_scheduler._LRScheduler, lr_scheduler.LRScheduler)


def test_a_subclass_without_a_formula_says_so():
    class Empty(optim.Optimizer):
        pass

    (W * 1).sum().backward()
    with pytest.raises(NotImplementedError, match="Empty has no update"):
        Empty([W], {}).step()
    W.grad = None


# -- schedules ---------------------------------------------------------------------------------------------------------

def without_addresses(value):
    """As `str`, but the same in every process, so that tests can be spread over several."""
    return re.sub(r"<function (\w+) at 0x\w+>", r"\1", str(value))


def half(epoch):
    return 0.5 + 0.5 / (epoch + 1)


def slowly(epoch):
    return 0.97


SCHEDULES = {
    "StepLR": [{"step_size": 7}, {"step_size": 1, "gamma": 0.9}, {"step_size": 100}],
    "MultiStepLR": [{"milestones": [5, 20, 21]}, {"milestones": [30, 10, 10], "gamma": 0.5}, {"milestones": [0, 3], "gamma": 0.7}, {"milestones": []}],
    "ConstantLR": [{}, {"factor": 0.5, "total_iters": 12}, {"factor": 1.0}],
    "LinearLR": [{}, {"start_factor": 0.01, "total_iters": 30}, {"start_factor": 1.0, "end_factor": 0.1, "total_iters": 59}, {"total_iters": 1}],
    "PolynomialLR": [{}, {"total_iters": 40, "power": 2.0}, {"total_iters": 100, "power": 0.9}],
    "ExponentialLR": [{"gamma": 0.9}, {"gamma": 1.05}],
    "LambdaLR": [{"lr_lambda": half}, {"lr_lambda": [half, slowly]}],
    "MultiplicativeLR": [{"lr_lambda": slowly}, {"lr_lambda": [slowly, half]}],
    "CosineAnnealingLR": [{"T_max": 60}, {"T_max": 10}, {"T_max": 7, "eta_min": 1e-3}, {"T_max": 1}, {"T_max": 200, "eta_min": 0.01}],
    "CosineAnnealingWarmRestarts": [{"T_0": 10}, {"T_0": 3, "T_mult": 2, "eta_min": 1e-3}, {"T_0": 1, "T_mult": 3}, {"T_0": 100}],
    "OneCycleLR": [
        {"max_lr": 1.0, "total_steps": 61}, {"max_lr": [1.0, 0.5], "epochs": 7, "steps_per_epoch": 10}, {"max_lr": 0.5, "total_steps": 61, "three_phase": True},
        {"max_lr": 1.0, "total_steps": 61, "anneal_strategy": "linear", "base_momentum": 0.5, "max_momentum": [0.8, 0.9]},
        {"max_lr": 1.0, "total_steps": 70, "anneal_strategy": "linear", "three_phase": True, "pct_start": 0.4},
        {"max_lr": 1.0, "total_steps": 61, "div_factor": 5.0, "final_div_factor": 10.0, "pct_start": 0.01, "cycle_momentum": False},
        {"max_lr": 1.0, "total_steps": 60, "pct_start": 0.5},
    ],
}
SCHEDULE_ROWS = [(name, chosen) for name, rows in SCHEDULES.items() for chosen in rows]
OPTIMIZERS = {
    "SGD": lambda library, params: library.optim.SGD(params, lr=0.1, momentum=0.9),
    "Adam": lambda library, params: library.optim.Adam(params, lr=0.1, betas=(0.8, 0.99)),
}


def new_optimizer(library, kind="SGD"):
    """With two groups of different rates."""
    a, b = (library.ones(1, dtype=library.float64, requires_grad=True) for _ in range(2))
    return OPTIMIZERS[kind](library, [{"params": [a]}, {"params": [b], "lr": 0.03}])


def schedule(library, name):
    return getattr(library.optim.lr_scheduler, name)


def rates(optimizer, *schedulers, epochs=60, at=lambda epoch, optimizer: None):
    """What each group is set to in each epoch: rate and momentum, or betas."""
    seen = []
    for epoch in range(epochs):
        groups = optimizer.param_groups
        seen.append([value for group in groups for value in (group["lr"], *(group["betas"] if "betas" in group else [group["momentum"]]))])
        for scheduler in schedulers:
            assert scheduler.get_last_lr() == [group["lr"] for group in groups] or len(schedulers) > 1
        at(epoch, optimizer)
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return np.array(seen)


def equal_rates(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-16)


@pytest.mark.torch
@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize(("name", "chosen"), SCHEDULE_ROWS, ids=without_addresses)
def test_sixty_rates_equal_pytorchs(name, chosen, kind, torch):
    ours, theirs = (rates(optimizer := new_optimizer(library, kind), schedule(library, name)(optimizer, **chosen)) for library in (minidl, torch))
    equal_rates(ours, theirs)


@pytest.mark.torch
@pytest.mark.parametrize(("name", "chosen"), SCHEDULE_ROWS, ids=without_addresses)
def test_names_and_defaults_of_schedulers_are_pytorchs(name, chosen, torch):
    ours, theirs = (inspect.signature(schedule(library, name)).parameters for library in (minidl, torch))
    assert [(key, p.default) for key, p in ours.items()] == [(key, p.default) for key, p in theirs.items()]


def state_of(optimizer, scheduler):
    return copy.deepcopy((optimizer.state_dict(), scheduler.state_dict()))


@pytest.mark.parametrize(("name", "chosen"), SCHEDULE_ROWS, ids=without_addresses)
def test_a_resumed_schedule_goes_on_bit_for_bit(name, chosen):
    optimizer = new_optimizer(minidl)
    scheduler = schedule(minidl, name)(optimizer, **chosen)
    whole = rates(optimizer, scheduler)
    optimizer = new_optimizer(minidl)
    scheduler = schedule(minidl, name)(optimizer, **chosen)
    first = rates(optimizer, scheduler, epochs=23)
    saved = state_of(optimizer, scheduler)
    optimizer = new_optimizer(minidl)
    scheduler = schedule(minidl, name)(optimizer, **chosen)
    optimizer.load_state_dict(saved[0])
    scheduler.load_state_dict(saved[1])
    assert state_of(optimizer, scheduler) == saved
    second = rates(optimizer, scheduler, epochs=37)
    assert np.concatenate([first, second]).tolist() == whole.tolist()
    json.dumps(saved[1])                                            # no functions, no tensors: any file can hold it


def test_a_loaded_schedule_has_a_state_of_its_own():
    first, second = (lr_scheduler.MultiStepLR(new_optimizer(minidl), [3]) for _ in range(2))
    second.load_state_dict(first.state_dict())
    first.milestones.append(5)
    assert second.milestones == [3]


@pytest.mark.torch
@pytest.mark.parametrize("pair", [
    (("ExponentialLR", {"gamma": 0.95}), ("MultiStepLR", {"milestones": [10, 40]})), (("LinearLR", {"total_iters": 10}), ("ExponentialLR", {"gamma": 0.9})),
    (("CosineAnnealingLR", {"T_max": 20, "eta_min": 1e-4}), ("StepLR", {"step_size": 9, "gamma": 0.5})), (("ConstantLR", {}), ("PolynomialLR", {"total_iters": 50})),
    (("StepLR", {"step_size": 10}), ("MultiplicativeLR", {"lr_lambda": slowly})), (("CosineAnnealingLR", {"T_max": 5}), ("LinearLR", {"total_iters": 30})),
], ids=lambda pair: "+".join(name for name, _ in pair))
def test_two_schedulers_on_one_optimizer_equal_pytorchs(pair, torch):
    seen = []
    for library in (minidl, torch):
        optimizer = new_optimizer(library)
        seen.append(rates(optimizer, *[schedule(library, name)(optimizer, **chosen) for name, chosen in pair]))
    equal_rates(*seen)


@pytest.mark.torch
@pytest.mark.parametrize(("name", "chosen"), SCHEDULE_ROWS, ids=without_addresses)
def test_a_rate_changed_by_hand_equals_pytorchs(name, chosen, torch):
    def change(epoch, optimizer):
        if epoch in (4, 31):
            optimizer.param_groups[0]["lr"] = 0.5 + epoch

    seen = []
    for library in (minidl, torch):
        optimizer = new_optimizer(library)
        seen.append(rates(optimizer, schedule(library, name)(optimizer, **chosen), at=change))
    equal_rates(*seen)


@pytest.mark.torch
def test_fractions_of_an_epoch_equal_pytorchs(torch):
    seen = []
    for library in (minidl, torch):
        optimizer = new_optimizer(library)
        scheduler = library.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 2, 2, 1e-3)
        optimizer.step()
        seen.append([(scheduler.step(batch / 4), scheduler.get_last_lr(), scheduler.last_epoch)[1:] for batch in range(80)])
    equal_rates([rate for rate, _ in seen[0]], [rate for rate, _ in seen[1]])
    assert [epoch for _, epoch in seen[0]] == [epoch for _, epoch in seen[1]]


@pytest.mark.torch
@pytest.mark.parametrize("second", ["CosineAnnealingLR", "CosineAnnealingWarmRestarts", "ExponentialLR", "LambdaLR"])
@pytest.mark.parametrize("milestones", [[20], [1], [5, 30], [0]], ids=str)
def test_schedulers_in_sequence_equal_pytorchs(milestones, second, torch):
    def build(library):
        optimizer, kinds = new_optimizer(library), library.optim.lr_scheduler
        rows = [kinds.LinearLR(optimizer, 0.1, total_iters=20), getattr(kinds, second)(optimizer, **SCHEDULES[second][0]), kinds.StepLR(optimizer, 4)]
        return optimizer, kinds.SequentialLR(optimizer, rows[:len(milestones) + 1], milestones)

    whole = rates(*build(minidl))
    equal_rates(whole, rates(*build(torch)))
    optimizer, scheduler = build(minidl)
    first = rates(optimizer, scheduler, epochs=23)
    saved = state_of(optimizer, scheduler)
    optimizer, scheduler = build(minidl)
    optimizer.load_state_dict(saved[0])
    scheduler.load_state_dict(saved[1])
    assert np.concatenate([first, rates(optimizer, scheduler, epochs=37)]).tolist() == whole.tolist()


def test_a_sequence_that_does_not_fit_is_not_loaded():
    def make(*kinds):
        optimizer = new_optimizer(minidl)
        return lr_scheduler.SequentialLR(optimizer, [kind(optimizer) for kind in kinds], list(range(1, len(kinds))))

    linear, constant, polynomial = lr_scheduler.LinearLR, lr_scheduler.ConstantLR, lr_scheduler.PolynomialLR
    ours = make(linear, linear)
    before = copy.deepcopy(ours.state_dict())
    for other in (make(linear, constant), make(linear, linear, linear), make(polynomial, linear)):
        other.optimizer.step()
        other.step()
        with pytest.raises(SettingError, match="nothing was loaded"):
            ours.load_state_dict(other.state_dict())
        assert ours.state_dict() == before


def test_sequences_in_a_sequence():
    optimizer = new_optimizer(minidl)
    inner = lr_scheduler.SequentialLR(optimizer, [lr_scheduler.ConstantLR(optimizer, 0.5, 100), lr_scheduler.ConstantLR(optimizer, 0.25, 100)], [2])
    scheduler = lr_scheduler.SequentialLR(optimizer, [lr_scheduler.ConstantLR(optimizer, 1, 100), inner], [3])
    seen = rates(optimizer, scheduler, epochs=7)[:, 0]
    np.testing.assert_allclose(seen, [0.1, 0.1, 0.1, 0.05, 0.05, 0.025, 0.025])


@pytest.mark.torch
@pytest.mark.parametrize("chosen", [
    {"patience": 2}, {"mode": "max", "patience": 1, "factor": 0.5}, {"threshold": 0.05, "patience": 1}, {"threshold_mode": "abs", "threshold": 0.05, "patience": 1},
    {"mode": "max", "threshold_mode": "abs", "threshold": 0.1, "patience": 0}, {"mode": "max", "threshold": 0.1, "patience": 2},
    {"cooldown": 4, "patience": 1, "factor": 0.7}, {"min_lr": 0.01, "patience": 0}, {"min_lr": [0.02, 0.001], "patience": 0}, {"eps": 0.01, "patience": 0}, {},
], ids=str)
def test_reductions_on_a_plateau_equal_pytorchs(chosen, torch):
    metrics = np.exp(-np.arange(60) / 20) + np.random.default_rng(1).normal(size=60) * 0.05
    metrics[30] = np.nan

    def run(library, resume_at=None):
        optimizer = new_optimizer(library)
        scheduler, seen = library.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **chosen), []
        for epoch, metric in enumerate(metrics):
            if epoch == resume_at:
                saved = state_of(optimizer, scheduler)
                optimizer = new_optimizer(library)
                scheduler = library.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **chosen)
                optimizer.load_state_dict(saved[0])
                scheduler.load_state_dict(saved[1])
            scheduler.step(library.tensor(metric) if epoch % 2 else metric)
            assert scheduler.get_last_lr() == [group["lr"] for group in optimizer.param_groups]
            seen.append([*scheduler.get_last_lr(), scheduler.best, scheduler.num_bad_epochs, scheduler.cooldown_counter, scheduler.in_cooldown])
        return np.array(seen, dtype=float)

    ours = run(minidl)
    equal_rates(ours, run(torch))
    assert run(minidl, resume_at=33).tolist() == ours.tolist()
    assert chosen == {} or len(set(ours[:, 0])) > 1                   # the rate has come down
    ours, theirs = (inspect.signature(library.optim.lr_scheduler.ReduceLROnPlateau).parameters for library in (minidl, torch))
    assert [(key, p.default) for key, p in ours.items()] == [(key, p.default) for key, p in theirs.items()]


def test_a_plateau_lowers_groups_that_came_later():
    optimizer = new_optimizer(minidl)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0, min_lr=0.04)
    optimizer.add_param_group({"params": [f64([1.0])], "lr": 1.0})
    scheduler.step(1.0)
    scheduler.step(1.0)
    assert scheduler.get_last_lr() == [0.05, 0.03, 0.5]


def test_a_cycle_with_a_rise_of_a_single_step_begins_at_the_top():
    optimizer = new_optimizer(minidl)
    seen = rates(optimizer, lr_scheduler.OneCycleLR(optimizer, 1.0, 10, pct_start=0.1), epochs=10)[:, 0]
    assert seen[0] == 1
    assert (np.diff(seen) < 0).all()


def test_a_schedule_of_ones_own():
    class Halving(lr_scheduler.LRScheduler):
        def get_lr(self):
            return [base * 0.5 ** self.last_epoch for base in self.base_lrs]

    optimizer = new_optimizer(minidl)
    seen = rates(optimizer, Halving(optimizer), epochs=3)
    assert seen[:, 0].tolist() == [0.1, 0.05, 0.025]
    assert optimizer.param_groups[1]["initial_lr"] == 0.03
    with pytest.raises(NotImplementedError, match="LRScheduler has no get_lr"):
        lr_scheduler.LRScheduler(optimizer)


def test_a_scheduler_made_with_last_epoch_takes_the_rates_as_they_are():
    optimizer = new_optimizer(minidl)
    first = lr_scheduler.ExponentialLR(optimizer, 0.5)
    rates(optimizer, first, epochs=3)
    now = first.get_last_lr()
    for again in (lr_scheduler.ExponentialLR(optimizer, 0.5, last_epoch=2), lr_scheduler.StepLR(optimizer, 3, 0.5, last_epoch=2),
                  lr_scheduler.CosineAnnealingLR(optimizer, 9, last_epoch=2), lr_scheduler.MultiplicativeLR(optimizer, slowly, last_epoch=2)):
        assert again.get_last_lr() == now
        assert again.base_lrs == [0.1, 0.03]
        assert again.last_epoch == 3


@contextlib.contextmanager
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("kind", ["StepLR", "OneCycleLR"])
def test_the_wrong_order_is_warned_about_once(kind):
    def make(optimizer):
        return lr_scheduler.StepLR(optimizer, 1) if kind == "StepLR" else lr_scheduler.OneCycleLR(optimizer, 1.0, 9)

    optimizer = new_optimizer(minidl)
    scheduler = make(optimizer)
    with pytest.warns(UserWarning, match=rf"^{kind}: got step\(\) before the optimizer's, .*; call optimizer.step\(\) first$"):
        scheduler.step()
    with no_warnings():
        scheduler.step()
        optimizer = new_optimizer(minidl)
        scheduler = make(optimizer)
        optimizer.step()
        scheduler.step()


def test_a_step_that_a_lesson_wrote_is_not_watched():
    optimizer = lesson_optimizer(minidl)([f64([1.0])], lr=0.1)
    scheduler = lr_scheduler.StepLR(optimizer, 1)
    with no_warnings():
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)


def test_errors_are_minidls():
    assert issubclass(SettingError, MinidlError)
    assert issubclass(SettingError, ValueError)


def test_an_update_of_ones_own_may_use_tensors():
    """Compiled steps wait for each other; what a formula asks for is done at once, or it would read unwritten memory."""
    class Whitened(optim.Optimizer):
        def update(self, p, g, state, group):
            g = minidl.from_numpy(g)
            p -= group["lr"] * ((g @ g.T @ g).relu()).numpy()           # on the threads of the kernels, for so large a g

    rng = np.random.default_rng(0)
    start, gradient = (rng.normal(size=(600, 600)).astype(np.float32) for _ in range(2))
    p = minidl.nn.Parameter(minidl.tensor(start))
    p.grad = minidl.tensor(gradient)
    Whitened([p], {"lr": 1e-4}).step()
    expected = start - 1e-4 * np.maximum(gradient.astype(np.float64) @ gradient.T @ gradient, 0)
    np.testing.assert_allclose(p.array, expected, rtol=0, atol=1e-4)
