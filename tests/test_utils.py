"""make_grid and save_image, by hand from what torchvision documents; and minidl.utils.data, another name."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

import minidl
import minidl.utils
import minidl.utils.data
from minidl import data
from minidl.errors import DtypeError, SettingError, ShapeError
from minidl.utils import make_grid, save_image


def ones(*shape, times=1.0):
    return minidl.ones(*shape) * times


def test_a_grid_by_hand():
    images = minidl.tensor([[[[1.0, 2.0]]], [[[3.0, 4.0]]], [[[5.0, 6.0]]]])                  # (3, 1, 1, 2)
    grid = make_grid(images, nrow=2, padding=1, pad_value=9)
    expected = [[9, 9, 9, 9, 9, 9, 9],
                [9, 1, 2, 9, 3, 4, 9],
                [9, 9, 9, 9, 9, 9, 9],
                [9, 5, 6, 9, 9, 9, 9],
                [9, 9, 9, 9, 9, 9, 9]]
    assert grid.tolist() == [expected] * 3
    assert grid.dtype == minidl.float32


@pytest.mark.parametrize(("shape", "settings", "expected"), [
    ((10, 3, 4, 5), {}, (3, 2 + 2 * 6, 2 + 8 * 7)),
    ((10, 1, 4, 5), {}, (3, 2 + 2 * 6, 2 + 8 * 7)),
    ((3, 3, 4, 5), {}, (3, 2 + 6, 2 + 3 * 7)),                      # fewer than a row
    ((10, 3, 4, 5), {"nrow": 3, "padding": 0}, (3, 4 * 4, 3 * 5)),
    ((10, 2, 4, 5), {"nrow": 5}, (2, 2 + 2 * 6, 2 + 5 * 7)),
    ((1, 3, 4, 5), {}, (3, 4, 5)),                                  # one image stays without a border
    ((1, 1, 4, 5), {}, (3, 4, 5)),
    ((3, 4, 5), {}, (3, 4, 5)),
    ((1, 4, 5), {}, (3, 4, 5)),
    ((4, 5), {}, (3, 4, 5)),
])
def test_sizes(shape, settings, expected):
    assert make_grid(minidl.ones(*shape), **settings).shape == expected


def test_a_list_of_images_is_stacked():
    images = [ones(3, 2, 2, times=k) for k in range(5)]
    stacked = minidl.tensor(np.stack([image.numpy() for image in images]))
    assert make_grid(images).tolist() == make_grid(stacked).tolist()
    assert make_grid([minidl.ones(2, 2)] * 2).shape == (2, 2, 2), "as in torchvision, (2, H, W) is one image"


def test_normalizing():
    images = minidl.tensor(np.array([[0.0, 2.0], [4.0, 8.0]], np.float32)[:, None, None, :])      # (2, 1, 1, 2)

    def values(**settings):
        return make_grid(images, padding=0, normalize=True, **settings)[0].tolist()

    assert values() == [[0, 0.25, 0.5, 1]]
    assert values(scale_each=True) == [[0, 1, 0, 1]]
    assert values(value_range=(0, 4)) == [[0, 0.5, 1, 1]]
    assert values(value_range=(2, 4), scale_each=True) == [[0, 0, 1, 1]]
    assert images[0].tolist() == [[[0, 2]]], "the images themselves were changed"
    assert make_grid(minidl.ones(2, 3, 1, 1), padding=0, normalize=True).tolist() == [[[0, 0]]] * 3


def test_byte_images_and_images_with_gradients():
    grid = make_grid(minidl.ones(2, 1, 2, 2).to(minidl.uint8), pad_value=7)
    assert grid.dtype == minidl.uint8
    image = minidl.zeros(1, 3, 2, 2)
    make_grid(image)[0, 0, 0] = 5
    assert image.max().item() == 0, "one image alone must not share its memory"
    assert grid[0, 0, 0].item() == 7
    assert not make_grid(minidl.ones(2, 3, 2, 2, requires_grad=True)).requires_grad


@pytest.mark.parametrize(("call", "error", "words"), [
    (lambda: make_grid(np.ones((2, 3, 4, 4))), DtypeError, "ndarray"),
    (lambda: make_grid([]), DtypeError, "list"),
    (lambda: make_grid([minidl.ones(1, 2, 2), minidl.ones(1, 3, 3)]), ShapeError, r"\(1, 3, 3\)"),
    (lambda: make_grid(minidl.ones(2)), ShapeError, r"\(2,\)"),
    (lambda: make_grid(minidl.ones(1, 2, 3, 4, 5)), ShapeError, "N, C, H, W"),
    (lambda: make_grid(minidl.ones(0, 3, 4, 5)), ShapeError, "N, C, H, W"),
    (lambda: make_grid(minidl.ones(2, 3, 4, 5), nrow=0), SettingError, "nrow=0"),
    (lambda: make_grid(minidl.ones(2, 3, 4, 5), normalize=True, value_range=1.0), SettingError, "value_range"),
    (lambda: make_grid(minidl.ones(2, 3, 4, 5).to(minidl.uint8), normalize=True), DtypeError, "x.float()"),
])
def test_grids_that_cannot_be(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_saving(tmp_path):
    images = minidl.tensor([[[[0.0, 1.0]]], [[[0.5, 2.0]]]])
    save_image(images, tmp_path / "grid.png", padding=1, nrow=1, pad_value=0.2)
    assert np.asarray(Image.open(tmp_path / "grid.png"))[:, :, 0].tolist() == [
        [51, 51, 51, 51], [51, 0, 255, 51], [51, 51, 51, 51], [51, 128, 255, 51], [51, 51, 51, 51]]
    file = io.BytesIO()
    save_image(images[0], file, format="PNG")
    assert Image.open(file).size == (2, 1)


def test_utils_data_is_data():
    import minidl.utils.data as utils_data
    from minidl.utils.data import DataLoader, Dataset

    assert minidl.utils.data is utils_data
    assert DataLoader is data.DataLoader
    assert Dataset is minidl.utils.data.Dataset is data.Dataset
    assert {name for name in data.__all__ if getattr(utils_data, name) is not getattr(data, name)} == set()
    assert set(data.__all__) <= set(utils_data.__all__)
    assert utils_data.sampler.RandomSampler is data.RandomSampler


@pytest.mark.parametrize(("where", "name", "words"), [
    (minidl.utils, "makegrid", "'make_grid'"), (minidl.utils, "checkpoint", "split the batch"),
    (minidl.utils.data, "DataLoaders", "'DataLoader'"), (minidl.utils.data, "ChainDataset", "IterableDataset")])
def test_a_name_that_is_not_there(where, name, words):
    with pytest.raises(AttributeError, match=words):
        getattr(where, name)
