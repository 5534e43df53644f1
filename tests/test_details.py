"""Small promises that no other suite holds: each of these was found by changing a line and seeing nothing go red."""

from __future__ import annotations

import copy
import gc
import os
import threading
import weakref

import numpy as np
import pytest

import minidl
import minidl.nn.functional as F
from minidl import autograd, fake, kernels, nn, optim, recording
from minidl.backend import xp_of
from minidl.debug.gradcheck import GradcheckError, gradcheck
from minidl.errors import DtypeError, GraphError, LabelError, ModuleError, SettingError, ShapeError
from minidl.graph import Op
from minidl.kernels.geometry import Conv2dGeometry
from tests.helpers import f64, square_once

# -- the graph -------------------------------------------------------------------------------------------------------

def test_an_op_cannot_call_an_input_like_the_gradient():
    with pytest.raises(TypeError, match="calls an input 'y' or 'g'"):
        class Takes(Op):
            def forward(self, g):
                return g


def test_a_backward_that_does_not_take_the_gradient_first_fails_when_the_class_is_made():
    with pytest.raises(TypeError, match="must take g, the gradient of the output, first"):
        class Forgets(Op):
            def forward(self, x):
                return x

            def backward(self, x):
                return x


def test_an_op_that_returns_its_input_shares_its_count_of_writes():
    class Same(Op):
        def forward(self, x):
            return x

        def backward(self, g):
            return g

    x = f64([1.0, 2.0], False)
    loss = (Same()(x) * f64([3.0, 4.0])).sum()
    x += 1
    with pytest.raises(GraphError, match="changed in place"):
        loss.backward()


def test_what_is_no_float_does_not_require_grad():
    x = f64([1.5, -2.5])
    assert not x.long().requires_grad
    assert not (x > 0).requires_grad


def test_an_input_without_a_backward_of_its_own_gets_no_gradient():
    class Scale(Op):
        def forward(self, x, factor):
            return x * factor

        def backward_x(self, g, factor):
            return g * factor

    x, factor = f64([2.0]), f64([3.0])
    Scale()(x, factor).sum().backward()
    assert (x.grad.item(), factor.grad) == (3, None)
    assert not Scale()(x.detach(), factor).requires_grad


def test_keep_can_be_called_twice():
    class Twice(Op):
        def forward(self, x):
            self.keep(mask=x > 1)
            self.keep(scale=3.0)
            return x * (x > 1) * 3.0

        def backward(self, g, mask, scale):
            return g * mask * scale

    x = f64([1.0, 2.0])
    Twice()(x).sum().backward()
    assert x.grad.tolist() == [0, 3]


def test_a_released_node_holds_no_indices():
    x = f64(np.ones((1, 1, 4, 4)))
    y = F.max_pool2d(x, 2)
    indices = weakref.ref(y.node.kept["indices"])
    y.sum().backward()
    assert indices() is None


def test_a_leaf_is_freed_without_the_garbage_collector():
    gc.disable()
    try:
        x = f64([1.0])
        leaf = weakref.ref(x)
        del x
        assert leaf() is None
    finally:
        gc.enable()


def test_a_change_after_a_recorded_backward_is_noticed_and_names_the_input():
    x = f64([2.0])
    (first,) = autograd.grad((x ** 3).sum(), x, create_graph=True)
    with minidl.no_grad():
        x += 1
    with pytest.raises(GraphError, match="Pow kept its input 'a'"):
        autograd.grad(first.sum(), x)


# -- backward --------------------------------------------------------------------------------------------------------

def test_a_gradient_of_the_wrong_dtype_alone_names_both():
    class Narrow(Op):
        def forward(self, x):
            return x * 2

        def backward(self, g):
            return (g * 2).float()

    message = r"returned a gradient of shape \(2,\) and dtype float32 .* which is \(2,\) and float64"
    with pytest.raises(GraphError, match=message):
        Narrow()(f64([1.0, 2.0])).sum().backward()


def test_a_hook_can_remove_itself_while_it_runs():
    x = f64([2.0])
    handle = x.register_hook(lambda g: handle.remove() or g * 2)
    for _ in range(2):
        (x * 3).sum().backward()
    assert x.grad.item() == 6 + 3


def test_a_gradient_that_a_hook_holds_on_to_stays_as_it_was():
    x, seen = f64([2.0]), []
    x.register_hook(seen.append)
    for _ in range(2):
        (x * 3).sum().backward()
    assert [g.item() for g in seen] == [3, 3]


