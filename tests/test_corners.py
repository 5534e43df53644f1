"""Corners that went wrong once: memory that must not be shared, sizes that must not broadcast, ends of number types.

Each line runs with both libraries, with the same text (t is the library, F its functional).
"""

from __future__ import annotations

import math

import numpy as np
import pytest

import minidl
from minidl import fake, nn
from minidl.errors import MinidlError, SettingError
from tests.helpers import assert_equals_pytorchs, f64

FRESH = [                                                       # results with memory of their own, also where nothing changes
    "x.flip(0)", "x.flip(())", "x.repeat(1, 1)", "x.tile(1)", "x.repeat_interleave(1, 0)", "x[:1].prod(0)", "x[:1].cumprod(0)",
    "x[0, 0].sort()[0]", "x[0, 0].max(0)[0]", "x[0, 0].median(0)[0]", "F.interpolate(img, scale_factor=1)", "F.pixel_shuffle(img, 1)",
    "F.pixel_unshuffle(img, 1)", "F.pad(img, (0, 0), 'replicate')", "x.cumprod(0)[:1]", "x[:, :1].expand(2, 3).repeat_interleave(1, 1)",
]
VIEWS = ["x.diagonal()", "x.diagonal(1)", "img.diagonal(0, 2, 3)", "x.T", "x[0]", "x.narrow(1, -2, 2)", "x.movedim((0, 1), (1, 0))"]
VALUES = [
    "i32.add(t.tensor([1, 1], dtype=t.uint8), alpha=-1)", "t.tensor([2], dtype=t.uint8).cosh()", "t.tensor([89.0]).sinh()",
    "F.mse_loss(x, x * 0, weight=x.abs())", "F.scaled_dot_product_attention(x, x, x, attn_mask=t.zeros(2, 2).bool())",
    "F.cosine_similarity(t.tensor([[2.0]]), t.tensor([[3.0, 4.0]]))", "t.take_along_dim(t.arange(6).reshape(2, 3), t.tensor([[0, 2, 1]]), 1)",
    "t.take_along_dim(x, t.tensor([3, 1]))", "t.ones(2, 2, dtype=t.bool).tril()", "t.ones(2, 2, dtype=t.bool).triu(1)",
    "t.ones(2, dtype=t.bool).masked_fill(t.tensor([True, False]), 0)", "t.bincount(t.tensor([0, 1]), weights=t.tensor([0.5, 1.5]))",
    "t.tensor([1.0, nan, 3.0]).median()", "t.tensor([[1.0, nan, 3.0], [1, 2, 3]]).median(1)[0]", "F.hardshrink(t.tensor([nan, 2.0]))",
    "F.threshold(t.tensor([nan, 2.0]), 1.0, 5.0)", "t.addmm(t.tensor([nan]), t.ones(1, 2), t.ones(2, 1), beta=0)",
    "t.tensor([nan, nan, 1.0]).unique()", "F.nll_loss(x[0].log_softmax(0), t.tensor(1), reduction='none')", "t.tensor(3.0).prod(0, keepdim=True)",
    "F.interpolate(t.arange(4.0).reshape(1, 1, 2, 2), scale_factor=1.4)", "t.ones(3000).half().cumsum(0)[-1]",
    "t.einsum('...ij,...jk->...ik', t.ones(1, 2, 3), t.ones(5, 3, 4))", "t.einsum('bij,bjk->bik', t.ones(1, 2, 3), t.ones(5, 3, 4))",
    "t.where(t.tensor([True, False]), t.tensor([1, 2], dtype=t.uint8), 7)", "t.full((2,), 3, dtype=t.uint8)", "t.tensor([np.int32(1), 2])",
    "t.tensor([np.float64(1), 2.0])", "t.tensor(3.0).cumprod(0)", "t.hstack([t.tensor(1), t.tensor(2)])", "t.vstack([t.tensor(1), t.tensor(2)])",
    "t.tensor([1, 2, 3]).repeat_interleave(t.tensor([2, 0, 1]))", "x.type(t.LongTensor)", "x.type('torch.DoubleTensor')", "t.tensor([1e-25]) / t.tensor([1e-25])",
    "F.linear(t.ones(2, 0), t.ones(3, 0), t.ones(3))", "x.narrow(1, -2, 1)", "t.normal(t.zeros(2), 0.0)", "F.threshold(x, 0.0, 9.0)",
    "t.tensor([1, 2, 3]).new_tensor([4])", "t.zeros(4).scatter_(0, t.tensor(3), value=1)",
    "t.flip(x, dims=[0])", "t.permute(x, dims=(1, 0))", "t.reshape(x, shape=(3, 2))", "x.view(size=(6,))", "x[:1].expand(size=(4, 3))",
    "t.split(x, split_size_or_sections=1, dim=0)[1]", "t.bitwise_and(i32, i32 + 1)", "t.bitwise_xor(i32, i32 + 1)", "t.bitwise_not(i32)",
    "t.sin_(x.clone())", "t.exp_(x.clone())", "t.zeros(size=(2, 3))", "t.ones(size=())", "t.conv2d(img, t.ones(1, 1, 2, 2))", "t.selu(x)", "t.nn.Conv2d(1, 1, 2)(img[0]).detach() * 0", "F.max_pool2d(img[0], 2)", "F.avg_pool2d(img[0], 2)", "F.adaptive_avg_pool2d(img[0], 3)",
    "F.conv_transpose2d(img[0], t.ones(1, 2, 2, 2))", "F.conv1d(x, t.ones(1, 2, 2))", "t.linalg.norm(x, 1)", "t.linalg.norm(x, math.inf, dim=(0, 1))",
    "t.linalg.norm(x, 1, dim=1)", "t.linalg.matrix_norm(x, 1, keepdim=True)", "t.fmod(t.tensor([2 ** 60 + 1]), 7)", "t.fmod(t.tensor([1e10]).double(), 0.3)",
    "t.div(t.tensor([2 ** 53 + 1]), 1, rounding_mode='trunc')", "t.div(t.tensor([-7]), 2, rounding_mode='trunc')", "t.div(x, 2, rounding_mode='trunc')",
    "t.logaddexp(t.tensor([math.inf, -math.inf]), t.tensor([math.inf, -math.inf]))", "t.tensor([1000.0]).double().log10().floor()", "t.tensor([0.9999]).acos()",
    "F.fold(F.unfold(img[0], 2), (4, 4), 2)", "F.local_response_norm(img, 5)", "F.interpolate(img[0], size=3, mode='area')", "F.bilinear(x, x[:, :2], t.ones(4, 3, 2))",
    "t.nn.utils.rnn.pad_sequence([x[0], x[1, :2]])", "t.nn.utils.rnn.pad_sequence([x, x[:1]], batch_first=True, padding_value=9)",
]
GRADIENTS = [                                                   # expression of x -> x
    ("t.ones(3).double().requires_grad_()", "x.std()"), ("t.zeros(2, 3).double().requires_grad_()", "x.norm(3, 1)"),
    ("t.zeros(2, 3).double().requires_grad_()", "t.cdist(x, x, p=3.0)"), ("t.tensor([1e-25]).requires_grad_()", "t.tensor([1e-25]) / x"),
    ("t.tensor([1e20]).requires_grad_()", "t.tensor([1e30]) / x"), ("t.ones(3, 2).double().requires_grad_()", "F.linear(x[:, :0], t.ones(4, 0).double()) + x.sum()"),
    ("t.ones(2, 2).double().requires_grad_()", "x.std(0)"), ("t.ones(3, 3).double().requires_grad_()", "x.diagonal(1) * 2"),
    ("t.ones(4).double().requires_grad_()", "t.einsum('i,i->', x, t.ones(1).double())"),
]


