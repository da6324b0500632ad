"""Read the text of a program compiled by XLA: its collectives, arithmetic and loop counts.

The grammar is that of ``HloModule`` text (openxla.org/xla/operation_semantics): computations that hold instructions
``%name = shape opcode(operands), attributes``.
"""

import dataclasses
import functools
import math
import re
from collections import Counter
from collections.abc import Mapping

import numpy as np

KINDS = ('all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all', 'collective-permute')

_COMPUTATION = re.compile(r'(ENTRY )?%?([\w.\-]+) \(.*\{$')
# The parentheses in a shape's layout, as in {1,0:T(8,128)}, follow capitals.
_INSTRUCTION = re.compile(r'\s+(ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$')
_SHAPE = re.compile(r'([a-z]+)(\d*)\w*\[([\d,<=]*)\]')
_CALLED = re.compile(r'(?:calls|to_apply|body|true_computation|false_computation)=%?([\w.\-]+)')
_BRANCHES = re.compile(r'branch_computations=\{([^}]*)\}')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


@dataclasses.dataclass(frozen=True)
class Collective:
    """All collectives of one kind in one run of a program.

    Attributes:
        count: number of executions; one in a loop counts once per iteration.
        bytes: size of the whole array on one device: the input of ``all-reduce``, ``reduce-scatter``,
            ``all-to-all`` and ``collective-permute``, the output of ``all-gather``. Over n devices in
            a ring, an all-reduce of b bytes sends 2 b (n - 1) / n, an all-gather or reduce-scatter half of that.
    """

    count: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class Content:
    """The content of a program.

    Attributes:
        collectives: kind → number and bytes.
        flops: FLOPs of matrix products and convolutions, counting all iterations of loops.
        repeated_flops: the part of them after the first iteration of each loop.
        uncounted_loops: loops that contain collectives or products but whose trip count is unknown.
    """

    collectives: Mapping[str, Collective]
    flops: int
    repeated_flops: int
    uncounted_loops: int


@dataclasses.dataclass(frozen=True)
class _Instruction:
    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    root: bool


@dataclasses.dataclass
class _Computation:
    name: str
    instructions: dict[str, _Instruction]

    def operand_shapes(self, instruction: _Instruction) -> list[str]:
        return [self.instructions[name].shape for name in instruction.operands if name in self.instructions]


def read(text: str) -> Content:
    """Read the text of a compiled program.

    All branches of a conditional count. The trip count of a loop is the compiler's (``known_trip_count``) or that of
    its condition, ``i < constant`` with ``i`` from 0 in steps of 1, as in all loops of ``lax.scan``.
    """
    return _Reader(_parse(text)).content()


def _parse(text: str) -> tuple[dict[str, _Computation], str]:
    computations, entry, current = {}, '', None
    for line in text.splitlines():
        if line.endswith('{') and (match := _COMPUTATION.match(line)):
            current = computations[match[2]] = _Computation(match[2], {})
            entry = match[2] if match[1] else entry
        elif current is not None and (match := _INSTRUCTION.match(line)):
            operands, attributes = _operands(match[5])
            names = tuple(re.findall(r'%([\w.\-]+)', operands)) if match[4] != 'constant' else (operands,)
            current.instructions[match[2]] = _Instruction(
                match[2], match[3], match[4], names, attributes, bool(match[1])
            )
    return computations, entry


def _operands(rest: str) -> tuple[str, str]:
    """Split ``rest`` at the parenthesis that closes the operands."""
    depth = 1
    for index, character in enumerate(rest):
        depth += (character == '(') - (character == ')')
        if not depth:
            return rest[:index], rest[index + 1 :]
    return rest, ''


def _dimensions(shape: str) -> tuple[int, ...]:
    """Dimensions of the first array in a shape."""
    match = _SHAPE.search(shape)
    return tuple(int(length.lstrip('<=')) for length in match[3].split(',') if length) if match else ()


def _bytes(shape: str) -> int:
    """Bytes of all arrays in a shape, without padding."""
    total = 0
    for kind, bits, lengths in _SHAPE.findall(shape):
        width = int(bits) if bits else 8 * (kind == 'pred')
        total += math.ceil(width * math.prod(int(length.lstrip('<=')) for length in lengths.split(',') if length) / 8)
    return total