def test_a_hook_is_removed_at_the_end_of_its_block_and_may_be_removed_again():
    x = f64([2.0])
    with x.register_hook(lambda g: g * 5) as handle:
        (x * 1).sum().backward()
    (x * 1).sum().backward()
    assert x.grad.item() == 5 + 1
    handle.remove()


def test_a_hook_that_returns_a_gradient_of_another_dtype_is_an_error():
    x = f64([2.0])
    x.register_hook(lambda g: g.float())
    message = r"a hook returned a gradient of float32 \(1,\), expected float64 \(1,\)"
    with pytest.raises(GraphError, match=message):
        (x * 3).sum().backward()


def test_grad_frees_nothing_that_lies_before_its_inputs():
    x = f64([2.0])
    h = x.exp()
    autograd.grad((h * h).sum(), h)
    h.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), np.exp([2.0]))


@pytest.mark.parametrize("use", [
    lambda y, x: y.backward(retain_graph=False, create_graph=True),
    lambda y, x: autograd.grad(y, x, retain_graph=False, create_graph=True),
], ids=["backward", "grad"])
def test_a_recorded_backward_frees_the_graph_if_asked_to(use):
    x = f64([2.0])
    y = (x * x).sum()
    use(y, x)
    with pytest.raises(GraphError, match="freed what it had kept"):
        y.backward()


def test_the_gradient_handed_in_is_cast_to_the_dtype_of_the_output():
    x = minidl.ones(2, requires_grad=True)
    (x * 2).backward(f64([1.0, 3.0], False))
    assert (x.grad.dtype, x.grad.tolist()) == (minidl.float32, [2, 6])


def test_adding_to_a_gradient_counts_as_a_write():
    x, w = f64([1.0]), f64([3.0])
    (x * 2).sum().backward()
    loss = (x.grad * w).sum()
    (x * 2).sum().backward()
    with pytest.raises(GraphError, match="changed in place"):
        loss.backward()


def test_adding_to_a_recorded_gradient_leaves_the_old_one_and_its_graph():
    x = f64([2.0])
    (x ** 3).sum().backward(create_graph=True)
    first = x.grad
    (x * 1.0).sum().backward()
    assert (first.item(), x.grad.item()) == (12, 13)
    assert autograd.grad(x.grad.sum(), x)[0].item() == 12


def test_a_gradient_that_is_an_input_itself_is_copied():
    class Dot(Op):
        def forward(self, a, b):
            return (a * b).sum()

        def backward_a(self, g, b):
            return b

    a, b = f64([1.0, 2.0]), f64([3.0, 4.0], False)
    for _ in range(2):
        Dot()(a, b).backward()
    assert (a.grad.tolist(), b.tolist()) == ([6, 8], [3, 4])


def test_an_op_differentiable_once_cannot_be_differentiated_by_the_gradient_from_above():
    x, g = f64([3.0]), f64([1.0])
    (first,) = autograd.grad(square_once()(x), x, g, create_graph=True)
    with pytest.raises(GraphError, match="Once can be differentiated only once"):
        autograd.grad(first.sum(), g)


def test_an_op_differentiable_once_leaves_no_node_on_the_gradient_it_passes_on():
    class Pass(Op):
        once_differentiable = True

        def forward(self, x):
            return x * 1

        def backward(self, g):
            return g

    x, g = f64([3.0]), f64([1.0], False)
    autograd.grad(Pass()(x), x, g, create_graph=True)
    assert g.node is None


# -- recording -------------------------------------------------------------------------------------------------------

def test_threads_in_one_decorated_function_each_get_their_own_mode_back():
    inside, go, seen = threading.Event(), threading.Event(), []

    @minidl.enable_grad()
    def run(body):
        body()

    def other():
        with minidl.no_grad():
            run(lambda: (inside.set(), go.wait(10)))
            seen.append(minidl.is_grad_enabled())

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait(10)
    run(lambda: (go.set(), thread.join()))
    assert seen == [False]


def test_a_file_whose_name_begins_like_the_package_is_the_users():
    def run(source):
        names = {}
        exec(compile(source, recording._PACKAGE.rstrip("/\\") + "_lab.py", "exec"), names)
        return names

    x = f64([1.0])
    call = run("def call(f):\n    return f()")["call"]
    assert call(lambda: x * 2).node.where.startswith(f"{os.path.basename(__file__)}:")      # the lambda is nearest
    double = run("def double(x):\n    return x * 2")["double"]
    assert double(x).node.where == "minidl_lab.py:2"


