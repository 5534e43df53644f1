"""One pool of threads for all kernels, and one thread for the matrix library while it works.

A kernel does the work of a range of images (or rows): `kernel(start, stop, …)`. `parts` cuts the whole range into one
part for each thread, and `parallel` runs them. Compiled kernels and NumPy's products release Python's lock, so the
parts run at the same time.

The matrix library (BLAS) has a pool of its own, whose threads wait for work by spinning: for milliseconds after a
product they keep the cores from everyone else. So under `one_blas_thread()` it computes in the thread that calls it,
and whoever wants a product on all cores cuts it into parts like everything else here.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from operator import itemgetter
from queue import SimpleQueue
from typing import Any

from minidl.errors import SettingError

WORTH_A_THREAD = 1 << 18            # numbers; one thread is through with them before another has woken up
HEAD_START = 3 << 15                # numbers, in that time
LONG = 1 << 22                      # numbers that take a few milliseconds
ran: Counter[str] = Counter()       # "set.kernel" -> how often it has done the work itself, and not handed it on

_Task = Callable[[], Any]
_lock = threading.Lock()
_tasks: SimpleQueue[_Task] = SimpleQueue()
_workers: list[threading.Thread] = []
_in_worker = threading.local()


class _Gathered(threading.local):
    tasks: list[_Task] | None = None            # what waits for the end of a `together` block


_gathered = _Gathered()


def _cores() -> int:
    """How many cores this process may use; OMP_NUM_THREADS, which other libraries go by, says less if it is set."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_threads = _cores()


def get_num_threads() -> int:
    """How many threads kernels use."""
    return _threads


def set_num_threads(threads: int) -> None:
    """Use that many threads for kernels from now on, instead of one for each core."""
    global _threads
    if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
        raise SettingError(f"got {threads!r}, expected an integer ≥ 1", where="set_num_threads")
    _threads = threads