class _Reader:
    """Walks the computations from the entry in execution order."""

    def __init__(self, parsed: tuple[dict[str, _Computation], str]):
        self._computations, self._entry = parsed
        self._count: Counter[str] = Counter()
        self._sizes: Counter[str] = Counter()
        self._flops = self._once = self._uncounted = 0

    def content(self) -> Content:
        if self._entry:
            self._walk(self._entry, 1, set(), '')
        collectives = {kind: Collective(self._count[kind], self._sizes[kind]) for kind in KINDS if self._count[kind]}
        return Content(collectives, self._flops, self._flops - self._once, self._uncounted)

    def _walk(self, name: str, times: int, channels: set[str], fusion: str) -> None:
        """Count a computation that runs ``times`` times.

        Args:
            name: the computation.
            times: its number of executions.
            channels: channels of the collectives seen in the enclosing fusions.
            fusion: the fused computation that this is or is called by.
        """
        computation = self._computations[name]
        for instruction in computation.instructions.values():
            kind = instruction.opcode.removesuffix('-start')
            if kind in KINDS:
                self._collective(computation, instruction, kind, times, channels, fusion)
            elif instruction.opcode in ('dot', 'convolution'):
                flops = _flops(computation, instruction)
                self._flops += times * flops
                self._once += flops
            elif instruction.opcode == 'while':
                trips = self._trips(instruction)
                if trips is None and self._matters(_CALLED.findall(instruction.attributes)[0]):
                    self._uncounted += 1
                for body in _CALLED.findall(instruction.attributes):
                    self._walk(body, times * (1 if trips is None else trips), set(), '')
            elif instruction.opcode not in ('async-done', 'async-update'):
                for called in self._called(instruction):
                    if instruction.opcode == 'fusion' or fusion:
                        self._walk(called, times, channels, fusion or called)
                    else:
                        self._walk(called, times, set(), '')

    def _collective(
        self,
        computation: _Computation,
        instruction: _Instruction,
        kind: str,
        times: int,
        channels: set[str],
        fusion: str,
    ) -> None:
        channel = re.search(r'channel_id=(\d+)', instruction.attributes)
        if kind == 'all-reduce' and 'reduce-scatter' in fusion:
            # TPU compilers write a reduce-scatter as an all-reduce and a slice of its result, all on one channel.
            kind = 'reduce-scatter'
        elif fusion and channel:
            # They split a collective into several fusions that overlap it with computation; each holds a copy with the
            # same channel.
            if channel[1] in channels:
                return
            channels.add(channel[1])
        inputs = computation.operand_shapes(instruction)
        moved = sum(map(_bytes, inputs[:1] if kind == 'collective-permute' else inputs))
        if kind == 'all-gather':
            # The shape of a start is (operands, results, possibly context scalars).
            whole = _bytes(instruction.shape.replace('u32[]', ''))
            moved = whole - moved if instruction.opcode.endswith('-start') else whole
        self._count[kind] += times
        self._sizes[kind] += times * moved

    def _called(self, instruction: _Instruction) -> list[str]:
        names = _CALLED.findall(instruction.attributes)
        for branches in _BRANCHES.findall(instruction.attributes):
            names += [name.strip().lstrip('%') for name in branches.split(',')]
        return [name for name in names if name in self._computations]

    def _trips(self, loop: _Instruction) -> int | None:
        known = _TRIPS.search(loop.attributes)
        if known:
            return int(known[1])
        match = re.search(r'condition=%?([\w.\-]+)', loop.attributes)
        condition = self._computations.get(match[1]) if match else None
        if condition is None:
            return None
        inside = [
            condition,
            *(self._computations[name] for each in condition.instructions.values() for name in self._called(each)),
        ]
        instructions = [each for computation in inside for each in computation.instructions.values()]
        compared = [each for each in instructions if each.opcode == 'compare']
        limits = [each for each in instructions if each.opcode == 'constant' and re.match(r'[su]\d+\[\]', each.shape)]
        if len(compared) == len(limits) == 1 and 'direction=LT' in compared[0].attributes:
            return int(limits[0].operands[0])
        return None

    @functools.cache  # noqa: B019 - lives as long as the text
    def _matters(self, name: str) -> bool:
        """True if a computation contains a collective, a product or a convolution."""
        for instruction in self._computations[name].instructions.values():
            if instruction.opcode.removesuffix('-start') in (*KINDS, 'dot', 'convolution'):
                return True
            if any(self._matters(called) for called in self._called(instruction)):
                return True
        return False


def _flops(computation: _Computation, instruction: _Instruction) -> int:
    """FLOPs, two per multiply-add; like XLA's HloCostAnalysis, omits products with padding and dilation's zeros."""
    shapes = computation.operand_shapes(instruction)
    if len(shapes) != 2:
        return 0
    left, right, result = _dimensions(shapes[0]), _dimensions(shapes[1]), _dimensions(instruction.shape)
    if instruction.opcode == 'dot':
        match = re.search(r'lhs_contracting_dims=\{([\d,]*)\}', instruction.attributes)
        contracted = [int(axis) for axis in match[1].split(',') if axis] if match else []
        return 2 * math.prod(result) * math.prod(left[axis] for axis in contracted)
    labels = re.search(r'dim_labels=(\w+)_(\w+)->(\w+)', instruction.attributes)
    if labels is None:
        return 0
    groups = {
        name: int(match[1]) if (match := re.search(rf'{name}_group_count=(\d+)', instruction.attributes)) else 1
        for name in ('feature', 'batch')
    }
    products = (
        left[labels[1].index('f')]
        // groups['feature']
        * (left[labels[1].index('b')] // groups['batch'])
        * result[labels[3].index('f')]
    )
    window = _window(instruction.attributes)
    for axis in range(len(left) - 2):
        digit = str(axis)
        products *= _overlaps(
            left[labels[1].index(digit)],
            right[labels[2].index(digit)],
            result[labels[3].index(digit)],
            **{name: values[axis] for name, values in window.items()},
        )
    return 2 * products


_PARTS = {'stride': 'stride', 'pad': 'pad', 'lhs_dilate': 'dilation', 'rhs_dilate': 'kernel_dilation'}


def _window(attributes: str) -> dict[str, list[int]]:
    """Stride, leading padding and dilations of every axis, as far as the text has them."""
    match = re.search(r'window=\{([^}]*)\}', attributes)
    parts = dict(part.split('=') for part in match[1].split()) if match else {}
    return {
        _PARTS[name]: [int(value.split('_')[0]) for value in values.split('x')]
        for name, values in parts.items()
        if name in _PARTS
    }


def _overlaps(
    length: int, kernel: int, result: int, stride: int = 1, pad: int = 0, dilation: int = 1, kernel_dilation: int = 1
) -> int:
    """The number of (output, kernel) pairs along one axis that meet an element of the input."""
    places = np.arange(result)[:, None] * stride + np.arange(kernel) * kernel_dilation - pad
    return int(((places >= 0) & (places <= (length - 1) * dilation) & (places % dilation == 0)).sum())