def test_a_view_is_known_however_many_have_come_and_gone_since():
    h = f64([1.0, 2.0]) * 1
    view = h.reshape(2, 1)
    for _ in range(40):
        h.reshape(2, 1)
    with pytest.raises(GraphError, match="shares its memory with a view"):
        h += 1
    assert view.tolist() == [[1], [2]]


def test_views_that_are_gone_do_not_stand_in_the_way_of_a_recorded_change():
    h = f64([1.0, 2.0]) * 1
    a, b = h.reshape(2, 1), h.reshape(2, 1)
    del a, b
    h += 1
    assert h.tolist() == [2, 3]


# -- Tensor ----------------------------------------------------------------------------------------------------------

def test_requiring_grad_again_changes_nothing():
    x = f64([2.0])
    y = x * 3
    x.requires_grad_()
    assert autograd.grad(y.sum(), x, retain_graph=True)[0].item() == 3
    y.sum().backward()
    assert x.grad.item() == 3


def test_a_detached_alias_is_a_view():
    h = f64([1.0, 2.0]) * 1
    alias = h.detach()
    with pytest.raises(GraphError, match="shares its memory with a view"):
        h += 1
    assert alias.tolist() == [1, 2]


def test_detach_counts_writes_together():
    x, w = f64([1.0, 2.0], False), f64([3.0, 4.0])
    y = (x * w).sum()
    x.detach().add_(1)
    with pytest.raises(GraphError, match="changed in place"):
        y.backward()


def test_data_that_was_assigned_counts_writes_together():
    w, other = f64([1.0, 2.0]), f64([3.0, 4.0], False)
    w.data = other
    y = (w * w).sum()
    other += 1
    with pytest.raises(GraphError, match="changed in place"):
        y.backward()


def test_numpy_can_ask_for_a_copy_and_for_a_dtype():
    x = minidl.tensor([1.0, 2.0])
    assert not np.shares_memory(np.array(x), x.array)
    assert x.__array__(np.float64).dtype == np.float64


def test_to_takes_a_tensor_as_the_example():
    assert minidl.tensor([1.0, 2.0]).to(f64([1.0])).dtype == minidl.float64


def test_to_returns_the_tensor_itself_if_nothing_changes():
    x = f64([1.0])
    assert x.to(minidl.float64) is x
    assert x.double() is x
    assert x.to(dtype="float64", device="cpu") is x


def test_deepcopy_copies_a_tensor_once_wherever_it_occurs():
    x = f64([1.0])
    a, b = copy.deepcopy([x, x])
    assert a is b


@pytest.mark.parametrize("make", [lambda: f64([1.0, 1.0]), lambda: nn.Parameter(minidl.ones(2))],
                         ids=["tensor", "parameter"])
def test_deepcopy_copies_the_gradient(make):
    x = make()
    (x * 3).sum().backward()
    twin = copy.deepcopy(x)
    assert twin.grad.tolist() == [3, 3]
    twin.grad.zero_()
    assert x.grad.tolist() == [3, 3]


def test_a_float_is_no_index():
    with pytest.raises(TypeError, match=r"cannot be an index; use .long\(\)"):
        [1, 2, 3][minidl.tensor(1.0)]


def test_a_numpy_array_multiplies_from_the_left():
    a, x = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32), minidl.tensor([[0.0, 1.0], [0.0, 0.0]])
    np.testing.assert_array_equal((a @ x).numpy(), a @ x.numpy())


def test_unrecorded_assignment_to_all_elements_keeps_array_and_leaf():
    w = f64([1.0, 2.0])
    array = w.array
    with minidl.no_grad():
        w[:] = w * 2
    assert w.array is array
    assert w.is_leaf


def test_an_expanded_tensor_is_not_changed_in_place():
    x = minidl.ones(2, 1).expand(2, 3)
    with pytest.raises(GraphError, match="clone"):
        x += 1


def test_a_recorded_change_keeps_the_dtype():
    h = minidl.zeros(1, requires_grad=True) * 1
    h += f64([1.0])
    assert h.dtype == minidl.float32
    h.sum().backward()