def scene(library):
    return {"t": library, "F": library.nn.functional, "np": np, "math": math, "nan": math.nan, "x": library.tensor([[1.0, -2.0, 3.0], [4.0, 5.0, -6.0]]),
            "img": library.arange(16.0).reshape(1, 1, 4, 4), "i32": library.tensor([1, 2], dtype=library.int32)}


@pytest.mark.torch
@pytest.mark.parametrize("text", VALUES)
def test_values_equal_pytorchs(text, torch):
    assert_equals_pytorchs(eval(text, scene(minidl)), eval(text, scene(torch)))


@pytest.mark.torch
@pytest.mark.parametrize(("make", "text"), GRADIENTS)
def test_gradients_equal_pytorchs(make, text, torch):
    gradients = []
    for library in (minidl, torch):
        names = scene(library)
        names["x"] = eval(make, names)
        eval(text, names).sum().backward()
        gradients.append(names["x"].grad.numpy())
    np.testing.assert_allclose(*gradients, rtol=1e-6)


@pytest.mark.parametrize("text", FRESH)
def test_a_result_that_is_no_view_shares_no_memory(text):
    names = scene(minidl)
    before = {name: names[name].clone() for name in ("x", "img")}
    eval(text, names).zero_()
    for name, x in before.items():
        assert names[name].equal(x)


