"""Datasets, samplers, collating and the DataLoader: held against PyTorch's where nothing is drawn at random."""

from __future__ import annotations

import gc
import itertools
import threading
import time
from collections import Counter, OrderedDict, namedtuple

import numpy as np
import pytest

import minidl
from minidl import data
from minidl.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
    default_convert,
    random_split,
)
from minidl.errors import DeviceError, DtypeError, MinidlError, ModuleError, SettingError, ShapeError

Point = namedtuple("Point", ["x", "y"])


class Squares(Dataset):
    """A plain dataset: numbers and their squares, one by one."""

    def __init__(self, count=10):
        self.count, self.asked_for = count, []

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if not -self.count <= index < self.count:
            raise IndexError(index)
        self.asked_for.append(index)
        return minidl.tensor([float(index)]), index * index


class Stream(IterableDataset):
    def __init__(self, count):
        self.count = count

    def __iter__(self):
        yield from range(self.count)


class Noisy(Dataset):
    """Samples that draw from the batch's generator, after waiting for a while."""

    def __len__(self):
        return 24

    def __getitem__(self, index):
        time.sleep(0.001 * (index % 3))
        return index, data.current_generator().numpy.random()


def tensors(count=10):
    return TensorDataset(minidl.arange(count).float().reshape(count, 1), minidl.arange(count) ** 2)


def plain(value, kind=minidl.Tensor):
    """Tensors of either library as (type, numbers), and those of NumPy as something else; containers as they are."""
    if hasattr(value, "tolist") and hasattr(value, "dtype"):
        return "NumPy" * isinstance(value, np.ndarray | np.generic) + str(value.dtype).replace("torch.", ""), tuple(value.shape), value.tolist()
    if isinstance(value, dict):
        return type(value).__name__, {key: plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value).__name__, [plain(part) for part in value]
    return value


def loader_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("DataLoader")]