def parts(count: int, numbers: float, *, whole: bool = False) -> list[tuple[int, int]]:
    """range(count), cut into contiguous (start, stop), none empty: one for each thread that it is worth to wake.

    Of long work the last quarter is cut into more, for whoever is free first: a core that somebody else uses meanwhile
    is late by less. whole: not so, because each part has memory of its own, or costs more than its share.
    numbers: how many numbers the kernel goes through; 16 multiplications of a product count as one.
    """
    number = max(1, min(_threads, count, int(numbers) // WORTH_A_THREAD))
    if number > 1 and not whole and numbers >= LONG and count >= 64 * number:
        most = count * 3 // 4
        return _cut(0, most, number) + _cut(most, count, 4 * number)
    # The first part is the calling thread's, which has got something done by the time that the others have woken up.
    head_start = count * (number - 1) / number * HEAD_START / max(numbers, 1)
    first = max(round(head_start + (count - head_start) / number), -(-count // number))
    return [(0, first)] + (_cut(first, count, number - 1) if number > 1 else [])


def _cut(start: int, stop: int, number: int) -> list[tuple[int, int]]:
    ends = [start + (stop - start) * i // number for i in range(number + 1)]
    return list(itertools.pairwise(ends))


def parallel(kernel: Callable[..., Any], ranges: list[tuple[int, int]], *arguments: Any) -> None:
    """Call `kernel(start, stop, *arguments)` for all parts at the same time."""
    tasks: list[_Task] = [partial(kernel, start, stop, *arguments) for start, stop in ranges]
    if _gathered.tasks is None:
        run(tasks)
    else:
        _gathered.tasks += tasks


def parallel_parts(kernel: Callable[..., Any], ranges: list[tuple[int, int]], *arguments: Any) -> None:
    """Call `kernel(part, start, stop, *arguments)` for all parts at the same time.

    For sums over all images: every part adds to a result of its own, and these are added in the order of the parts. So
    the same number of threads gives the same bits in every run.
    """
    run([partial(kernel, part, start, stop, *arguments) for part, (start, stop) in enumerate(ranges)])


class together:
    """What `parallel` is asked for inside the block, in this thread, is done all at once where the block ends.

    For kernels that have nothing to do with each other, such as the steps of an optimizer: each by itself would keep
    one thread busy, or wake the others anew.
    """

    def __enter__(self) -> None:
        self._before, _gathered.tasks = _gathered.tasks, []

    def __exit__(self, *error: object) -> None:
        tasks, _gathered.tasks = _gathered.tasks, self._before
        if tasks:
            run(tasks)


def run(tasks: list[_Task]) -> None:
    """Run all tasks, in this thread and in the pool's: whoever is free takes the next one. Returns when all are done.

    A task that itself comes here runs its tasks one after the other. The first error, if any, is raised here.
    """
    if len(tasks) == 1 or getattr(_in_worker, "yes", False):
        for task in tasks:
            task()
        return
    helpers = min(len(tasks), _threads) - 1
    _have_workers(helpers)
    waiting, done = deque(enumerate(tasks)), SimpleQueue[tuple[int, BaseException | None]]()

    def take_part() -> None:
        while True:
            try:
                number, task = waiting.popleft()
            except IndexError:
                return
            done.put((number, _error_of(task)))

    for _ in range(helpers):
        _tasks.put(take_part)
    take_part()
    errors = sorted((done.get() for _ in tasks), key=itemgetter(0))
    for _, error in errors:
        if error is not None:
            raise error


def _error_of(task: _Task) -> BaseException | None:
    try:
        task()
    except BaseException as error:
        return error
    return None


def _have_workers(number: int) -> None:
    with _lock:
        while len(_workers) < number:
            worker = threading.Thread(target=_work, name=f"minidl kernels {len(_workers) + 1}", daemon=True)
            worker.start()
            _workers.append(worker)


def _work() -> None:
    _in_worker.yes = True
    while True:
        _tasks.get()()


def _forget_workers() -> None:
    """A forked process has none of its parent's threads."""
    global _tasks, _lock
    _tasks, _lock = SimpleQueue(), threading.Lock()
    _workers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_workers)


# -- the matrix library ------------------------------------------------------------------------------------------------

_blas: list[tuple[Callable[[], int], Callable[[int], Any]]] | None = None
_blas_users = 0                                 # how many `one_blas_thread` blocks are open, in all threads
_blas_before: list[int] = []


def _blas_libraries() -> list[tuple[Callable[[], int], Callable[[int], Any]]]:
    """For each matrix library in this process: what says how many threads it has, and what sets it."""
    global _blas
    if _blas is None:
        from threadpoolctl import ThreadpoolController

        _blas = [_functions_of(library) for library in ThreadpoolController().select(user_api="blas").lib_controllers]
    return _blas


def _functions_of(library: Any) -> tuple[Callable[[], int], Callable[[int], Any]]:
    """threadpoolctl looks OpenBLAS's two functions up by name in each call, among names that are not there."""
    for name in ("{}openblas_{}_num_threads" + end for end in ("", "64_", "_64")):
        for prefix in ("", "scipy_"):
            functions = [getattr(library.dynlib, name.format(prefix, verb), None) for verb in ("get", "set")]
            if None not in functions:
                return functions[0], functions[1]           # type: ignore[return-value]
    return library.get_num_threads, library.set_num_threads


class one_blas_thread:
    """Inside the block the matrix library uses one thread, afterwards as many as before.

    A class and not a generator: it stands around every product, and between kernels Python starts with cold caches.
    """

    def __enter__(self) -> None:
        global _blas_users
        libraries = _blas_libraries()
        with _lock:
            _blas_users += 1
            if _blas_users == 1:
                _blas_before[:] = [get_threads() for get_threads, _ in libraries]
                for _, set_threads in libraries:
                    set_threads(1)

    def __exit__(self, *error: object) -> None:
        global _blas_users
        with _lock:
            _blas_users -= 1
            if _blas_users == 0:
                for (_, set_threads), threads in zip(_blas_libraries(), _blas_before, strict=True):
                    set_threads(threads)
