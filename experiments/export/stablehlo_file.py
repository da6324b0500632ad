"""Export to a serialised StableHLO program, which ``jax.export`` reloads."""

from collections.abc import Callable
from pathlib import Path

import jax
from jax import export

from backbones.errors import UserError
from backbones.layers import fused_attention
from experiments.cli import atomic_files
from experiments.export.exports import Export

# Programs for all of them are in one file.
PLATFORMS = ('cpu', 'cuda', 'rocm', 'tpu')


def build(exported: Export) -> bytes:
    """A serialised program for every platform; the weights are part of it."""
    with fused_attention.excluded():
        program = export.export(jax.jit(exported.function), platforms=PLATFORMS)(exported.images)
    return bytes(program.serialize())


def save(data: bytes, path: Path) -> None:
    """Write a program.

    Raises:
        UserError: it cannot be written.
    """
    context = atomic_files.os_errors_as_user_errors(lambda: f'choose another file than {path}')
    with context, atomic_files.atomic_write(path, 'wb') as stream:
        stream.write(data)


def load(path: Path) -> Callable[[jax.Array], tuple[jax.Array, ...]]:
    """The program in a file.

    Raises:
        UserError: it cannot be read, or is none.
    """
    try:
        return jax.jit(export.deserialize(bytearray(path.read_bytes())).call)
    except Exception as error:
        raise UserError(f'{path} is no program that jax.export has written: {error}') from None