def wait_until(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


# -- collating -----------------------------------------------------------------------------------------------------

SAMPLES = {
    "tensors": lambda lib: [lib.ones(2, 3), lib.zeros(2, 3)],
    "tensors without dimensions": lambda lib: [lib.tensor(1), lib.tensor(2)],
    "tensors of mixed types": lambda lib: [lib.ones(2), lib.arange(2)],
    "float arrays": lambda lib: [np.ones((2, 2)), np.zeros((2, 2))],
    "float32 arrays": lambda lib: [np.ones(2, np.float32)] * 3,
    "byte arrays": lambda lib: [np.arange(3, dtype=np.uint8)] * 2,
    "arrays without dimensions": lambda lib: [np.array(1.5), np.array(2.5)],
    "float": lambda lib: [1.5, 2.5],
    "int": lambda lib: [1, 2],
    "int before float": lambda lib: [1, 2.5],
    "bool": lambda lib: [True, False],
    "float32 scalars": lambda lib: [np.float32(1), np.float32(2)],
    "float64 scalars": lambda lib: [np.float64(1), np.float64(2)],
    "int32 scalars": lambda lib: [np.int32(1), np.int32(2)],
    "bool scalars": lambda lib: [np.bool_(True), np.bool_(False)],
    "strings": lambda lib: ["a", "b"],
    "bytes": lambda lib: [b"a", b"b"],
    "dict": lambda lib: [{"x": 1, "y": [1.0, "a"]}, {"x": 2, "y": [2.0, "b"]}],
    "ordered dict": lambda lib: [OrderedDict(a=1), OrderedDict(a=2)],
    "tuple": lambda lib: [(1, "a", lib.ones(2)), (2, "b", lib.ones(2))],
    "list": lambda lib: [[1, 2.0], [3, 4.0]],
    "named tuple": lambda lib: [Point(1, 2.0), Point(3, 4.0)],
    "nested": lambda lib: [({"a": (1, 2)}, [lib.ones(1)])] * 3,
    "empty tuple": lambda lib: [(), ()],
}


@pytest.mark.torch
@pytest.mark.parametrize("name", SAMPLES)
def test_collating_is_pytorchs(torch, name):
    ours, theirs = default_collate(SAMPLES[name](minidl)), torch.utils.data.default_collate(SAMPLES[name](torch))
    assert plain(ours) == plain(theirs)


@pytest.mark.torch
@pytest.mark.parametrize("sample", [1, 1.5, "a", None, np.ones(2), np.float32(1), (1, np.ones(2)), [np.ones(1), "b"],
                                    {"a": np.ones(1)}, Point(np.ones(1), 2), np.array(["a"]), range(2)])
def test_converting_is_pytorchs(torch, sample):
    assert plain(default_convert(sample)) == plain(torch.utils.data.default_convert(sample))


class Tagged(dict):
    """A dict with something of its own."""


def test_a_dict_class_keeps_what_it_holds_beside_its_keys():
    samples = [Tagged(a=1), Tagged(a=2)]
    samples[0].tag = "kept"
    batch = default_collate(samples)
    assert type(batch) is Tagged
    assert batch.tag == "kept"
    assert batch["a"].tolist() == [1, 2]
    assert samples[0]["a"] == 1


def test_a_batch_has_memory_of_its_own():
    samples = [minidl.zeros(2)]
    default_collate(samples)[0, 0] = 5
    assert samples[0].tolist() == [0, 0]


def _pil():
    from PIL import Image
    return Image.new("L", (2, 2))


def test_gradients_flow_through_a_batch():
    x = minidl.ones(2, requires_grad=True)
    (default_collate([x, minidl.ones(2), 2 * x]) * minidl.tensor([[1.0], [10.0], [100.0]])).sum().backward()
    assert x.grad.tolist() == [201, 201]


def test_a_batch_stays_on_its_device():
    assert default_collate([minidl.ones(2, device="fake")] * 2).device == minidl.device("fake")


@pytest.mark.parametrize(("samples", "error", "words"), [
    ([minidl.ones(2), minidl.ones(2), minidl.ones(3)], ShapeError, ["(2,) in sample 0", "(3,) in sample 2", "Resize"]),
    ([np.ones((1, 2)), np.ones(2)], ShapeError, ["(1, 2) in sample 0", "(2,) in sample 1"]),
    ([(1, 2), (1, 2), (1,)], ShapeError, ["2 parts in sample 0", "1 in sample 2", "collate_fn"]),
    ([None, None], DtypeError, ["NoneType", "return something"]),
    ([_pil(), _pil()], DtypeError, ["Image", "transforms.ToTensor()"]),
    ([minidl.ones(1), 1.0], DtypeError, ["float in sample 1"]),
    ([{1}, {2}], DtypeError, ["set in sample 0"]),
    ([np.array(["a"])], DtypeError, ["expected numbers"]),
    ([{"a": 1, "b": 2}, {"a": 1}], ShapeError, ["keys ['a', 'b'] in sample 0", "['a'] in sample 1", "collate_fn"]),
    ([{"a": 1}, 5], DtypeError, ["int in sample 1"]),
    ([(1, 2), 3], DtypeError, ["int in sample 1"]),
    ([(1, 2), "ab"], DtypeError, ["str in sample 1"]),
    ([], ShapeError, ["[]", "one or more samples"]),
    (5, ShapeError, ["got 5", "a list of"]),
    ([minidl.ones(1), minidl.ones(1, device="fake")], DeviceError, ['sample 0 of the batch on "cpu"', '"fake"']),
])
def test_what_cannot_be_one_batch_is_said(samples, error, words):
    with pytest.raises(error) as caught:
        default_collate(samples)
    assert all(word in str(caught.value) for word in words), caught.value


# -- datasets ------------------------------------------------------------------------------------------------------

def test_tensor_dataset():
    dataset = tensors()
    assert len(dataset) == 10
    x, y = dataset[3]
    assert (x.tolist(), y.item()) == ([3.0], 9)
    assert dataset[-1][1].item() == 81
    assert dataset[[1, 2]][1].tolist() == [1, 4]


@pytest.mark.parametrize(("make", "error", "words"), [
    (lambda: TensorDataset(minidl.ones(2), minidl.ones(3)), ShapeError, ["(2,)", "(3,)"]),
    (lambda: TensorDataset(), ShapeError, ["one or more"]),
    (lambda: TensorDataset(minidl.tensor(1.0)), ShapeError, ["()"]),
    (lambda: TensorDataset(minidl.ones(2), np.ones(2)), ModuleError, ["ndarray in place 1", "minidl.tensor"]),
    (lambda: ConcatDataset([]), SettingError, ["no datasets"]),
    (lambda: tensors() + Stream(3), ModuleError, ["Stream", "no numbers"]),
    (lambda: Dataset()[0], ModuleError, ["__getitem__"]),
    (lambda: iter(IterableDataset()), ModuleError, ["__iter__"]),
    (lambda: iter(data.Sampler()), ModuleError, ["__iter__"]),
])
def test_datasets_that_cannot_be(make, error, words):
    with pytest.raises(error) as caught:
        make()
    assert all(word in str(caught.value) for word in words), caught.value


def test_concatenated():
    joined = Squares(3) + Squares(2) + tensors(4)
    assert isinstance(joined, ConcatDataset)
    assert len(joined) == 9
    assert joined.cumulative_sizes == [5, 9]
    assert [int(joined[i][1]) for i in range(9)] == [0, 1, 4, 0, 1, 0, 1, 4, 9]
    assert [int(joined[i][1]) for i in range(-9, 0)] == [0, 1, 4, 0, 1, 0, 1, 4, 9]
    for outside in (9, -10):
        with pytest.raises(IndexError, match="below 9"):
            joined[outside]


def test_subset():
    subset = Subset(Squares(), [7, 2, 2])
    assert len(subset) == 3
    assert [subset[i][1] for i in range(3)] == [49, 4, 4]
    assert [y for _, y in subset.__getitems__([2, 0])] == [4, 49]
    assert Subset(tensors(), [5, 6, 7])[[0, 2]][1].tolist() == [25, 49]


@pytest.mark.torch
@pytest.mark.parametrize("lengths", [[3, 7], [0.5, 0.5], [0.3, 0.3, 0.4], [0.25, 0.25, 0.25, 0.25], [10], [1.0], [1, 9],
                                     [0, 10], [0.1] * 10])
def test_random_split_has_pytorchs_sizes(torch, lengths):
    parts = random_split(Squares(), lengths)
    assert [len(part) for part in parts] == [len(part) for part in torch.utils.data.random_split(range(10), lengths)]
    assert sorted(itertools.chain(*(part.indices for part in parts))) == list(range(10))


def test_random_split_repeats_with_a_seed():
    def split(**settings):
        return [part.indices for part in random_split(Squares(100), [0.8, 0.2], **settings)]

    minidl.manual_seed(3)
    first = split()
    assert first[0] != sorted(first[0])
    assert split() != first
    minidl.manual_seed(3)
    assert split() == first
    assert split(generator=minidl.Generator().manual_seed(3)) == first


@pytest.mark.parametrize("lengths", [[0.05, 0.8, 0.05, 0.1], (np.int64(4), 16), [np.float32(0.5), 0.5],
                                     np.array([3, 17])])
def test_lengths_that_sum_up_but_for_rounding_and_numpys_numbers(lengths):
    assert sum(len(part) for part in random_split(Squares(20), lengths)) == 20
    assert 0.05 + 0.8 + 0.05 + 0.1 > 1                  # added one by one; sum() rounds once since Python 3.12


@pytest.mark.parametrize("lengths", [[3, 6], [3, 8], [-1, 11], [0.5, 0.6], [0.2, 0.2], [4.5, 5.5], [1.5, -0.5], [], 10, None,
                                     "ab", [float("nan"), 1], [float("inf")], [None, 10]])
def test_lengths_that_do_not_fit(lengths):
    with pytest.raises(SettingError, match="sum to the 10 samples"):
        random_split(Squares(), lengths)


def test_an_empty_part_is_warned_of():
    with pytest.warns(UserWarning, match="part 1 of 3 samples is empty"):
        random_split(Squares(3), [0.9, 0.1])


# -- samplers ------------------------------------------------------------------------------------------------------

@pytest.mark.torch
@pytest.mark.parametrize(("count", "size", "drop_last"), [*itertools.product([0, 1, 9, 10], [1, 3, 10, 11], [False, True])])
def test_batches_of_indices_are_pytorchs(torch, count, size, drop_last):
    ours = BatchSampler(SequentialSampler(range(count)), size, drop_last)
    theirs = torch.utils.data.BatchSampler(torch.utils.data.SequentialSampler(range(count)), size, drop_last)
    assert list(ours) == list(theirs)
    assert len(ours) == len(theirs)


def test_random_sampler():
    once = list(RandomSampler(range(50)))
    assert sorted(once) == list(range(50))
    assert once != sorted(once)
    assert all(type(i) is int for i in once)
    more = list(RandomSampler(range(4), num_samples=10))
    assert sorted(more[:4]) == sorted(more[4:8]) == [0, 1, 2, 3]
    assert len(set(more[8:])) == 2
    drawn = RandomSampler(range(10), replacement=True, num_samples=2000)
    counts = Counter(drawn)
    assert len(drawn) == counts.total() == 2000
    assert all(120 < counts[i] < 290 for i in range(10))                    # 200 ± 6 standard deviations


def test_weighted_and_subset_samplers():
    counts = Counter(WeightedRandomSampler([1, 0, 3], 4000))
    assert counts[1] == 0
    assert 2800 < counts[2] < 3200                                          # 3000 ± 7 standard deviations
    assert sorted(WeightedRandomSampler([1, 0, 3, 1], 3, replacement=False)) == [0, 2, 3]
    sampler = SubsetRandomSampler(range(20, 40))
    assert sorted(sampler) == list(range(20, 40))
    assert list(sampler) != list(sampler)
    assert len(sampler) == 20


@pytest.mark.parametrize("make", [
    lambda g: RandomSampler(range(30), generator=g), lambda g: RandomSampler(range(30), True, generator=g),
    lambda g: SubsetRandomSampler(range(30), generator=g), lambda g: WeightedRandomSampler([1.0] * 30, 30, generator=g)])
def test_samplers_repeat_with_a_seed(make):
    minidl.manual_seed(5)
    drawn = list(make(None))
    assert list(make(minidl.Generator().manual_seed(5))) == drawn
    assert list(make(None)) != drawn


@pytest.mark.parametrize(("make", "words"), [
    (lambda: RandomSampler([]), "without samples"),
    (lambda: RandomSampler(range(3), num_samples=0), "num_samples=0"),
    (lambda: BatchSampler(range(3), 0), "batch_size=0"),
    (lambda: BatchSampler(range(3), 1.5), "batch_size=1.5"),
    (lambda: BatchSampler(range(3), True), "batch_size=True"),
    (lambda: WeightedRandomSampler([1, -1], 2), "0 or more"),
    (lambda: WeightedRandomSampler([0, 0], 2), "not all 0"),
    (lambda: WeightedRandomSampler([[1.0]], 2), r"\(1, 1\)"),
    (lambda: WeightedRandomSampler([1, 0], 2, replacement=False), "1 or less"),
    (lambda: RandomSampler(range(3), generator=42), r"generator=42.*manual_seed\(5\)"),
    (lambda: SubsetRandomSampler([1], generator=42), "SubsetRandomSampler: got generator=42"),
    (lambda: WeightedRandomSampler([1], 1, generator="x"), "generator='x'"),
    (lambda: random_split(range(3), [1, 2], generator=42), "random_split: got generator=42"),
])
def test_samplers_that_cannot_be(make, words):
    with pytest.raises(SettingError, match=words):
        make()


# -- the loader ----------------------------------------------------------------------------------------------------

@pytest.mark.torch
@pytest.mark.parametrize("settings", [
    {}, {"batch_size": 3}, {"batch_size": 3, "drop_last": True}, {"batch_size": 20}, {"batch_size": None},
    {"batch_sampler": [[1, 2], [5]]}, {"sampler": [4, 1], "batch_size": 2}, {"sampler": [3, 3, 3]},
    {"batch_size": None, "sampler": [[0, 1], [2, 3]]}, {"batch_size": 4, "collate_fn": len},
])
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_pytorchs(torch, settings, workers):
    x, y = torch.arange(10).float().reshape(10, 1), torch.arange(10) ** 2
    theirs = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), **settings)
    for dataset in (tensors(), Subset(tensors(), range(10))):
        ours = DataLoader(dataset, num_workers=workers, **settings)
        assert plain(list(ours)) == plain(list(theirs))
        assert len(ours) == len(theirs)
        assert ours.batch_size == theirs.batch_size


