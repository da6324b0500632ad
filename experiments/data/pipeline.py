"""Batches for training and evaluation, read ahead by grain in threads or processes.

Element i of the stream is the whole batch of step i, so a resumed run just starts at a later element, and the number of
threads and processes and the rows that a process reads do not change what a step sees.
"""

import contextlib
import dataclasses
import errno
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import parent_process
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from backbones.errors import UserError
from experiments.data import unreadable
from experiments.data.dataset import Dataset, Images
from experiments.data.decoding import worker_count
from experiments.data.sampling import Sampler, check_seed

Transform = Callable[[np.random.Generator, UInt8[np.ndarray, 'h w c']], UInt8[np.ndarray, 'h w c']]

# A second batch starts while the slowest images of the first are still being decoded.
_BATCHES_AT_ONCE = 2
# Separates the random numbers of transforms from those of samplers, whose key has the epoch here.
_TRANSFORM_KEY = int.from_bytes(b'augment!')


@dataclasses.dataclass(frozen=True)
class HostBatch:
    """The examples of one step, or the rows of them that this process needs.

    Attributes:
        step: number of the step; in an evaluation, of the batch.
        arrays: ``'image'``: ``uint8[rows, height, width, channels]``, or ``int32[rows, length]`` of texts, ``'target'``
            and what a ``truth`` adds: as in the data set, ``'weight'``: ``float32[rows]``, 1 for an example and 0 for
            padding, which is a copy of the first readable example of these rows, or zeros if there is none.
        ids: id of the example of each row; empty for the padding at the end of an evaluation.
        bad: ``(id, reason)`` of each example that could not be read.
    """

    step: int
    arrays: Mapping[str, np.ndarray]
    ids: tuple[str, ...]
    bad: tuple[tuple[str, str], ...]


# To be closed if it is not exhausted.
Batches = Generator[HostBatch]


class _Rows(NamedTuple):
    """The rows of one batch to read: their places in the global batch, and the examples (-1: none)."""

    places: Int[np.ndarray, ' rows']
    examples: Int[np.ndarray, ' rows']


class _Read(NamedTuple):
    """A worker's result: pixels, and the unreadable rows. (Grain looks for arrays in tuples.)"""

    image: UInt8[np.ndarray, 'rows height width channels']
    bad: dict[int, str]


class _Reading(NamedTuple):
    """Settings of reading; see ``training_batches``."""

    threads: int
    processes: int
    prefetch: int
    bad_files_limit: int


@dataclasses.dataclass(frozen=True)
class _TrainingPlan:
    sampler: Sampler
    first_step: int
    last_step: int
    rows: np.ndarray | slice

    def __len__(self) -> int:
        return self.last_step - self.first_step

    def __getitem__(self, position: int) -> _Rows:
        places = np.arange(self.sampler.batch_size)[self.rows]
        return _Rows(places, self.sampler.batch(self.first_step + position)[places])


@dataclasses.dataclass(frozen=True)
class _EvaluationPlan:
    indices: Int[np.ndarray, ' subset']
    batch_size: int
    rows: np.ndarray | slice
    first_step: int = 0

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch_size)

    def __getitem__(self, position: int) -> _Rows:
        places = np.arange(self.batch_size)[self.rows]
        wanted = position * self.batch_size + places
        inside = wanted < len(self.indices)
        return _Rows(places, np.where(inside, self.indices[np.where(inside, wanted, 0)], -1))


