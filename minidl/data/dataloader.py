"""DataLoader: batches of a dataset, in order or shuffled, fetched when asked for or ahead of time by threads."""

from __future__ import annotations

import itertools
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from minidl.data.collate import default_collate, default_convert
from minidl.data.dataset import IterableDataset, offers, whole_batch
from minidl.data.sampler import BatchSampler, RandomSampler, SequentialSampler, check_count
from minidl.data.worker import (
    WorkerInfo,
    check_generator,
    current_generator,
    drawing_from,
    get_worker_info,
    set_worker_info,
)
from minidl.errors import MinidlError, ModuleError, SettingError
from minidl.rng import Generator

Fetch = Callable[[Any], Any]                # what to fetch (indices, or one index) -> the batch, or _END
_END = object()                             # what fetching returns when an iterable dataset has no more samples
_FIXED = ("dataset", "batch_size", "sampler", "batch_sampler", "drop_last")


class DataLoader:
    """Batches of a dataset: `for images, labels in DataLoader(dataset, batch_size=64, shuffle=True)`.

    shuffle: a new order in every epoch, drawn from `generator` or the global one. sampler, batch_sampler: an order, or
    lists of indices, of your own instead. batch_size=None: single samples, not collated. collate_fn: makes the batch
    of a list of samples (`default_collate` if not given). drop_last: leave out a last batch that is smaller.

    num_workers: so many threads fetch batches ahead of time, `prefetch_factor` for each of them (2 if not given); the
    batches come in the same order and with the same random transforms as without threads. They are threads of this
    process, so only work that releases Python's lock runs beside the training (reading files, decoding images, NumPy on
    large arrays); small images that are in memory already come faster with num_workers=0. Code of a dataset that runs
    in them

    - must not change what other samples use: several are fetched at once;
    - must not call Numba functions compiled with parallel=True where Numba's threading layer is "workqueue", which
      aborts the process when two threads use it;
    - draws in no fixed order if it draws from the global generator. Random transforms draw from a generator that
      belongs to the batch, and so may a dataset: `minidl.data.current_generator()`.

    An IterableDataset is read by one thread, whatever num_workers says, so no sample comes twice. timeout: seconds to
    wait for a batch of a thread; 0 waits for ever. worker_init_fn(worker_id) runs first in each thread. pin_memory,
    multiprocessing_context, persistent_workers, pin_memory_device and in_order are accepted and change nothing.
    """

    def __init__(self, dataset: Any, batch_size: int | None = 1, shuffle: bool | None = None,
                 sampler: Iterable[Any] | None = None, batch_sampler: Iterable[Any] | None = None,
                 num_workers: int = 0, collate_fn: Callable[[Any], Any] | None = None, pin_memory: bool = False,
                 drop_last: bool = False, timeout: float = 0, worker_init_fn: Callable[[int], Any] | None = None,
                 multiprocessing_context: Any = None, generator: Generator | None = None, *,
                 prefetch_factor: int | None = None, persistent_workers: bool = False, pin_memory_device: str = "",
                 in_order: bool = True) -> None:
        check_count(num_workers, "num_workers", "DataLoader", least=0)
        if not isinstance(timeout, int | float | np.number) or not 0 <= timeout <= threading.TIMEOUT_MAX \
                or (timeout and not num_workers):
            raise SettingError(f"got timeout={timeout!r} and num_workers={num_workers}, expected a number of seconds, "
                               f"0 or more, and a timeout only with num_workers > 0", where="DataLoader")
        for name, order in (("sampler", sampler), ("batch_sampler", batch_sampler)):
            if order is not None and not hasattr(order, "__iter__"):
                raise SettingError(f"got {name}={order!r}, expected a Sampler, or a list of indices; if it is meant "
                                   f"for another argument, name that", where="DataLoader")
        for name, function in (("collate_fn", collate_fn), ("worker_init_fn", worker_init_fn)):
            if function is not None and not callable(function):
                raise SettingError(f"got {name}={function!r}, expected a function", where="DataLoader")
        check_generator(generator, "DataLoader")
        if prefetch_factor is not None:
            check_count(prefetch_factor, "prefetch_factor", "DataLoader")
        if sampler is not None and shuffle:
            raise SettingError("got a sampler and shuffle=True, which both decide about the order; give one",
                               where="DataLoader")
        if batch_sampler is not None:
            if batch_size != 1 or shuffle or sampler is not None or drop_last:
                raise SettingError("got a batch_sampler, which decides about the batches alone, and one of batch_size, "
                                   "shuffle, sampler, drop_last; leave those out", where="DataLoader")
            batch_size = None
        elif batch_size is not None:
            check_count(batch_size, "batch_size", "DataLoader")
        elif drop_last:
            raise SettingError("got batch_size=None, so no batches, and drop_last=True; leave one out",
                               where="DataLoader")
        batched = batch_size is not None or batch_sampler is not None
        if isinstance(dataset, IterableDataset):
            if shuffle or sampler is not None or batch_sampler is not None:
                raise SettingError(f"got {type(dataset).__name__}, whose samples have no numbers, with shuffle, "
                                   f"sampler or batch_sampler; shuffle inside of the dataset", where="DataLoader")
        else:
            needed = ["__getitem__", *(["__len__"] if sampler is None and batch_sampler is None else [])]
            missing = [name for name in needed if not hasattr(dataset, name)]
            if missing:
                raise ModuleError(f"got a {type(dataset).__name__}, which has no {missing[0]}, expected a dataset with "
                                  f"{' and '.join(needed)}, or an IterableDataset", where="DataLoader")
            if sampler is None and batch_sampler is None:
                sampler = RandomSampler(dataset, generator=generator) if shuffle else SequentialSampler(dataset)
            if batch_size is not None and sampler is not None:
                batch_sampler = BatchSampler(sampler, batch_size, drop_last)

        self.dataset, self.batch_size, self.drop_last = dataset, batch_size, drop_last
        self.sampler, self.batch_sampler = sampler, batch_sampler
        self.num_workers, self.prefetch_factor, self.timeout = num_workers, prefetch_factor, timeout
        self.collate_fn: Callable[[Any], Any] = collate_fn if collate_fn is not None else (
            default_collate if batched else default_convert)
        self.worker_init_fn, self.generator = worker_init_fn, generator
        self.pin_memory, self.persistent_workers = pin_memory, persistent_workers

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _FIXED and "persistent_workers" in vars(self):
            raise SettingError(f"got another {name} for a finished DataLoader, whose sampler would not notice; make a "
                               f"new one", where="DataLoader")
        object.__setattr__(self, name, value)

    def __len__(self) -> int:
        """The number of batches in one epoch."""
        if not isinstance(self.dataset, IterableDataset):
            return len(self.batch_sampler if self.batch_sampler is not None else self.sampler)  # type: ignore[arg-type]
        samples = len(self.dataset)  # type: ignore[arg-type]
        if self.batch_size is None:
            return samples
        return samples // self.batch_size if self.drop_last else math.ceil(samples / self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        """One epoch."""
        epoch_seed = int((self.generator or current_generator()).numpy.integers(2**62))
        jobs: Iterable[Any]
        fetch: Fetch
        if isinstance(self.dataset, IterableDataset):
            samples = iter(self.dataset)
            threads, jobs = min(self.num_workers, 1), itertools.repeat(samples)
            fetch = self._fetch_next
        else:
            threads, fetch = self.num_workers, self._fetch_at
            jobs = self.batch_sampler if self.batch_sampler is not None else self.sampler or ()

        def fetch_numbered(numbered: tuple[int, Any]) -> Any:
            number, job = numbered
            with drawing_from(Generator().manual_seed(epoch_seed + number)):        # a generator for each batch
                return fetch(job)

        if threads:
            return self._ahead(enumerate(jobs), fetch_numbered, threads, epoch_seed)
        return self._in_turn(enumerate(jobs), fetch_numbered)

    def _in_turn(self, jobs: Iterator[Any], fetch: Fetch) -> Iterator[Any]:
        for job in jobs:
            batch = fetch(job)
            if batch is _END:
                return
            yield batch

    def _ahead(self, jobs: Iterator[Any], fetch: Fetch, threads: int, seed: int) -> Iterator[Any]:
        """The batches in the order of the jobs, while threads fetch the next ones."""
        from concurrent.futures import Future, ThreadPoolExecutor

        numbers = itertools.count()

        def work(job: Any) -> Any:
            if get_worker_info() is None:                   # the first job of this thread
                info = WorkerInfo(next(numbers), threads, seed, self.dataset)
                set_worker_info(info)
                if self.worker_init_fn is not None:
                    self.worker_init_fn(info.id)
            return fetch(job)

        depth = threads * (self.prefetch_factor or 2)
        waiting: deque[Future[Any]] = deque()
        pool = ThreadPoolExecutor(threads, thread_name_prefix="DataLoader")
        try:
            waiting.extend(pool.submit(work, job) for job in itertools.islice(jobs, depth))
            while waiting:
                batch = self._result(waiting.popleft())
                if batch is _END:
                    return
                waiting.extend(pool.submit(work, job) for job in itertools.islice(jobs, depth - len(waiting)))
                yield batch
        finally:                                            # also when the loop over the batches is left early
            pool.shutdown(wait=False, cancel_futures=True)

    def _result(self, future: Any) -> Any:
        try:
            return future.result(self.timeout or None)
        except TimeoutError:
            if future.done():                               # the dataset's own
                raise
            raise MinidlError(f"got no batch within timeout={self.timeout} seconds; raise it, or look for what the "
                              f"dataset waits for", where="DataLoader") from None

    # -- one batch --

    def _fetch_at(self, index: Any) -> Any:
        """The batch with these indices, or without batches the sample with this index."""
        if self.batch_sampler is None:
            return self.collate_fn(self._sample(index))
        if not hasattr(index, "__iter__"):
            raise SettingError(f"got {index!r} from the batch_sampler, expected lists of indices, such as "
                               f"[[0, 1], [2, 3]]", where="DataLoader")
        if self.collate_fn is default_collate:
            batch = whole_batch(self.dataset, index)
            if batch is not None:
                return batch
        if offers(self.dataset, "__getitems__"):
            samples = self.dataset.__getitems__(index)
        else:
            samples = [self._sample(i) for i in index]
        try:
            return self.collate_fn(samples)
        except Exception as error:
            shown = ", ".join(map(str, index[:16])) + (", …" if len(index) > 16 else "")
            error.add_note(f"while DataLoader made a batch of the samples {shown}")
            raise

    def _sample(self, index: Any) -> Any:
        try:
            return self.dataset[index]
        except Exception as error:
            error.add_note(f"while DataLoader fetched sample {index} of {type(self.dataset).__name__}")
            raise

    def _fetch_next(self, samples: Iterator[Any]) -> Any:
        """The next batch, or without batches the next sample, of an iterable dataset."""
        if self.batch_size is None:
            sample = next(samples, _END)
            return sample if sample is _END else self.collate_fn(sample)
        batch = list(itertools.islice(samples, self.batch_size))
        return self.collate_fn(batch) if len(batch) > (self.batch_size - 1 if self.drop_last else 0) else _END