@pytest.mark.torch
def test_random_settings_give_pytorchs_batches(torch, rng):
    """Sizes, orders, samplers, threads, kinds of samples: drawn at random, and everything that comes out compared."""
    def sample(lib, kind, i):
        return {"int": i, "pair": (lib.tensor([float(i)]), i * i), "arrays": (np.float32(i), np.array([i, i], np.int16)),
                "dict": {"a": i, "b": np.full(2, i), "c": str(i)}, "nested": [(i, float(i)), {"x": lib.tensor(i)}]}[kind]

    def batches(lib, loader, iterable, samples, settings):
        numbered = {"__getitem__": lambda self, i: samples[i], "__len__": lambda self: len(samples)}
        dataset = type("Given", (iterable,), {"__iter__": lambda self: iter(samples)})() if settings.get("iterable") else \
            type("Given", (), numbered)()
        try:
            made = loader(dataset, **{name: value for name, value in settings.items() if name != "iterable"})
            return plain(list(made)), len(made) if hasattr(type(dataset), "__len__") else None
        except Exception as error:
            return isinstance(error, MinidlError) or lib is torch, None

    refused = 0
    for _ in range(200):
        count, kind = int(rng.choice([0, 1, 2, 7, 16])), str(rng.choice(["int", "pair", "arrays", "dict", "nested"]))
        settings = {"batch_size": [1, 2, 3, 7, 16, 100, None, 0][rng.integers(8)], "drop_last": bool(rng.integers(2))}
        order = rng.integers(0, count, rng.integers(9)).tolist() if count else []
        settings |= [{}, {}, {"sampler": order}, {"batch_sampler": [order, order[:2]] if order else []}, {"iterable": True}][rng.integers(5)]
        if "batch_sampler" in settings and rng.integers(4):
            del settings["batch_size"], settings["drop_last"]
        ours = batches(minidl, lambda *args, **kwargs: DataLoader(*args, num_workers=int(rng.integers(3)), **kwargs),
                       IterableDataset, [sample(minidl, kind, i) for i in range(count)], settings)
        theirs = batches(torch, torch.utils.data.DataLoader, torch.utils.data.IterableDataset,
                         [sample(torch, kind, i) for i in range(count)], settings)
        assert ours == theirs, (count, kind, settings)
        refused += ours[0] is True
    assert 20 < refused < 120


