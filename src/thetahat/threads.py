"""How many threads: one for many small products, since handing each to several costs more than it saves; several for columns."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any, TypeVar

import torch

S = TypeVar("S")
T = TypeVar("T")

MANY = 1_000_000  # numbers that are read or copied on several threads
FEW = 200_000  # rows of a mixed model below which one thread is faster than several

_THREADS = threading.Lock()
_inside, _before = 0, 1


def one_thread(when: bool = True) -> AbstractContextManager[None]:
    """Sums on one thread: in one order, whatever the machine; and for small sums faster, since threads cost
    more than they bring."""
    return _at_most(1) if when else nullcontext()


def beside_a_reader(when: bool = True) -> AbstractContextManager[None]:
    """Sums on half of the threads: the others decode the next block of the file. A thread of OpenMP that has no work waits
    actively, which would take a core from them."""
    return _at_most(max(1, torch.get_num_threads() // 2)) if when else nullcontext()


@contextmanager
def _at_most(threads: int) -> Iterator[None]:
    """The number is torch's, of the whole process: of several callers at once the last one out puts back what
    the first one found."""
    global _inside, _before
    with _THREADS:
        if _inside == 0:
            _before = torch.get_num_threads()
        torch.set_num_threads(min(threads, torch.get_num_threads()))
        _inside += 1
    try:
        yield
    finally:
        with _THREADS:
            _inside -= 1
            if _inside == 0:
                torch.set_num_threads(_before)


def in_threads(function: Callable[[S], T], items: Sequence[S], many: bool = True) -> list[T]:
    """[function(item) for item in items], several at a time where they are `many`: for sums of numpy's, during which another thread may run.

    Examples
    --------
    >>> in_threads(sum, [[1, 2], [3]])
    [3, 3]
    """
    threads = torch.get_num_threads()
    if not many or threads < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, items))


@cache
def _controller() -> Any:
    """Of the linear algebra libraries of this process; None where threadpoolctl, which scikit-learn brings, is absent."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    return ThreadpoolController()


def one_blas_thread() -> AbstractContextManager[Any]:
    """A block in which numpy's and scipy's products run on one thread.

    Examples
    --------
    >>> with one_blas_thread():
    ...     pass
    """
    controller = _controller()
    if controller is None:
        return nullcontext()
    out: AbstractContextManager[Any] = controller.limit(limits=1, user_api="blas")
    return out