@pytest.mark.parametrize("text", VIEWS)
def test_a_view_shares_its_memory(text):
    names = scene(minidl)
    eval(text, names).fill_(77)
    assert (names["x"] == 77).any() or (names["img"] == 77).any()


def test_windows_are_a_copy_that_refuses_to_lose_a_change():
    with pytest.raises(MinidlError, match=r"clone\(\) it first"):
        minidl.ones(4).unfold(0, 2, 2).zero_()


REFUSED = [
    ("x.scatter_add(1, t.zeros(2, 3, dtype=t.int64), t.ones(2, 1))", "got a src of float32 (2, 1), expected float32 of at least (2, 3)"),
    ("x.scatter(1, t.zeros(2, 1, dtype=t.int64), None)", "got src=None"), ("x.index_add(0, None, x)", "got an index of NoneType"),
    ("x.index_add(0, t.tensor([0]), x)", "got a source of float32 (2, 3), expected float32 (1, 3)"), ("x.index_select(0, t.tensor([-1]))", "got the index -1"),
    ("x.index_select(0, t.tensor([True]))", "expected one axis of integers"), ("F.mse_loss(x, x, weight=t.ones(3))", "mse_loss: got an input of shape (2, 3)"),
    ("F.binary_cross_entropy_with_logits(x, x * 0, pos_weight=t.ones(2, 1, 1))", "expected one that broadcasts to (2, 3)"),
    ("i32.add(i32, alpha=0.5)", "got alpha=0.5"), ("F.interpolate(img.long(), scale_factor=2, mode='bilinear')", "got a tensor of int64, expected floats"),
    ("F.dropout(i32, 0.5, True)", "expected floats"), ("F.scaled_dot_product_attention(x, x, x, attn_mask=t.ones(2, 2).long())", "use mask.bool()"),
    ("F.scaled_dot_product_attention(x, x, x, attn_mask=t.ones(2, 2), is_causal=True)", "is_causal beside a mask"),
    ("t.zeros(2, dtype='complex64')", "dtype: got 'complex64'"), ("x.to(object)", "expected one of float32"), ("x.masked_fill(x > 0, None)", "expected a number"),
    ("i32 // 0", "got a 0 to divide integers by"), ("i32 % t.tensor([1, 0])", "got a 0 to divide integers by"), ("t.einsum('ii', x)", "got the sizes 2 and 3 for 'i'"),
    ("t.einsum('i...j...', img)", "at most once in each operand"), ("F.gaussian_nll_loss(x, x, -x.abs())", "negative variance"),
    ("t.normal(0.0, -1.0, (2,))", "got std=-1.0"), ("t.bernoulli(t.tensor([nan]))", "outside of 0 to 1"), ("F.batch_norm(x, None, None)", "no running statistics"),
    ("F.layer_norm(x.double(), (3,), t.ones(3))", "got float64 for x and float32"), ("t.nn.Conv2d(1, 1, 3, padding='abc')", "got padding='abc'"),
    ("t.nn.Conv2d(1, 1, 3, stride=2, padding='same')", "expected stride 1"), ("t.nn.BatchNorm2d(3, eps=-1)", "got eps=-1"), ("t.arange(5, 0)", "which lead nowhere"),
    ("t.arange(0, 5, 0)", "which lead nowhere"), ("t.arange('a')", "expected numbers"), ("t.linspace(0, 1, -1)", "got steps=-1"), ("t.randperm(-1)", "got n=-1"),
    ("t.randint(5, 2, (3,))", "expected low below high"), ("t.full((2,), 'a')", "got fill_value='a'"), ("F.interpolate(img, scale_factor=0.1)", "which leaves nothing"),
    ("x.repeat(-1, 1)", "0 or more"), ("t.meshgrid(x, x, indexing='ij')", "expected vectors"), ("F.rrelu(x, 0.5, 0.1)", "got lower=0.5 above upper=0.1"),
    ("t.set_printoptions(precision='a')", "got precision='a'"), ("t.broadcast_tensors(x, t.ones(2))", "which do not broadcast"), ("x[5]", "index 5 is out of bounds"),
    ("x[[5]]", "index 5 is out of bounds"), ("t.exp(2.0)", "exp: got float, expected a tensor"), ("t.sum([1, 2])", "sum: got list, expected a tensor"),
    ("F.linear([1.0], x)", "linear: got list"), ("F.conv2d([1], x)", "conv2d: got list"), ("t.nn.Linear(2, 3)('x')", "Linear: got str, expected a tensor"),
    ("t.nn.Sequential(t.nn.ReLU())([1.0])", "0 ReLU: got list"), ("F.dropout(x, 'a', True)", "got p='a'"), ("t.nn.Dropout('a')", "got p='a'"), ("F.pad(x, 1)", "got pad=1"),
    ("x.sum('a')", "got dim='a', expected an integer"), ("t.zeros('a')", "got the size ('a',), expected integers"), ("x.reshape('a')", "expected integers"), ("x + None", "got"),
    ("F.cross_entropy(x, [0, 1])", "got labels as list"), ("F.cross_entropy([1.0], t.tensor(0))", "cross_entropy: got list"), ("x.gather(1, [0])", "got list as an index"),
    ("t.nn.utils.clip_grad_value_([], -1)", "got clip_value=-1"), ("F.embedding(t.tensor([7]), x)", "got the index 7 at index 0, expected 0 to 1"),
    ("F.one_hot([1])", "one_hot: got list"), ("F.adaptive_avg_pool2d(img, (1, 2, 3))", "expected a number or a pair"), ("x.dot(x)", "expected two vectors"),
    ("t.nn.functional.pixel_shuffle(img, 3)", "a multiple of 3²"), ("x.quantile(2.0)", "between 0 and 1"), ("t.stack([x, x[0]])", "use cat to join"),
    ("x.topk(9)", "got k=9"), ("x.split([1, 1], 1)", "expected them to add up"), ("x.unsqueeze(9)", "got dim=9"), ("t.linalg.inv(x)", "inv: got (2, 3)"),
    ("x.view(4, 2)", "got 6 elements for the shape (4, 2), which holds 8"), ("x.bool().mean()", "use x.float().mean()"), ("t.cat([x, x[:, :2]])", "the same sizes except along dim 0"),
]


