"""Transforms, from what torchvision documents: values worked out by hand, and the same on all kinds of images."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

import minidl
import minidl.transforms.functional as TF
from minidl import data, nn, transforms
from minidl.errors import DtypeError, GraphError, MinidlError, SettingError, ShapeError
from minidl.transforms import InterpolationMode
from minidl.transforms.basic import for_batches

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 8), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
SMOOTH = (np.add.outer(np.arange(40), 2 * np.arange(50))[..., None] + np.array([0, 30, 60])).astype(np.uint8)


def tensor_of(array):
    """(H, W[, C]) -> (C, H, W), without ToTensor."""
    array = array[:, :, None] if array.ndim == 2 else array
    return minidl.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))


def array_of(image):
    """Any kind of image as an array (H, W, C)."""
    if isinstance(image, minidl.Tensor):
        return image.numpy().transpose(1, 2, 0)
    array = np.asarray(image)
    return array[:, :, None] if array.ndim == 2 else array


# -- converting ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("array", [GREY, COLOUR])
@pytest.mark.parametrize("kind", [Image.fromarray, np.asarray])
def test_to_tensor(array, kind):
    tensor = transforms.ToTensor()(kind(array))
    assert tensor.dtype == minidl.float32
    assert tensor.is_contiguous()
    expected = tensor_of(array).numpy().astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(tensor.numpy(), expected)


@pytest.mark.torch
def test_to_tensor_divides_as_pytorch_does(torch):
    every_byte = np.arange(256, dtype=np.uint8).reshape(16, 16)
    theirs = torch.from_numpy(every_byte).to(torch.float32).div(255)
    assert transforms.ToTensor()(every_byte)[0].tolist() == theirs.tolist()


@pytest.mark.parametrize(("image", "expected"), [
    (Image.fromarray(np.full((2, 3), 1.5, np.float32)), (minidl.float32, 1.5)),
    (Image.fromarray(np.full((2, 3), 70000, np.int32)), (minidl.int32, 70000)),
    (Image.new("1", (3, 2), 1), (minidl.float32, 1.0)),
    (Image.fromarray(np.full((2, 3), 40_000, np.uint16)), (minidl.int32, 40_000)),
    (np.full((2, 3), 1.5), (minidl.float64, 1.5)),
    (np.full((2, 3), 7, np.int64), (minidl.int64, 7)),
])
def test_to_tensor_scales_only_bytes(image, expected):
    tensor = transforms.ToTensor()(image)
    assert tensor.shape == (1, 2, 3)
    assert (tensor.dtype, tensor[0, 1, 1].item()) == expected


def test_pil_to_tensor_keeps_bytes():
    for array in (GREY, COLOUR):
        tensor = transforms.PILToTensor()(Image.fromarray(array))
        assert tensor.dtype == minidl.uint8
        np.testing.assert_array_equal(tensor.numpy(), tensor_of(array).numpy())
    assert transforms.PILToTensor()(Image.new("1", (2, 1), 1)).tolist() == [[[255, 255]]]


def test_a_tensor_does_not_share_the_memory_of_the_picture():
    array = np.zeros((2, 2), np.float32)
    transforms.ToTensor()(array)[0, 0, 0] = 5
    picture = Image.fromarray(GREY)
    transforms.PILToTensor()(picture)[0, 0, 0] = 5
    np.testing.assert_array_equal(np.asarray(picture), GREY)


@pytest.mark.parametrize("array", [GREY, COLOUR])
def test_there_and_back_again(array):
    to_pil = transforms.ToPILImage()
    for picture in (to_pil(array), to_pil(tensor_of(array)), to_pil(transforms.ToTensor()(array))):
        assert picture.mode == ("L" if array.ndim == 2 else "RGB")
        np.testing.assert_array_equal(np.asarray(picture), array)


def test_modes_of_pil_images():
    to_pil = transforms.ToPILImage
    assert to_pil("HSV")(COLOUR).mode == "HSV"
    assert to_pil()(np.zeros((2, 2, 4), np.uint8)).mode == "RGBA"
    assert to_pil("CMYK")(np.zeros((2, 2, 4), np.uint8)).mode == "CMYK"
    assert to_pil()(np.zeros((2, 2, 2), np.uint8)).mode == "LA"
    assert to_pil()(np.ones((2, 2), np.int32)).mode == "I"
    assert to_pil()(np.full((2, 2), 300, np.int16)).getpixel((1, 1)) == 300
    assert to_pil("F")(minidl.full((1, 2, 2), 0.5)).getpixel((0, 0)) == 0.5
    assert to_pil()(minidl.ones(2, 3)).size == (3, 2)
    assert to_pil()(minidl.full((1, 1, 1), 2.0)).getpixel((0, 0)) == 255, "beyond white is white"


@pytest.mark.parametrize(("call", "error", "words"), [
    (lambda: transforms.ToTensor()(minidl.ones(1, 2, 2)), DtypeError, ["tensor already", "ConvertImageDtype"]),
    (lambda: transforms.ToTensor()([1, 2]), DtypeError, ["list", "PIL image"]),
    (lambda: transforms.ToTensor()(np.ones(3)), ShapeError, ["(3,)", "(H, W, C)"]),
    (lambda: transforms.PILToTensor()(GREY), DtypeError, ["ndarray"]),
    (lambda: transforms.ToPILImage()(minidl.ones(2, 1, 4, 4)), ShapeError, ["(2, 1, 4, 4)", "one image"]),
    (lambda: transforms.ToPILImage()("x"), ShapeError, ["str"]),
    (lambda: transforms.ToPILImage("L")(COLOUR), DtypeError, ["3 channels", "'L'", "RGB"]),
    (lambda: transforms.ToPILImage()(COLOUR / 255), DtypeError, ["float64", "uint8"]),
    (lambda: transforms.ToPILImage()(np.zeros((2, 2, 5), np.uint8)), DtypeError, ["5 channels"]),
])
def test_conversions_that_cannot_be(call, error, words):
    with pytest.raises(error) as caught:
        call()
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(("values", "source", "target", "expected"), [
    ([0, 51, 255], "uint8", "float32", [0, 51 / 255, 1]),
    ([0, 0.5, 0.999, 1], "float32", "uint8", [0, 127, 255, 255]),
    ([0, 0.5, 1], "float64", "int32", [0, 2**30 - 1, 2**31 - 1]),
    ([0.25, 1], "float32", "float64", [0.25, 1]),
    ([0, 1, 255], "uint8", "int32", [0, 2**23, 255 * 2**23]),
    ([0, 2**23 + 5, 2**31 - 1], "int32", "uint8", [0, 1, 255]),
    ([0, 127, 255], "uint8", "int8", [0, 63, 127]),
    ([0, 1, 255], "uint8", "int64", [0, 2**55, 255 * 2**55]),
    ([3], "uint8", "uint8", [3]),
])
def test_converting_number_types(values, source, target, expected):
    converted = transforms.ConvertImageDtype(target)(minidl.tensor(np.array(values, source)))
    assert converted.dtype == np.dtype(target)
    np.testing.assert_allclose(converted.numpy(), expected, rtol=1e-7)


@pytest.mark.parametrize(("source", "target"), [("float32", "int32"), ("float32", "int64"), ("float64", "int64")])
def test_floats_that_cannot_tell_so_many_whole_numbers_apart(source, target):
    with pytest.raises(DtypeError, match=f"{source}.*{target}"):
        TF.convert_image_dtype(minidl.ones(1, dtype=source), target)


# -- normalising ---------------------------------------------------------------------------------------------------

@pytest.mark.torch
@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 3, 4, 5), (2, 2, 3, 4, 5)])
def test_normalize_is_pytorchs_formula(torch, shape):
    x = RNG.random(shape, dtype=np.float32)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    centre, spread = (torch.tensor(values).view(-1, 1, 1) for values in (mean, std))
    theirs = torch.from_numpy(x).clone().sub_(centre).div_(spread)
    ours = transforms.Normalize(mean, std)(minidl.tensor(x))
    assert ours.dtype == minidl.float32
    np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


def test_normalize_variants():
    x = minidl.ones(3, 2, 2)
    for mean, std in (((0.5,), (0.25,)), (0.5, 0.25), (minidl.tensor([0.5] * 3), np.array([0.25])), ([0.5] * 3, [0.25])):
        assert transforms.Normalize(mean, std)(x).tolist() == [[[2.0, 2.0]] * 2] * 3
    assert x[0, 0, 0].item() == 1
    assert transforms.Normalize(0.5, 0.25, inplace=True)(x) is x
    assert x[0, 0, 0].item() == 2
    assert transforms.Normalize(0.5, 0.5)(x.double()).dtype == minidl.float64


def test_normalize_as_first_layer_lets_gradients_through():
    model = nn.Sequential(transforms.Normalize((0.1, 0.2), (0.5, 0.25)), nn.Flatten())
    x = minidl.ones(1, 2, 1, 1, requires_grad=True)
    model(x).sum().backward()
    assert x.grad.flatten().tolist() == [2, 4]
    assert list(model.parameters()) == []


@pytest.mark.parametrize(("call", "error", "words"), [
    (lambda: transforms.Normalize(0.5, 0.5)(Image.fromarray(GREY)), DtypeError, ["Image", "ToTensor()"]),
    (lambda: transforms.Normalize(0.5, 0.5)(GREY), DtypeError, ["ndarray", "ToTensor()"]),
    (lambda: transforms.Normalize(0.5, 0.5)(tensor_of(GREY)), DtypeError, ["uint8", "ToTensor()"]),
    (lambda: transforms.Normalize([0.5] * 3, [0.5] * 3)(minidl.ones(1, 4, 4)), ShapeError, ["(1, 4, 4)", "3 means"]),
    (lambda: transforms.Normalize([0.5] * 2, [0.5] * 2)(minidl.ones(3, 4, 4)), ShapeError, ["2 means"]),
    (lambda: transforms.Normalize(0.5, 0.5)(minidl.ones(4, 4)), ShapeError, ["(4, 4)", "C, H, W"]),
    (lambda: transforms.Normalize([0.5] * 3, [0.5] * 2), SettingError, ["3 means and 2"]),
    (lambda: transforms.Normalize([], []), SettingError, ["0 means"]),
    (lambda: transforms.Normalize([0.5], [0.0]), SettingError, ["no 0"]),
    (lambda: transforms.Normalize([0.5] * 2, [1e-60, 1])(minidl.ones(2, 1, 1)), SettingError, ["no 0"]),
])
def test_normalising_that_cannot_be(call, error, words):
    with pytest.raises(error) as caught:
        call()
    assert "Normalize" in str(caught.value)
    assert all(word in str(caught.value) for word in words), caught.value


# -- the same on every kind of image ---------------------------------------------------------------------------------

GEOMETRY = {
    "resize both": lambda x: TF.resize(x, (7, 5)),
    "resize shorter": lambda x: TF.resize(x, 12),
    "resize nearest": lambda x: TF.resize(x, (13, 4), InterpolationMode.NEAREST),
    "resize bicubic": lambda x: TF.resize(x, [20], InterpolationMode.BICUBIC),
    "center crop": lambda x: TF.center_crop(x, (3, 5)),
    "center crop larger": lambda x: TF.center_crop(x, (9, 4)),
    "center crop larger than both": lambda x: TF.center_crop(x, 61),
    "crop": lambda x: TF.crop(x, 1, 2, 3, 4),
    "crop beyond": lambda x: TF.crop(x, -1, -2, 50, 70),
    "pad": lambda x: TF.pad(x, 3),
    "pad uneven": lambda x: TF.pad(x, (1, 2, 3, 4), fill=9),
    "pad two": lambda x: TF.pad(x, (1, 2), fill=7),
    "pad edge": lambda x: TF.pad(x, 2, padding_mode="edge"),
    "pad reflect": lambda x: TF.pad(x, 2, padding_mode="reflect"),
    "pad symmetric": lambda x: TF.pad(x, (0, 3), padding_mode="symmetric"),
    "hflip": TF.hflip,
    "vflip": TF.vflip,
    "rotate": lambda x: TF.rotate(x, 30),
    "rotate expand": lambda x: TF.rotate(x, 45, expand=True, fill=3),
    "rotate smooth": lambda x: TF.rotate(x, -20, InterpolationMode.BILINEAR, center=(1, 2)),
}
COLOURS = {
    "grey": TF.rgb_to_grayscale,
    "grey, three channels": lambda x: TF.to_grayscale(x, 3),
    "darker": lambda x: TF.adjust_brightness(x, 0.5),
    "brighter": lambda x: TF.adjust_brightness(x, 1.7),
    "contrast": lambda x: TF.adjust_contrast(x, 1.6),
    "flat": lambda x: TF.adjust_contrast(x, 0.0),
    "saturation": lambda x: TF.adjust_saturation(x, 0.3),
    "hue": lambda x: TF.adjust_hue(x, 0.25),
}


@pytest.mark.parametrize("name", [*GEOMETRY, *COLOURS])
@pytest.mark.parametrize("array", [GREY, COLOUR, SMOOTH], ids=["grey", "colour", "smooth"])
def test_all_kinds_of_images_agree(name, array):
    change = {**GEOMETRY, **COLOURS}[name]
    picture = change(Image.fromarray(array))
    assert isinstance(picture, Image.Image)
    as_tensor, as_array = change(tensor_of(array)), change(array)
    assert as_tensor.dtype == as_array.dtype == np.uint8
    np.testing.assert_array_equal(array_of(as_array), array_of(as_tensor))
    # hue: PIL keeps hue, saturation and value as bytes; the rest may be rounded differently once
    tolerance = 12 if name == "hue" else 2 if name in COLOURS else 1
    difference = np.abs(array_of(as_tensor).astype(int) - array_of(picture))
    assert difference.max() <= tolerance
    floats = change(tensor_of(array).float() / 255)
    assert floats.dtype == minidl.float32
    # fill counts from 0 to 1 in floats; bicubic resizing overshoots, which bytes cannot show
    if name not in ("pad uneven", "pad two", "rotate expand", "resize bicubic"):
        # bytes of colours are cut off twice
        np.testing.assert_allclose(array_of(floats) * 255, array_of(as_tensor), atol=1.01 + (name in COLOURS))


@pytest.mark.parametrize("name", [*GEOMETRY, *COLOURS])
def test_a_batch_is_changed_as_its_images_are(name):
    change = {**GEOMETRY, **COLOURS}[name]
    images = np.stack([SMOOTH, SMOOTH[::-1], 255 - SMOOTH])
    batch = minidl.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    alone = np.stack([change(image).numpy() for image in batch])
    np.testing.assert_array_equal(change(batch).numpy(), alone)
    np.testing.assert_array_equal(change(batch[None]).numpy(), alone[None])


CLASSES = {
    "Compose": lambda: transforms.Compose([transforms.Resize((9, 7)), transforms.CenterCrop(5)]),
    "Resize": lambda: transforms.Resize((9, 7)),
    "CenterCrop": lambda: transforms.CenterCrop((3, 10)),
    "RandomCrop": lambda: transforms.RandomCrop((4, 6), padding=2, fill=9),
    "RandomHorizontalFlip": lambda: transforms.RandomHorizontalFlip(0.7),
    "RandomRotation": lambda: transforms.RandomRotation(40, InterpolationMode.BILINEAR, expand=True),
    "ColorJitter": lambda: transforms.ColorJitter(0.3, 0.3, 0.3),
    "ColorJitter, hue": lambda: transforms.ColorJitter(hue=0.3),
    "Grayscale": lambda: transforms.Grayscale(),
    "Grayscale, three channels": lambda: transforms.Grayscale(3),
    "Lambda": lambda: transforms.Lambda(TF.vflip),
    "any callable": lambda: TF.hflip,
}


@pytest.mark.parametrize("name", CLASSES)
def test_every_transform_on_every_kind_of_image(name):
    """With one seed, PIL images, arrays and tensors become the same image, each of its own kind."""
    transform = CLASSES[name]()
    for array in (GREY, COLOUR, SMOOTH, SMOOTH[::-1, ::-1], SMOOTH[..., 1], SMOOTH[..., :1]):
        squeezed = array[..., 0] if array.shape[2:] == (1,) else array
        kinds = [Image.fromarray(squeezed), array, tensor_of(array), array.astype(np.float32) / 255, array / 255, array.astype(np.int64)]
        kinds += [minidl.from_numpy(np.ascontiguousarray(array))] if array.ndim == 2 else []
        results = []
        for image in kinds:
            minidl.manual_seed(3)
            result = transform(image)
            if isinstance(image, Image.Image):
                assert isinstance(result, Image.Image)
            else:
                assert (type(result), result.dtype) == (type(image), image.dtype)
                assert result.ndim == image.ndim or name == "Grayscale, three channels"
            results.append(array_of(result) if not isinstance(result, minidl.Tensor) or result.ndim == 3 else result.numpy()[..., None])
        picture, changed, tensor, *others = results
        # Pillow turns colours in bytes, and cuts off after each of the steps of a jitter; fill counts as it is in floats
        close = {"ColorJitter, hue": 12, "ColorJitter": 3}.get(name, 1)
        assert np.abs(changed.astype(int) - picture).max() <= close
        np.testing.assert_array_equal(changed, tensor)
        for other, image in zip(others, kinds[3:], strict=True):
            scale = 255 if np.dtype(image.dtype).kind == "f" else 1
            if name != "RandomCrop" or scale == 1:
                if np.dtype(image.dtype) == np.int64 and name.startswith("ColorJitter"):
                    continue                                                    # white is another number
                np.testing.assert_allclose(other * scale, changed, atol=1.01 + 2 * name.startswith("ColorJitter"))


@pytest.mark.parametrize("name", [name for name in CLASSES if name not in ("Lambda", "any callable")])
@pytest.mark.parametrize("image", [None, [[1, 2], [3, 4]], np.ones(4), np.ones((1, 1, 3, 4, 4)), minidl.ones(4), np.array([["a"]]),
                                   np.zeros((0, 5, 3), np.uint8), minidl.ones(0, 3, 8, 8)], ids=repr)
def test_what_is_no_image_is_said(name, image):
    with pytest.raises(MinidlError, match=r"got (a |an image of shape |data of type).*, expected"):
        CLASSES[name]()(image)


def test_geometry_by_hand():
    x = minidl.arange(6).reshape(1, 2, 3)
    assert TF.hflip(x).tolist() == [[[2, 1, 0], [5, 4, 3]]]
    assert TF.vflip(x).tolist() == [[[3, 4, 5], [0, 1, 2]]]
    assert TF.crop(x, 0, 1, 2, 2).tolist() == [[[1, 2], [4, 5]]]
    assert TF.crop(x, -1, 2, 2, 2).tolist() == [[[0, 0], [2, 0]]]
    assert TF.pad(x, (1, 0, 0, 1), fill=9).tolist() == [[[9, 0, 1, 2], [9, 3, 4, 5], [9, 9, 9, 9]]]
    assert TF.pad(x, (2, 0), padding_mode="reflect").tolist() == [[[2, 1, 0, 1, 2, 1, 0], [5, 4, 3, 4, 5, 4, 3]]]
    assert TF.pad(x, (1, 0), padding_mode="symmetric").tolist() == [[[0, 0, 1, 2, 2], [3, 3, 4, 5, 5]]]
    assert TF.pad(x, (0, 1), padding_mode="edge").tolist() == [[[0, 1, 2], [0, 1, 2], [3, 4, 5], [3, 4, 5]]]
    assert TF.rotate(x, 90, expand=True).tolist() == [[[2, 5], [1, 4], [0, 3]]]
    assert TF.center_crop(x, (2, 1)).tolist() == [[[1], [4]]]
    assert TF.center_crop(x, (4, 4)).tolist() == [[[0, 0, 0, 0], [0, 1, 2, 0], [3, 4, 5, 0], [0, 0, 0, 0]]]
    assert TF.center_crop(minidl.arange(5).reshape(1, 1, 5), (1, 2)).tolist() == [[[2, 3]]]         # round(1.5) is 2


def test_whole_numbers_are_rounded_and_not_cut_off():
    x = minidl.tensor([[[-100, 100, 200]]])
    smooth = TF.resize(x.float(), (1, 7)).numpy()
    assert (smooth != np.trunc(smooth)).any()
    assert TF.resize(x, (1, 7)).dtype == minidl.int64
    np.testing.assert_array_equal(TF.resize(x, (1, 7)).numpy(), np.rint(smooth))


def test_fill_for_each_channel():
    assert TF.pad(Image.fromarray(COLOUR), 1, fill=5.0).getpixel((0, 0)) == (5, 5, 5)
    assert TF.rotate(Image.fromarray(COLOUR), 45, fill=5.0).getpixel((0, 0)) == (5, 5, 5)
    assert TF.pad(Image.new("F", (1, 1)), 1, fill=0.5).getpixel((0, 0)) == 0.5
    picture = TF.pad(Image.fromarray(COLOUR), 1, fill=(1, 2, 3))
    assert picture.getpixel((0, 0)) == (1, 2, 3)
    assert TF.pad(Image.fromarray(COLOUR), 1, fill=5).getpixel((0, 0)) == (5, 5, 5)
    for image in (Image.fromarray(COLOUR), tensor_of(COLOUR)):
        turned = array_of(TF.rotate(image, 45, expand=True, fill=(1, 2, 3)))
        assert turned[0, 0].tolist() == [1, 2, 3]
    for image in (Image.fromarray(COLOUR), tensor_of(COLOUR), COLOUR):
        for change in (lambda x, fill: TF.pad(x, 1, fill=fill), lambda x, fill: TF.rotate(x, 45, expand=True, fill=fill)):
            assert array_of(change(image, (1, 2, 3)))[0, 0].tolist() == [1, 2, 3]
            assert array_of(change(image, None))[0, 0].tolist() == [0, 0, 0]
            with pytest.raises(SettingError, match="1 or 3 numbers"):
                change(image, (1, 2))
            with pytest.raises(SettingError, match="fill=256 for an image of uint8, expected 0 to 255"):
                change(image, 256)
    assert TF.pad(tensor_of(COLOUR)[None], 1, fill=(1, 2, 3))[0, :, 0, 0].tolist() == [1, 2, 3]
    assert TF.pad(np.ones((1, 1), np.float32), 1, fill=0.5)[0, 0] == 0.5


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "LAB", "RGBX", "RGBA", "LA", "PA", "I", "F", "1"])
def test_padding_keeps_the_mode(mode):
    picture = Image.new(mode, (3, 2)) if mode == "LAB" else Image.fromarray(COLOUR[:2, :3]).convert("L" if mode == "PA" else "RGB").convert(mode)
    padded = TF.pad(picture, (1, 0), padding_mode="edge")
    assert (padded.mode, padded.size) == (mode, (5, 2))
    assert [padded.getpixel((x, 1)) for x in range(5)] == [picture.getpixel((x, 1)) for x in (0, 0, 1, 2, 2)]


def test_whole_numbers_that_float32_cannot_hold():
    labels = np.array([[2**24, 3], [0, 1]])
    assert TF.resize(labels, 4, "nearest")[0, 0] == 2**24
    with pytest.raises(DtypeError, match=r"from 0 to 16777217, expected none beyond 2\*\*24"):
        TF.resize(labels + np.eye(1, 4, dtype=int).reshape(2, 2), 4, "nearest")
    with pytest.raises(DtypeError, match="from -16777217"):
        TF.rotate(-labels - np.eye(1, 4, dtype=int).reshape(2, 2), 4)
    assert TF.rotate(np.array([[True, False]]), 180).tolist() == [[False, True]]
    half = TF.resize(np.array([[True, False]]), (1, 20))
    assert (half.dtype, half.sum()) == (bool, 10), "booleans are rounded, too"


def test_a_palette_survives_padding():
    picture = Image.fromarray(COLOUR).convert("P")
    for mode in ("constant", "edge"):
        padded = TF.pad(picture, 1, padding_mode=mode)
        assert padded.mode == "P"
        np.testing.assert_array_equal(np.asarray(padded.convert("RGB"))[1:-1, 1:-1], np.asarray(picture.convert("RGB")))


@pytest.mark.torch
@pytest.mark.parametrize("size", [(20, 25), (13, 50), (80, 90)])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_resizing_is_pytorchs_with_antialias(torch, size, mode):
    x = RNG.random((2, 3, 40, 50), dtype=np.float32)
    theirs = torch.nn.functional.interpolate(torch.from_numpy(x), size, mode=mode, antialias=True, align_corners=False)
    np.testing.assert_allclose(TF.resize(minidl.tensor(x), size, mode).numpy(), theirs.numpy(), atol=1e-5)


@pytest.mark.parametrize(("size", "settings", "expected"), [
    (20, {}, (20, 25)), (7, {}, (7, 8)), ([20], {}, (20, 25)), ((5, 6), {}, (5, 6)),
    (20, {"max_size": 22}, (17, 22)), (20, {"max_size": 30}, (20, 25)),
])
def test_sizes_after_resizing(size, settings, expected):
    for image in (Image.fromarray(SMOOTH), SMOOTH, tensor_of(SMOOTH)):
        assert tuple(TF.get_dimensions(transforms.Resize(size, **settings)(image))[1:]) == expected
    upright = transforms.Resize(size, **settings)(Image.fromarray(SMOOTH.transpose(1, 0, 2)))
    if np.size(size) == 1:
        assert upright.size == expected


def test_gradients_through_crops_and_flips():
    x = minidl.ones(1, 3, 3, requires_grad=True)
    TF.hflip(TF.crop(x, 0, 0, 2, 2)).sum().backward()
    assert x.grad.tolist() == [[[1, 1, 0], [1, 1, 0], [0, 0, 0]]]
    with pytest.raises(GraphError, match="detach"):
        TF.rotate(x, 10)


@pytest.mark.parametrize(("call", "error", "words"), [
    (lambda: TF.hflip([1]), DtypeError, "list"),
    (lambda: TF.get_dimensions("x"), DtypeError, "get_dimensions: got a str"),
    (lambda: TF.hflip(Image.new("L", (0, 2))), ShapeError, r"size \(0, 2\), expected at least one pixel"),
    (lambda: TF.resize(np.ones((1, 60)), 4, max_size=5), ShapeError, "1×60, of which nothing would be left with max_size=5"),
    (lambda: TF.rotate(GREY, float("nan")), SettingError, "angle=nan"),
    (lambda: TF.rotate(GREY, 5, InterpolationMode.LANCZOS), SettingError, "interpolation=lanczos, expected nearest"),
    (lambda: TF.adjust_hue(tensor_of(COLOUR).float(), 0.1), MinidlError, "numbers from .* expected 0 to 1; .*Normalize"),
    (lambda: TF.adjust_brightness(np.ones((4, 4, 4)), 1), ShapeError, "4 channels, expected 1 or 3"),
    (lambda: TF.adjust_contrast(COLOUR.transpose(2, 0, 1), 1), ShapeError, r"8 channels, .*\(H, W, 1 or 3\)"),
    (lambda: TF.adjust_saturation(GREY > 5, 1), DtypeError, "booleans"),
    (lambda: TF.adjust_brightness(Image.fromarray(COLOUR).convert("P"), 1), DtypeError, r'mode "P".*convert\("RGB"\)'),
    (lambda: TF.adjust_contrast(Image.new("F", (2, 2)), 1), DtypeError, 'mode "F"'),
    (lambda: TF.to_grayscale(Image.new("LAB", (2, 2))), DtypeError, 'mode "LAB"'),
    (lambda: TF.adjust_hue(Image.new("LAB", (2, 2)), 0.1), DtypeError, 'mode "LAB"'),
    (lambda: TF.convert_image_dtype(GREY), DtypeError, "ndarray"),
    (lambda: TF.convert_image_dtype(minidl.tensor([True])), DtypeError, "bool"),
    (lambda: transforms.ConvertImageDtype(None), DtypeError, "None"),
    (lambda: transforms.ConvertImageDtype("bool"), DtypeError, "bool"),
    (lambda: transforms.ConvertImageDtype("colour"), DtypeError, "colour"),
    (lambda: TF.resize(np.ones(3), 2), DtypeError, r"shape \(3,\)"),
    (lambda: TF.resize(tensor_of(GREY), 2, antialias=False), SettingError, "antialias=False"),
    (lambda: TF.resize(GREY, (2, 3), max_size=4), SettingError, "max_size"),
    (lambda: TF.resize(GREY, 3, "cubic"), ValueError, "cubic"),
    (lambda: transforms.Resize(0), SettingError, "size=0"),
    (lambda: transforms.CenterCrop((1, 2, 3)), SettingError, r"\(1, 2, 3\)"),
    (lambda: transforms.Pad(-1), SettingError, "padding=-1"),
    (lambda: transforms.Pad((1, 2, 3)), SettingError, "1, 2 or 4"),
    (lambda: transforms.Pad(1, padding_mode="mirror"), SettingError, "'mirror'.*reflect"),
    (lambda: transforms.RandomCrop(9)(GREY), ShapeError, "6×8.*9×9.*pad_if_needed"),
    (lambda: transforms.RandomHorizontalFlip(1.5), SettingError, "p=1.5"),
    (lambda: transforms.RandomApply([], p=-1), SettingError, "p=-1"),
    (lambda: transforms.RandomRotation(-5), SettingError, "degrees=-5"),
    (lambda: transforms.RandomRotation((5, 1)), SettingError, "degrees"),
    (lambda: transforms.RandomResizedCrop(4, scale=(0.5, 0.1)), SettingError, "scale"),
    (lambda: transforms.ColorJitter(brightness=-1), SettingError, "brightness=-1"),
    (lambda: transforms.ColorJitter(hue=0.6), SettingError, "hue=0.6"),
    (lambda: transforms.ColorJitter(contrast=(2, 1)), SettingError, "contrast"),
    (lambda: transforms.Grayscale(2), SettingError, "num_output_channels=2"),
    (lambda: TF.rgb_to_grayscale(minidl.ones(2, 4, 4)), ShapeError, "2 channels"),
    (lambda: TF.adjust_brightness(GREY, -1), SettingError, "-1"),
    (lambda: TF.adjust_hue(COLOUR, 0.7), SettingError, "0.7"),
    (lambda: transforms.Compose(transforms.ToTensor()), SettingError, "list of transforms"),
    (lambda: transforms.Compose([transforms.ToTensor(), 5]), SettingError, "list of transforms"),
    (lambda: transforms.Lambda(5), SettingError, "function"),
])
def test_transforms_that_cannot_be(call, error, words):
    with pytest.raises(error, match=words):
        call()


NUMBERS = [None, "abc", float("nan"), float("inf"), {}, object(), [1, "a"], [[1, 2]], len, []]
SIZES = [*NUMBERS, 0, -1, 1.5, (1.5, 2), (0, 3), (1, 2, 3), True]
LIMITS = [*NUMBERS, (2, 1), (1, 2, 3)]
SETTINGS = {                                                                    # transform, setting -> what it cannot be
    (transforms.Resize, "size"): SIZES,
    (transforms.CenterCrop, "size"): SIZES,
    (transforms.RandomCrop, "size"): SIZES,
    (transforms.RandomResizedCrop, "size"): SIZES,
    (transforms.Resize, "max_size"): [*SIZES[1:], 3, 4],
    (transforms.Resize, "interpolation"): [*NUMBERS, "linear", 6, -1],
    (transforms.RandomRotation, "interpolation"): [*NUMBERS, "lanczos", "box"],
    (transforms.RandomResizedCrop, "interpolation"): [*NUMBERS, 6],
    (transforms.RandomCrop, "padding"): [*NUMBERS[1:], -1, 1.5, (1, 2, 3), (-1, 2)],
    (transforms.RandomCrop, "padding_mode"): [None, "mirror", 5],
    (transforms.Pad, "padding"): [*NUMBERS, -1, 1.5, (1, 2, 3)],
    (transforms.Pad, "fill"): NUMBERS[1:],
    (transforms.RandomCrop, "fill"): NUMBERS[1:],
    (transforms.RandomRotation, "fill"): NUMBERS[1:],
    (transforms.RandomRotation, "center"): [*NUMBERS[1:], 3, (1, 2, 3)],
    (transforms.RandomRotation, "degrees"): [*LIMITS, -5],
    (transforms.RandomHorizontalFlip, "p"): [*NUMBERS, -0.1, 1.1],
    (transforms.RandomVerticalFlip, "p"): [*NUMBERS, -0.1, 1.1],
    (transforms.RandomApply, "p"): [*NUMBERS, -0.1, 1.1],
    (transforms.RandomApply, "transforms"): [None, "abc", 5, [5], {}, len, ""],
    (transforms.Compose, "transforms"): [None, "abc", 5, [5], {}, len, ""],
    (transforms.ColorJitter, "brightness"): [*LIMITS, -1, (-1, 1)],
    (transforms.ColorJitter, "contrast"): [*LIMITS, -1, (-1, 1)],
    (transforms.ColorJitter, "saturation"): [*LIMITS, -1, (-1, 1)],
    (transforms.ColorJitter, "hue"): [*LIMITS, -0.1, 0.6, (-0.6, 0)],
    (transforms.Grayscale, "num_output_channels"): [None, "abc", 0, 2, 4, [], 1.5],
    (transforms.RandomResizedCrop, "scale"): [*LIMITS, 0.5, (0, 1), (-1, 1)],
    (transforms.RandomResizedCrop, "ratio"): [*LIMITS, 0.5, (0, 1), (-1, 1)],
    (transforms.Normalize, "mean"): [*NUMBERS, (1, 2, 3)],
    (transforms.Normalize, "std"): [*NUMBERS, 0, (1, 0), (1, 2, 3)],
    (transforms.Lambda, "lambd"): [None, "abc", 5],
}
NEEDED = {transforms.Resize: {"size": 4}, transforms.RandomCrop: {"size": 4}, transforms.RandomResizedCrop: {"size": 4},
          transforms.Pad: {"padding": 1}, transforms.RandomRotation: {"degrees": 5}, transforms.RandomApply: {"transforms": []},
          transforms.Normalize: {"mean": (0.5, 0.5), "std": (0.5, 0.5)}}


@pytest.mark.parametrize(("transform", "setting"), SETTINGS, ids=lambda part: getattr(part, "__name__", part))
def test_wrong_settings_are_refused_when_a_transform_is_made(transform, setting):
    for value in SETTINGS[transform, setting]:
        with pytest.raises(SettingError, match=rf"^{transform.__name__}: got .*, expected"):
            transform(**{**NEEDED.get(transform, {}), setting: value})


def test_settings_may_be_numpys_and_pillows():
    assert transforms.Resize(np.int64(4))(GREY).shape == (4, 5)
    assert transforms.CenterCrop(np.array([3, 2])).size == (3, 2)
    assert transforms.Normalize([np.float32(0.5)], minidl.tensor([0.5])).std == [0.5]
    assert transforms.Resize(4, Image.Resampling.NEAREST).interpolation is InterpolationMode.NEAREST
    assert repr(transforms.RandomResizedCrop(4, interpolation=3)).endswith("interpolation=bicubic, antialias=True)")
    for number, mode in enumerate(("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")):
        np.testing.assert_array_equal(TF.resize(SMOOTH, 20, number), TF.resize(SMOOTH, 20, mode))
        assert Image.Resampling(number).name.lower() == mode
    assert transforms.RandomRotation(5, fill=None).fill == 0
    assert transforms.RandomApply(nn.ModuleList([transforms.CenterCrop(2)]), 1)(GREY).shape == (2, 2)
    np.testing.assert_array_equal(TF.resize(tensor_of(GREY), 3, "nearest", antialias=False).numpy(),
                                  TF.resize(tensor_of(GREY), 3, "nearest").numpy())


# -- colours by hand ----------------------------------------------------------------------------------------------------

def test_colours_by_hand():
    red = minidl.tensor([1.0, 0.0, 0.0]).reshape(3, 1, 1)
    np.testing.assert_allclose(TF.rgb_to_grayscale(red).numpy().ravel(), [0.2989])
    np.testing.assert_allclose(TF.adjust_hue(red, 1 / 3).numpy().ravel(), [0, 1, 0], atol=1e-6)
    np.testing.assert_allclose(TF.adjust_hue(red, -1 / 3).numpy().ravel(), [0, 0, 1], atol=1e-6)
    np.testing.assert_allclose(TF.adjust_saturation(red, 0).numpy().ravel(), [0.2989] * 3, atol=1e-6)
    two = minidl.tensor([0.2, 0.6]).reshape(1, 1, 2)
    np.testing.assert_allclose(TF.adjust_contrast(two, 0.5).numpy().ravel(), [0.3, 0.5], atol=1e-6)
    np.testing.assert_allclose(TF.adjust_brightness(two, 2).numpy().ravel(), [0.4, 1.0], atol=1e-6)
    np.testing.assert_array_equal(TF.adjust_hue(Image.fromarray(GREY), 0.3), GREY)


def test_hues_of_palettes_and_of_transparent_images():
    red = Image.new("RGB", (2, 2), (255, 0, 0))
    turned = TF.adjust_hue(red.convert("P"), 1 / 3)
    assert (turned.mode, turned.convert("RGB").getpixel((0, 0))) == ("P", TF.adjust_hue(red, 1 / 3).getpixel((0, 0)))
    assert TF.adjust_hue(red, 1 / 3).getpixel((0, 0))[1] > 250
    red.putalpha(40)
    assert TF.adjust_hue(red, 1 / 3).getpixel((0, 0))[3] == 40
    for mode in ("1", "I", "F", "LA", "I;16"):
        grey = Image.new(mode, (2, 2), 1 if mode != "LA" else (1, 2))
        assert TF.adjust_hue(grey, 0.2) is grey


# -- chance -----------------------------------------------------------------------------------------------------------

RANDOM = {
    "crop": transforms.RandomCrop(4, padding=1),
    "hflip": transforms.RandomHorizontalFlip(),
    "vflip": transforms.RandomVerticalFlip(),
    "rotation": transforms.RandomRotation(30),
    "jitter": transforms.ColorJitter(0.4, 0.4, 0.4, 0.1),
    "resized crop": transforms.RandomResizedCrop(5),
    "apply": transforms.RandomApply([transforms.Pad(1), transforms.ToTensor()]),
}


@pytest.mark.parametrize("name", RANDOM)
def test_chance_comes_from_the_seed(name):
    def run(seed):
        minidl.manual_seed(seed)
        return [RANDOM[name](COLOUR) for _ in range(12)]

    def same(left, right):
        return all(a.shape == b.shape and np.array_equal(a, b) for a, b in zip(left, right, strict=True))

    assert same(run(1), run(1))
    assert not same(run(1), run(2))
    assert len({np.asarray(image).tobytes() for image in run(1)}) > 1


def test_probabilities():
    marked = np.array([[1, 2]], np.uint8)
    flips = sum(transforms.RandomHorizontalFlip(0.25)(marked)[0, 0] == 2 for _ in range(2000))
    assert 380 < flips < 620                                                    # 500 ± 6 standard deviations
    for p, expected in ((0.0, [[1, 2]]), (1.0, [[2, 1]])):
        assert all(transforms.RandomHorizontalFlip(p)(marked).tolist() == expected for _ in range(20))
        assert transforms.RandomApply([transforms.RandomHorizontalFlip(1)], p)(marked).tolist() == expected


def test_random_crops_come_from_everywhere_and_from_the_image():
    numbered = np.arange(30, dtype=np.uint8).reshape(5, 6)
    corners = {int(transforms.RandomCrop((3, 4))(numbered)[0, 0]) for _ in range(300)}
    assert corners == {6 * row + column for row in range(3) for column in range(3)}
    assert transforms.RandomCrop((5, 6))(numbered).tolist() == numbered.tolist()
    padded = transforms.RandomCrop(9, pad_if_needed=True)(numbered)
    assert padded.shape == (9, 9)
    shifts = {transforms.RandomCrop((5, 6), padding=1)(numbered + 1).tobytes() for _ in range(300)}
    assert len(shifts) == 9


def test_random_rotations_stay_between_the_limits(monkeypatch):
    angles = []
    monkeypatch.setattr("minidl.transforms.geometry.rotate", lambda image, angle, *rest: angles.append(angle))
    for degrees, (low, high) in ((20, (-20, 20)), ((5, 10), (5, 10))):
        angles.clear()
        for _ in range(300):
            transforms.RandomRotation(degrees)(GREY)
        assert low <= min(angles) < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < max(angles) <= high


def test_random_resized_crops_have_the_areas_and_ratios_asked_for():
    crop = transforms.RandomResizedCrop(8, scale=(0.2, 0.6), ratio=(0.5, 2))
    for _ in range(300):
        top, left, height, width = crop._part(100, 120)
        assert 0 <= top <= 100 - height
        assert 0 <= left <= 120 - width
        assert 0.18 < height * width / 12000 < 0.62
        assert 0.48 < width / height < 2.05
    assert transforms.RandomResizedCrop(8)._part(1, 100) == (0, 49, 1, 1)       # nothing fits: the middle
    assert transforms.RandomResizedCrop(8)._part(100, 1) == (49, 0, 1, 1)
    assert TF.get_dimensions(crop(Image.fromarray(COLOUR))) == [3, 8, 8]


def test_color_jitter_stays_between_its_limits():
    factors = [float(transforms.ColorJitter(brightness=0.3)(minidl.full((3, 1, 1), 0.5))[0, 0, 0]) / 0.5
               for _ in range(300)]
    assert 0.7 <= min(factors) < 0.75
    assert 1.25 < max(factors) <= 1.3001
    x = minidl.rand(3, 4, 4)
    assert transforms.ColorJitter()(x) is x


# -- as torchvision prints them -----------------------------------------------------------------------------------------

@pytest.mark.parametrize(("transform", "expected"), [
    (transforms.ToTensor(), "ToTensor()"),
    (transforms.PILToTensor(), "PILToTensor()"),
    (transforms.ToPILImage(), "ToPILImage()"),
    (transforms.ToPILImage("RGB"), "ToPILImage(mode=RGB)"),
    (transforms.ConvertImageDtype(minidl.float32), "ConvertImageDtype()"),
    (transforms.Lambda(len), "Lambda()"),
    (transforms.Normalize((0.5,), (0.5,)), "Normalize(mean=(0.5,), std=(0.5,))"),
    (transforms.Resize(32), "Resize(size=32, interpolation=bilinear, max_size=None, antialias=True)"),
    (transforms.CenterCrop(24), "CenterCrop(size=(24, 24))"),
    (transforms.Pad(4), "Pad(padding=4, fill=0, padding_mode=constant)"),
    (transforms.RandomCrop(32, padding=4), "RandomCrop(size=(32, 32), padding=4)"),
    (transforms.RandomHorizontalFlip(), "RandomHorizontalFlip(p=0.5)"),
    (transforms.RandomVerticalFlip(0.1), "RandomVerticalFlip(p=0.1)"),
    (transforms.RandomRotation(10), "RandomRotation(degrees=[-10.0, 10.0], interpolation=nearest, expand=False, fill=0)"),
    (transforms.Grayscale(3), "Grayscale(num_output_channels=3)"),
    (transforms.ColorJitter(brightness=0.5, hue=(-0.1, 0.2)),
     "ColorJitter(brightness=(0.5, 1.5), contrast=None, saturation=None, hue=(-0.1, 0.2))"),
    (transforms.RandomResizedCrop(224), "RandomResizedCrop(size=(224, 224), scale=(0.08, 1.0), ratio=(0.75, 1.3333), "
                                        "interpolation=bilinear, antialias=True)"),
    (transforms.Compose([transforms.ToTensor(), transforms.Normalize(0.5, 0.5)]),
     "Compose(\n    ToTensor()\n    Normalize(mean=0.5, std=0.5)\n)"),
    (transforms.RandomApply([transforms.Grayscale()], 0.2),
     "RandomApply(\n    p=0.2\n    Grayscale(num_output_channels=1)\n)"),
])
def test_reprs(transform, expected):
    assert repr(transform) == expected


@pytest.mark.parametrize(("name", "words"), [
    ("Resise", "'Resize'"), ("RandomHorizontalFip", "'RandomHorizontalFlip'"), ("totensor", "'ToTensor'"),
    ("ToImage", "PILToTensor"), ("Scale", "use Resize"), ("v2", "without v2"), ("Foo", "minidl.transforms has no 'Foo'"),
])
def test_a_name_that_is_not_there(name, words):
    with pytest.raises(AttributeError, match=words):
        getattr(transforms, name)


# -- many images at once -----------------------------------------------------------------------------------------------

class Doubling(transforms.Normalize):
    def forward(self, tensor):
        return 2 * super().forward(tensor)


CHAINS = {
    "ToTensor": transforms.ToTensor(),
    "PILToTensor": transforms.PILToTensor(),
    "bytes as floats": transforms.Compose([transforms.PILToTensor(), transforms.ConvertImageDtype(minidl.float64)]),
    "normalised": transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))]),
    "nested": transforms.Compose([transforms.Compose([transforms.ToTensor()]), transforms.Normalize(0.5, 0.3),
                                  transforms.ConvertImageDtype(minidl.float16)]),
}


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("shape", [(5, 6, 7), (5, 6, 7, 3), (0, 6, 7, 3)])
def test_a_stack_gets_bitwise_the_numbers_of_its_images(name, shape):
    images = RNG.integers(0, 256, shape, dtype=np.uint8)
    together = for_batches(CHAINS[name])(images)
    one_by_one = [CHAINS[name](Image.fromarray(image)).numpy() for image in images]
    assert together.is_contiguous()
    assert together.shape == (len(images), shape[3] if len(shape) == 4 else 1, *shape[1:3])
    if one_by_one:
        assert together.dtype == one_by_one[0].dtype
        assert together.numpy().tobytes() == np.stack(one_by_one).tobytes()


@pytest.mark.parametrize("transform", [
    None, len, transforms.Normalize(0.5, 0.5), transforms.RandomHorizontalFlip(), transforms.Compose([]),
    transforms.Compose([transforms.RandomCrop(2), transforms.ToTensor()]),
    transforms.Compose([transforms.ToTensor(), Doubling(0.5, 0.5)]),
    transforms.Compose([transforms.ToTensor(), transforms.Lambda(lambda x: x.flatten())]),
])
def test_other_transforms_are_applied_one_by_one(transform):
    assert for_batches(transform) is None


def test_random_transforms_in_a_loader_draw_from_the_batch():
    class Noisy(data.Dataset):
        def __len__(self):
            return 12

        def __getitem__(self, index):
            return transforms.RandomCrop(3)(minidl.arange(64).reshape(1, 8, 8))

    def epoch(workers):
        minidl.manual_seed(4)
        return [batch.tolist() for batch in data.DataLoader(Noisy(), 3, num_workers=workers)]

    assert epoch(0) == epoch(2)
    assert len({str(batch) for batch in epoch(0)}) == 4


def test_errors_are_minidls():
    with pytest.raises(MinidlError):
        transforms.ToTensor()(3)
    assert math.isclose(TF.to_tensor(GREY).max().item(), GREY.max() / 255, rel_tol=1e-6)
