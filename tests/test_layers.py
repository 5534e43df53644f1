"""Every layer against PyTorch's of the same name: how it prints, its state-dict keys and shapes, outputs, gradients.

The weights are PyTorch's, loaded by name, so that keys and layouts are put to use.
"""

from __future__ import annotations

import numpy as np
import pytest

import minidl
from minidl import nn

IMAGES, SEQUENCES, ROWS = (2, 4, 6, 5), (2, 4, 7), (3, 4)
LAYERS = {                                                      # how to make it -> shapes of its inputs
    ROWS: [
        "Linear(4, 3)", "Linear(4, 2, bias=False)", "Identity()", "BatchNorm1d(4)", "BatchNorm1d(4, affine=False)",
        "BatchNorm1d(4, eps=0.1, momentum=None)", "BatchNorm1d(4, track_running_stats=False)", "LayerNorm(4)",
        "LayerNorm(4, elementwise_affine=False)", "LayerNorm((3, 4), eps=0.1)", "LayerNorm(4, bias=False)", "ReLU()",
        "ReLU(inplace=True)", "ReLU6()", "LeakyReLU()", "LeakyReLU(0.2, inplace=True)", "ELU()", "ELU(0.5)", "SELU()",
        "CELU(0.5)", "GELU()", "GELU('tanh')", "SiLU()", "SiLU(inplace=True)", "Mish()", "Softplus()", "Softplus(2)",
        "Softsign()", "Tanhshrink()", "Hardtanh()", "Hardtanh(-2, 2)", "Hardsigmoid()", "Hardswish()", "Hardshrink()",
        "Softshrink(0.2)", "Threshold(0.1, 20)", "Tanh()", "Sigmoid()", "LogSigmoid()", "GLU()", "Softmax(dim=1)",
        "LogSoftmax(1)", "Softmin(dim=0)", "PReLU()", "PReLU(4)", "Sequential(Linear(4, 8), ReLU(), Linear(8, 2))",
        "Sequential(OrderedDict(a=Linear(4, 8), b=Sequential(Tanh(), Linear(8, 2))))", "Unflatten(1, (2, 2))",
        "Sequential(Linear(4, 8), ReLU(), Linear(8, 2))[:2]", "Dropout(0.0)",
    ],
    IMAGES: [
        "Conv2d(4, 3, 3)", "Conv2d(4, 6, (3, 2), stride=2, padding=(1, 2), dilation=(2, 1), groups=2, bias=False)",
        "Conv2d(4, 3, 3, padding='same')", "Conv2d(4, 3, 3, padding=1, padding_mode='reflect')",
        "Conv2d(4, 3, (3, 4), padding=(0, 2), padding_mode='circular')",
        "Conv2d(4, 3, (2, 3), padding='same', padding_mode='replicate')",
        "ConvTranspose2d(4, 3, 3)", "ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2)",
        "ConvTranspose2d(4, 3, (2, 3), (3, 1), bias=False, dilation=(1, 2))", "MaxPool2d(2)",
        "MaxPool2d(3, stride=2, padding=1, ceil_mode=True)", "MaxPool2d((2, 3), dilation=(2, 1))", "AvgPool2d(2)",
        "AvgPool2d((3, 2), 1, (1, 0), count_include_pad=False)", "AdaptiveAvgPool2d(1)", "AdaptiveAvgPool2d((4, 3))",
        "AdaptiveMaxPool2d((3, 2))", "AdaptiveAvgPool2d((None, 2))", "BatchNorm2d(4)", "BatchNorm2d(4, momentum=0.3)",
        "GroupNorm(2, 4)", "GroupNorm(4, 4, affine=False)", "InstanceNorm2d(4)", "InstanceNorm2d(4, affine=True)",
        "LocalResponseNorm(2)", "Flatten()", "Flatten(2)", "Flatten(0, 1)", "Upsample(scale_factor=2)", "Upsample(size=(9, 7))",
        "Upsample(scale_factor=2, mode='bilinear')", "Upsample(scale_factor=(2, 3), mode='bilinear', align_corners=True)",
        "UpsamplingNearest2d(scale_factor=2)", "UpsamplingBilinear2d(scale_factor=2)", "PixelShuffle(2)", "ZeroPad2d(1)",
        "ZeroPad2d((1, 2, 0, 1))", "ReflectionPad2d(2)", "ReplicationPad2d((1, 2, 3, 4))", "CircularPad2d(1)",
        "ConstantPad2d((1, 0, 2, 1), 3.5)", "Unfold(2)", "Unfold((2, 3), stride=2)", "Dropout2d(0.0)", "PReLU(4)",
        "Softmax(dim=1)", "LayerNorm([6, 5])", "Sequential(Conv2d(4, 2, 3), BatchNorm2d(2), ReLU(), Flatten(), Linear(24, 2))",
    ],
    SEQUENCES: [
        "Conv1d(4, 3, 3)", "Conv1d(4, 6, 3, 2, 1, groups=2)", "Conv1d(4, 3, 4, padding='same', dilation=2)",
        "Conv1d(4, 3, 3, padding=2, padding_mode='circular', bias=False)", "ConvTranspose1d(4, 3, 3, 2, 1, 1)", "MaxPool1d(2)",
        "MaxPool1d(3, 2, 1)", "AvgPool1d(3)", "AvgPool1d(2, 1, 1)", "AdaptiveAvgPool1d(3)", "AdaptiveMaxPool1d(2)", "BatchNorm1d(4)",
        "InstanceNorm1d(4)", "Dropout1d(0.0)", "Upsample(scale_factor=2, mode='linear')", "GroupNorm(2, 4)",
    ],
    (ROWS, ROWS): [
        "Bilinear(4, 4, 3)", "CosineSimilarity()", "PairwiseDistance()", "PairwiseDistance(1, keepdim=True)", "MSELoss()",
        "MSELoss(reduction='sum')", "L1Loss(reduction='none')", "SmoothL1Loss()", "SmoothL1Loss(beta=0.3)", "HuberLoss(delta=0.5)",
        "PoissonNLLLoss()", "L1Loss()",
    ],
    (ROWS, ROWS, ROWS): ["TripletMarginLoss()", "TripletMarginLoss(margin=0.3, p=1, swap=True)"],
}
CASES = [(shape, text) for shape, texts in LAYERS.items() for text in texts]