@pytest.mark.parametrize(("text", "sentence"), REFUSED)
def test_nonsense_is_answered_with_a_sentence(text, sentence):
    with pytest.raises(MinidlError) as caught:
        eval(text, scene(minidl))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_things_of_the_wrong_kind_are_not_taken_into_a_module():
    module = nn.Module()
    for call in (lambda: module.register_parameter("p", minidl.ones(1)), lambda: module.add_module("m", 5),
                 lambda: module.register_buffer("b", 5), lambda: nn.ModuleDict({"a": 5}), lambda: module.register_parameter("a.b", None)):
        with pytest.raises(MinidlError, match=r"expected a|expected one without dots"):
            call()
    assert list(module.named_parameters()) == []


def test_parts_are_found_by_their_path():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    assert model.get_parameter("0.weight") is model[0].weight
    assert model.get_buffer("1.running_mean") is model[1].running_mean
    with pytest.raises(AttributeError, match=r"no parameter '0\.wieght'"):
        model.get_parameter("0.wieght")
    with pytest.raises(AttributeError, match="no buffer"):
        model.get_buffer("0.weight")
    assert model.half()[0].weight.dtype == minidl.float16
    assert model.type(minidl.float64)[0].weight.dtype == minidl.float64


def test_functions_take_their_input_by_name_and_put_their_result_out():
    x, out = minidl.tensor([1.0, 2.0]), minidl.empty(2)
    assert minidl.sum(input=x).item() == 3
    assert minidl.add(x, x, out=out) is out
    assert out.tolist() == [2, 4]
    with pytest.raises(MinidlError, match=r"got out of shape \(2,\), expected \(1, 2\)"):
        minidl.unsqueeze(x, 0, out=out)
    assert minidl.pow(2, x).tolist() == [2, 4]