class _Source:
    """Grain's random access to whole batches. It is sent to workers, so it starts its threads on first use."""

    def __init__(
        self,
        images: Images,
        plan: _TrainingPlan | _EvaluationPlan,
        transform: Transform | None,
        seed: int,
        threads: int,
    ):
        self._images, self._plan, self._transform, self._seed = images, plan, transform, seed
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None
        self._lock: threading.Lock | None = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_pool': None, '_lock': None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def __len__(self) -> int:
        return len(self._plan)

    def __getitem__(self, index: int) -> _Read:
        rows, step = self._plan[index], self._plan.first_step + index
        # Images are bytes; of texts there are tokens, in memory.
        image = np.empty((len(rows.examples), *self._images.shape[1:]), getattr(self._images, 'dtype', np.uint8))
        bad: dict[int, str] = {}
        wanted = np.flatnonzero(rows.examples >= 0)
        in_memory = isinstance(self._images, np.ndarray | _Mapped)
        if in_memory:
            image[wanted] = self._images[rows.examples[wanted]]

        def fill(row: int) -> None:
            if not in_memory:
                try:
                    image[row] = self._images[rows.examples[row : row + 1]][0]
                except Exception as error:  # decoders raise all kinds of errors on damaged records
                    bad[row] = unreadable.reason(error)
                    return
            if self._transform is not None:
                # Row and step are the upper words of the counter, so no two examples share random numbers.
                key, counter = [self._seed, _TRANSFORM_KEY], [0, 0, int(rows.places[row]), step]
                generator = np.random.Generator(np.random.Philox(key=key, counter=counter))
                image[row] = _checked(self._transform(generator, image[row].copy()), image[row])

        if not in_memory or self._transform is not None:
            list(self._threads_of_process().map(fill, wanted.tolist()))
        good = [row for row in wanted.tolist() if row not in bad]
        image[np.setdiff1d(np.arange(len(image)), good)] = image[good[0]] if good else 0
        return _Read(image, dict(sorted(bad.items())))

    def _threads_of_process(self) -> ThreadPoolExecutor:
        """One pool for all batches that are read at once, so that there are never more threads than configured."""
        assert self._lock is not None
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix='images')
            return self._pool


def _checked(changed: np.ndarray, image: np.ndarray) -> np.ndarray:
    if changed.shape != image.shape or changed.dtype != np.uint8:
        raise UserError(
            f'a transform must return uint8{list(image.shape)}, as it was given, '
            f'not {changed.dtype}{list(changed.shape)}'
        )
    return changed


class _Mapped:
    """An array in a file that all workers share; only its name is sent to them."""

    def __init__(self, file: Path, array: np.ndarray):
        np.save(file, array)
        self._file, self.shape, self.dtype = file, array.shape, array.dtype
        self._array: np.ndarray | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_array': None}

    def __getitem__(self, indices: Int[np.ndarray, ' count']) -> UInt8[np.ndarray, 'count height width channels']:
        if self._array is None:
            self._array = np.load(self._file, mmap_mode='r')
        return self._array[indices]


def training_batches(
    dataset: Dataset,
    sampler: Sampler,
    first_step: int,
    last_step: int,
    rows: np.ndarray | slice = slice(None),
    transform: Transform | None = None,
    seed: int = 0,
    threads: int = 0,
    processes: int = 0,
    prefetch: int = 4,
    bad_files_limit: int = 10,
) -> Batches:
    """The batches of the steps from ``first_step`` up to, but not including, ``last_step``.

    To stop its threads and processes early, close the generator, for example with ``contextlib.closing``.

    Args:
        rows: the rows of every batch that this process needs; only these are read.
        transform: changes each image but not its shape; its generator depends only on ``seed``, the step and the row
            of the global batch. It must be thread-safe, and picklable for ``processes``.
        threads: decoding and transforming threads of each process; 0: this machine's cores divided by ``processes``.
        processes: data workers, for transforms that hold Python's lock; 0: only this process's threads.
        prefetch: batches to read ahead; each of ``processes`` holds a few more in transit.
        bad_files_limit: an example that cannot be read gets weight 0, up to this number of different examples.

    Raises:
        UserError: a value is out of range, more examples than the limit are unreadable (named), or a data worker died.
    """
    if not 0 <= first_step <= last_step:
        raise UserError(f'the first step must lie between 0 and the last, {last_step}, not {first_step}')
    check_seed(seed)
    plan = _TrainingPlan(sampler, first_step, last_step, rows)
    return _batches(dataset, plan, transform, seed, _Reading(threads, processes, prefetch, bad_files_limit))


def evaluation_batches(
    dataset: Dataset,
    indices: Int[np.ndarray, ' subset'],
    batch_size: int,
    rows: np.ndarray | slice = slice(None),
    threads: int = 0,
    prefetch: int = 4,
    bad_files_limit: int = 10,
) -> Batches:
    """Every example once, in order; the last batch is padded with rows of weight 0, so that all have one size.

    Every process gets the same number of batches, even where none of its rows holds an example.

    Args:
        indices: the examples; at least one.
        rows, threads, prefetch, bad_files_limit: as for ``training_batches``.

    Raises:
        UserError: a value is out of range, or more examples than the limit are unreadable (named).
    """
    if batch_size < 1:
        raise UserError(f'batch_size must be positive, not {batch_size}')
    if len(indices) == 0:
        raise UserError(f'there are no examples of {dataset.name!r} to evaluate; expected at least one')
    plan = _EvaluationPlan(indices, batch_size, rows)
    return _batches(dataset, plan, None, 0, _Reading(threads, 0, prefetch, bad_files_limit))