def test_after_a_recorded_change_the_graph_does_not_notice_further_ones():
    x = f64([1.0, 2.0])
    h = x * 1
    loss = (h * h).sum()
    h += 1
    with minidl.no_grad():
        h.mul_(5)
    loss.backward()
    assert x.grad.tolist() == [2, 4]


# -- ops -------------------------------------------------------------------------------------------------------------

def test_comparisons_at_equal_numbers():
    a = minidl.tensor([1.0, 2.0, 3.0])
    assert (a <= 2).tolist() == [True, True, False]
    assert (a >= 2).tolist() == [False, True, True]
    assert (a < 2).tolist() == [True, False, False]
    assert (a > 2).tolist() == [False, False, True]
    a, b = f64([1.0, 2.0], False), f64([1.0, 3.0], False)
    assert (a >= b).tolist() == [True, False]
    assert (a > b).tolist() == [False, False]


def test_reductions_compute_in_the_dtype_asked_for():
    assert minidl.tensor([1.0, 2.0]).sum(dtype=minidl.float64).dtype == minidl.float64
    assert minidl.tensor([1, 2]).mean(dtype=minidl.float32).item() == 1.5


@pytest.mark.parametrize(("reduction", "rows", "dtype", "rtol"), [
    ("mean", 100_000, np.float32, 1e-7),
    ("sum", 4000, np.float16, 1e-3),
])
def test_reductions_along_the_first_axis_are_precise(reduction, rows, dtype, rtol):
    x = np.full((rows, 3), 0.1, dtype)
    expected = getattr(x.astype(np.float64), reduction)(0)
    np.testing.assert_allclose(getattr(minidl.tensor(x), reduction)(0).numpy(), expected, rtol=rtol)


def test_the_mean_of_nothing_is_nan_and_of_no_rows_empty():
    assert np.isnan(minidl.zeros(0).mean().item())
    assert minidl.zeros(0, 3).mean(1).shape == (0,)


def test_a_sum_over_an_empty_tuple_of_axes_is_over_all():
    assert minidl.ones(2, 3).sum(()).item() == 6


def test_min_along_an_axis_gives_values_and_indices():
    values, indices = minidl.tensor([[3.0, 1.0], [0.0, 2.0]]).min(1)
    assert (values.tolist(), indices.tolist()) == ([1, 0], [1, 0])


def test_flatten_of_some_axes_of_an_empty_tensor():
    assert minidl.zeros(0, 3, 2).flatten(0, 1).shape == (0, 2)
    assert minidl.zeros(2, 0, 3, 4).flatten(1, 2).shape == (2, 0, 4)


@pytest.mark.parametrize(("use", "message"), [
    (lambda: minidl.ones(2, 3).permute(0, 0), "expected each axis of a tensor with 2 dimensions once"),
    (lambda: minidl.ones(2, 3, 4).t(), "expected a matrix; use transpose or mT"),
    (lambda: minidl.ones(2, 2).expand(3), "expand: got a tensor of shape"),
    (lambda: minidl.ones(2, 2).expand(2), "expand: got a tensor of shape"),
    (lambda: minidl.ones(2, 2).expand(2, 2, 3), "expand: got a tensor of shape"),
    (lambda: minidl.ones(4).reshape((-1, -1)), "reshape: got"),
    (lambda: minidl.ones(1).reshape(-1, -1), "reshape: got"),
    (lambda: minidl.ones(0).reshape((0, -1)), "reshape: got"),
    (lambda: minidl.ones(2).softmax(1), "got dim=1 for a tensor with 1 dimensions"),
    (lambda: minidl.ones(2).softmax(-2), "got dim=-2 for a tensor with 1 dimensions"),
    (lambda: minidl.tensor(2.0) @ minidl.ones(2), r"use \* for numbers"),
    (lambda: minidl.ones(2) @ minidl.tensor(2.0), r"use \* for numbers"),
])
def test_sizes_and_axes_that_do_not_fit(use, message):
    with pytest.raises(ShapeError, match=message):
        use()


def test_a_vector_times_a_stack_of_matrices():
    assert (minidl.ones(3) @ minidl.ones(1, 3, 1)).shape == (1, 1)
    assert (minidl.ones(3) @ minidl.ones(3, 1)).shape == (1,)


def test_an_index_of_true_or_false_adds_an_axis():
    assert minidl.ones(2, 3)[True].shape == (1, 2, 3)
    assert minidl.ones(2, 3)[False].shape == (0, 2, 3)


