"""The costs of a compiled program: arithmetic, memory and communication.

All numbers are per device. JAX reports the first two for a whole program; the third is read from its text.
"""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence

import jax
from jax.extend.core import Jaxpr, jaxprs_in_params
from rich.table import Table

from backbones.errors import UserError
from experiments.planning import hlo

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class ProgramMemory:
    """Bytes on each device that a program takes while it runs.

    Attributes:
        peak: its arguments and outputs (once where they share memory), everything temporary, and itself.
        temporary: what it keeps from one of its operations to another.
    """

    peak: int
    temporary: int


def memory_of(program: jax.stages.Compiled) -> ProgramMemory | None:
    """The memory of a compiled program; ``None`` if the platform does not report it."""
    found = program.memory_analysis()
    if found is None:
        return None
    outputs = found.output_size_in_bytes - found.alias_size_in_bytes
    kept = found.argument_size_in_bytes + outputs + found.generated_code_size_in_bytes
    return ProgramMemory(kept + found.temp_size_in_bytes, found.temp_size_in_bytes)


def computed_bytes(traced: Jaxpr) -> int:
    """Bytes of all values that a traced program computes; what is inside a loop counts once, and
    every number as four bytes.
    """
    total = 0
    for equation in traced.eqns:
        inner = list(jaxprs_in_params(equation.params))
        total += sum(map(computed_bytes, inner))
        if not inner:
            total += sum(4 * math.prod(getattr(value.aval, 'shape', ())) for value in equation.outvars)
    return total


def needed_bytes(message: str) -> int | None:
    """Memory needed, from a compiler's out-of-memory message: 0 if it does not say, ``None`` for another error.

    Messages: ``Used 18.07G of 15.75G hbm`` or ``the total memory required for … (480.00G) exceeds available HBM``.
    """
    if 'RESOURCE_EXHAUSTED' not in message:
        return None
    match = re.search(r'Used ([\d.]+)([KMGT]?) of', message) or re.search(
        r'\(([\d.]+)([KMGT]?)\) exceeds available', message
    )
    return round(float(match[1]) * 1024 ** ' KMGT'.index(match[2] or ' ')) if match else 0


@dataclasses.dataclass(frozen=True)
class Analysis:
    """The costs of one run of a program on each device.

    Attributes:
        flops: floating-point operations; a multiply-add is two. XLA's count, in which the body of a loop counts once,
            plus the matrix products and convolutions of the other iterations.
        argument_bytes, output_bytes, temporary_bytes: memory, including the padding of the device's tiles.
        aliased_bytes: outputs that share the memory of donated arguments.
        code_bytes: the program itself.
        collectives: kind → number and bytes; see ``hlo.Collective``. Kinds that do not occur are absent.
        uncounted_loops: loops with products or collectives whose trip count is unknown: they count once.
    """

    flops: float
    argument_bytes: int
    output_bytes: int
    temporary_bytes: int
    aliased_bytes: int
    code_bytes: int
    collectives: Mapping[str, hlo.Collective]
    uncounted_loops: int

    @property
    def peak_bytes(self) -> int:
        """Peak memory of the program."""
        return self.argument_bytes + self.output_bytes - self.aliased_bytes + self.temporary_bytes + self.code_bytes

    def collective_bytes(self, kind: str) -> int:
        """Bytes of the collectives of one kind."""
        return self.collectives[kind].bytes if kind in self.collectives else 0


def analyse(program: jax.stages.Compiled) -> Analysis:
    """Analyse a compiled program, whether its devices are attached or not.

    Raises:
        UserError: the platform reports no costs.
    """
    memory, cost = program.memory_analysis(), program.cost_analysis()
    if memory is None or cost is None:
        raise UserError('this platform does not report the costs of a compiled program')
    content = hlo.read(program.as_text() or '')
    return Analysis(
        flops=cost.get('flops', 0.0) + content.repeated_flops,
        argument_bytes=memory.argument_size_in_bytes,
        output_bytes=memory.output_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        aliased_bytes=memory.alias_size_in_bytes,
        code_bytes=memory.generated_code_size_in_bytes,
        collectives=content.collectives,
        uncounted_loops=content.uncounted_loops,
    )


def size(count: float) -> str:
    """Format bytes in binary units."""
    unit = 0
    while abs(count) >= 1000 and unit < 4:
        count, unit = count / 1024, unit + 1
    return f'{count:.0f} B' if unit == 0 else f'{count:.3g} {("", "K", "M", "G", "T")[unit]}iB'


def operations(count: float) -> str:
    """Format a number of floating-point operations."""
    unit = 0
    while abs(count) >= 1000 and unit < 4:
        count, unit = count / 1000, unit + 1
    return f'{count:.3g} {("", "k", "M", "G", "T")[unit]}FLOP'


def rows(analysis: Analysis) -> list[tuple[str, str]]:
    """Name and value of every number."""
    communication = [
        (kind, f'{size(each.bytes)} in {each.count:,}') for kind, each in sorted(analysis.collectives.items())
    ]
    result = [
        ('memory', size(analysis.peak_bytes)),
        ('  arguments', size(analysis.argument_bytes)),
        ('  outputs not in arguments', size(analysis.output_bytes - analysis.aliased_bytes)),
        ('  temporary', size(analysis.temporary_bytes)),
        ('  program', size(analysis.code_bytes)),
        ('arithmetic', operations(analysis.flops)),
        *(communication or [('collectives', 'none')]),
    ]
    if analysis.uncounted_loops:
        result.append(('loops of unknown length', f'{analysis.uncounted_loops}; one iteration of each counts'))
    return result


def table(
    analysis: Analysis | None,
    title: str = 'the compiled step, per device',
    leading: Sequence[tuple[str, str]] = (),
    trailing: Sequence[tuple[str, str]] = (),
) -> Table:
    """A table of the numbers, if there are any, with further rows before and after them."""
    result = Table(title=title, title_justify='left', show_header=False)
    result.add_column()
    result.add_column(justify='right')
    for name, value in (*leading, *(rows(analysis) if analysis else ()), *trailing):
        result.add_row(name, value)
    return result
