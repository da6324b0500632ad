"""A traced function as a flat list of operations, with everything known beforehand already computed."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from backbones.layers import fused_attention

# A number, or an expression of symbolic dimensions such as the batch.
Dimension = Any
Shape = tuple[Dimension, ...]

# Functions that are one operation of ONNX, by the name under which they are traced; the others are inlined.
WHOLE = frozenset(
    (
        'relu',
        'relu6',
        'leaky_relu',
        'silu',
        'hard_silu',
        'hard_sigmoid',
        'softmax',
        'gelu',
        'gelu_tanh',
        'layer_norm',
        'suppress',
    )
)

_CALLS = {'jit': 'jaxpr', 'closed_call': 'call_jaxpr', 'custom_jvp_call': 'call_jaxpr', 'custom_vjp_call': 'call_jaxpr',
          'remat2': 'jaxpr', 'checkpoint': 'jaxpr', 'core_call': 'call_jaxpr'}  # fmt: skip
_ALIASES = frozenset(('stop_gradient', 'copy', 'optimization_barrier'))
# Constants of at most so many values are computed beforehand even where that makes them larger than their inputs.
_SMALL = 1 << 16


@dataclasses.dataclass(frozen=True, eq=False)
class Variable:
    """A value that depends on the inputs."""

    shape: Shape
    dtype: np.dtype


@dataclasses.dataclass(frozen=True, eq=False)
class Constant:
    """A value known beforehand.

    Attributes:
        array: of the rank of ``shape``, with extent 1 where it is repeated along an axis.
        shape: of the value.
    """

    array: np.ndarray
    shape: Shape

    @property
    def dtype(self) -> np.dtype:
        """Type of the elements."""
        return self.array.dtype

    def scalar(self) -> float | None:
        """The number, if it is one number everywhere."""
        return float(self.array.reshape(-1)[0]) if self.array.size == 1 else None

    def whole(self) -> np.ndarray:
        """The value without repetition left open.

        Raises:
            ValueError: its shape has a symbolic dimension.
        """
        if any(not is_known(extent) for extent in self.shape):
            raise ValueError(f'a constant of the shape {self.shape}')
        return np.broadcast_to(self.array, self.shape)


Value = Variable | Constant


@dataclasses.dataclass(frozen=True, eq=False)
class Operation:
    """One operation: the name of a primitive or of a function in ``WHOLE``, and the module that it comes from."""

    name: str
    params: Mapping[str, Any]
    inputs: tuple[Value, ...]
    outputs: tuple[Variable, ...]
    place: str


@dataclasses.dataclass(frozen=True)
class Program:
    """Operations in an order in which they can be computed."""

    operations: list[Operation]
    inputs: tuple[Variable, ...]
    outputs: tuple[Value, ...]


def is_known(extent: Dimension) -> bool:
    """Whether a dimension is a number."""
    return isinstance(extent, int | np.integer)


def trace(function: Callable, *inputs: jax.ShapeDtypeStruct) -> Program:
    """Trace a function; arrays that it closes over are constants.

    Args:
        function: of arrays, to a tuple of arrays.
        inputs: shapes and types, of which dimensions may be symbolic (``jax.export.symbolic_shape``).
    """
    with fused_attention.excluded():
        closed = jax.make_jaxpr(function)(*inputs)
    arguments = tuple(_variable(variable) for variable in closed.jaxpr.invars)
    operations: list[Operation] = []
    results = _inline(closed, arguments, operations, '')
    return Program(operations, arguments, tuple(results))


def _variable(variable: Any) -> Variable:
    return Variable(tuple(variable.aval.shape), np.dtype(variable.aval.dtype))


def _inline(closed: Any, arguments: Sequence[Value], operations: list[Operation], place: str) -> list[Value]:
    jaxpr = closed.jaxpr if hasattr(closed, 'jaxpr') else closed
    values: dict[Any, Value] = dict(zip(jaxpr.invars, arguments, strict=True))
    for variable, array in zip(jaxpr.constvars, getattr(closed, 'consts', ()), strict=True):
        values[variable] = _constant(array)

    def value(atom: Any) -> Value:
        return _constant(atom.val) if isinstance(atom, core.Literal) else values[atom]

    for equation in jaxpr.eqns:
        here = '/'.join(part for part in (place, str(equation.source_info.name_stack)) if part)
        inputs = tuple(value(atom) for atom in equation.invars)
        values.update(zip(equation.outvars, _apply(equation, inputs, operations, here), strict=True))
    return [value(atom) for atom in jaxpr.outvars]


def _apply(equation: Any, inputs: tuple[Value, ...], operations: list[Operation], place: str) -> Sequence[Value]:
    name, params = equation.primitive.name, equation.params
    if name in _ALIASES:
        return inputs
    if name == 'platform_index':
        # The last is for any other platform: what is written for one of them works around its compiler.
        return [_constant(np.int32(len(params['platforms']) - 1))]
    if name == 'cond' and isinstance(inputs[0], Constant):
        return _inline(params['branches'][int(inputs[0].array)], inputs[1:], operations, place)
    if name in _CALLS:
        called = params[_CALLS[name]]
        known = all(isinstance(each, Constant) for each in inputs)
        if not known and (whole := params.get('name')) in WHOLE:
            return _operation(whole, {'outputs': len(equation.outvars)}, inputs, equation, operations, place)
        return _inline(called, inputs, operations, place)
    if all(isinstance(each, Constant) for each in inputs):
        folded = _fold(equation, inputs)  # ty: ignore[invalid-argument-type]
        if folded is not None:
            return folded
    return _operation(name, params, inputs, equation, operations, place)


def _operation(
    name: str, params: Mapping, inputs: tuple[Value, ...], equation: Any, operations: list[Operation], place: str
) -> Sequence[Value]:
    outputs = tuple(_variable(variable) for variable in equation.outvars)
    operations.append(Operation(name, params, inputs, outputs, place))
    return outputs


def _constant(array: Any) -> Constant:
    array = np.asarray(array)
    return Constant(array, array.shape)


def _fold(equation: Any, inputs: tuple[Constant, ...]) -> list[Constant] | None:
    """The results of an operation on constants; ``None`` if their shapes depend on the batch in a way that matters."""
    name, params = equation.primitive.name, equation.params
    shapes = [tuple(variable.aval.shape) for variable in equation.outvars]
    if name == 'broadcast_in_dim':
        return [_spread(inputs[0], params['broadcast_dimensions'], shapes[0])]
    if name == 'transpose':
        return [Constant(inputs[0].array.transpose(params['permutation']), shapes[0])]
    if name in _ELEMENTWISE:
        # Repeated axes stay open.
        arrays = np.broadcast_arrays(*(each.array for each in inputs)) if len(inputs) > 1 else [inputs[0].array]
        return [Constant(np.asarray(equation.primitive.bind(*map(jnp.asarray, arrays), **params)), shapes[0])]
    try:
        arrays = [jnp.asarray(each.whole()) for each in inputs]
    except ValueError:
        return None
    results = equation.primitive.bind(*arrays, **params)
    results = results if equation.primitive.multiple_results else [results]
    return [_constant(result) for result in results]


def _spread(value: Constant, axes: Sequence[int], shape: Shape) -> Constant:
    extents = [1] * len(shape)
    for axis, extent in zip(axes, value.array.shape, strict=True):
        extents[axis] = extent
    return Constant(value.array.reshape(extents), shape)


_ELEMENTWISE = frozenset(
    ('add', 'sub', 'mul', 'div', 'max', 'min', 'neg', 'exp', 'log', 'tanh', 'logistic', 'rsqrt', 'sqrt', 'square',
     'erf', 'erfc', 'abs', 'sign', 'floor', 'ceil', 'round', 'pow', 'integer_pow', 'convert_element_type', 'eq', 'ne',
     'lt', 'le', 'gt', 'ge', 'and', 'or', 'not', 'select_n', 'sin', 'cos')
)  # fmt: skip


def used(program: Program) -> Iterator[Value]:
    """Every use of a value, by an operation or as an output."""
    for operation in program.operations:
        yield from operation.inputs
    yield from program.outputs