def test_a_number_of_numpy_does_not_widen_a_float_tensor():
    x = minidl.ones(2)
    assert (x * np.float64(2)).dtype == minidl.float32
    assert (x / np.sqrt(64)).dtype == minidl.float32
    assert (minidl.tensor([1, 2]) * np.float64(0.5)).dtype == minidl.float32


def test_sigmoid_is_precise_where_it_is_tiny():
    assert minidl.tensor([-50.0]).sigmoid().item() == pytest.approx(np.exp(-50.0), rel=1e-5, abs=0)


def test_softmax_of_each_row_depends_on_differences_only():
    x = minidl.tensor([[1000.0, 1001.0], [0.0, 1.0]])
    np.testing.assert_allclose(x.softmax(1).numpy()[1], x.softmax(1).numpy()[0])


def test_the_gradient_of_the_power_zero_is_zero_at_zero_too():
    x = f64([0.0, 2.0])
    (x ** 0).sum().backward()
    assert x.grad.tolist() == [0, 0]


@pytest.mark.parametrize("make_base", [lambda: f64([0.0]), lambda: 0], ids=["tensor", "number"])
def test_the_gradient_of_a_power_of_zero_by_its_exponent_is_zero(make_base):
    b = f64([2.0])
    (make_base() ** b).sum().backward()
    assert b.grad.tolist() == [0]


# -- kernels ---------------------------------------------------------------------------------------------------------

def test_same_padding_puts_the_odd_row_at_the_end():
    geometry = Conv2dGeometry.of((1, 1, 5, 5), (1, 1, 2, 4), padding="same")
    assert geometry.padding == ((0, 1), (1, 2))


@pytest.mark.parametrize("padding", [(2, 0), (0, 2)])
def test_pooling_pads_by_at_most_half_of_the_kernel_on_each_axis(padding):
    with pytest.raises(SettingError, match="at most half of the kernel"):
        F.max_pool2d(minidl.ones(1, 1, 6, 6), 3, padding=padding)


def test_a_kernel_larger_than_the_image_is_an_error_at_any_stride():
    with pytest.raises(ShapeError, match="is larger than"):
        F.conv2d(minidl.ones(1, 1, 1, 1), minidl.ones(1, 1, 3, 3), stride=3)


def test_a_truth_value_is_no_stride():
    with pytest.raises(SettingError, match="got stride=True"):
        F.conv2d(minidl.ones(1, 1, 4, 4), minidl.ones(1, 1, 2, 2), stride=True)


def test_a_single_image_is_no_batch():
    with pytest.raises(ShapeError, match="a convolution takes a batch of images"):
        F.conv2d(minidl.ones(2, 4, 4), minidl.ones(1, 3, 2, 2))


def test_max_pooling_of_negative_integers_never_picks_the_padding():
    x = minidl.tensor(np.full((1, 1, 2, 2), -5))
    assert F.max_pool2d(x, 2, padding=1).tolist() == [[[[-5, -5], [-5, -5]]]]


def test_the_choice_of_kernels_is_a_matter_of_each_thread():
    seen = []
    with kernels.use_kernels("reference"):
        thread = threading.Thread(target=lambda: seen.append(kernels.chosen()))
        thread.start()
        thread.join()
    assert seen == [None]


# -- nn --------------------------------------------------------------------------------------------------------------

def test_the_first_weights_of_a_grouped_convolution_fill_their_range():
    w = nn.Conv2d(4, 400, 5, groups=2).weight.detach().numpy()
    assert 0.95 < np.abs(w).max() * 50 ** 0.5 <= 1


def test_the_first_weights_of_a_linear_layer_fill_their_range_on_both_sides():
    w = nn.Linear(100, 400).weight.detach().numpy()
    assert w.max() > 0.099
    assert w.min() < -0.099


def test_fan_in_counts_what_one_output_sees():
    assert nn.init.fan_in_of(minidl.ones(2, 3, 5, 5)) == 75


def test_a_wrong_shape_is_an_error_even_where_loading_is_not_strict():
    net = nn.Linear(2, 2)
    with pytest.raises(ShapeError, match="wrong shapes: weight"):
        net.load_state_dict({"weight": minidl.ones(1, 2)}, strict=False)


