"""One thread for many small products: handing each to several threads costs more than it saves."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any


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