def test_bytes_are_a_mask_as_in_older_lessons():
    assert minidl.arange(3)[minidl.tensor([1, 0, 1]).byte()].tolist() == [0, 2]


def test_empty_tensors_print_their_size():
    assert repr(minidl.ones(0, 3)) == "tensor([], size=(0, 3))"
    assert repr(minidl.ones(0)) == "tensor([])"


def test_division_by_integers_is_only_refused_for_integers():
    assert (f64([1.0]) // 0).isinf().all()
    with pytest.raises(SettingError):
        minidl.tensor([1]).div(0, rounding_mode="floor")


@pytest.mark.torch
@pytest.mark.parametrize("text", ["b[0] += x * 2", "b[:, 0] += x[:2]", "b[1] *= x", "b[0].add_(x)", "b[0][1] += x[1]", "b[0] += x; b[0] *= x; b += 1; b[1] /= 2"])
def test_parts_changed_while_recording_have_pytorchs_gradients(text, torch):
    results = []
    for library in (minidl, torch):
        x = library.tensor([1.0, 2.0, 3.0]).requires_grad_()
        names = {"x": x, "b": library.ones(2, 3) * library.tensor([[1.0], [2.0]])}
        exec(text, names)
        (names["b"] * library.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])).sum().backward()
        results.append((names["b"].detach().numpy(), x.grad.numpy()))
    for mine, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6)


def test_a_view_that_was_changed_is_a_view_still_and_a_third_looker_is_in_the_way():
    x = f64([1.0, 2.0])
    b = minidl.zeros(2, 2).double()
    row = b[0]
    row += x
    assert b[0].tolist() == [1, 2]
    with minidl.no_grad():
        row.zero_()
    assert b.tolist() == [[0, 0], [0, 0]]
    c = minidl.zeros(2, 2).double()
    other = c.reshape(4)
    with pytest.raises(MinidlError, match=r"b\[i\] = b\[i\] \+ 1"):
        c[0] += x
    assert other.tolist() == [0, 0, 0, 0]


@pytest.mark.torch
@pytest.mark.parametrize(("layer", "shape", "size"), [
    ("ConvTranspose2d(1, 1, 3, 2)", (1, 4, 4), (10, 9)), ("ConvTranspose2d(1, 2, 3, 2, 1)", (2, 1, 4, 4), (8, 7)),
    ("ConvTranspose2d(1, 2, 3, 2, 1)", (2, 1, 4, 4), (2, 2, 7, 8)), ("ConvTranspose1d(1, 1, 3, 2)", (2, 1, 4), (10,))])
