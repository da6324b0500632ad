"""One pass of a frozen backbone over the examples of a data set, with the input pipeline and on all devices."""

import collections
import contextlib
import dataclasses
import functools
from collections.abc import Callable, Generator, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int32, Shaped

from experiments.data import corrupted, pipeline, unreadable
from experiments.data.dataset import Dataset
from experiments.features import runtimes
from experiments.planning.program_costs import ProgramMemory, memory_of
from experiments.training.mesh import DeviceMesh

# Number of batches whose results are transferred to the host while the next ones are computed.
_IN_FLIGHT = 2
# Unreadable examples are counted over all processes, so no process gives up alone.
_NO_LIMIT = 2**62


@dataclasses.dataclass(frozen=True)
class PassedBatch:
    """The result of a pass for one batch, the same in every process.

    Attributes:
        indices: indices of the examples in the data set.
        values: of each output, one row per example; zero where it could not be read.
        unreadable: index → reason.
    """

    indices: Int[np.ndarray, ' examples']
    values: tuple[Float[np.ndarray, 'examples *rest'], ...]
    unreadable: dict[int, str]


class Pass(Protocol):
    """Whatever gives the features of examples."""

    def run(
        self, variables: Any, dataset: Dataset, indices: Int[np.ndarray, ' examples'], **reading: int
    ) -> Generator[PassedBatch]:
        """See ``FrozenPass.run``."""
        ...


class FrozenPass:
    """The programs of one backbone and input size, with its outputs; each is compiled once, at the first batch.

    Preprocessing is a program of its own, since it depends on the size of the stored images. With XLA, so is what each
    output takes from the backbone's: the bits of an output do not depend on which others there are.

    Args:
        prepare: stored images, or tokens → model input.
        trunk: variables and model input → arrays of one row per image.
        takes: of each output, these arrays → one row of features per image.
        batch_size: examples per call on all devices together; must be a multiple of their number.
        device_mesh: the devices; each takes its share of a batch.
        runtime: what computes ``trunk`` and ``takes`` (``runtimes.choose``).
        trim: for texts, the length that the tokens of a batch are cut to, which leaves out padding alone.

    Attributes:
        program: variables and model input → every output; compiled.
    """

    def __init__(
        self,
        prepare: Callable[[Shaped[Array, 'batch ...']], Array],
        trunk: Callable[[Any, Array], Any],
        takes: Sequence[Callable[[Any], Float[Array, 'batch *rest']]],
        batch_size: int,
        device_mesh: DeviceMesh,
        runtime: str = runtimes.XLA,
        trim: Callable[[Int32[np.ndarray, 'batch length']], int] | None = None,
    ):
        self.batch_size = batch_size
        self.device_mesh = device_mesh
        self._trim = trim
        # A process can read the rows of other processes only after an all-gather.
        gathered = device_mesh.replicated if jax.process_count() > 1 else device_mesh.batch
        self._prepare = jax.jit(prepare, out_shardings=device_mesh.batch)
        self._trunk = jax.jit(trunk, out_shardings=device_mesh.batch) if runtime == runtimes.XLA else None
        if self._trunk is None:
            self.program = runtimes.OnnxProgram(_composed(trunk, takes))
        else:
            self.program = _composed(self._trunk, [jax.jit(take, out_shardings=gathered) for take in takes])
        self._gather = jax.jit(lambda weight: weight, out_shardings=gathered)

    def memory(self, variables: Any, images: Array) -> ProgramMemory | None:
        """The memory that ``trunk`` takes on each device; ``None`` if platform or runtime do not report it.

        Once it has been called with arrays of these shapes, nothing is compiled again.
        """
        if self._trunk is None:
            return None
        return memory_of(self._trunk.lower(variables, images).compile())

    def run(
        self, variables: Any, dataset: Dataset, indices: Int[np.ndarray, ' examples'], **reading: int
    ) -> Generator[PassedBatch]:
        """Compute the features of some examples, batch by batch, in order. Close the iterator to stop early.

        Args:
            variables: arrays on the mesh.
            **reading: ``threads`` and ``prefetch`` of the input pipeline.
        """
        rows = self.device_mesh.rows(self.batch_size)
        batches = pipeline.evaluation_batches(
            dataset, indices, self.batch_size, rows=rows, bad_files_limit=_NO_LIMIT, **reading
        )
        waiting: collections.deque = collections.deque()
        with contextlib.closing(batches):
            for host in batches:
                members = indices[host.step * self.batch_size : (host.step + 1) * self.batch_size]
                arrays = {name: host.arrays[name] for name in ('image', 'weight')}
                cut = 0
                if self._trim is not None:
                    length = self._trim(dataset.images[members])
                    cut = dataset.images.shape[1] - length
                    arrays['image'] = arrays['image'][:, :length]
                place = functools.partial(self.device_mesh.batch_arrays, rows=rows, batch_size=self.batch_size)
                batch = corrupted.on_devices(place(arrays), dataset, host.ids, place)
                values = self.program(variables, self._prepare(batch['image']))
                weight = self._gather(batch['weight'])
                waiting.append((members, values, weight, dict(host.bad), cut))
                if len(waiting) > _IN_FLIGHT:
                    yield _passed(dataset, *waiting.popleft())
            while waiting:
                yield _passed(dataset, *waiting.popleft())


def _composed(trunk: Callable[[Any, Any], Any], takes: Sequence[Callable[[Any], Any]]) -> Callable[..., tuple]:
    def apply(variables: Any, images: Any) -> tuple:
        arrays = trunk(variables, images)
        return tuple(take(arrays) for take in takes)

    return apply


def _passed(
    dataset: Dataset,
    members: Int[np.ndarray, ' examples'],
    values: Sequence[Array],
    weight: Array,
    reasons: dict[str, str],
    cut: int,
) -> PassedBatch:
    read: Bool[np.ndarray, ' examples'] = np.asarray(weight)[: len(members)] > 0
    rows = tuple(_padded(np.array(each)[: len(members)], cut) for each in values)
    for each in rows:
        each[~read] = 0
    bad = {int(index): reasons.get(dataset.ids[index], 'another process could not read it') for index in members[~read]}
    return PassedBatch(members, rows, bad)


def _padded(values: Float[np.ndarray, 'examples *rest'], cut: int) -> Float[np.ndarray, 'examples *rest']:
    """Features of positions with the padding that was left out, which is NaN."""
    if not cut or values.ndim == 2:
        return values
    return np.pad(values, ((0, 0), (0, cut), (0, 0)), constant_values=np.nan)


def check_limit(dataset: Dataset, bad: dict[int, str], limit: int) -> None:
    """Check that no more examples than the limit could not be read.

    Raises:
        UserError: there are more than ``limit``; the first few are named.
    """
    records = [(dataset.ids[index], reason) for index, reason in sorted(bad.items())]
    unreadable.check_limit(records, f'examples of {dataset.name!r}', limit)