def test_an_empty_dataset_has_no_batches():
    for workers in (0, 2):
        loader = DataLoader(Squares(0), 4, num_workers=workers)
        assert list(loader) == []
        assert len(loader) == 0


@pytest.mark.torch
@pytest.mark.parametrize(("size", "drop_last"), [(1, False), (4, False), (4, True), (None, False)])
@pytest.mark.parametrize("workers", [0, 3])
def test_iterable_datasets_are_pytorchs(torch, size, drop_last, workers):
    class Theirs(torch.utils.data.IterableDataset):
        def __iter__(self):
            yield from range(10)

    theirs = torch.utils.data.DataLoader(Theirs(), size, drop_last=drop_last)
    ours = DataLoader(Stream(10), size, drop_last=drop_last, num_workers=workers)
    assert plain(list(ours)) == plain(list(theirs))
    with pytest.raises(TypeError, match="len"):
        len(ours)


def test_the_length_of_an_iterable_dataset_with_one():
    class Sized(Stream):
        def __len__(self):
            return self.count

    assert len(DataLoader(Sized(10), 4)) == 3
    assert len(DataLoader(Sized(10), 4, drop_last=True)) == 2
    assert len(DataLoader(Sized(10), None)) == 10


@pytest.mark.parametrize("workers", [0, 2])
def test_shuffling_follows_the_seed(workers):
    def epoch(loader):
        return [label for _, labels in loader for label in labels.tolist()]

    everything = [i * i for i in range(50)]
    loader = DataLoader(Squares(50), 7, shuffle=True, num_workers=workers)
    minidl.manual_seed(1)
    first, second = epoch(loader), epoch(loader)
    assert sorted(first) == sorted(second) == everything
    assert len({tuple(first), tuple(second), tuple(everything)}) == 3
    minidl.manual_seed(1)
    assert [epoch(loader), epoch(loader)] == [first, second]
    generator = minidl.Generator().manual_seed(1)
    state = minidl.default_generator.get_state()
    assert epoch(DataLoader(tensors(50), 7, shuffle=True, generator=generator)) == first
    assert minidl.default_generator.get_state() == state, "drew from the global generator beside generator="