def test_an_output_size_chooses_the_padding(layer, shape, size, torch):
    mine, theirs = eval(f"nn.{layer}"), eval(f"torch.nn.{layer}")
    mine.load_state_dict({name: minidl.tensor(x.numpy()) for name, x in theirs.state_dict().items()})
    y, expected = mine(minidl.ones(shape), output_size=size), theirs(torch.ones(shape), output_size=size)
    np.testing.assert_allclose(y.detach().numpy(), expected.detach().numpy(), rtol=1e-5, atol=1e-6)
    for wrong in ((9,) * 5, "ab", (99,) * (len(shape) - 2)):
        with pytest.raises(SettingError, match="got output_size="):
            mine(minidl.ones(shape), output_size=wrong)


def test_one_sample_from_a_softmax_warns_too():
    with pytest.warns(UserWarning, match="leave the softmax out"):
        nn.functional.cross_entropy(f64([1.0, 2.0]).softmax(0), minidl.tensor(0))


@pytest.mark.parametrize("upload", [lambda x: x.to("fake"), lambda x: minidl.tensor(x.numpy(), device="fake"),
                                    lambda x: x.to("fake").detach()])
def test_labels_that_came_from_the_host_are_checked_on_a_device_without_reading_it(upload):
    scores = minidl.zeros(3, 3, device="fake")
    fake.syncs.reset()
    with pytest.raises(minidl.errors.LabelError, match="got the label 7 at index 1, expected 0 to 2 for 3 classes"):
        nn.functional.cross_entropy(scores, upload(minidl.tensor([0, 7, 1])))
    with pytest.raises(minidl.errors.LabelError, match="got the index 3 at index 1, expected 0 to 2"):
        nn.functional.embedding(upload(minidl.tensor([0, 3])), scores)
    ignoring = nn.functional.cross_entropy(scores, upload(minidl.tensor([0, -100, 1])))
    assert fake.syncs.calls == []
    assert ignoring.item() == pytest.approx(math.log(3))


def test_labels_that_were_changed_on_the_device_are_no_longer_what_the_host_saw():
    scores, labels = minidl.zeros(2, 3, device="fake"), minidl.tensor([0, 9]).to("fake")
    labels[1] = 2
    assert nn.functional.cross_entropy(scores, labels).item() == pytest.approx(math.log(3))
    assert nn.functional.cross_entropy(scores[:1], labels[:1]).item() == pytest.approx(math.log(3))


def test_a_label_out_of_range_makes_the_loss_nan_where_it_cannot_be_looked_at():
    scores = minidl.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0], [0.0, 0.0, 0.0]], device="fake")
    labels = minidl.tensor([0, 7, -100], device="fake") * 1                     # computed there: the host has not seen it
    losses = nn.functional.cross_entropy(scores, labels, reduction="none").cpu()
    assert losses.isnan().tolist() == [False, True, False]
    assert losses[2].item() == 0
    weighted = nn.functional.cross_entropy(scores[:1], minidl.tensor([1], device="fake"), weight=minidl.ones(3, device="fake"))
    on_host = nn.functional.cross_entropy(minidl.tensor([[1.0, 2.0, 3.0]]), minidl.tensor([1]))
    assert weighted.cpu().item() == pytest.approx(on_host.item(), rel=1e-6)


def test_layers_can_start_anew():
    for layer in (nn.Linear(3, 2), nn.Conv2d(2, 3, 3), nn.ConvTranspose1d(2, 3, 3), nn.Embedding(4, 2, padding_idx=1), nn.Bilinear(2, 3, 4)):
        before = layer.weight.detach().clone()
        layer.reset_parameters()
        assert not layer.weight.equal(before)
        assert abs(layer.weight.std().item() - before.std().item()) < 0.6
        assert layer.weight.requires_grad
    norm = nn.BatchNorm1d(2)
    norm(minidl.tensor([[1.0, 2.0], [3.0, 5.0]]))
    nn.init.constant_(norm.weight, 7)
    norm.reset_parameters()
    assert norm.weight.tolist() == norm.running_var.tolist() == [1, 1]
    assert norm.num_batches_tracked.item() == 0