@pytest.mark.parametrize("use", [lambda net: net.state_dict(), lambda net: net.double()], ids=["state_dict", "double"])
def test_a_plain_list_that_got_its_modules_later_is_noticed_on_use(use):
    class Grown(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = []
            self.layers.append(nn.Linear(2, 2))

    with pytest.raises(ModuleError, match="plain list of modules"):
        use(Grown())


def test_a_plain_list_of_parameters_is_refused():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.weights = [nn.Parameter(minidl.ones(1))]

    with pytest.raises(ModuleError, match="plain list"):
        Net()


def test_a_forward_hook_can_leave_the_output_and_a_pre_hook_can_return_one_input():
    net, x = nn.Linear(2, 2), minidl.ones(1, 2)
    expected = net(x * 2).tolist()
    net.register_forward_hook(lambda module, args, output: None)
    net.register_forward_pre_hook(lambda module, args: args[0] * 2)
    assert net(x).tolist() == expected


def test_a_forward_hook_can_remove_itself_while_it_runs():
    net = nn.Identity()
    handle = net.register_forward_hook(lambda *_: handle.remove())
    net(minidl.ones(1))


def test_a_shared_module_is_listed_once():
    shared = nn.Linear(2, 2)
    net = nn.Sequential(shared, nn.ReLU(), shared)
    assert [name for name, _ in net.named_modules()] == ["", "0", "1"]
    assert [name for name, _ in net.named_children()] == ["0", "1"]


def test_a_module_shared_between_depths_is_listed_once():
    shared = nn.Linear(2, 2)
    net = nn.Sequential(nn.Sequential(shared), shared)
    assert len(list(net.modules())) == 3                        # names differ: PyTorch says "0.0", minidl "1"


def test_double_leaves_integer_buffers_alone():
    net = nn.Linear(1, 1)
    net.register_buffer("count", minidl.tensor([3]))
    assert net.double().count.dtype == minidl.int64


def test_deepcopy_of_a_frozen_parameter_is_frozen():
    p = nn.Parameter(minidl.ones(2), requires_grad=False)
    assert not copy.deepcopy(p).requires_grad


def test_what_a_module_owns_itself_without_its_children():
    net = nn.Sequential(nn.Linear(1, 1))
    net.register_buffer("own", minidl.ones(1))
    net[0].register_buffer("inner", minidl.ones(1))
    net.scale = nn.Parameter(minidl.ones(1))
    assert [name for name, _ in net.named_parameters(recurse=False)] == ["scale"]
    assert [name for name, _ in net.named_buffers(recurse=False)] == ["own"]


def test_a_named_layer_of_a_sequential_can_be_replaced_by_number():
    net = nn.Sequential({"hidden": nn.Linear(2, 3), "out": nn.Linear(3, 1)})
    net[1] = nn.Linear(3, 4)
    assert (len(net), net(minidl.ones(1, 2)).shape) == (2, (1, 4))


def test_integer_labels_of_two_dimensions_are_no_classes():
    with pytest.raises(LabelError, match="expected class indices"):
        F.cross_entropy(minidl.randn(2, 2), minidl.tensor([[0, 1], [1, 0]]))


def test_the_summed_cross_entropy_of_an_empty_batch_is_zero():
    labels = minidl.zeros(0, dtype=minidl.int64)
    assert F.cross_entropy(minidl.zeros(0, 3), labels, reduction="sum").item() == 0


def test_layers_hand_their_settings_on():
    x = minidl.ones(1, 1, 3, 3)
    assert nn.AvgPool2d(2, 2, 1, count_include_pad=False)(x).tolist() == [[[[1, 1], [1, 1]]]]
    assert nn.AvgPool2d(2, ceil_mode=True)(x).shape == (1, 1, 2, 2)
    assert nn.MaxPool2d(2, ceil_mode=True)(x).shape == (1, 1, 2, 2)
    assert nn.Flatten(1, 2)(minidl.ones(2, 3, 4, 5)).shape == (2, 12, 5)


# -- optim -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("make", [
    lambda p: optim.SGD([p], lr=0.1, momentum=0.9),
    lambda p: optim.SGD([p], lr=0.1, momentum=0.9, weight_decay=0.1),
    lambda p: optim.Adam([p], weight_decay=0.1),
], ids=["momentum", "momentum and decay", "adam"])
def test_a_step_leaves_the_gradient_as_it_was(make):
    p = f64([1.0])
    (p * 3).sum().backward()
    optimizer = make(p)
    for _ in range(2):
        optimizer.step()
        assert p.grad.item() == 3