def test_whole_batches_are_fetched_by_one_index_each():
    class Counting(TensorDataset):
        singles = 0

        def __getitem__(self, index):
            self.singles += 1
            return super().__getitem__(index)

    class Batches(Counting):
        def whole_batch(self, indices):
            return super().whole_batch(indices)

    overridden, fast = Counting(*tensors().tensors), Batches(*tensors().tensors)
    expected = plain(list(DataLoader(tensors(), 4)))
    assert plain(list(DataLoader(overridden, 4))) == expected
    assert overridden.singles == 10, "a __getitem__ of one's own was passed over"
    for dataset in (fast, Subset(fast, range(10))):
        assert plain(list(DataLoader(dataset, 4))) == expected
    assert fast.singles == 0
    assert list(DataLoader(fast, 4, collate_fn=len)) == [4, 4, 2], "a collate_fn gets the list of samples"
    assert fast.singles == 10


def test_getitems_is_used_and_gives_a_list_of_samples():
    class Listed(Squares):
        def __getitems__(self, indices):
            return [(i, "listed") for i in indices]

    class Newer(Listed):
        def __getitem__(self, index):
            return index, "newer"

    for dataset in (Listed(), Subset(Listed(), range(10))):
        assert next(iter(DataLoader(dataset, 2)))[1] == ("listed", "listed")
    assert next(iter(DataLoader(Newer(), 2)))[1] == ("newer", "newer")


