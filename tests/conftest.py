"""What makes the tests faster without changing what they test."""

import gc
import os

import pytest

# Every collection has XLA look for garbage of its own, and there are hundreds of thousands of long-lived objects.
gc.set_threshold(100_000, 20, 20)


def pytest_configure(config: pytest.Config) -> None:
    """Leave LLVM's expensive passes out, as JAX's own tests do: most of the time of these tests is compilation.

    The slow tests are compiled as users compile.
    """
    if config.getoption('markexpr') == 'not slow':
        # Read when jax is imported, here and in processes that tests start.
        os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] = '1'


def pytest_collection_finish(session: pytest.Session) -> None:
    """Take everything that was imported out of future collections."""
    gc.collect()
    gc.freeze()
