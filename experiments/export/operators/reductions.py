"""Operations over whole axes: sums, maxima, windows, normalisations."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from onnx import TensorProto

from experiments.export.graph import Layouts, Tensor, elements
from experiments.export.operators.arrangement import dropped
from experiments.export.program import Constant, Operation, is_known

Given = Tensor | Constant

_KINDS = {'reduce_sum': 'ReduceSum', 'reduce_max': 'ReduceMax', 'reduce_min': 'ReduceMin', 'reduce_prod': 'ReduceProd'}


def reduce(layouts: Layouts, operation: Operation, given: Sequence[Given]) -> list[Tensor]:
    """One value in place of those along some axes."""
    axes = [axis % len(given[0].shape) for axis in operation.params['axes']]
    x = layouts.repeated(layouts.tensor(given[0]), axes)
    stored = layouts.graph.integers(*sorted(x.stored(axis) for axis in axes))
    if operation.name in ('reduce_and', 'reduce_or'):
        kind = 'ReduceMin' if operation.name == 'reduce_and' else 'ReduceMax'
        number = layouts.graph.one('Cast', x.name, to=TensorProto.INT32)
        name = layouts.graph.one('Cast', layouts.graph.one(kind, number, stored, keepdims=1), to=TensorProto.BOOL)
    else:
        name = layouts.graph.one(_KINDS[operation.name], x.name, stored, keepdims=1)
    return [dropped(layouts, _of_one(x, name, axes), axes)]


def _of_one(x: Tensor, name: str, axes: Sequence[int]) -> Tensor:
    shape, extents = (
        tuple(1 if axis in axes else extent for axis, extent in enumerate(each)) for each in (x.shape, x.extents)
    )
    return dataclasses.replace(x, name=name, shape=shape, extents=extents)


def mean(layouts: Layouts, x: Tensor, divisor: float) -> Tensor | None:
    """A sum divided by the number of its terms, as ONNX's own mean; ``None`` if ``x`` is no such sum."""
    graph = layouts.graph
    node, squeezed = graph.producer(x.name), None
    if node is not None and node.op_type == 'Squeeze':
        squeezed, node = node, graph.producer(node.input[0])
    if node is None or node.op_type != 'ReduceSum':
        return None
    terms = graph.terms.get(node.output[0])
    if terms != divisor:
        return None
    axes = graph.array(node.input[1])
    assert axes is not None
    if graph.ranks.get(node.output[0]) == 4 and axes.tolist() == [2, 3]:
        name = graph.one('GlobalAveragePool', node.input[0])
    else:
        name = graph.one('ReduceMean', *node.input, keepdims=1)
    if squeezed is not None:
        name = graph.one('Squeeze', name, squeezed.input[1])
    return dataclasses.replace(x, name=name)


def summed(layouts: Layouts, operation: Operation, given: Sequence[Given]) -> list[Tensor]:
    """A sum, which may turn out to be a mean."""
    result = reduce(layouts, operation, given)
    extents = [given[0].shape[axis] for axis in operation.params['axes']]
    if extents and all(map(is_known, extents)):
        node = layouts.graph.producer(result[0].name)
        while node is not None and node.op_type != 'ReduceSum':
            node = layouts.graph.producer(node.input[0])
        assert node is not None
        layouts.graph.terms[node.output[0]] = math.prod(map(int, extents))
        layouts.graph.ranks[node.output[0]] = len(given[0].shape)
    return result


def window(layouts: Layouts, operation: Operation, given: Sequence[Given]) -> list[Tensor]:
    """Maxima or sums over windows.

    Raises:
        NotImplementedError: windows over more than two axes, or with dilations.
    """
    params, output = operation.params, operation.outputs[0]
    sides = params['window_dimensions']
    spatial = [axis for axis, side in enumerate(sides) if side > 1 or params['window_strides'][axis] > 1]
    if any(each != 1 for each in (*params['base_dilation'], *params['window_dilation'])) or len(spatial) > 2:
        raise NotImplementedError('windows over more than two axes, or with dilations')
    others = [axis for axis in range(len(sides)) if axis not in spatial]
    while len(spatial) < len(sides) - 2:
        spatial.insert(0, others.pop(1))
    order = (*others, *spatial)
    x = layouts.repeated(layouts.ordered(given[0], order))
    pads = [params['padding'][axis] for axis in spatial]
    attributes = {
        'kernel_shape': [sides[axis] for axis in spatial],
        'strides': [params['window_strides'][axis] for axis in spatial],
        'pads': [before for before, _ in pads] + [after for _, after in pads],
    }
    if operation.name == 'reduce_window_max':
        name = layouts.graph.one('MaxPool', x.name, **attributes)
    else:
        name = layouts.graph.one('AveragePool', x.name, count_include_pad=1, **attributes)
        count = np.asarray(math.prod(attributes['kernel_shape']), x.dtype)
        name = layouts.graph.one('Mul', name, layouts.graph.constant(count))
    return [Tensor(name, output.shape, output.shape, order, output.dtype)]


def softmax(layouts: Layouts, operation: Operation, given: Sequence[Given]) -> list[Tensor]:
    """Softmax over the last axis as traced."""
    last = len(given[0].shape) - 1
    x = layouts.repeated(layouts.tensor(given[0]), [last])
    return [dataclasses.replace(x, name=layouts.graph.one('Softmax', x.name, axis=x.stored(last)))]


def layer_norm(layouts: Layouts, operation: Operation, given: Sequence[Given]) -> list[Tensor]:
    """Layer normalisation over the last axis as traced."""
    x = layouts.ordered(given[0])
    x = layouts.repeated(x, [len(x.shape) - 1])
    epsilon = given[3]
    assert isinstance(epsilon, Constant)
    names = [layouts.tensor(each).name for each in given[1:3]]
    name = layouts.graph.one('LayerNormalization', x.name, *names, axis=-1, epsilon=float(epsilon.array))
    return [dataclasses.replace(x, name=name)]


def extreme(layouts: Layouts, operation: Operation, given: Sequence[Given]) -> list[Tensor]:
    """Place of the largest or smallest value along an axis; the first of equal ones."""
    (axis,) = operation.params['axes']
    x = layouts.repeated(layouts.tensor(given[0]), [axis])
    kind = 'ArgMax' if operation.name == 'argmax' else 'ArgMin'
    name = layouts.graph.one(kind, x.name, axis=x.stored(axis), keepdims=1)
    dtype = operation.outputs[0].dtype
    name = layouts.graph.one('Cast', name, to=elements(dtype))
    return [dropped(layouts, dataclasses.replace(_of_one(x, name, [axis]), dtype=dtype), [axis])]


def cumulative_sum(layouts: Layouts, operation: Operation, given: Sequence[Given]) -> list[Tensor]:
    """Sums of all values up to each."""
    axis = operation.params['axis']
    x = layouts.repeated(layouts.tensor(given[0]), [axis])
    place = layouts.graph.constant(np.array(x.stored(axis), np.int64))
    name = layouts.graph.one('CumSum', x.name, place, reverse=int(operation.params['reverse']))
    return [dataclasses.replace(x, name=name)]


OPERATORS = {
    'reduce_sum': summed,
    **dict.fromkeys(('reduce_max', 'reduce_min', 'reduce_prod', 'reduce_and', 'reduce_or'), reduce),
    **dict.fromkeys(('reduce_window_max', 'reduce_window_sum'), window),
    **dict.fromkeys(('argmax', 'argmin'), extreme),
    'softmax': softmax,
    'layer_norm': layer_norm,
    'cumsum': cumulative_sum,
}
