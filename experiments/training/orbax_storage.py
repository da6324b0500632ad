"""The ways of orbax and of the storage below it, which the rest of the code need not know."""

import contextlib
import logging
import os
import re
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree


def then(finish: Callable[[Path], None]) -> type[ocp.path.atomicity.AtomicRenameTemporaryPath]:
    """Orbax's way of writing a directory, followed by ``finish``; nothing of orbax touches the directory after that."""

    class Followed(ocp.path.atomicity.AtomicRenameTemporaryPath):
        async def finalize(self) -> None:
            await super().finalize()
            finish(Path(self.get_final()))

    return Followed


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """A context in which orbax does not complain on the screen: what became of a save is told in our words.

    Orbax stops waiting at the first array that cannot be written; tensorstore complains about each other, and asyncio
    too, when they are collected, which may be after the end of the context. Filters of logs therefore stay.
    """
    hook = sys.unraisablehook

    def unless_closed(unraisable: Any) -> None:
        if str(unraisable.exc_value) != 'Event loop is closed':
            hook(unraisable)

    sys.unraisablehook = unless_closed
    for name in ('absl', 'asyncio'):
        logging.getLogger(name).addFilter(_is_not_of_orbax)
    try:
        yield
    finally:
        sys.unraisablehook = hook


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
    """Orbax's threads log the traceback of what they raise, and asyncio those of the arrays nobody waits for."""
    forgotten = 'exception was never retrieved' in record.getMessage()  # of a task, or of several gathered
    return not (forgotten or (record.exc_info and 'orbax' in record.pathname))


def reason(error: Exception) -> str:
    """In the words of the operating system if it was the one to refuse."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    code = re.search(r"os_error_code='(\d+)'", str(error))  # tensorstore's
    return os.strerror(int(code.group(1))) if code else str(error) or type(error).__name__


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def check_storable(state: PyTree) -> None:
    """Whether orbax can store a tree; it notices some of these late, and mixes up arrays of the same name unnoticed.

    Raises:
        ValueError: an array of no elements or no array at all, or two that would lie in the same directory.
    """
    leaves = ocp.tree.to_flat_dict(state)
    if not leaves or () in leaves:
        raise ValueError('a state must be a tree with at least one array')
    names: dict[str, tuple] = {}
    for path, leaf in leaves.items():
        if np.size(leaf) == 0:
            raise ValueError(f'orbax cannot store {"/".join(map(str, path))}: it has no elements')
        # What orbax calls it, which is a directory of tensorstore.
        name = re.sub('/+', '/', '.'.join(map(str, path))).rstrip('/')
        if name in names:
            raise ValueError(f'orbax has the same name for {names[name]} and {path}')
        names[name] = path
    for name, path in names.items():
        for slash in re.finditer('/', name):
            if above := names.get(name[: slash.start()]):
                raise ValueError(f'orbax would write {path} into the directory of {above}')


def storable(leaf: Any) -> Any:
    """A leaf as orbax takes it: no typed random keys, and no array of numpy's that it may read after ``save``."""
    if not isinstance(leaf, jax.Array):
        return np.array(leaf)
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def placed(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """What ``storable`` makes of such a leaf, on a device of this process if nothing else is asked for."""
    stored = jax.eval_shape(jax.random.key_data, leaf) if _is_key(leaf) else leaf
    sharding = leaf.sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(stored.shape, stored.dtype, sharding=sharding)


def usable(leaf: jax.ShapeDtypeStruct, array: jax.Array) -> jax.Array:
    """What was stored, as it was before ``storable``."""
    if not _is_key(leaf):
        return array
    names: list[str] = []
    # A traced key tells its implementation, an abstract one does not.
    jax.eval_shape(lambda key: names.append(str(jax.random.key_impl(key))), leaf)
    return jax.random.wrap_key_data(array, impl=names[0])


def described(tree: PyTree) -> dict[str, str]:
    """Path → type and shape, of arrays as of orbax's descriptions of them."""
    return {
        '/'.join(map(str, path)): f'{np.dtype(leaf.dtype).name}{list(leaf.shape)}'
        for path, leaf in ocp.tree.to_flat_dict(tree).items()
    }