def test_the_closure_of_a_step_records_under_no_grad_too():
    p = f64([1.0])
    with minidl.no_grad():
        optim.SGD([p], lr=0.5).step(lambda: (p * 2).sum().backward())
    assert p.item() == 0


def test_a_parameter_in_two_groups_is_an_error():
    p = f64([1.0])
    with pytest.raises(SettingError, match="same parameter in two groups"):
        optim.SGD([{"params": [p]}, {"params": [p]}], lr=0.1)


def trained(w):
    optimizer = optim.SGD([w], lr=0.1, momentum=0.9)
    (w * 2).sum().backward()
    optimizer.step()
    return optimizer


def test_a_loaded_optimizer_has_the_settings_and_a_state_of_its_own():
    w, v = f64([1.0]), f64([1.0])
    first, second = trained(w), optim.SGD([v], lr=0.5)
    second.load_state_dict(first.state_dict())
    assert (second.param_groups[0]["lr"], second.param_groups[0]["momentum"]) == (0.1, 0.9)
    assert second.state[v]["momentum_buffer"] is not first.state[w]["momentum_buffer"]


def test_a_loaded_optimizer_has_settings_of_its_own():
    w, v = f64([1.0]), f64([1.0])
    first, second = optim.SGD([w], lr=0.1), optim.SGD([v], lr=0.5)
    first.param_groups[0]["schedule"] = [1, 2]
    second.load_state_dict(first.state_dict())
    second.param_groups[0]["schedule"].append(3)
    assert first.param_groups[0]["schedule"] == [1, 2]


def test_groups_of_other_sizes_are_not_loaded():
    a, b, c = (f64([1.0]) for _ in range(3))
    one = optim.SGD([{"params": [a, b]}, {"params": [c]}], lr=0.1)
    other = optim.SGD([{"params": [a]}, {"params": [b, c]}], lr=0.1)
    with pytest.raises(ShapeError, match=r"got groups of \[1, 2\] parameters, expected \[2, 1\]"):
        one.load_state_dict(other.state_dict())


def test_loading_an_optimizer_that_has_not_stepped_forgets_the_state():
    w = f64([1.0])
    optimizer = trained(w)
    optimizer.load_state_dict(optim.SGD([w], lr=0.1).state_dict())
    assert optimizer.state == {}


def test_zero_grad_can_write_zeros():
    p = f64([1.0])
    (p * 3).sum().backward()
    optim.SGD([p], lr=0.1).zero_grad(set_to_none=False)
    assert p.grad.tolist() == [0]


# -- the strict device -----------------------------------------------------------------------------------------------

def test_a_device_tensor_is_indexed_by_lists_and_by_host_tensors():
    x = minidl.arange(4, device="fake")
    assert x[[0, 2]].tolist() == [0, 2]
    assert x[minidl.tensor([3])].tolist() == [3]


def test_copy_takes_numbers_from_another_device():
    x = minidl.zeros(2)
    x.copy_(minidl.tensor([1.0, 2.0], device="fake"))
    assert x.tolist() == [1, 2]


def test_moving_to_a_device_and_back_copies():
    x = minidl.zeros(2)
    on_fake = x.to("fake")
    on_fake.add_(1)
    assert x.tolist() == [0, 0]
    back = on_fake.cpu()
    back.add_(1)
    assert on_fake.tolist() == [1, 1]


def test_numpy_functions_refuse_device_arrays():
    on_fake = minidl.ones(2, device="fake").array
    with pytest.raises(TypeError):
        np.exp(on_fake)


def test_adding_at_a_mask_counts_as_a_read():
    x = minidl.zeros(3, device="fake")
    fake.syncs.reset()
    xp_of(x.array).add.at(x.array, (x.array < 1), 1.0)
    assert fake.syncs.calls == ["mask"]


def test_a_number_of_numpy_is_welcome_on_a_device():
    assert (minidl.ones(2, device="fake") * np.float64(0.5)).tolist() == [0.5, 0.5]


def test_cross_entropy_reads_nothing_from_the_device():
    scores, labels = minidl.zeros(2, 3, device="fake"), minidl.tensor([0, 2], device="fake")
    fake.syncs.reset()
    F.cross_entropy(scores, labels)
    assert fake.syncs.calls == []


# -- gradcheck -------------------------------------------------------------------------------------------------------

def off_by(extra):
    class Off(Op):
        def forward(self, x):
            return x * 1

        def backward(self, g):
            return g + extra

    return lambda x: Off()(x)