def test_drawing_does_not_depend_on_the_number_of_threads():
    def epoch(workers):
        minidl.manual_seed(9)
        return [plain(batch) for batch in DataLoader(Noisy(), 4, shuffle=True, num_workers=workers)]

    alone = epoch(0)
    assert len({value for _, (_, values) in alone for value in values[2]}) == 24, "the same number in several samples"
    assert epoch(3) == alone
    assert epoch(1) == alone
    assert data.current_generator() is minidl.default_generator


def test_threads_fetch_ahead_at_the_same_time():
    together = threading.Barrier(2, timeout=10)

    class Meeting(Squares):
        def __getitem__(self, index):
            if index < 2:
                together.wait()                             # breaks unless a second thread comes here, too
            return index

    assert [int(batch) for batch in DataLoader(Meeting(4), num_workers=2)] == [0, 1, 2, 3]


@pytest.mark.parametrize(("workers", "factor", "ahead"), [(1, None, 2), (2, None, 4), (2, 3, 6)])
def test_no_more_is_fetched_ahead_than_asked_for(workers, factor, ahead):
    dataset = Squares(40)
    batches = iter(DataLoader(dataset, num_workers=workers, prefetch_factor=factor))
    next(batches)
    wait_until(lambda: len(dataset.asked_for) == ahead + 1)
    time.sleep(0.05)
    assert len(dataset.asked_for) == ahead + 1


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_names_the_sample_and_keeps_its_type(workers):
    class Broken(Squares):
        def __getitem__(self, index):
            if index == 7:
                raise KeyError("no file")
            return index

    got = []
    with pytest.raises(KeyError) as caught:
        got.extend(int(batch[0]) for batch in DataLoader(Broken(), 2, num_workers=workers))
    assert got == [0, 2, 4]
    assert caught.value.__notes__ == ["while DataLoader fetched sample 7 of Broken"]
    wait_until(lambda: not loader_threads())


