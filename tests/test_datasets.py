"""Datasets from local files, real ones and damaged ones, and downloads from a server in this process."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import os
import tarfile
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import minidl
from minidl import datasets, transforms
from minidl.data import DataLoader, Subset, random_split
from minidl.datasets import CIFAR10, MNIST, MNISTCSV, Digits, FashionMNIST, ImageFolder, download, files
from minidl.datasets.images import ImagesInMemory
from minidl.errors import MinidlError, SettingError

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


REAL = os.environ.get("MINIDL_DATA")


@pytest.fixture(autouse=True)
def _no_data_of_the_environment(monkeypatch):
    monkeypatch.delenv("MINIDL_DATA", raising=False)


@pytest.fixture
def real():
    """The folder with the real datasets, or a skip with the reason."""
    folder = REAL
    if not folder or not Path(folder).is_dir():
        pytest.skip("set MINIDL_DATA to a folder with mnist/, fashion-mnist/ and cifar10*/ to run this")
    return Path(folder)


def idx(array):
    """An array of bytes as an IDX file."""
    return bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def small_mnist(seed=0, count=20):
    """name -> payload of four small files of the right kind."""
    rng = np.random.default_rng(seed)
    payloads = {}
    for name, n in zip(FILES, (count, count, 7, 7), strict=True):
        array = rng.integers(0, 256, (n, 28, 28), np.uint8) if "images" in name else rng.integers(0, 10, n, np.uint8)
        payloads[name] = idx(array)
    return payloads


def write(folder, payloads, zipped=True):
    folder.mkdir(parents=True, exist_ok=True)
    for name, payload in payloads.items():
        (folder / (f"{name}.gz" if zipped else name)).write_bytes(gzip.compress(payload, 1) if zipped else payload)


@pytest.fixture
def small(monkeypatch):
    """MNIST that expects the four small files; returns them."""
    payloads = small_mnist()
    monkeypatch.setattr(MNIST, "sha256", {name: hashlib.sha256(p).hexdigest() for name, p in payloads.items()})
    return payloads


# -- the real ones -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("dataset", "first"), [(MNIST, [5, 0, 4, 1, 9]), (FashionMNIST, [9, 0, 0, 3, 0])])
def test_the_real_mnists(real, dataset, first):
    train, test = dataset(real), dataset(real, train=False)
    assert (len(train), len(test)) == (60000, 10000)
    assert train.data.shape == (60000, 28, 28)
    assert (train.data.dtype, train.targets.dtype) == (minidl.uint8, minidl.int64)
    assert train.targets[:5].tolist() == first
    assert np.bincount(train.targets.numpy()).tolist() == ([6000] * 10 if dataset is FashionMNIST else
                                                           [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949])
    image, label = train[0]
    assert (image.mode, image.size, label) == ("L", (28, 28), first[0])
    pixels = np.asarray(train.data.numpy(), np.float64) / 255
    known = {MNIST: (0.1307, 0.3081), FashionMNIST: (0.2860, 0.3530)}[dataset]
    assert (round(pixels.mean(), 4), round(pixels.std(), 4)) == known


def test_the_real_cifar(real):
    train, test = CIFAR10(real), CIFAR10(real, train=False)
    assert train.data.shape == (len(train), 32, 32, 3)
    assert (len(train), len(test)) == (10000, 2000)
    assert isinstance(train.targets, list)
    assert set(train.targets) == set(test.targets) == set(range(10))
    assert train[0][0].mode == "RGB"
    pixels = train.data / 255
    np.testing.assert_allclose(pixels.mean(axis=(0, 1, 2)), [0.4914, 0.4822, 0.4465], atol=0.01)     # all 50,000 have these
    # a photograph is smooth: neighbours are closer to each other than strangers. Mixed-up axes would not be.
    across = np.abs(np.diff(pixels, axis=2)).mean()
    assert across < 0.3 * np.abs(pixels - np.roll(pixels, 1, axis=0)).mean()
    assert train.data.flags.c_contiguous


def test_the_root_is_the_environments(real, monkeypatch, tmp_path):
    monkeypatch.setenv("MINIDL_DATA", str(Path(real).resolve()))         # the folder changes below
    monkeypatch.chdir(tmp_path)
    assert len(FashionMNIST(train=False)) == 10000
    monkeypatch.delenv("MINIDL_DATA")
    with pytest.raises(MinidlError, match=r"FashionMNIST: got none.* data/fashion-mnist, .*download=True.*MINIDL_DATA"):
        FashionMNIST(train=False)


def test_one_mnist_is_never_taken_for_the_other(real, tmp_path):
    for name in FILES[2:]:
        (tmp_path / f"{name}.gz").write_bytes((real / "fashion-mnist" / f"{name}.gz").read_bytes())
    with pytest.raises(MinidlError, match=r"MNIST: got .*t10k-images.*file of FashionMNIST \(t10k-images-idx3-ubyte\)"):
        MNIST(tmp_path, train=False)
    assert len(FashionMNIST(tmp_path, train=False)) == 10000


# -- MNIST's files ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("folder", ["mnist", "MNIST/raw", "MNIST", "."])
@pytest.mark.parametrize("zipped", [True, False])
def test_layouts(tmp_path, small, folder, zipped):
    write(tmp_path / folder, small, zipped)
    for train, images, labels in ((True, FILES[0], FILES[1]), (False, FILES[2], FILES[3])):
        dataset = MNIST(tmp_path, train)
        assert dataset.data.numpy().tobytes() == small[images][16:]
        assert bytes(dataset.targets.tolist()) == small[labels][8:]


def test_names_with_a_dot_and_str_roots(tmp_path, small):
    for name, payload in small.items():
        (tmp_path / name.replace("-idx", ".idx")).write_bytes(payload)
    assert len(MNIST(str(tmp_path))) == 20


def test_samples_and_transforms(tmp_path, small):
    write(tmp_path, small)
    dataset = MNIST(tmp_path, transform=transforms.ToTensor(), target_transform=lambda label: -label)
    image, label = dataset[3]
    np.testing.assert_array_equal(image.numpy(), dataset.data[3:4].numpy() / np.float32(255))
    assert label == -dataset.targets[3].item()
    assert type(label) is int
    dataset.transform = dataset.target_transform = None
    picture, label = dataset[-1]
    np.testing.assert_array_equal(np.asarray(picture), dataset.data[-1].numpy())
    assert label == dataset.targets[-1].item()
    with pytest.raises(IndexError):
        dataset[20]
    assert dataset.classes[3] == "3 - three"
    assert dataset.class_to_idx["9 - nine"] == 9
    dataset.data[0, 0, 0] = 7                               # memory of its own, which may be written
    assert MNIST(tmp_path).data.numpy().tobytes() == small[FILES[0]][16:]


def damaged(payload, how):
    return {"cut": payload[:-5], "longer": payload + b"\0", "flipped": payload[:300] + bytes([payload[300] ^ 1]) + payload[301:],
            "other magic": b"\0\0\x07\x03" + payload[4:], "header promises more": payload[:4] + b"\xff" * 4 + payload[8:],
            "header promises huge": payload[:4] + b"\xff" * 12 + payload[16:], "empty": b"", "html": b"<html>404</html>",
            "half a header": payload[:9]}[how]


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(("how", "words"), [
    ("cut", "15,691 bytes, expected 15,696: its header promises 20×28×28"), ("longer", "15,697 bytes, expected 15,696"),
    ("flipped", "SHA-256 [0-9a-f]{64}, expected SHA-256 [0-9a-f]{64}"), ("other magic", "begins with 00 00 07 03"),
    ("header promises more", "promises 4294967295×28×28"), ("header promises huge", "expected 79,228,162,"),
    ("empty", "begins with nothing"), ("html", "begins with 3c 68 74 6d"), ("half a header", "expected an IDX file"),
])
def test_damaged_files(tmp_path, small, zipped, how, words):
    write(tmp_path, {**small, FILES[0]: damaged(small[FILES[0]], how)}, zipped)
    with pytest.raises(MinidlError, match=f"MNIST: got .*{FILES[0]}.*{words}"):
        MNIST(tmp_path)
    assert len(MNIST(tmp_path, train=False)) == 7           # the other files are whole


@pytest.mark.parametrize("how", ["cut", "flipped"])
def test_damaged_gzip_files(tmp_path, small, how):
    write(tmp_path, small)
    path = tmp_path / f"{FILES[0]}.gz"
    content = path.read_bytes()
    path.write_bytes(content[:5000] if how == "cut" else content[:5000] + bytes([content[5000] ^ 16]) + content[5001:])
    with pytest.raises(MinidlError, match=r"damaged gzip file of [\d,]+ bytes.*delete it"):
        MNIST(tmp_path)


def test_a_file_is_verified_once_while_it_does_not_change(tmp_path, small, monkeypatch):
    write(tmp_path, small, zipped=False)
    MNIST(tmp_path)
    calls, checksum_of = [], files.checksum_of
    monkeypatch.setattr(files, "checksum_of", lambda *arguments: calls.append(1) or checksum_of(*arguments))
    MNIST(tmp_path)
    assert calls == []
    path = tmp_path / FILES[0]
    path.write_bytes(damaged(small[FILES[0]], "flipped"))
    os.utime(path, ns=(time.time_ns(), time.time_ns() + 10**9))
    with pytest.raises(MinidlError, match="SHA-256"):
        MNIST(tmp_path)
    assert calls == [1]


def header(*sizes):
    return bytes([0, 0, 8, len(sizes)]) + b"".join(n.to_bytes(4, "big") for n in sizes)


@pytest.mark.parametrize(("payload", "words"), [
    (header(*[1] * 200) + b"x", "begins with 00 00 08 c8"), (header(0, 2**32 - 1, 2**32 - 1, 2**32 - 1), "holds 0×4294967295×"),
    (header(0), "so none, expected some"), (header(), "begins with 00 00 08 00"), (header(2**31, 2), "expected 4,294,967,308"),
])
def test_headers_that_promise_the_impossible(payload, words):
    with pytest.raises(MinidlError, match=words):
        files.parse_idx(payload, Path("x"), "test")


def test_files_that_cannot_be_read(tmp_path, small, monkeypatch):
    write(tmp_path, small)
    cifar(tmp_path)

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    for load, name in ((MNIST, FILES[0]), (CIFAR10, r"data_batch_1\.bin")):
        with pytest.raises(MinidlError, match=rf"got .*{name}.*, which cannot be read \(Permission denied\)"):
            load(tmp_path)


@pytest.mark.parametrize(("make", "words"), [
    (lambda root: MNIST(root, "test"), "MNIST: got train='test', expected True or False"),
    (lambda root: CIFAR10(root, transforms.ToTensor()), r"CIFAR10: got train=ToTensor\(\)"),
    (lambda root: Digits(train=None), "Digits: got train=None"),
    (lambda root: MNIST(root, True, 5), "MNIST: got transform=5, expected a function"),
    (lambda root: ImageFolder(root, target_transform="x"), "ImageFolder: got target_transform='x'"),
    (lambda root: MNIST(5), "got root=5, expected the path of a folder"),
])
def test_settings_that_cannot_be(tmp_path, small, make, words):
    write(tmp_path, small)
    with pytest.raises(SettingError, match=words):
        make(tmp_path)


@pytest.mark.parametrize("code", [0x08, 0x09, 0x0B, 0x0C, 0x0D, 0x0E])
def test_idx_number_types(code):
    dtype = {8: "u1", 9: "i1", 11: "i2", 12: "i4", 13: "f4", 14: "f8"}[code]
    array = np.array([[1, 2, 3], [4, 5, 100]], f">{dtype}")
    payload = bytes([0, 0, code, 2, 0, 0, 0, 2, 0, 0, 0, 3]) + array.tobytes()
    read = files.parse_idx(payload, Path("x"), "test")
    assert read.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(read, array)


def test_missing_files(tmp_path, small):
    write(tmp_path / "mnist", {name: small[name] for name in FILES[:1]})
    with pytest.raises(MinidlError) as caught:
        MNIST(tmp_path)
    for words in ("mnist", "MNIST/raw", "train-labels-idx1-ubyte", "download=True", "MINIDL_DATA"):
        assert words in str(caught.value)


def test_print_is_torchvisions(tmp_path, small):
    write(tmp_path, small)
    chain = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])
    assert repr(MNIST(tmp_path)) == f"""Dataset MNIST
    Number of datapoints: 20
    Root location: {tmp_path}
    Split: Train"""
    assert repr(MNIST(tmp_path, False, chain, transforms.Lambda(int))) == f"""Dataset MNIST
    Number of datapoints: 7
    Root location: {tmp_path}
    Split: Test
    StandardTransform