def made(text, module_of_layers, library):
    from collections import OrderedDict

    names = {name: getattr(module_of_layers, name) for name in nn.__all__ if hasattr(module_of_layers, name)}
    return eval(text, {**names, "OrderedDict": OrderedDict, "tensor": library.tensor})


@pytest.mark.torch
@pytest.mark.parametrize(("shapes", "text"), CASES, ids=lambda v: v if isinstance(v, str) else "")
def test_layer_equals_pytorchs(shapes, text, torch, rng):
    theirs = made(text, torch.nn, torch).double()
    mine = made(text, nn, minidl).double()
    assert repr(theirs) == repr(mine)
    state = theirs.state_dict()
    assert {name: tuple(x.shape) for name, x in state.items()} == {
        name: tuple(x.shape) for name, x in mine.state_dict().items()}
    assert list(state) == list(mine.state_dict())
    mine.load_state_dict({name: minidl.tensor(x.numpy()) for name, x in state.items()})
    shapes = shapes if isinstance(shapes[0], tuple) else (shapes,)
    for _ in range(2):                                          # twice: running statistics are in use the second time
        arrays = [rng.normal(size=shape) for shape in shapes]
        compare(mine, theirs, arrays, torch, rng)
    mine.eval(), theirs.eval()
    compare(mine, theirs, [rng.normal(size=shape) for shape in shapes], torch, rng)
    for name, x in theirs.state_dict().items():
        np.testing.assert_allclose(mine.state_dict()[name].numpy(), x.numpy(), rtol=1e-10, err_msg=name)


def compare(mine, theirs, arrays, torch, rng):
    my_inputs = [minidl.tensor(a, requires_grad=True) for a in arrays]
    their_inputs = [torch.tensor(a, requires_grad=True) for a in arrays]
    y, expected = mine(*(x * 1 for x in my_inputs)), theirs(*(x * 1 for x in their_inputs))
    assert tuple(y.shape) == tuple(expected.shape)
    np.testing.assert_allclose(y.detach().numpy(), expected.detach().numpy(), rtol=1e-9, atol=1e-12)
    weights = rng.normal(size=tuple(y.shape))
    for parameter in (*mine.parameters(), *theirs.parameters()):
        parameter.grad = None
    (y * minidl.tensor(weights)).sum().backward()
    (expected * torch.tensor(weights)).sum().backward()
    pairs = [*zip(my_inputs, their_inputs, strict=True), *zip(mine.parameters(), theirs.parameters(), strict=True)]
    for x, other in pairs:
        if other.grad is None:
            assert x.grad is None
            continue
        rtol = 1e-7 if "Hardsigmoid" in repr(theirs) else 1e-8          # PyTorch's 1/6 there has 7 digits
        np.testing.assert_allclose(x.grad.numpy(), other.grad.numpy(), rtol=rtol, atol=1e-11)


CLASSIFIERS = ["CrossEntropyLoss()", "CrossEntropyLoss(label_smoothing=0.1)", "CrossEntropyLoss(ignore_index=1, reduction='sum')",
               "CrossEntropyLoss(weight=tensor([1.0, 2.0, 0.5, 1.5]))", "NLLLoss()", "NLLLoss(tensor([1.0, 2.0, 0.5, 1.5]))"]


@pytest.mark.torch
@pytest.mark.parametrize("text", CLASSIFIERS)
def test_classification_losses_equal_pytorchs(text, torch, rng):
    theirs, mine = made(text, torch.nn, torch).double(), made(text, nn, minidl).double()
    assert repr(theirs) == repr(mine)
    assert list(theirs.state_dict()) == list(mine.state_dict())
    scores, labels = rng.normal(size=(5, 4)), np.array([0, 1, 3, 2, 1])
    x, y = minidl.tensor(scores, requires_grad=True), torch.tensor(scores, requires_grad=True)
    takes_logarithms = text.startswith("NLL")
    loss = mine(x.log_softmax(1) if takes_logarithms else x, minidl.tensor(labels))
    expected = theirs(y.log_softmax(1) if takes_logarithms else y, torch.tensor(labels))
    loss.backward(), expected.backward()
    np.testing.assert_allclose(loss.item(), expected.item(), rtol=1e-10)
    np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), rtol=1e-9, atol=1e-12)