def test_gradcheck_allows_one_part_in_a_thousand():
    gradcheck(off_by(1e-4), f64([1.0]))
    with pytest.raises(GradcheckError):
        gradcheck(off_by(2e-3), f64([1.0]))                     # rtol 1e-3 + atol 1e-5


def test_the_tolerance_of_gradcheck_is_relative_to_the_finite_difference():
    with pytest.raises(GradcheckError):
        gradcheck(off_by(1e9), f64([1.0]), rtol=1.0, atol=0)


def test_a_strong_curve_is_no_kink():
    off = off_by(0.5)
    with pytest.raises(GradcheckError) as caught:
        gradcheck(lambda x: off((x * 100).tanh()), f64([0.005]))
    assert "kink" not in str(caught.value)


def test_gradcheck_refuses_float16():
    with pytest.raises(DtypeError, match="got float16"):
        gradcheck(lambda x: x * x, minidl.ones(2, dtype=minidl.float16, requires_grad=True))


def test_the_second_order_covers_the_derivative_by_the_gradient_from_above():
    class Half(Op):
        """Its gradient is right in x, but its derivative by g is lost."""

        def forward(self, x):
            return x * x

        def backward(self, g, x):
            return g.detach() * 2 * x

    assert gradcheck(lambda x: Half()(x), f64([1.0, 3.0]))
    with pytest.raises(GradcheckError):
        gradcheck(lambda x: Half()(x), f64([1.0, 3.0]), order=2)


# -- creation and random numbers -------------------------------------------------------------------------------------

@pytest.mark.skipif(np.dtype(np.longdouble).itemsize <= 8, reason="long double is float64 here")
def test_long_doubles_are_refused():
    with pytest.raises(DtypeError, match="expected numbers"):
        minidl.tensor(np.ones(2, np.longdouble))


def test_a_number_of_numpy_keeps_its_dtype_in_a_tensor():
    assert minidl.tensor(np.float64(1.5)).dtype == minidl.float64


def test_a_negative_size_is_an_error():
    with pytest.raises(SettingError, match=r"got the size \(2, -1\), expected no negative numbers"):
        minidl.zeros(2, -1)


@pytest.mark.parametrize("draw", [
    lambda generator: minidl.randperm(20, generator=generator),
    lambda generator: minidl.randint(1000, (20,), generator=generator),
], ids=["randperm", "randint"])
def test_integers_are_drawn_from_the_generator_handed_in(draw):
    a, b = (draw(minidl.Generator().manual_seed(3)).tolist() for _ in range(2))
    assert a == b


def test_a_negative_seed_is_another_seed():
    a, b = (minidl.rand(3, generator=minidl.Generator().manual_seed(seed)).tolist() for seed in (1, -1))
    assert a != b


# -- printing --------------------------------------------------------------------------------------------------------

def test_a_format_for_numbers_leaves_a_tensor_of_one_axis_as_it_prints():
    assert f"{minidl.tensor([1.5]):.2f}" == "tensor([1.5000])"


def test_only_another_than_the_default_dtype_is_printed():
    minidl.set_default_dtype(minidl.float64)
    try:
        assert repr(minidl.tensor([1.0])) == "tensor([1.])"
        assert repr(minidl.ones(1, dtype=minidl.float32)) == "tensor([1.], dtype=float32)"
    finally:
        minidl.set_default_dtype(minidl.float32)


@pytest.mark.parametrize("expression", [
    "t.tensor([2e8, 1.5])", "t.tensor([2e8])", "t.tensor([1000.5, 1.0005])", "t.tensor([0.5, 500.0])",
    "t.tensor([0.0005, 0.25])", "t.arange(1000)", "t.arange(1000.) / 1000", "t.tensor([0.001, 1.0])",
    "t.tensor([1.0, 1000.5])", "t.tensor([0.0001, 0.001])",
])
def test_the_format_changes_where_pytorchs_does(expression, torch):
    ours, theirs = (repr(eval(expression, {"t": module})) for module in (minidl, torch))
    assert ours == theirs


@pytest.mark.parametrize(("size", "odd"), [(2000, 1e9), (1000, 2.5)])       # above 1000 not shown, up to 1000 shown
def test_an_element_decides_the_format_only_if_it_is_shown(size, odd, torch):
    def text(module):
        x = module.ones(size)
        x[size // 2] = odd
        return repr(x)

    assert text(minidl) == text(torch)