@pytest.mark.parametrize("workers", [0, 2])
def test_samples_that_do_not_fit_together_are_named(workers):
    class Ragged(Squares):
        def __getitem__(self, index):
            return np.ones(3 if index == 5 else 2)

    with pytest.raises(ShapeError, match=r"\(2,\) in sample 0 of the batch and \(3,\) in sample 1") as caught:
        list(DataLoader(Ragged(), 3, sampler=[0, 1, 2, 4, 5], num_workers=workers))
    assert caught.value.__notes__ == ["while DataLoader made a batch of the samples 4, 5"]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stop_iteration_inside_of_a_dataset_does_not_end_the_epoch_silently(workers):
    class Stopping(Squares):
        def __getitem__(self, index):
            return next(iter([]))

    with pytest.raises(RuntimeError):
        list(DataLoader(Stopping(), num_workers=workers))


def test_an_epoch_left_early_leaves_no_thread():
    dataset = Squares(1000)
    for _ in DataLoader(dataset, num_workers=3):
        break
    wait_until(lambda: not loader_threads())
    held = iter(DataLoader(dataset, num_workers=3))
    next(held)
    assert loader_threads()
    del held
    gc.collect()
    wait_until(lambda: not loader_threads())
    assert len(dataset.asked_for) < 30


def test_what_waits_to_be_fetched_is_forgotten_with_the_epoch():
    class Slow(Squares):
        def __getitem__(self, index):
            self.asked_for.append(index)
            time.sleep(0.02)
            return index

    dataset = Slow(50)
    for _ in DataLoader(dataset, num_workers=1, prefetch_factor=40):
        break
    wait_until(lambda: not loader_threads())
    assert len(dataset.asked_for) < 10


def test_an_iterable_dataset_is_never_read_by_two_threads():
    class Slow(Stream):
        def __iter__(self):
            for i in range(self.count):
                time.sleep(0.005)
                yield i

    assert [batch.tolist() for batch in DataLoader(Slow(12), 2, num_workers=3)] == [[i, i + 1] for i in range(0, 12, 2)]


def test_timeout():
    release = threading.Event()

    class Waiting(Squares):
        def __getitem__(self, index):
            assert release.wait(10)
            return index

    start = time.monotonic()
    with pytest.raises(MinidlError, match=r"timeout=0\.05 seconds"):
        next(iter(DataLoader(Waiting(), num_workers=1, timeout=0.05)))
    assert time.monotonic() - start < 5
    release.set()
    wait_until(lambda: not loader_threads())


def test_a_timeout_of_the_dataset_itself_is_not_called_the_loaders():
    class Slow(Squares):
        def __getitem__(self, index):
            raise TimeoutError("the server of the images")

    with pytest.raises(TimeoutError, match="the server of the images"):
        list(DataLoader(Slow(), num_workers=1, timeout=5))


def test_workers_know_who_they_are():
    seen, started = set(), []

    class Asking(Squares):
        def __getitem__(self, index):
            info = data.get_worker_info()
            seen.add((info.id, info.num_workers, type(info.dataset).__name__))
            time.sleep(0.005)
            return index

    list(DataLoader(Asking(20), num_workers=2, worker_init_fn=started.append))
    assert seen == {(0, 2, "Asking"), (1, 2, "Asking")}
    assert sorted(started) == [0, 1]
    assert data.get_worker_info() is None


def test_an_error_of_worker_init_fn_arrives():
    def fail(worker):
        raise OSError("no scratch folder")

    with pytest.raises(OSError, match="no scratch folder"):
        list(DataLoader(Squares(), num_workers=1, worker_init_fn=fail))