@pytest.mark.torch
def test_containers_are_changed_and_printed_as_pytorchs(torch):
    def steps(t):
        n = t.nn
        s = n.Sequential(n.Linear(2, 2), n.ReLU(), n.Linear(2, 1))
        s.extend([n.Tanh()])
        s.insert(1, n.Sigmoid())
        yield repr(s)
        del s[-1]
        yield repr(s), repr(s.pop(0)), repr(s + n.Sequential(n.Identity()))
        named = n.Sequential(__import__("collections").OrderedDict(a=n.Linear(1, 1), b=n.Tanh(), c=n.Linear(1, 1)))
        yield repr(named[:2]), list(named[1:].state_dict()), list(s[1:].state_dict())
        layers = n.ModuleList([n.Linear(2, 2) for _ in range(3)])
        layers.insert(0, n.ReLU())
        layers += [n.ReLU(), n.Sequential(n.ReLU())]
        yield repr(layers), len(layers), repr(n.ModuleList())
        parts = n.ModuleDict([["a", n.ReLU()], ["b", n.Tanh()]])
        yield repr(parts.pop("a")), repr(parts), list(parts)
        tables = n.ParameterDict({"w": t.ones(2)})
        tables["v"] = n.Parameter(t.zeros(2, 3))
        yield list(tables.state_dict()), len(tables), list(tables), tables["w"].requires_grad, "v" in tables
        yield repr(n.ParameterList([t.ones(2)])).replace("torch.", ""), repr(tables).replace("torch.", "")
        yield list(s._modules), list(s[0]._parameters), s._get_name()

    assert list(steps(minidl)) == list(steps(torch))


def test_asking_for_a_name_that_is_not_there_costs_little():
    """NumPy asks tensors for __array_interface__ and the like, once for each element of a list of them."""
    import time

    x = minidl.ones(1)
    start = time.perf_counter()
    for _ in range(1000):
        assert not hasattr(x, "foo")
        assert not hasattr(x, "__array_interface__")
    assert time.perf_counter() - start < 0.2


def test_places_that_lessons_import_from():
    import importlib

    from minidl.autograd import gradcheck
    from minidl.nn.parameter import Parameter
    from minidl.nn.utils.rnn import pad_sequence

    assert Parameter is nn.Parameter
    assert gradcheck is minidl.gradcheck
    assert pad_sequence is nn.utils.rnn.pad_sequence
    assert importlib.import_module("minidl.backends.cudnn").benchmark is False
    assert not minidl.accelerator.is_available()
    assert minidl.accelerator.current_accelerator() is None
    minidl.use_deterministic_algorithms(True)
    with minidl.autograd.detect_anomaly():
        assert minidl.is_grad_enabled()
    assert isinstance(minidl.float32, minidl.dtype)
    x = minidl.ones(1, requires_grad=True) * 2
    assert x.grad_fn.next_functions[0][0].next_functions == ()
    assert x.grad_fn.name() == "Mul"
    assert minidl.randint(9, size=(20,)).max().item() < 9


def test_axes_and_labels_that_are_not_there_are_index_errors_as_in_pytorch():
    for call in (lambda: minidl.ones(2).sum(3), lambda: minidl.ones(2)[5], lambda: nn.Embedding(2, 2)(minidl.tensor([5])),
                 lambda: minidl.ones(2).unsqueeze(7)):
        with pytest.raises(IndexError):
            call()


def test_masked_classes_count_nothing():
    from minidl.distributions import Categorical, kl_divergence

    d = Categorical(logits=minidl.tensor([0.0, 1.0, -math.inf]))
    assert d.entropy().item() == pytest.approx(0.5822, abs=1e-4)
    assert kl_divergence(d, d).item() == 0
    assert repr(Categorical(minidl.ones(2))) == "Categorical(probs: (2,), logits: (2,))"
