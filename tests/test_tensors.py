"""Tensor and the functions that make tensors: PyTorch's behaviour, held against PyTorch where it can be."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import minidl
from minidl.tensors import Tensor

# what a lesson may write, for minidl and PyTorch alike
EXPRESSIONS = [
    "t.arange(6).reshape(2, 3).sum(dim=1)", "t.arange(6.).reshape(2, 3).mean(0, keepdim=True)",
    "t.arange(6).view(3, -1).t()", "t.ones(2, 3).T.shape", "t.zeros(2, 1, 3).squeeze().shape",
    "t.zeros(2, 1, 3, 1).squeeze(1).shape", "t.zeros(2, 3).unsqueeze(-1).shape", "t.zeros(2, 3, 4).flatten(1).shape",
    "t.zeros(2, 3, 4).flatten().shape", "t.zeros(2, 0).flatten(1).shape", "t.zeros(2, 3, 4).permute(2, 0, 1).shape",
    "t.zeros(2, 3, 4).transpose(0, -1).shape", "t.zeros(2, 3, 4).size(1)", "t.zeros(2, 3, 4).numel()",
    "t.zeros(2, 3, 4).dim()", "t.tensor([[3, 1], [2, 5]]).max()", "t.tensor([[3, 1], [2, 5]]).max(1).indices",
    "t.tensor([[3, 1], [2, 5]]).max(dim=0)[0]", "t.tensor([[3, 3], [2, 5]]).min(1, keepdim=True).values",
    "t.tensor([[3, 1], [2, 5]]).argmax()", "t.tensor([[3, 1], [2, 5]]).argmax(dim=1, keepdim=True)",
    "(t.tensor([1, 2, 3]) == t.tensor([1, 5, 3])).float().mean().item()", "t.tensor([1, 2, 3]) ** 2",
    "2 ** t.tensor([1., 2.])", "1 - t.tensor([1., 2.])", "1 / t.tensor([1., 2.])", "-t.tensor([1, 2])",
    "t.tensor([1., 2.]) @ t.tensor([3., 4.])", "t.ones(2, 3) @ t.ones(3)", "t.ones(5, 2, 3) @ t.ones(3, 4)",
    "t.eye(3)[1]", "t.arange(10)[2:8:3]", "t.arange(6).reshape(2, 3)[:, -1]", "t.arange(6).reshape(2, 3)[1, 2].item()",
    "t.arange(6).reshape(2, 3)[t.tensor([1, 0, 1])]", "t.arange(6).reshape(2, 3)[[1, 0], [2, 2]]",
    "t.arange(6)[t.arange(6) > 2]", "t.arange(6).reshape(2, 3)[..., None].shape", "len(t.zeros(4, 2))",
    "[int(v) for v in t.arange(3)]", "t.arange(3).tolist()", "t.tensor(3.5).item()", "t.full((2, 2), 7)",
    "t.full((2,), 0.5)", "t.linspace(0, 1, 5)", "t.arange(1, 2, 0.25)", "t.arange(5, 0, -2)", "t.zeros_like(t.ones(2, 2))",
    "t.ones_like(t.tensor([1, 2]))", "t.full_like(t.ones(2), 3)", "t.tensor([1.5, -2.5]).long()", "t.tensor([0, 3]).bool()",
    "t.ones(2).double().dtype == t.float64", "t.tensor([1., 2.]).softmax(0)", "t.tensor([[1., 2.]]).log_softmax(dim=1)",
    "t.tensor([4., 9.]).sqrt()", "t.tensor([1., 2.]).exp().log()", "t.ones(2, 1).expand(2, 3).sum()", "t.ones(1).expand(3, -1).shape",
    "t.tensor([[1., 2.], [3., 4.]]).gather(1, t.tensor([[0], [1]]))", "t.zeros(2, 3).is_contiguous()",
    "t.zeros(2, 3).t().is_contiguous()", "t.zeros(2, 3).t().contiguous().is_contiguous()", "t.tensor([]).sum()",
    "t.tensor([1., 2., 3.]).add(1).mul(2).sub(3).div(4)", "t.tensor([1, 2]).eq(1)", "t.tensor([1, 2]) < 2",
    "t.from_numpy(np.ones((2, 2))).sum()", "t.as_tensor([1, 2]).dtype == t.int64", "t.tensor(True).item()",
    "2 in t.tensor([1, 2])", "bool(t.tensor([1.]))", "float(t.tensor(2))", "[1, 2, 3][t.tensor(1)]",
    "t.tensor([1., 2.]).type(t.float64).dtype == t.float64", "t.empty(2, 3).shape", "t.Tensor([1, 2])", "t.Tensor(2, 3).shape",
    "t.zeros((2, 3)).shape", "t.zeros([2, 3], dtype=t.int64)", "t.tensor([1., 2.]).numpy().sum()", "t.zeros(3).device.type",
    "t.tensor(5).dim()", "t.tensor([1e-3]).item()", "str(t.device('cuda:1'))", "t.ones(3, 1, 2).sum((0, 2))",
    "t.tensor([True, False]).sum()", "t.tensor([2., 3.]).pow(2).mean()", "t.zeros(2, 2).new if False else 1",
    "t.zeros(2, 3).element_size()", "t.tensor([1, 2]).is_floating_point()", "t.arange(6).reshape(2, 3).max(-1).values",
    "t.nn.functional.one_hot(t.tensor([0, 2]), 4)", "t.nn.functional.one_hot(t.tensor([0, 2]))",
]


@pytest.mark.torch
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expressions_mean_the_same(expression, torch):
    ours, theirs = (eval(expression, {"t": module, "np": np}) for module in (minidl, torch))
    if isinstance(ours, Tensor):
        assert ours.shape == tuple(theirs.shape)
        assert str(ours.dtype) == str(theirs.dtype).removeprefix("torch.")
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-6)
    elif isinstance(ours, tuple):
        assert ours == tuple(theirs)
    else:
        assert ours == theirs


PRINTED = [
    "t.tensor([1.0, 2.0])", "t.tensor([1.5, -2.25])", "t.tensor([[1, 2], [3, 40]])", "t.tensor(3.14159)", "t.tensor(7)",
    "t.tensor([1e-5, 1.0])", "t.tensor([1e10])", "t.tensor([1000.5, 0.001])", "t.tensor([True, False])", "t.tensor([])",
    "t.tensor([float('inf'), 1.0, float('nan')])", "t.zeros(2, 2, 2)", "t.arange(2000)", "t.arange(2000.).reshape(40, 50)",
    "t.tensor([1.0, 2.0], requires_grad=True)", "t.tensor([0.1234567])", "t.tensor([123456.0, 1.0])", "t.tensor([1, 2], dtype=t.int32)",
    "t.tensor([1.0], dtype=t.float64)", "t.tensor(2.0)", "t.tensor([-1.0, 10.0])", "t.tensor([-0.5, 10.25])", "t.tensor([99999999.0, 1.5])",
]


@pytest.mark.torch
@pytest.mark.parametrize("expression", PRINTED)
def test_prints_as_pytorch_does(expression, torch):
    ours, theirs = (repr(eval(expression, {"t": module})) for module in (minidl, torch))
    assert ours == theirs.replace("torch.", "")


def test_repr_names_the_op_and_the_device():
    x = minidl.tensor([1.0], requires_grad=True)
    assert repr(x * 2) == "tensor([2.], grad_fn=<Mul>)"
    assert repr(minidl.ones(1, device="fake")) == "tensor([1.], device='fake')"
    assert repr(minidl.device("cuda", 1)) == "device(type='cuda', index=1)"
    assert f"{minidl.tensor(0.12345):.2f}" == "0.12"
    assert f"{minidl.tensor([1.0])}" == "tensor([1.])"


def test_numpy_and_tensors_work_together():
    a, x = np.array([1.0, 2.0], np.float32), minidl.tensor([3.0, 4.0])
    assert isinstance(a * x, Tensor)
    assert isinstance(x * a, Tensor)
    assert (a + x).tolist() == [4, 6]
    assert (a @ x).item() == 11
    assert np.mean(x) == 3.5
    assert np.asarray(x) is x.array
    assert np.array(x, dtype=np.float64).dtype == np.float64
    assert minidl.tensor([minidl.tensor(1.0), minidl.tensor(2.0)]).tolist() == [1, 2]
    assert minidl.tensor(x).array is not x.array


def test_from_numpy_shares_memory_and_tensor_does_not():
    a = np.zeros(3)
    shared, copied = minidl.from_numpy(a), minidl.tensor(a)
    a[0] = 1
    assert shared[0].item() == 1
    assert copied[0].item() == 0


def test_views_share_memory():
    x = minidl.zeros(2, 3)
    for view in (x.reshape(6), x.T, x[0], x.detach(), x.data, x.unsqueeze(0)):
        assert np.shares_memory(view.array, x.array)
    x.T[0, 1] = 5
    assert x[1, 0].item() == 5
    assert not np.shares_memory(x.clone().array, x.array)
    assert not np.shares_memory(x[[0, 1]].array, x.array)


def test_clone_keeps_the_layout():
    x = minidl.randn(2, 3, 4, 4).permute(0, 3, 1, 2)
    assert x.clone().array.strides == x.array.strides


def test_in_place_functions():
    x = minidl.zeros(3)
    assert x.fill_(2).tolist() == [2, 2, 2]
    assert x.add_(1).mul_(4).sub_(2).div_(5).tolist() == [2, 2, 2]
    assert x.copy_(minidl.tensor([1, 2, 3])).tolist() == [1, 2, 3]
    x[x > 1] = 0
    assert x.tolist() == [1, 0, 0]
    x[[1, 2]] = minidl.tensor([7.0, 8.0])
    assert x.tolist() == [1, 7, 8]
    assert x.zero_().sum().item() == 0


def test_data_can_be_replaced():
    w = minidl.ones(2, requires_grad=True)
    w.data -= 0.5 * minidl.ones(2)
    assert w.tolist() == [0.5, 0.5]
    w.data = minidl.tensor([7.0, 8.0, 9.0])
    (w * 2).sum().backward()
    assert w.grad.tolist() == [2, 2, 2]


def test_setting_requires_grad():
    x = minidl.ones(2)
    assert not x.requires_grad
    x.requires_grad = True
    assert (x * 2).requires_grad
    x.requires_grad_(False)
    assert not (x * 2).requires_grad
    assert x.requires_grad_() is x


def test_deepcopy_of_a_leaf():
    x = minidl.ones(2, requires_grad=True)
    (x * 3).sum().backward()
    twin = copy.deepcopy(x)
    assert twin.requires_grad
    assert twin.grad.tolist() == [3, 3]
    assert not np.shares_memory(twin.array, x.array)


def test_moving_between_devices_sends_the_gradient_back():
    x = minidl.tensor([1.0, 2.0], requires_grad=True)
    y = x.to("fake")
    assert y.device == minidl.device("fake")
    assert y.to("fake") is y
    (y * y).sum().backward()
    assert x.grad.device == minidl.device("cpu")
    assert x.grad.tolist() == [2, 4]
    assert x.to(y).device == y.device
    assert y.cpu().tolist() == [1, 2]


@pytest.mark.torch
@pytest.mark.parametrize("expression", [
    "(t.ones(1000).half() * 100).mean()", "t.ones(70000).half().mean()", "t.tensor([.01], dtype=t.float16) * 1e5",
    "t.tensor([1000.]).half() / 100000", "t.zeros(70000).half().softmax(0).sum()",
    "t.nn.functional.avg_pool2d(t.full((1, 1, 32, 32), 100.).half(), 32)", "t.tensor([300.]).half() ** 2",
    "t.tensor([3], dtype=t.uint8) * -1", "t.tensor([3], dtype=t.uint8) + 300", "t.tensor([100], dtype=t.int8) + 200",
    "t.tensor([255], dtype=t.uint8) == -1", "t.tensor(3.).sum(0)", "t.tensor(3.).mean(-1, keepdim=True)",
    "t.tensor(3.).max(0).values", "t.tensor(3.).min(-1, keepdim=True).indices", "t.zeros(2, dtype=t.uint8).fill_(-1)",
    "t.tensor(3.).transpose(0, -1)", "t.zeros(0, 3, 2).flatten(1)", "t.zeros(2, 0).softmax(1)",
    "t.zeros(2, 0).log_softmax(1)", "t.zeros(0, 3).zero_()", "t.zeros(0, 3).add_(1)", "t.tensor(1.) == None",
    "t.tensor(1.) != None", "t.tensor(1.) == 'a'", "t.Tensor().shape", "t.randint(high=3, size=(2,)).shape",
    "t.nn.functional.max_pool2d(t.ones(1, 1, 2, 2), 3, ceil_mode=True)",
    "t.nn.functional.avg_pool2d(t.ones(1, 1, 2, 2), 3, ceil_mode=True)",
    "t.nn.functional.conv2d(t.ones(0, 2, 5, 5), t.ones(4, 2, 3, 3)).shape",
    "t.nn.functional.max_pool2d(t.ones(0, 2, 5, 5), 2).shape", "t.nn.functional.avg_pool2d(t.ones(0, 2, 5, 5), 2).shape",
    "t.ones(1, 3).expand(1, 3).add_(1)",
])
def test_corners_are_as_in_pytorch(expression, torch):
    ours, theirs = (eval(expression, {"t": module}) for module in (minidl, torch))
    if isinstance(ours, Tensor):
        assert ours.shape == tuple(theirs.shape)
        assert str(ours.dtype) == str(theirs.dtype).removeprefix("torch.")
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-3)
    else:
        assert ours == (tuple(theirs) if isinstance(theirs, tuple) else theirs)


def test_the_gradient_of_an_empty_batch_is_zero():
    w, b = minidl.randn(4, 2, 3, 3, requires_grad=True), minidl.zeros(4, requires_grad=True)
    x = minidl.zeros(0, 2, 5, 5, requires_grad=True)
    minidl.nn.functional.max_pool2d(minidl.nn.functional.conv2d(x, w, b), 2).sum().backward()
    assert x.grad.shape == (0, 2, 5, 5)
    assert np.all(w.grad.numpy() == 0)


@pytest.mark.parametrize(("use", "message"), [
    (lambda: minidl.ones(2).flatten(0, 1), "got dim=1"), (lambda: minidl.ones(2, 2, 2).flatten(2, 1), "got start_dim=2 behind"),
    (lambda: minidl.ones(2, 2).sum((0, 0)), "expected each axis once"), (lambda: minidl.ones(2).reshape(-2, -1), "0 or more"),
    (lambda: minidl.ones(0).max(), "expected at least one element"),
    (lambda: minidl.ones(3).expand(-1, 3), "expected sizes that repeat"), (lambda: minidl.zeros(-1), "no negative numbers"),
    (lambda: minidl.ones(2, requires_grad=True).sum().backward(1.0), "got float as gradient of the output"),
    (lambda: minidl.ones(2, 1).expand(2, 3)[0].add_(1), "clone() it first"),
    (lambda: minidl.nn.functional.linear(minidl.ones(1, 2), minidl.ones(3, 2), minidl.ones(1)), "got a bias of shape (1,)"),
    (lambda: minidl.nn.Parameter([1.0]), "got list, expected a tensor"),
    (lambda: setattr(minidl.ones(2, requires_grad=True), "data", np.ones(2)), "got ndarray, expected a tensor of floats"),
    (lambda: minidl.nn.functional.cross_entropy(minidl.ones(1, 2), [0]), "got labels as list"),
])
def test_corners_that_are_errors(use, message):
    with pytest.raises(minidl.MinidlError) as caught:
        use()
    assert message in str(caught.value)


def test_arrays_in_another_byte_order_are_turned_around():
    assert minidl.tensor(np.array([1.0, 2.0], ">f4")).dtype.isnative


def test_max_sends_its_gradient_to_the_first_of_equals():
    x = minidl.tensor([[3.0, 3.0, 1.0], [0.0, 2.0, 2.0]], requires_grad=True)
    x.max(1).values.sum().backward()
    assert x.grad.tolist() == [[1, 0, 0], [0, 1, 0]]
    x.grad = None
    x.max().backward()
    assert x.grad.tolist() == [[1, 0, 0], [0, 0, 0]]
    values, indices = x.max(axis=1, keepdims=True)
    assert (values.shape, indices.tolist()) == ((2, 1), [[0], [1]])


def test_random_numbers_come_from_one_seed():
    def draws():
        return [minidl.rand(3).tolist(), minidl.randn(3).tolist(), minidl.randint(10, (3,)).tolist(),
                minidl.randint(5, 7, (3,)).tolist(), minidl.randperm(5).tolist(), minidl.rand_like(minidl.ones(2)).tolist()]

    minidl.manual_seed(3)
    first = draws()
    minidl.manual_seed(3)
    assert draws() == first
    assert draws() != first
    own = minidl.Generator().manual_seed(3)
    assert minidl.rand(3, generator=own).tolist() == first[0]
    state = own.get_state()
    ahead = minidl.randn(4, generator=own).tolist()
    assert minidl.randn(4, generator=own.set_state(state)).tolist() == ahead
    assert minidl.Generator().manual_seed(-1).initial_seed() == -1
    on_fake = minidl.randn(3, device="fake", generator=minidl.Generator().manual_seed(3))
    assert on_fake.tolist() == minidl.randn(3, generator=minidl.Generator().manual_seed(3)).tolist()


def test_random_numbers_have_their_distribution():
    x = minidl.rand(100_000).numpy()
    assert x.min() >= 0
    assert x.max() < 1
    assert x.mean() == pytest.approx(0.5, abs=0.005)
    x = minidl.randn(100_000).numpy()
    assert x.mean() == pytest.approx(0, abs=0.02)
    assert x.std() == pytest.approx(1, abs=0.02)
    assert set(minidl.randint(2, 5, (1000,)).tolist()) == {2, 3, 4}
    assert sorted(minidl.randperm(10).tolist()) == list(range(10))


def test_rand_stays_below_one_in_float32(monkeypatch):
    class AlmostOne:
        def random(self, shape):
            return np.full(shape, 1 - 1e-12)

    generator = minidl.Generator()
    generator._numpy = AlmostOne()
    assert minidl.rand(2, generator=generator).numpy().max() < 1


def test_sums_of_many_float32_numbers_are_precise():
    x = np.full((100_000, 3), 0.1, np.float32)
    exact = x.astype(np.float64).sum(0)
    np.testing.assert_allclose(minidl.tensor(x).sum(0).numpy(), exact, rtol=1e-7)
    assert np.abs(x.sum(0) - exact).max() > 1e-2                # what NumPy's float32 sum makes of it
    bias = minidl.zeros(3, requires_grad=True)
    (minidl.tensor(x) * 0 + bias).backward(minidl.tensor(x))
    np.testing.assert_allclose(bias.grad.numpy(), exact, rtol=1e-7)
