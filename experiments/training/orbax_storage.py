"""Details of orbax and of the storage that it uses, hidden from the rest of the code."""

import contextlib
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jaxtyping import PyTree


def then(finish: Callable[[Path], None]) -> type[ocp.path.atomicity.AtomicRenameTemporaryPath]:
    """Orbax's way of writing a directory, followed by ``finish``; after that, orbax does not touch the directory."""

    class Followed(ocp.path.atomicity.AtomicRenameTemporaryPath):
        async def finalize(self) -> None:
            await super().finalize()
            finish(Path(self.get_final()))

    return Followed


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """A context that silences orbax on the console: failed saves are reported in our own words.

    Orbax stops waiting at the first array that cannot be written. Tensorstore and asyncio complain about every other
    one when it is garbage-collected, which may be after the context has ended. The log filters therefore stay.
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
    """Filter the tracebacks that orbax's threads log, and those that asyncio logs for arrays nobody waits for."""
    forgotten = 'exception was never retrieved' in record.getMessage()  # for one task or for several gathered ones
    return not (forgotten or (record.exc_info and 'orbax' in record.pathname))


def reason(error: Exception) -> str:
    """Why a save failed, in the words of the operating system if it raised the error."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    code = re.search(r"os_error_code='(\d+)'", str(error))  # tensorstore's format
    return os.strerror(int(code.group(1))) if code else str(error) or type(error).__name__


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def check_storable(state: PyTree) -> None:
    """Check that orbax can store a tree. It notices some problems late, and mixes up arrays of the same name silently.

    Raises:
        ValueError: an array has no elements, there is no array at all, or two arrays would share a directory.
    """
    leaves = ocp.tree.to_flat_dict(state)
    if not leaves or () in leaves:
        raise ValueError('a state must be a tree with at least one array')
    names: dict[str, tuple] = {}
    for path, leaf in leaves.items():
        if np.size(leaf) == 0:
            raise ValueError(f'orbax cannot store {"/".join(map(str, path))}: it has no elements')
        # The name that orbax gives to the array, which becomes a tensorstore directory.
        name = re.sub('/+', '/', '.'.join(map(str, path))).rstrip('/')
        if name in names:
            raise ValueError(f'orbax has the same name for {names[name]} and {path}')
        names[name] = path
    for name, path in names.items():
        for slash in re.finditer('/', name):
            if above := names.get(name[: slash.start()]):
                raise ValueError(f'orbax would write {path} into the directory of {above}')


def storable(leaf: Any) -> Any:
    """A leaf in a form that orbax can store: key data for a random key, and a copy of a NumPy array.

    Orbax may still read a NumPy array after ``save`` has returned.
    """
    if not isinstance(leaf, jax.Array):
        return np.array(leaf)
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def placed(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """The abstract form of what ``storable`` returns; without a sharding, on a local device of this process."""
    stored = jax.eval_shape(jax.random.key_data, leaf) if _is_key(leaf) else leaf
    sharding = leaf.sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(stored.shape, stored.dtype, sharding=sharding)


def usable(leaf: jax.ShapeDtypeStruct, array: jax.Array) -> jax.Array:
    """The inverse of ``storable``."""
    if not _is_key(leaf):
        return array
    names: list[str] = []
    # A traced key reveals its implementation; an abstract one does not.
    jax.eval_shape(lambda key: names.append(str(jax.random.key_impl(key))), leaf)
    return jax.random.wrap_key_data(array, impl=names[0])


def described(tree: PyTree) -> dict[str, str]:
    """Path → type and shape, for a tree of arrays or of orbax's metadata."""
    return {
        '/'.join(map(str, path)): f'{np.dtype(leaf.dtype).name}{list(leaf.shape)}'
        for path, leaf in ocp.tree.to_flat_dict(tree).items()
    }


def unreadable(handler: ocp.StandardCheckpointHandler, directory: Path, arrays: dict[str, str]) -> str | None:
    """What is wrong with arrays that were written, found by opening each without reading it; ``None`` if nothing is.

    Args:
        handler: orbax's.
        directory: where the arrays are.
        arrays: what ``described`` said of them before they were written.
    """
    problems: list[str] = []

    def look() -> None:
        try:
            there = described(handler.metadata(epath.Path(directory)).tree)
        except Exception as error:  # orbax raises whatever the storage below it raises
            problems.append(reason(error))
            return
        problems.extend(
            f'{name} is {there.get(name, "absent")}, not {arrays.get(name, "absent")}'
            for name in (*arrays, *there)
            if there.get(name) != arrays.get(name)
        )

    # In a thread of its own: orbax would patch asyncio to run inside the event loop of the save.
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return ' '.join(problems[0].split()) if problems else None