def _batches(
    dataset: Dataset,
    plan: _TrainingPlan | _EvaluationPlan,
    transform: Transform | None,
    seed: int,
    reading: _Reading,
) -> Batches:
    """Check the arguments now, which the generator would only do at its first batch."""
    for name in ('threads', 'processes', 'prefetch'):
        value = getattr(reading, name)
        if value < 0:
            raise UserError(f'{name} of the input pipeline must not be negative, and {value} is')
    processes = min(reading.processes, len(plan))
    threads = reading.threads or max(1, worker_count() // max(1, processes))
    reading = reading._replace(threads=threads, processes=processes)
    return _generate(dataset, plan, transform, seed, reading)


def _generate(
    dataset: Dataset,
    plan: _TrainingPlan | _EvaluationPlan,
    transform: Transform | None,
    seed: int,
    reading: _Reading,
) -> Batches:
    known: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        images = dataset.images
        if reading.processes and isinstance(images, np.ndarray):
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix='images-'))
            try:
                images = _Mapped(Path(folder) / 'images.npy', images)
            except OSError as error:
                # Numpy does not say why it wrote less than it should, and the error of a full disk names no file.
                code = error.errno or errno.ENOSPC
                raise OSError(code, os.strerror(code), folder) from error
        source = _Source(images, plan, transform, seed, reading.threads)
        stack.callback(source.close)
        elements = _read_ahead(source, reading.processes, reading.prefetch)
        stack.callback(elements.close)
        for position in range(len(plan)):
            batch = _host_batch(dataset, plan.first_step + position, plan[position], _next(elements))
            known.update(batch.bad)
            unreadable.check_limit(tuple(known.items()), f'examples of {dataset.name!r}', reading.bad_files_limit)
            yield batch


def _host_batch(dataset: Dataset, step: int, rows: _Rows, read: _Read) -> HostBatch:
    good = rows.examples >= 0
    good[list(read.bad)] = False
    # Padding has the target of the first readable example, as it has its pixels.
    examples = np.where(good, rows.examples, rows.examples[good.argmax()])
    rest = dataset.arrays_of(examples)
    if not good.any():
        rest = {name: np.zeros_like(array) for name, array in rest.items()}
    ids = tuple(dataset.ids[index] if index >= 0 else '' for index in rows.examples)
    # Grain unlinks the shared memory of a worker's array when the array is deleted, and JAX may still use that memory.
    image = read.image if type(read.image) is np.ndarray else np.array(read.image)
    arrays = {'image': image, **rest, 'weight': good.astype(np.float32)}
    return HostBatch(step, arrays, ids, tuple((ids[row], why) for row, why in read.bad.items()))


def _read_ahead(source: _Source, processes: int, prefetch: int) -> Any:
    """Grain's iterator over all elements of ``source``."""
    import grain  # imported late: only commands that read data wait for it
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain's flags, which are only parsed if absl started the program
    ahead = -(-prefetch // max(1, processes))
    options = grain.ReadOptions(num_threads=min(_BATCHES_AT_ONCE, ahead), prefetch_buffer_size=ahead)
    elements = grain.MapDataset.source(source).to_iter_dataset(options)
    if processes:
        elements = elements.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=processes), worker_init_fn=_depend_on_parent
        )
    return iter(elements)


def _depend_on_parent(worker: int, workers: int) -> None:
    """Leave interrupts to the main process, and exit when it does, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()

    def end_with_parent() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _next(elements: Iterator[_Read]) -> _Read:
    try:
        return next(elements)
    except RuntimeError as error:
        if 'terminated unexpectedly' not in str(error):
            raise
        raise UserError(
            f'a data worker died ({unreadable.reason(error).split(". ")[0]}); the usual cause is too little memory '
            '(or shared memory, /dev/shm): use fewer processes, less prefetch or a smaller batch. '
            'The last checkpoint is good, and the same command continues'
        ) from None
