"""Operations on each element by itself, with what ONNX broadcasts as JAX does."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from experiments.export.graph import Layouts, Tensor, elements
from experiments.export.program import Constant, Operation, is_known

Given = Tensor | Constant

_UNARY = {
    'neg': 'Neg', 'exp': 'Exp', 'log': 'Log', 'tanh': 'Tanh', 'logistic': 'Sigmoid', 'sqrt': 'Sqrt', 'erf': 'Erf',
    'abs': 'Abs', 'sign': 'Sign', 'floor': 'Floor', 'ceil': 'Ceil', 'not': 'Not', 'sin': 'Sin', 'cos': 'Cos',
    'relu': 'Relu', 'hard_silu': 'HardSwish',
}  # fmt: skip
_BINARY = {
    'add': 'Add', 'sub': 'Sub', 'mul': 'Mul', 'div': 'Div', 'max': 'Max', 'min': 'Min', 'pow': 'Pow', 'eq': 'Equal',
    'lt': 'Less', 'le': 'LessOrEqual', 'gt': 'Greater', 'ge': 'GreaterOrEqual', 'and': 'And', 'or': 'Or', 'xor': 'Xor',
}  # fmt: skip
# Nothing is changed by these numbers.
_NEUTRAL = {'add': 0.0, 'sub': 0.0, 'mul': 1.0, 'div': 1.0}


def unary(layouts: Layouts, operation: Operation, given: Sequence[Given]) -> list[Tensor]:
    """One operation, or two or three of them."""
    x = layouts.tensor(given[0])
    graph = layouts.graph
    match operation.name:
        case 'rsqrt':
            name = graph.one('Reciprocal', graph.one('Sqrt', x.name))
        case 'erfc':
            name = graph.one('Sub', graph.constant(np.ones((), x.dtype)), graph.one('Erf', x.name))
        case 'square':
            name = graph.one('Mul', x.name, x.name)
        case 'integer_pow':
            exponent = operation.params['y']
            if exponent == 2:
                name = graph.one('Mul', x.name, x.name)
            else:
                name = graph.one('Pow', x.name, graph.constant(np.asarray(exponent, x.dtype)))
        case 'relu6':
            name = graph.one('Clip', x.name, *(graph.constant(np.asarray(bound, x.dtype)) for bound in (0, 6)))
        case 'silu':
            name = graph.one('Mul', x.name, graph.one('Sigmoid', x.name))
        case 'hard_sigmoid':
            name = graph.one('HardSigmoid', x.name, alpha=1 / 6, beta=0.5)
        case 'gelu' | 'gelu_tanh':
            name = graph.one('Gelu', x.name, approximate='tanh' if operation.name == 'gelu_tanh' else 'none')
        case 'is_finite':
            bad = graph.one('Or', graph.one('IsNaN', x.name), graph.one('IsInf', x.name))
            name = graph.one('Not', bad)
        case 'round':
            if int(operation.params['rounding_method']) == 1:
                name = graph.one('Round', x.name)
            else:  # halves away from zero
                half = graph.one('Add', graph.one('Abs', x.name), graph.constant(np.asarray(0.5, x.dtype)))
                name = graph.one('Mul', graph.one('Sign', x.name), graph.one('Floor', half))
        case _:
            name = graph.one(_UNARY[operation.name], x.name)
    return [dataclasses.replace(x, name=name, dtype=operation.outputs[0].dtype)]


def leaky_relu(layouts: Layouts, operation: Operation, given: Sequence[Given]) -> list[Tensor]:
    """Negative values times a slope."""
    x, slope = layouts.tensor(given[0]), given[1]
    assert isinstance(slope, Constant)
    name = layouts.graph.one('LeakyRelu', x.name, alpha=float(slope.array))
    return [dataclasses.replace(x, name=name)]


def cast(layouts: Layouts, operation: Operation, given: Sequence[Given]) -> list[Tensor]:
    """Another type of elements."""
    x, dtype = layouts.tensor(given[0]), operation.outputs[0].dtype
    if x.dtype == dtype:
        return [x]
    return [dataclasses.replace(x, name=layouts.graph.one('Cast', x.name, to=elements(dtype)), dtype=dtype)]


def nary(layouts: Layouts, operation: Operation, given: Sequence[Given]) -> list[Tensor]:
    """Operations on two values or more."""
    if _changes_nothing(operation, given):
        return [layouts.tensor(given[0])]
    # Max with minus infinity is what guards a maximum over nothing.
    if operation.name == 'max' and isinstance(given[0], Constant) and given[0].scalar() == -math.inf:
        return [layouts.tensor(given[1])]
    names, extents, order = aligned(layouts, given)
    kind, graph = operation.name, layouts.graph
    output = operation.outputs[0]
    if kind == 'ne':
        name = graph.one('Not', graph.one('Equal', *names))
    elif kind == 'clamp':
        name = graph.one('Min', graph.one('Max', names[1], names[0]), names[2])
    elif kind == 'select_n':
        # Cases in the order of false and true.
        name = graph.one('Where', names[0], names[2], names[1])
    elif kind == 'rem':
        name = graph.one('Mod', *names, fmod=1)
    elif kind in ('add', 'mul') and isinstance(given[0], Constant):
        # Patterns that runtimes know have the constant last.
        name = graph.one(_BINARY[kind], *names[::-1])
    else:
        name = graph.one(_BINARY[kind], *names)
    return [Tensor(name, output.shape, extents, order, output.dtype)]


def _changes_nothing(operation: Operation, given: Sequence[Given]) -> bool:
    """Whether the second of two values leaves the first as it is."""
    if operation.name not in _NEUTRAL or not isinstance(given[1], Constant):
        return False
    return given[1].scalar() == _NEUTRAL[operation.name] and given[0].shape == operation.outputs[0].shape


def aligned(layouts: Layouts, given: Sequence[Given]) -> tuple[list[str], tuple, tuple[int, ...]]:
    """Names of values that broadcast against each other, the extents of the result, and its order."""
    rank = max(len(each.shape) for each in given)
    tensors = [each for each in given if isinstance(each, Tensor) and len(each.shape) == rank]
    order = preferred(tensors) if tensors else tuple(range(rank))
    names = []
    whole: list = [1] * rank
    for each in given:
        extents = each.extents if isinstance(each, Tensor) else each.array.shape
        for axis, extent in enumerate(extents):
            if not (is_known(extent) and extent == 1):
                whole[axis] = extent
        if isinstance(each, Constant):
            names.append(layouts.graph.constant(_short(each.array.transpose(order) if each.array.ndim else each.array)))
        else:
            names.append((layouts.ordered(each, order) if len(each.shape) == rank else each).name)
    return names, tuple(whole), order


def preferred(tensors: Sequence[Tensor]) -> tuple[int, ...]:
    """The order that moves least: that of the largest, or channels first where a convolution has made one of two."""
    full = [each for each in tensors if not any(is_known(extent) and extent == 1 for extent in each.extents)] or tensors
    # What is stored out of order was made by a convolution, and goes to one more often than not.
    moved = [each for each in full if not each.in_order]
    return (moved or full)[0].order


def _short(array: np.ndarray) -> np.ndarray:
    """Without leading axes of extent 1, which broadcasting adds."""
    while array.ndim and array.shape[0] == 1:
        array = array[0]
    return array


_FEW = (
    'rsqrt', 'erfc', 'square', 'integer_pow', 'relu6', 'silu', 'hard_sigmoid', 'gelu', 'gelu_tanh', 'is_finite',
    'round',
)  # fmt: skip

OPERATORS = {
    **dict.fromkeys((*_UNARY, *_FEW), unary),
    **dict.fromkeys((*_BINARY, 'ne', 'clamp', 'select_n', 'rem'), nary),
    'leaky_relu': leaky_relu,
    'convert_element_type': cast,
}