Transform: Compose(
               ToTensor()
               Normalize(mean=(0.5,), std=(0.5,))
           )
Target transform: Lambda()"""


# -- batches -------------------------------------------------------------------------------------------------------------

def cifar(folder, train=30, test=10):
    rng = np.random.default_rng(1)
    folder.mkdir(parents=True, exist_ok=True)
    for name, count in (("data_batch_1.bin", train), ("data_batch_2.bin", 5), ("test_batch.bin", test)):
        records = rng.integers(0, 256, (count, 3073), np.uint8)
        records[:, 0] = rng.integers(0, 10, count)
        (folder / name).write_bytes(records.tobytes())
    return folder


@pytest.mark.parametrize("chain", [
    [transforms.ToTensor()], [transforms.ToTensor(), transforms.Normalize((0.13,), (0.31,))],
    [transforms.PILToTensor(), transforms.ConvertImageDtype(minidl.float32), transforms.Normalize(0.4, 0.2)]])
@pytest.mark.parametrize("target_transform", [None, lambda label: label * 0.5])
def test_whole_batches_hold_bitwise_the_same_as_single_samples(tmp_path, small, chain, target_transform, monkeypatch):
    write(tmp_path, small)
    cifar(tmp_path)
    settings = {"transform": transforms.Compose(chain), "target_transform": target_transform}
    for dataset in (MNIST(tmp_path, **settings), CIFAR10(tmp_path, **settings), Digits(**settings)):
        order = [3, 1, 4, 1, 5, -2, 0]
        singles = list(DataLoader(dataset, 3, sampler=order, collate_fn=lambda batch: minidl.data.default_collate(batch)))
        with monkeypatch.context() as patch:
            patch.setattr(ImagesInMemory, "__getitem__", None)               # nobody may ask for a single sample
            together = [list(DataLoader(d, 3, sampler=s)) for d, s in
                        ((dataset, order), (dataset, minidl.tensor(order)), (Subset(dataset, order), range(len(order))))]
        for batches in together:
            for (x, y), (x1, y1) in zip(batches, singles, strict=True):
                assert x.shape == x1.shape
                assert (x.dtype, y.dtype) == (x1.dtype, y1.dtype)
                assert x.numpy().tobytes() == x1.numpy().tobytes()
                assert y.tolist() == y1.tolist()


def test_a_getitem_of_ones_own_is_used(tmp_path, small):
    class WithIndex(MNIST):
        def __getitem__(self, index):
            return *super().__getitem__(index), index

    write(tmp_path, small)
    x, y, index = next(iter(DataLoader(WithIndex(tmp_path, transform=transforms.ToTensor()), 4)))
    assert index.tolist() == [0, 1, 2, 3]
    assert (x.shape, y.shape) == ((4, 1, 28, 28), (4,))


def test_data_and_targets_may_be_replaced(tmp_path, small):
    write(tmp_path, small)
    dataset = MNIST(tmp_path, transform=transforms.ToTensor())
    keep = dataset.targets < 5
    labels = dataset.targets[keep].tolist()
    dataset.data, dataset.targets = dataset.data[keep], dataset.targets[keep]
    assert len(dataset) == len(labels) > 0
    assert [y for _, batch in DataLoader(dataset, 4) for y in batch.tolist()] == labels
    dataset.data = dataset.data.double()                    # floats are not divided by 255, one by one or together
    x, _ = next(iter(DataLoader(dataset, 4)))
    assert x.dtype == dataset[0][0].dtype
    assert x.tolist() == [dataset[i][0].tolist() for i in range(4)]
    dataset.targets = labels                                # a list is as good
    assert [y for _, batch in DataLoader(dataset, 4) for y in batch.tolist()] == labels


def test_without_a_transform_a_loader_says_what_is_missing(tmp_path, small):
    write(tmp_path, small)
    with pytest.raises(MinidlError, match=r"transform=transforms\.ToTensor\(\)"):
        next(iter(DataLoader(MNIST(tmp_path), 4)))


@pytest.mark.parametrize("workers", [0, 2])
def test_random_transforms_over_a_split_repeat_with_the_seed(workers):
    chain = transforms.Compose([transforms.RandomCrop(8, padding=1), transforms.RandomHorizontalFlip(),
                                transforms.ToTensor()])

    def epoch(workers):
        minidl.manual_seed(8)
        part, _ = random_split(Digits(transform=chain), [100, 1247])
        return b"".join(x.numpy().tobytes() for x, _ in DataLoader(part, 16, shuffle=True, num_workers=workers))

    assert epoch(workers) == epoch(0)


# -- the others ----------------------------------------------------------------------------------------------------------

def test_digits():
    from sklearn.datasets import load_digits

    everything = load_digits()
    train, test = Digits(), Digits(train=False)
    assert (len(train), len(test)) == (1347, 450)

    def pixels_and_labels(images, labels):
        return sorted((np.rint(image).astype(int).ravel().tolist(), int(label))
                      for image, label in zip(images, labels, strict=True))

    ours = [pixels_and_labels(part.data.numpy() / 255 * 16, part.targets.tolist()) for part in (train, test)]
    assert sorted(ours[0] + ours[1]) == pixels_and_labels(everything.images, everything.target)
    shares = np.bincount(test.targets.numpy()) / np.bincount(everything.target)
    assert np.abs(shares - 0.25).max() < 0.01, "a quarter of each digit"
    assert np.array_equal(Digits(train=False).data.numpy(), test.data.numpy())
    assert train.data.dtype == minidl.uint8
    assert train[0][0].size == (8, 8)
    assert len(np.unique(train.data.numpy())) == 17
    assert train.data.max().item() == 255
    assert train.classes[7] == "7"


def test_cifar_by_hand(tmp_path):
    pixels = np.arange(3072) % 251
    (tmp_path / "test_batch.bin").write_bytes(bytes([6, *pixels, 9, *pixels[::-1]]))
    dataset = CIFAR10(tmp_path, train=False)
    assert dataset.targets == [6, 9]
    assert dataset.classes[6] == "frog"
    for channel, row, column in ((0, 0, 0), (1, 0, 5), (2, 31, 7)):
        assert dataset.data[0, row, column, channel] == pixels[1024 * channel + 32 * row + column]
    assert dataset[1][0].getpixel((4, 3)) == tuple(int(pixels[::-1][1024 * c + 32 * 3 + 4]) for c in range(3))


@pytest.mark.parametrize("folder", ["cifar-10-batches-bin", "cifar10", "cifar10-part/cifar-10-batches-bin", "."])
def test_cifar_layouts(tmp_path, folder):
    cifar(tmp_path / folder)
    assert len(CIFAR10(tmp_path)) == 35
    assert len(CIFAR10(tmp_path, train=False)) == 10


@pytest.mark.parametrize(("content", "words"), [
    (b"", "0 bytes, expected a multiple of 3,073"), (bytes(3072), "3,072 bytes"), (bytes(3073) + b"\x0a" + bytes(3072),
                                                                                   "record 1 has the label 10"),
])
def test_cifar_files_that_cannot_be(tmp_path, content, words):
    (tmp_path / "test_batch.bin").write_bytes(content)
    with pytest.raises(MinidlError, match=f"CIFAR10: got .*test_batch.bin.*{words}"):
        CIFAR10(tmp_path, train=False)
    with pytest.raises(MinidlError, match=r"data_batch_1\.bin.*download=True"):
        CIFAR10(tmp_path)


def csv(count=5, label=None):
    rng = np.random.default_rng(2)
    rows = rng.integers(0, 256, (count, 785))
    rows[:, 0] = np.arange(count) % 10 if label is None else label
    return rows, "".join(",".join(map(str, row)) + "\n" for row in rows)


@pytest.mark.parametrize(("name", "train"), [("mnist_train_small.csv", True), ("sample_data/mnist_test.csv", False)])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_csv(tmp_path, name, train, ending):
    rows, text = csv()
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(text.replace("\n", ending).encode())
    dataset = MNISTCSV(tmp_path, train)
    assert dataset.targets.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(dataset.data.numpy().reshape(5, 784), rows[:, 1:])
    assert dataset[2][0].getpixel((3, 1)) == rows[2, 1 + 28 + 3]
    assert len(MNISTCSV(tmp_path, train).data) == 5


@pytest.mark.parametrize(("text", "words"), [
    ("label," + ",".join(f"pixel{i}" for i in range(784)) + "\n" + csv()[1], "line 1 has 'label' in column 1, expected .*no header"),
    (csv()[1] + "1,2,3\n", "line 6 has 3 numbers"), ("1,2,3\n", "line 1 has 3 numbers"), ("", "no lines"), ("\n\n", "no lines"),
    (csv(label=10)[1], "line 1 has '10' in column 1"), (csv()[1].replace(",", ",30,", 1), "line 1 has 786 numbers"),
    (csv()[1][:-2] + ",\n", "line 5 has 786 numbers"), (csv()[1].replace(",", ";"), "line 1 has 1 numbers"), ("\x80" * 10, "1 numbers"),
    ("5" + ",256" * 784, "line 1 has '256' in column 2"), ("5" + ",-1" * 784, "line 1 has '-1' in column 2"),
    ("5" + ",0" * 783 + ",2.7\n", "line 1 has '2.7' in column 785"), ("5" + ",0" * 783 + ",\n", "line 1 has '' in column 785"),
    ("5" + ",nan" * 784, "'nan' in column 2"), ("\xef\xbb\xbf5" + ",0" * 784, "in column 1"),
    ("5" + ",0" * 784 + "\n\n5" + ",0" * 700, "line 3 has 701 numbers"),
])
def test_csv_files_that_cannot_be(tmp_path, text, words):
    (tmp_path / "mnist_test.csv").write_text(text, encoding="latin-1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")         # as in a notebook: older NumPy reads 2.7 as 2 and 256 as 0, and only warns
        with pytest.raises(MinidlError, match=f"MNISTCSV: got .*mnist_test.csv.*{words}"):
            MNISTCSV(tmp_path, train=False)
    with pytest.raises(MinidlError, match=r"mnist_train_small\.csv"):
        MNISTCSV(tmp_path)


@pytest.fixture
def pictures(tmp_path):
    for name, colour in (("b/2.png", (0, 255, 0)), ("b/1.PNG", (0, 0, 255)), ("a/deep/x.bmp", (255, 0, 0)), ("a/y.png", 7)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L" if isinstance(colour, int) else "RGB", (3, 2), colour).save(tmp_path / name)
    (tmp_path / "b" / "notes.txt").write_text("no picture")
    (tmp_path / "beside.png").write_bytes(b"no class")
    return tmp_path


def test_image_folder(pictures):
    dataset = ImageFolder(pictures)
    assert dataset.classes == ["a", "b"]
    assert dataset.class_to_idx == {"a": 0, "b": 1}
    assert [(Path(path).relative_to(pictures).as_posix(), label) for path, label in dataset.samples] == [
        ("a/y.png", 0), ("a/deep/x.bmp", 0), ("b/1.PNG", 1), ("b/2.png", 1)]
    assert dataset.imgs == dataset.samples
    assert dataset.targets == [0, 0, 1, 1]
    assert len(dataset) == 4
    assert [dataset[i][0].getpixel((0, 0)) for i in range(4)] == [(7, 7, 7), (255, 0, 0), (0, 0, 255), (0, 255, 0)]
    assert repr(dataset) == f"Dataset ImageFolder\n    Number of datapoints: 4\n    Root location: {pictures}"
    changed = ImageFolder(str(pictures), transforms.ToTensor(), lambda label: 10 + label)
    x, y = next(iter(DataLoader(changed, 4, num_workers=2)))
    assert x.shape == (4, 3, 2, 3)
    assert y.tolist() == [10, 10, 11, 11]
    text = ImageFolder(pictures, is_valid_file=lambda path: path.endswith(".txt"), loader=lambda path: Path(path).read_text(),
                       allow_empty=True)
    assert text[0] == ("no picture", 1)


def test_image_folders_that_cannot_be(pictures, monkeypatch):
    (pictures / "c").mkdir()
    with pytest.raises(MinidlError, match=r"c with 0 files and no picture.*allow_empty=True"):
        ImageFolder(pictures)
    assert ImageFolder(pictures, allow_empty=True).classes == ["a", "b", "c"]
    with pytest.raises(MinidlError, match="no folders in it"):
        ImageFolder(pictures / "c")
    with pytest.raises(MinidlError, match="is no folder"):
        ImageFolder(pictures / "missing")
    with pytest.raises(SettingError, match="got root=None"):
        ImageFolder(None)
    real = os.scandir

    def locked(path):
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", locked)
    with pytest.raises(MinidlError, match=r"a/deep, which cannot be looked into \(Permission denied\)"):
        ImageFolder(pictures, allow_empty=True)


def test_damaged_pictures(pictures):
    whole = (pictures / "a" / "y.png").read_bytes()
    dataset = ImageFolder(pictures, transforms.ToTensor())
    for content, why in ((b"broken", "of no kind that is known"), (b"", "of no kind"), (whole[:45], "image file is truncated")):
        (pictures / "a" / "y.png").write_bytes(content)
        with pytest.raises(MinidlError, match=rf"ImageFolder: got .*a/y\.png, which cannot be read as a picture \({why}"):
            dataset[0]
    for wide, name in ((np.full((2, 3), 40_000, np.uint16), "y.png"), (np.full((2, 3), 0.5, np.float32), "y.tif")):
        (pictures / "a" / "y.png").unlink(missing_ok=True)
        Image.fromarray(wide).save(pictures / "a" / name)
        with pytest.raises(MinidlError, match=rf"{name}, whose pixels are wider than bytes .*loader"):
            ImageFolder(pictures)[0]
        (pictures / "a" / name).unlink()
    with pytest.raises(MinidlError, match=r"y\.png.*No such file"):
        next(iter(DataLoader(dataset, 4, num_workers=1)))
    assert dataset[1][0].shape == (3, 2, 3)

    def own(path):
        raise KeyError("my loader")

    with pytest.raises(KeyError, match="my loader") as caught:
        ImageFolder(pictures, loader=own)[0]
    assert caught.value.__notes__[0].endswith("x.bmp")


@pytest.mark.parametrize(("name", "words"), [
    ("Mnist", "'MNIST'"), ("STL10", "CIFAR10.*ImageFolder"), ("EMNIST", "derive from MNIST"), ("CIFAR", "'CIFAR10'"),
    ("FakeData", "TensorDataset"), ("xyz", "nothing is like it")])
def test_a_name_that_is_not_there(name, words):
    with pytest.raises(AttributeError, match=words):
        getattr(datasets, name)


# -- downloads -----------------------------------------------------------------------------------------------------------

class Mirror(http.server.BaseHTTPRequestHandler):
    """The first part of the path says how it behaves; the server's `content` and `requests` are the test's."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        _, behaviour, name = self.path.split("/", 2)
        self.server.requests.append((behaviour, name, self.headers.get("Range")))
        body = self.server.content.get(name)
        if behaviour == "forbidden" or body is None:
            self.send_error(403 if behaviour == "forbidden" else 404)
            return
        if behaviour == "silent":
            self.server.closing.wait(20)
            return
        if behaviour == "wrong":
            body = gzip.compress(b"something else")
        if behaviour == "flipped":
            body = body[:-20] + bytes([body[-20] ^ 1]) + body[-19:]
        start, asked = 0, self.headers.get("Range")
        if asked and behaviour != "norange":
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        rest = body[start:]
        if behaviour != "unsized":
            self.send_header("Content-Length", "many" if behaviour == "nonsense" else str(len(rest)))
        self.end_headers()
        if behaviour in ("truncated", "stalling"):
            rest = rest[:len(rest) // 2]
        if behaviour == "slow":
            for i in range(0, len(rest), 1 + len(rest) // 5):
                self.wfile.write(rest[i:i + 1 + len(rest) // 5])
                time.sleep(0.1)
            rest = b""
        if behaviour == "stuck":
            rest = rest[:1000] if not start else b""
        self.wfile.write(rest)
        if behaviour == "stalling":
            self.wfile.flush()
            self.server.closing.wait(20)
        self.close_connection = True

    def log_message(self, *message):
        pass


@pytest.fixture
def server(small, monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    server.content = {f"{name}.gz": gzip.compress(payload, 1) for name, payload in small.items()}
    server.requests, server.closing = [], threading.Event()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "TIMEOUT", 5.0)
    server.use = lambda *behaviours: monkeypatch.setattr(MNIST, "mirrors", [
        f"http://127.0.0.1:{server.server_port}/{behaviour}/" for behaviour in behaviours])
    yield server
    server.closing.set()
    server.shutdown()
    server.server_close()
    thread.join()


def load_all(root, small):
    """Download, then check that all four are there, whole, and usable."""
    dataset = MNIST(root, download=True)
    assert dataset.data.numpy().tobytes() == small[FILES[0]][16:]
    assert len(MNIST(root, train=False)) == 7
    raw = root / "MNIST" / "raw"
    assert {path.name for path in raw.iterdir() if path.suffix == ".gz"} == {f"{name}.gz" for name in FILES}
    assert not list(raw.glob("*.part"))


def test_a_plain_download(server, small, tmp_path, capsys):
    server.use("good")
    load_all(tmp_path, small)
    assert server.requests == [("good", f"{name}.gz", None) for name in FILES]
    output = capsys.readouterr()
    assert output.out == ""
    assert "train-images-idx3-ubyte.gz" in output.err
    assert "100%" in output.err or "kB" in output.err


def test_nothing_is_downloaded_where_the_files_are(server, small, tmp_path):
    server.use("good")
    write(tmp_path / "mnist", {name: small[name] for name in FILES[:2]})
    MNIST(tmp_path, download=True)
    MNIST(tmp_path)
    assert server.requests == []
    MNIST(tmp_path, train=False, download=True)
    assert len(server.requests) == 4
    MNIST(tmp_path, train=False, download=True)
    assert len(server.requests) == 4


@pytest.mark.parametrize(("first", "asked"), [("forbidden", 1), ("absent/x", 1), ("wrong", 1), ("flipped", 1), ("silent", 1)])
def test_the_next_mirror_takes_over(server, small, tmp_path, first, asked, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    server.use(first, "good")
    load_all(tmp_path, small)
    behaviour = first.split("/")[0]
    assert sum(request[0] == behaviour for request in server.requests) == 4 * asked
    assert sum(request[0] == "good" for request in server.requests) == 4
    bad = list((tmp_path / "MNIST" / "raw").glob("*.bad"))
    assert len(bad) == (4 if first in ("wrong", "flipped") else 0)


@pytest.mark.parametrize("first", ["truncated", "stalling"])
def test_a_broken_download_is_taken_up_where_it_broke(server, small, tmp_path, first, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    server.use(first, "good")
    load_all(tmp_path, small)
    size = len(server.content[f"{FILES[0]}.gz"])
    ranges = [asked for _, name, asked in server.requests if name == f"{FILES[0]}.gz"]
    halves = [size // 2, size // 2 + (size - size // 2) // 2]
    assert ranges[:3] == [None, f"bytes={halves[0]}-", f"bytes={halves[1]}-"]
    assert server.requests[3][0] == "good"


def test_a_mirror_that_sends_no_more_is_left(server, small, tmp_path):
    server.use("stuck", "good")
    load_all(tmp_path, small)
    images = [(behaviour, asked) for behaviour, name, asked in server.requests if name == f"{FILES[0]}.gz"]
    assert images == [("stuck", None), ("stuck", "bytes=1000-"), ("good", "bytes=1000-")]


@pytest.mark.parametrize("how", ["slow", "unsized", "nonsense"])
def test_mirrors_that_are_slow_or_do_not_say_how_much_they_send(server, small, tmp_path, how, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.3)           # less than the whole takes, more than each pause
    server.use(how)
    load_all(tmp_path, small)
    assert server.requests == [(how, f"{name}.gz", None) for name in FILES]


def test_a_full_disk(server, small, tmp_path):
    """A limit for the size of files stands for a full disk: it also takes a part of a write and then refuses the rest."""
    resource = pytest.importorskip("resource", reason="only Unix can limit the size of files")
    server.use("good", "good")
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (7000, unlimited[1]))
    try:
        with pytest.raises(MinidlError, match=r"MNIST: got File too large when writing .*ubyte\.gz\.part, .*another root.*goes on from there"):
            MNIST(tmp_path, download=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert len(server.requests) == 1, "another mirror was asked, though none can help"
    assert {path.name: path.stat().st_size for path in (tmp_path / "MNIST/raw").iterdir()} == {f"{FILES[0]}.gz.part": 7000}
    load_all(tmp_path, small)
    assert server.requests[1] == ("good", f"{FILES[0]}.gz", "bytes=7000-")


def test_a_root_that_cannot_be_written_into(server, cifar_archive, small, tmp_path):
    server.use("good")
    (tmp_path / "file").write_text("no folder")
    for load in (MNIST, CIFAR10):
        with pytest.raises(MinidlError, match=rf"{load.__name__}: got Not a directory when writing .*file.*another root"):
            load(tmp_path / "file" / "root", download=True)
    (tmp_path / "MNIST" / "raw" / f"{FILES[0]}.gz").mkdir(parents=True)
    with pytest.raises(MinidlError, match=r"MNIST: got Is a directory when writing"):
        MNIST(tmp_path, download=True)


def part_of(root, content):
    part = root / "MNIST" / "raw" / f"{FILES[0]}.gz.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(content)


def test_the_rest_of_an_earlier_run_is_used(server, small, tmp_path):
    server.use("good")
    part_of(tmp_path, server.content[f"{FILES[0]}.gz"][:5000])
    load_all(tmp_path, small)
    assert server.requests[0] == ("good", f"{FILES[0]}.gz", "bytes=5000-")


def test_a_whole_part_only_needs_its_name(server, small, tmp_path):
    server.use("good")
    part_of(tmp_path, server.content[f"{FILES[0]}.gz"])
    load_all(tmp_path, small)
    assert [name for _, name, _ in server.requests].count(f"{FILES[0]}.gz") == 1


@pytest.mark.parametrize("garbage", [b"garbage" * 100, b"garbage" * 100_000])
def test_a_part_of_something_else_is_set_aside(server, small, tmp_path, garbage):
    server.use("good")
    part_of(tmp_path, garbage)
    load_all(tmp_path, small)
    assert (tmp_path / "MNIST" / "raw" / f"{FILES[0]}.gz.bad").exists()
    assert server.requests[1] == ("good", f"{FILES[0]}.gz", None)


def test_a_mirror_without_ranges_begins_again(server, small, tmp_path):
    server.use("norange")
    part_of(tmp_path, b"garbage" * 100)
    load_all(tmp_path, small)
    assert len(server.requests) == 4
    assert not list(tmp_path.rglob("*.bad")), "the new file was appended to the old bytes"


def test_when_all_mirrors_fail(server, small, tmp_path):
    server.use("forbidden", "wrong", "truncated")
    with pytest.raises(MinidlError) as caught:
        MNIST(tmp_path, download=True)
    message = str(caught.value)
    for words in ("train-images-idx3-ubyte.gz", "HTTP Error 403", "SHA-256", "connection ended after", "by hand",
                  str(tmp_path / "MNIST" / "raw"), MNIST.sha256[FILES[0]]):
        assert words in message
    assert not (tmp_path / "MNIST" / "raw" / f"{FILES[0]}.gz").exists()


def test_when_nobody_is_there(server, small, tmp_path, monkeypatch):
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(MinidlError, match=r"(refused|timed out).*try again later, or put the file into .*by hand"):
        MNIST(tmp_path / "root", download=True)
    assert not (tmp_path / "root").exists()


@pytest.fixture
def cifar_archive(server, tmp_path, monkeypatch):
    made = cifar(tmp_path / "made")
    for i in range(3, 6):
        (made / f"data_batch_{i}.bin").write_bytes(bytes(3073))
    (made / "batches.meta.txt").write_text("airplane\n")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        tar.add(made, "cifar-10-batches-bin")
        escaping = tarfile.TarInfo("../escaped.bin")
        tar.addfile(escaping, io.BytesIO())
    server.content["cifar-10-binary.tar.gz"] = archive.getvalue()
    monkeypatch.setattr(CIFAR10, "sha256", hashlib.sha256(archive.getvalue()).hexdigest())
    monkeypatch.setattr(CIFAR10, "mirrors", [f"http://127.0.0.1:{server.server_port}/{behaviour}/cifar-10-binary.tar.gz"
                                             for behaviour in ("flipped", "good")])
    return archive.getvalue()


def test_the_archive_of_cifar(server, cifar_archive, tmp_path):
    root = tmp_path / "root"
    assert len(CIFAR10(root, download=True)) == 38
    assert len(CIFAR10(root, train=False)) == 10
    assert not (tmp_path / "escaped.bin").exists()
    assert {path.name for path in (root / "cifar-10-batches-bin").iterdir()} == set(CIFAR10.members)
    asked = len(server.requests)
    CIFAR10(root, download=True)
    assert len(server.requests) == asked == 2


def test_batches_are_unpacked_all_or_none(server, cifar_archive, tmp_path, monkeypatch):
    """Any number of batches counts as a whole set, so a disk that gets full in between must not leave some."""
    root = tmp_path / "root"
    real = Path.write_bytes

    def full(path, content):
        if path.name == "data_batch_3.bin":
            real(path, content[:100])
            raise OSError(28, "No space left on device")
        return real(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(MinidlError, match=r"CIFAR10: got No space left on device when writing .*cifar-10-batches-bin"):
            CIFAR10(root, download=True)
    assert [path.name for path in root.iterdir() if path.suffix != ".bad"] == ["cifar-10-binary.tar.gz"]
    asked = len(server.requests)
    (root / "cifar-10-batches-bin").mkdir()                 # there already, with less in it
    (root / "cifar-10-batches-bin" / "test_batch.bin").write_bytes(bytes(3073))
    assert len(CIFAR10(root, download=True)) == 38
    assert len(CIFAR10(root, train=False)) == 10
    assert len(server.requests) == asked
    assert not (root / "cifar-10-batches-bin.part").exists()


def test_an_archive_that_is_there_already(server, cifar_archive, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "cifar-10-binary.tar.gz").write_bytes(cifar_archive)
    assert len(CIFAR10(root, train=False, download=True)) == 10
    assert server.requests == []


def test_the_real_addresses_and_hashes_are_complete():
    for dataset in (MNIST, FashionMNIST):
        assert set(dataset.sha256) == set(FILES)
        assert len({*MNIST.sha256.values(), *FashionMNIST.sha256.values()}) == 8
        assert len(dataset.mirrors) >= 2
        assert all(mirror.startswith("http") and mirror.endswith("/") for mirror in dataset.mirrors)
        assert len(dataset.classes) == 10
    assert all(len(sha) == 64 for sha in [*MNIST.sha256.values(), *FashionMNIST.sha256.values(), CIFAR10.sha256])


def test_an_address_that_is_none(server, small, tmp_path, monkeypatch):
    server.use("good")
    monkeypatch.setattr(MNIST, "mirrors", ["nowhere/", *MNIST.mirrors])
    load_all(tmp_path, small)


def test_without_a_root_the_environment_decides_and_then_data(tmp_path, small, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("data", "elsewhere"):
        write(tmp_path / folder / "mnist", small)
        cifar(tmp_path / folder, train=1 if folder == "data" else 2)
        (tmp_path / folder / "mnist_test.csv").write_text(csv(3 if folder == "data" else 4)[1])
    for environment, csv_lines, images in ((None, 3, 6), ("", 3, 6), (str(tmp_path / "elsewhere"), 4, 7)):
        monkeypatch.delenv("MINIDL_DATA", raising=False)
        if environment is not None:
            monkeypatch.setenv("MINIDL_DATA", environment)
        assert (len(MNIST()), len(MNISTCSV(train=False)), len(CIFAR10())) == (20, csv_lines, images)
        assert str(MNIST().root) == (environment or "data")
    assert len(CIFAR10("data")) == 6


def test_the_readme_of_the_data_folder_is_true():
    text = (Path(__file__).parents[1] / "data" / "README.md").read_text(encoding="utf-8")
    for dataset in (MNIST, FashionMNIST):
        row = next(line for line in text.splitlines() if line.startswith(f"| `{dataset.__name__}`"))
        assert [place for place in row.split("|")[3].replace("`", "").split(", ") if "itself" not in place] == [
            f" {folder}/" if not i else f"{folder}/" for i, folder in enumerate(dataset.folders) if folder]
        assert all(f"<{mirror}>" in text for mirror in dataset.mirrors)
        assert f"`{dataset.home}/`" in text
    assert all(f"`{name}`" in text for name in FILES)
    assert f"<{CIFAR10.mirrors[0]}>" in text
    assert all(f"`{folder}/`" in text for folder in MNISTCSV.folders if folder)


def test_files_below_the_environments_folder_serve_a_root_without_them(tmp_path, small, monkeypatch):
    write(tmp_path / "all" / "mnist", small)
    with pytest.raises(MinidlError, match="got none of these folders"):
        MNIST(tmp_path / "mine")
    monkeypatch.setenv("MINIDL_DATA", str(tmp_path / "all"))
    assert len(MNIST(tmp_path / "mine", download=True)) == 20
    assert not (tmp_path / "mine").exists()
    write(tmp_path / "mine" / "mnist", small_mnist(seed=1))         # what is there is not passed over, but checked
    with pytest.raises(MinidlError, match="SHA-256"):
        MNIST(tmp_path / "mine")
