"""Devices as one mesh, and how batches and states are sharded over it.

The mesh has two axes. ``data`` devices share the batch. ``fsdp`` devices share the batch *and* the parameters (fully
sharded data parallelism: Rajbhandari et al. 2020, "ZeRO"): every array of the state is sharded over them and
all-gathered for the computation. On one device both axes have length 1, and none of this costs anything.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int

from backbones.errors import UserError

AXES = ('data', 'fsdp')
# Smaller arrays are not worth a message of their own, so they are replicated.
SMALLEST_SHARDED = 1024


@dataclasses.dataclass(frozen=True)
class DeviceMesh:
    """A mesh and the layouts on it.

    Attributes:
        mesh: a mesh with the axes ``data`` and ``fsdp``.
    """

    mesh: Mesh

    @property
    def devices(self) -> int:
        """Number of devices; each takes the same share of a batch."""
        return self.mesh.size

    @property
    def platform(self) -> str:
        """``'cpu'``, ``'gpu'`` or ``'tpu'``."""
        return self.mesh.devices.flat[0].platform

    @property
    def sharded(self) -> bool:
        """Whether parameters are sharded."""
        return self.mesh.shape['fsdp'] > 1

    @property
    def replicated(self) -> NamedSharding:
        """The sharding that replicates an array."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def batch(self) -> NamedSharding:
        """The sharding that splits the first axis over all devices."""
        return NamedSharding(self.mesh, PartitionSpec(AXES))

    def layout(self, tree: Any) -> Any:
        """The sharding of every array: it splits the longest axis that the ``fsdp`` devices can share evenly."""
        return jax.tree.map(lambda leaf: NamedSharding(self.mesh, self._cut(leaf)), tree)

    def _cut(self, leaf: Any) -> PartitionSpec:
        pieces = self.mesh.shape['fsdp']
        if pieces == 1 or jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) or leaf.size < SMALLEST_SHARDED:
            return PartitionSpec()
        fitting = [axis for axis, length in enumerate(leaf.shape) if length % pieces == 0]
        if not fitting:
            return PartitionSpec()
        # In case of a tie the last axis: output channels, whose shards are contiguous in the product.
        longest = max(fitting, key=lambda axis: (leaf.shape[axis], axis))
        return PartitionSpec(*(None,) * longest, 'fsdp')

    def gather(self, tree: Any) -> Any:
        """All-gather arrays, inside a compiled function."""
        return jax.lax.with_sharding_constraint(tree, self.replicated) if self.sharded else tree

    def scatter(self, tree: Any) -> Any:
        """Keep each device's shards only, inside a compiled function."""
        return jax.lax.with_sharding_constraint(tree, self.layout(tree)) if self.sharded else tree

    def shard_batch(self, tree: Any, axis: int) -> Any:
        """Shard arrays along the axis of the examples, inside a compiled function."""
        if self.devices == 1:
            return tree
        return jax.lax.with_sharding_constraint(tree, NamedSharding(self.mesh, PartitionSpec(*(None,) * axis, AXES)))

    def device_put(self, tree: Any) -> Any:
        """Put a tree of arrays, which every process has in full, on the mesh.

        Every array is copied: a donated state must not share memory with its source.
        """

        def put(leaf: Any, sharding: NamedSharding) -> jax.Array:
            if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                data = put(jax.random.key_data(leaf), self.replicated)
                return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
            whole = np.asarray(leaf)
            return jax.make_array_from_callback(whole.shape, sharding, lambda index: np.array(whole[index], copy=True))

        return jax.tree.map(put, tree, self.layout(tree))

    def reshard(self, tree: Any) -> Any:
        """Reshard a tree of arrays to ``layout``, wherever they are."""
        return jax.jit(_identity, out_shardings=self.layout(tree))(tree)

    def to_host(self, tree: Any) -> Any:
        """Copy the unsharded arrays to the host of every process."""
        gathered = jax.jit(_identity, out_shardings=self.replicated)(tree)
        return jax.tree.map(np.asarray, gathered)

    def rows(self, batch_size: int) -> Int[np.ndarray, ' local']:
        """The rows of a batch that this process's devices hold, in order."""
        pieces = self.batch.addressable_devices_indices_map((batch_size,)).values()
        return np.unique(np.concatenate([np.arange(batch_size)[piece] for piece in pieces if piece is not None]))

    def batch_arrays(self, arrays: Mapping[str, np.ndarray], rows: Int[np.ndarray, ' local'], batch_size: int) -> dict:
        """Assemble a global batch from the rows that each process has read.

        Args:
            arrays: this process's rows of every array.
            rows: their numbers, as returned by ``rows``.
            batch_size: number of rows of the global batch.
        """

        def assemble(local: np.ndarray) -> jax.Array:
            def piece(index: tuple[slice, ...] | None) -> np.ndarray:
                start, stop, _ = (index or (slice(None),))[0].indices(batch_size)
                first = np.searchsorted(rows, start)
                return local[first : first + stop - start]

            return jax.make_array_from_callback((batch_size, *local.shape[1:]), self.batch, piece)

        return {name: assemble(local) for name, local in arrays.items()}

    def describe(self) -> str:
        """A one-line description."""
        kinds = sorted({device.device_kind for device in self.mesh.devices.flat})
        processes = len({device.process_index for device in self.mesh.devices.flat})
        shape = ' x '.join(f'{name} {size}' for name, size in self.mesh.shape.items())
        return f'{self.devices} x {", ".join(kinds)} ({processes} process{"es" * (processes > 1)}), mesh {shape}'


def _identity(tree: Any) -> Any:
    return tree


def make(data: int = -1, fsdp: int = 1, devices: Sequence[jax.Device] | None = None) -> DeviceMesh:
    """Create the mesh that a config describes.

    Args:
        data: length of the data axis; -1: all devices that ``fsdp`` leaves.
        fsdp: length of the fsdp axis.
        devices: all devices of all processes by default.

    Raises:
        UserError: the product of the axes is not the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    count = len(devices)
    if count % fsdp or (data != -1 and data * fsdp != count):
        divisors = [number for number in range(1, count + 1) if count % number == 0]
        raise UserError(
            f'a mesh of data={data} and fsdp={fsdp} does not fit {count} device{"s" * (count > 1)}; '
            f'fsdp can be {", ".join(map(str, divisors))}, and data=-1 takes what is left'
        )
    axis_types = (AxisType.Auto,) * len(AXES)
    return DeviceMesh(jax.make_mesh((count // fsdp, fsdp), AXES, axis_types=axis_types, devices=devices))


def check_batch(batch_size: int, devices: int, accumulation: int) -> None:
    """Check that a batch can be shared evenly.

    Raises:
        UserError: it cannot; the nearest sizes that can are named.
    """
    unit = devices * accumulation
    if batch_size % unit:
        below = batch_size // unit * unit
        near = f'{below} or {below + unit}' if below else f'{unit}'
        raise UserError(
            f'a batch of {batch_size} cannot be shared evenly by {devices} device{"s" * (devices > 1)} '
            f'in {accumulation} micro-batch{"es" * (accumulation > 1)}; use {near}'
        )