@pytest.mark.parametrize(("make", "error", "words"), [
    (lambda: DataLoader(Squares(), batch_size=0), SettingError, "batch_size=0"),
    (lambda: DataLoader(Squares(), batch_size=2.0), SettingError, "batch_size=2.0"),
    (lambda: DataLoader(Squares(), num_workers=-1), SettingError, "num_workers=-1"),
    (lambda: DataLoader(Squares(), timeout=-1), SettingError, "timeout=-1"),
    (lambda: DataLoader(Squares(), timeout=5), SettingError, "num_workers > 0"),
    (lambda: DataLoader(Squares(), num_workers=None), SettingError, "num_workers=None"),
    (lambda: DataLoader(Squares(), num_workers=1.5), SettingError, "num_workers=1.5"),
    (lambda: DataLoader(Squares(), num_workers=1, timeout="5"), SettingError, "timeout='5'"),
    (lambda: DataLoader(Squares(), num_workers=1, timeout=float("nan")), SettingError, "timeout=nan"),
    (lambda: DataLoader(Squares(), num_workers=1, timeout=1e15), SettingError, "timeout=1000000"),
    (lambda: DataLoader(Squares(), 2, False, 4), SettingError, "got sampler=4, .*another argument, name that"),
    (lambda: DataLoader(Squares(), batch_sampler=4), SettingError, "got batch_sampler=4"),
    (lambda: next(iter(DataLoader(Squares(), batch_sampler=[1, 2]))), SettingError, "got 1 from the batch_sampler"),
    (lambda: DataLoader(Squares(), collate_fn=0), SettingError, "collate_fn=0, expected a function"),
    (lambda: DataLoader(Squares(), worker_init_fn="x"), SettingError, "worker_init_fn='x'"),
    (lambda: DataLoader(Squares(), generator=42), SettingError, "generator=42, expected a minidl.Generator"),
    (lambda: DataLoader(Squares(), num_workers=1, prefetch_factor=0), SettingError, "prefetch_factor=0"),
    (lambda: DataLoader(Squares(), shuffle=True, sampler=[1]), SettingError, "shuffle=True"),
    (lambda: DataLoader(Squares(), batch_size=2, batch_sampler=[[1]]), SettingError, "batch_sampler"),
    (lambda: DataLoader(Squares(), drop_last=True, batch_sampler=[[1]]), SettingError, "batch_sampler"),
    (lambda: DataLoader(Squares(), batch_size=None, drop_last=True), SettingError, "drop_last"),
    (lambda: DataLoader(Squares(0), shuffle=True), SettingError, "without samples"),
    (lambda: DataLoader(Stream(3), shuffle=True), SettingError, "shuffle inside"),
    (lambda: DataLoader(Stream(3), sampler=[1]), SettingError, "Stream"),
    (lambda: DataLoader(iter([1, 2])), ModuleError, "has no __getitem__"),
    (lambda: DataLoader(type("Endless", (Dataset,), {})()), ModuleError, "has no __len__"),
])
def test_loaders_that_cannot_be(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_a_setting_changed_afterwards_is_an_error():
    loader = DataLoader(Squares(), 2)
    with pytest.raises(SettingError, match="batch_size"):
        loader.batch_size = 5
    assert loader.batch_size == 2
    loader.collate_fn = len
    assert list(loader) == [2] * 5


def test_lists_and_arrays_are_datasets_too():
    assert [batch.tolist() for batch in DataLoader([1.0, 2.0, 3.0], 2)] == [[1.0, 2.0], [3.0]]
    assert [batch.tolist() for batch in DataLoader(np.arange(3), 2)] == [[0, 1], [2]]


def test_an_index_outside_is_an_error():
    for dataset in (Squares(), tensors()):
        with pytest.raises((IndexError, MinidlError)):
            list(DataLoader(dataset, sampler=[99]))


@pytest.mark.parametrize(("name", "words"), [
    ("Dataloader", "'DataLoader'"), ("TensorDatasets", "'TensorDataset'"), ("ChainDataset", "IterableDataset"),
    ("DistributedSampler", "RandomSampler"), ("xyz", "nothing is like it"),
])
def test_a_name_that_is_not_there(name, words):
    with pytest.raises(AttributeError, match=words):
        getattr(data, name)


def test_batches_come_without_overhead_per_sample():
    """Whole batches must beat the walk over single samples by far; both measured here, in turn."""
    dataset = TensorDataset(minidl.ones(4000, 8), minidl.zeros(4000))

    def seconds(**settings):
        start = time.perf_counter()
        for _ in DataLoader(dataset, 100, **settings):
            pass
        return time.perf_counter() - start

    pairs = [(seconds(), seconds(collate_fn=lambda samples: default_collate(samples))) for _ in range(3)]
    assert sorted(slow / fast for fast, slow in pairs)[1] > 5, pairs
