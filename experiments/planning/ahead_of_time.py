"""The train step compiled ahead of time for devices that are not attached, and its cost on them."""

import dataclasses
import math
import re
import time
from collections.abc import Callable

import jax
import ml_collections
from jax.sharding import NamedSharding

from backbones import cost
from backbones.errors import UserError
from experiments import tasks
from experiments.data.dataset import Dataset
from experiments.planning import program_costs
from experiments.training import config as configuration
from experiments.training.mesh import DeviceMesh
from experiments.training.programs import Programs, programs

# Step of the batch search; 8 examples are one tile of a TPU's registers.
UNIT = 8
_MOST = 2**16


def planned(
    config: ml_collections.ConfigDict,
    classes: int,
    stored_shape: tuple[int, ...],
    batch_size: int,
    device_mesh: DeviceMesh,
    dataset: Dataset | None = None,
) -> Programs:
    """The programs of a training run, built without its weights, and where need be without its data.

    The mean and std of the preprocessing do not affect the cost of a step. The input size is that of the backbone's
    published weights unless the config overrides it. Class weights are all 1, which compiles the same way.

    Raises:
        UserError: a value of the config does not fit.
    """
    configuration.check(config)
    preprocessing = tasks.input_preprocessing(config.task, config.backbone, '', config)
    task = tasks.find(config.task).create(config, classes, preprocessing, dataset)
    return programs(task, configuration.compiled_values(config), stored_shape, batch_size, device_mesh)


@dataclasses.dataclass(frozen=True)
class Probe:
    """The step of a phase, compiled for one batch size.

    Attributes:
        batch_per_device: examples per step and device.
        fits: whether the memory of a device suffices; ``None`` if it is unknown.
        needed_bytes: memory needed on a device; 0 if the compiler gave up without saying.
        limit_bytes: memory of a device; 0: unknown.
        seconds: time of the compilation.
        analysis: the program's costs; ``None`` if the compiler gave up.
    """

    batch_per_device: int
    fits: bool | None
    needed_bytes: int
    limit_bytes: int
    seconds: float
    analysis: program_costs.Analysis | None


def probe(compiled: Programs, phase: int, limit_bytes: int = 0) -> Probe:
    """Compile the step of a phase.

    Args:
        compiled: programs on the target devices.
        phase: number of the phase.
        limit_bytes: memory of a device; 0: unknown.
    """
    lowered = compiled.lowered(phase)
    start = time.monotonic()
    per_device = compiled.batch_size // compiled.device_mesh.devices
    try:
        program = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        needed = program_costs.needed_bytes(str(error))
        if needed is None:
            raise
        return Probe(per_device, False, needed, limit_bytes, time.monotonic() - start, None)
    seconds = time.monotonic() - start
    analysis = program_costs.analyse(program)
    needed = analysis.peak_bytes
    fits = needed <= limit_bytes if limit_bytes else None
    return Probe(per_device, fits, needed, limit_bytes, seconds, analysis)


def find_batch(fits: Callable[[int], bool], first: int = UNIT, unit: int = UNIT) -> int:
    """The largest batch per device that fits, a multiple of ``unit``; 0 if not even ``unit`` does.

    From ``first`` it doubles until a batch does not fit (or halves until one does), then halves the interval between
    the two. Memory is assumed to grow with the batch.
    """
    size = max(unit, first // unit * unit)
    if fits(size):
        low, high = size, 2 * size
        while high <= _MOST and fits(high):
            low, high = high, 2 * high
        if high > _MOST:
            return low
    else:
        low, high = size // 2 // unit * unit, size
        while low and not fits(low):
            low, high = low // 2 // unit * unit, low
    while high - low > unit:
        middle = (low + high) // 2 // unit * unit
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def batch_unit(accumulation: int) -> int:
    """The step of ``find_batch``: every micro-batch has whole examples."""
    return math.lcm(UNIT, accumulation)


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Counts and bytes of a phase's state.

    Attributes:
        parameters, trainable: number of values.
        parameter_bytes, optimizer_bytes: on one device.
    """

    parameters: int
    trainable: int
    parameter_bytes: int
    optimizer_bytes: int


def sizes(compiled: Programs, phase: int) -> Sizes:
    """Measure the state of a phase."""
    state = compiled.abstract_state(phase)
    trainable, frozen = (sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (state.trainable, state.frozen))
    return Sizes(
        trainable + frozen,
        trainable,
        _bytes_per_device((state.trainable, state.frozen)),
        _bytes_per_device(state.optimizer_state),
    )


def _bytes_per_device(tree: object) -> int:
    total = 0
    for leaf in jax.tree.leaves(tree):
        if not isinstance(leaf.sharding, NamedSharding):
            raise ValueError('the state has no layout')
        total += math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    return total


def forward_flops(compiled: Programs) -> int:
    """FLOPs of the model's forward pass for one image, or for one text as long as those of the programs."""
    return cost.count_flops(compiled.model, compiled.input_size)


def stored_shape(text: str) -> tuple[int, int, int]:
    """``'256x256'`` or ``'32x32x1'`` → height, width, channels (3 by default).

    Raises:
        UserError: the text has another form, or a length is 0.
    """
    match = re.fullmatch(r'([1-9]\d*)x([1-9]\d*)(?:x([13]))?', text)
    if match is None:
        raise UserError(f'--stored_size takes HEIGHTxWIDTH or HEIGHTxWIDTHxCHANNELS such as 256x256x3, not {text!r}')
    return int(match[1]), int(match[2]), int(match[3] or 3)
