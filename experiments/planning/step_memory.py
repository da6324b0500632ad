"""Whether a compiled training step fits into the memory that there is, and what makes it smaller if it does not."""

import dataclasses
from collections.abc import Sequence

import jax

from backbones.errors import UserError
from experiments.planning.memory import Memory
from experiments.planning.program_costs import memory_of, needed_bytes, size

# The share of the memory that a suggested value may fill: the estimate is rough, and a run needs some for other things.
_FILLED = 0.9


@dataclasses.dataclass(frozen=True)
class Shape:
    """The values that the memory of a step depends on.

    Attributes:
        batch_size: examples per step on all devices.
        devices: number of devices that share them.
        accumulation: number of micro-batches.
        divides: whether the micro-batches must divide this batch; if not, a batch that suits them is chosen.
        pairs: whether the batch must be even.
        checkpointed: whether blocks are recomputed in the backward pass.
        platform: ``'cpu'``, ``'gpu'`` or ``'tpu'``.
        inputs: what the examples are, ``'images'`` or ``'texts'``.
    """

    batch_size: int
    devices: int
    accumulation: int = 1
    divides: bool = True
    pairs: bool = False
    checkpointed: bool = False
    platform: str = 'cpu'
    inputs: str = 'images'


def compiled(lowered: jax.stages.Lowered, shape: Shape, memory: Memory, keys: str) -> jax.stages.Compiled:
    """Compile a step.

    Raises:
        UserError: the compiler finds that the memory of a device is too small.
    """
    try:
        return lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        needed = needed_bytes(str(error))
        if needed is None:
            raise
        takes = f'takes {size(needed)} of memory' if needed else 'takes more memory'
        has = f', and {memory.owner} has {size(memory.total)}' if needed else f' than {memory.owner} has'
        remedy = _either(_remedies(shape, 0, needed, memory.total, keys))
        raise UserError(f'one training step on {shape.batch_size:,} {shape.inputs} {takes}{has}; {remedy}') from None


def check(program: jax.stages.Compiled, shape: Shape, memory: Memory, keys: str) -> str | None:
    """Compare the memory that a step takes with the memory that there is.

    Args:
        program: the compiled step.
        shape: the values that it was compiled for.
        memory: that of one device.
        keys: what precedes the keys of the training's config on the command line, such as ``config.training.``.

    Returns:
        A warning if it takes more than is free now.

    Raises:
        UserError: it takes more than there is; names the keys that mend it, with values that should fit.
    """
    found = memory_of(program)
    if found is None or not memory.total or found.peak <= min(memory.total, memory.available):
        return None
    enough = found.peak <= memory.total
    limit = memory.available if enough else memory.total
    # What the state takes does not depend on the batch, to which everything temporary is proportional.
    remedy = _either(_remedies(shape, found.peak - found.temporary, found.temporary, limit, keys))
    takes = f'one training step on {shape.batch_size:,} {shape.inputs} takes {size(found.peak)} of memory'
    if not enough:
        raise UserError(f'{takes}, and {memory.owner} has {size(memory.total)}; {remedy}')
    return (
        f'{takes}, and of the {size(memory.total)} of {memory.owner} {size(memory.available)} are free now; if it is '
        f'killed for lack of memory, {remedy}'
    )


def _remedies(shape: Shape, fixed: int, proportional: int, limit: int, keys: str) -> list[str]:
    """Keys with values, those that leave the update as it is first.

    Args:
        shape: the present values.
        fixed: bytes that the step takes whatever the batch.
        proportional: bytes that grow with the examples that are computed at once.
        limit: bytes that there are.
        keys: see ``check``.
    """
    room = _FILLED * limit - fixed
    found = []
    parts = next((each for each in _accumulations(shape) if proportional * shape.accumulation / each <= room), None)
    if parts and proportional:
        found.append(f'--{keys}accumulation={parts}')
    # On the CPU it helps some transformers only (``rematerialisation.COMPILER_OPTIONS``).
    if shape.platform != 'cpu' and not shape.checkpointed:
        found.append(f'--{keys}gradient_checkpointing=True')
    unit = shape.devices * shape.accumulation
    unit *= 2 if shape.pairs and unit % 2 else 1
    fitting = int(shape.batch_size * room / proportional) // unit * unit if proportional else 0
    if fitting >= unit:
        found.append(f'--{keys}batch_size={fitting}')
    if not found or room <= 0:
        found = ['a smaller backbone', 'a regime that trains less of it']
        found += [f'--{keys}mesh.fsdp={shape.devices}'] if shape.platform != 'cpu' and shape.devices > 1 else []
    return found


def _accumulations(shape: Shape) -> Sequence[int]:
    """Larger numbers of micro-batches that the batch can be split into."""
    share = shape.batch_size // shape.devices
    return [each for each in range(shape.accumulation + 1, share + 1) if not shape.divides or share % each == 0]


def _either(remedies: list[str]) -> str:
    return f'use {", ".join(remedies[:-1])} or {remedies[-1]}' if len(remedies) > 1 else f'use {remedies[0]}'