def test_every_layer_is_in_these_tables():
    elsewhere = {"Module", "Parameter", "ModuleList", "ModuleDict", "ParameterList", "ParameterDict", "functional", "init", "utils", "Embedding",
                 "Fold", "MaxUnpool2d", "PixelUnshuffle", "BCELoss", "BCEWithLogitsLoss", "KLDivLoss", "GaussianNLLLoss", "HingeEmbeddingLoss",
                 "CosineEmbeddingLoss", "MarginRankingLoss", "SoftMarginLoss"}
    text = " ".join([t for _, t in CASES] + CLASSIFIERS)
    assert [name for name in nn.__all__ if name + "(" not in text and name not in elsewhere] == []


@pytest.mark.torch
def test_layers_with_inputs_of_their_own(torch, rng):
    """Those that take indices, probabilities, or more than two tensors."""
    def both(text, *arrays):
        theirs, mine = made(text, torch.nn, torch), made(text, nn, minidl)
        mine.load_state_dict({name: minidl.tensor(x.numpy()) for name, x in theirs.state_dict().items()})
        assert repr(mine) == repr(theirs)
        result = mine(*map(minidl.tensor, arrays))
        expected = theirs(*map(torch.tensor, arrays))
        np.testing.assert_allclose(result.detach().numpy(), expected.detach().numpy(), rtol=1e-6, atol=1e-9)

    signs, p, q = np.array([1.0, -1, 1]), rng.uniform(0.1, 0.9, (3, 4)), rng.uniform(0.1, 0.9, (3, 4))
    both("Embedding(7, 3)", np.array([[0, 6], [3, 3]]))
    both("Embedding(7, 3, padding_idx=2)", np.array([[0, 2], [3, 3]]))
    both("Embedding(7, 3, padding_idx=-1)", np.array([6, 2]))
    both("Fold((4, 5), kernel_size=(2, 2))", rng.normal(size=(2, 12, 12)))
    both("PixelUnshuffle(2)", rng.normal(size=(2, 3, 4, 6)))
    both("BCELoss()", p, q)
    both("BCEWithLogitsLoss()", rng.normal(size=(3, 4)), q)
    both("BCEWithLogitsLoss(pos_weight=tensor([1.0, 2.0, 3.0, 0.5]))", rng.normal(size=(3, 4)), q)
    both("KLDivLoss(reduction='batchmean')", np.log(p), q)
    both("KLDivLoss(reduction='sum', log_target=True)", np.log(p), np.log(q))
    both("GaussianNLLLoss(full=True)", p, q, p + q)
    both("HingeEmbeddingLoss()", rng.normal(size=3), signs)
    both("CosineEmbeddingLoss(margin=0.2)", p[:3], q[:3], signs)
    both("MarginRankingLoss(0.1)", rng.normal(size=3), rng.normal(size=3), signs)
    both("SoftMarginLoss()", rng.normal(size=3), signs)


def test_unpooling_puts_back_what_pooling_took():
    x = minidl.arange(1.0, 17).reshape(1, 1, 4, 4)
    pooled, places = nn.MaxPool2d(2, return_indices=True)(x)
    back = nn.MaxUnpool2d(2)(pooled, places)
    assert back[0, 0].tolist() == [[0, 0, 0, 0], [0, 6, 0, 8], [0, 0, 0, 0], [0, 14, 0, 16]]


@pytest.mark.parametrize(("make", "count"), [
    (lambda: nn.Sequential(nn.Conv2d(1, 32, 3, padding="same"), nn.ReLU(), nn.AvgPool2d(2),
                           nn.Conv2d(32, 64, 3, padding="same"), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(),
                           nn.Linear(64 * 7 * 7, 256), nn.ReLU(), nn.Linear(256, 10)), 824_458),
    (lambda: nn.Sequential(nn.Conv2d(1, 6, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2),
                           nn.Flatten(), nn.Linear(256, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10)),
     44_426),
    (lambda: nn.Sequential(nn.Conv2d(3, 32, 3, padding=0), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
                           nn.Conv2d(64, 128, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(), nn.Flatten(),
                           nn.Linear(128 * 12 * 12, 512), nn.ReLU(),
                           nn.Dropout(), nn.Linear(512, 10)), 9_536_074),
], ids=["cnn", "lenet", "cnn48"])
def test_the_known_models_have_the_known_number_of_parameters(make, count):
    assert sum(p.numel() for p in make().parameters()) == count


def test_loss_modules_refuse_an_unknown_reduction():
    with pytest.raises(minidl.MinidlError, match="reduction='avg'"):
        nn.MSELoss(reduction="avg")
