"""Convolutions and products of matrices, each in the order of axes in which it moves least."""

import dataclasses
import string
from collections.abc import Sequence

import numpy as np

from experiments.export.graph import Layouts, Tensor, stored_in_order
from experiments.export.program import Constant, Operation

Given = Tensor | Constant


def convolution(layouts: Layouts, operation: Operation, given: Sequence[Given]) -> list[Tensor]:
    """A convolution, whose values ONNX stores channels first.

    Raises:
        NotImplementedError: a transposed convolution, groups of the batch, or a negative padding.
    """
    params, output = operation.params, operation.outputs[0]
    pads = params['padding']
    if params['batch_group_count'] != 1 or any(step != 1 for step in params['lhs_dilation']) or np.min(pads) < 0:
        raise NotImplementedError('a transposed convolution, groups of the batch, or a negative padding')
    numbers = params['dimension_numbers']
    x = layouts.repeated(layouts.ordered(given[0], numbers.lhs_spec))
    kernel = layouts.ordered(given[1], numbers.rhs_spec)
    name = layouts.graph.add(
        'Conv',
        [x.name, kernel.name],
        group=params['feature_group_count'],
        strides=list(params['window_strides']),
        dilations=list(params['rhs_dilation']),
        pads=[before for before, _ in pads] + [after for _, after in pads],
        kernel_shape=[int(given[1].shape[axis]) for axis in numbers.rhs_spec[2:]],
    )[0]
    return [Tensor(name, output.shape, output.shape, tuple(numbers.out_spec), output.dtype)]


def product(layouts: Layouts, operation: Operation, given: Sequence[Given]) -> list[Tensor]:
    """A product of two values over some axes."""
    (left, right), (left_batch, right_batch) = operation.params['dimension_numbers']
    one, two = given
    if len(left) == 1 and not left_batch:
        if isinstance(two, Constant) and len(two.shape) == 2 and len(one.shape) > 1:
            return [_by_matrix(layouts, operation, layouts.tensor(one), left[0], _matrix(two, right[0]), last=True)]
        if isinstance(one, Constant) and len(one.shape) == 2 and len(two.shape) > 1:
            return [_by_matrix(layouts, operation, layouts.tensor(two), right[0], _matrix(one, left[0]), last=False)]
    free = [
        [axis for axis in range(len(each.shape)) if axis not in (*batch, *contracted)]
        for each, batch, contracted in ((one, left_batch, left), (two, right_batch, right))
    ]
    output = operation.outputs[0]
    if len(left) == len(free[0]) == len(free[1]) == 1:
        first = layouts.ordered(one, (*left_batch, *free[0], *left))
        second = layouts.ordered(two, (*right_batch, *right, *free[1]))
        names = [layouts.repeated(each).name for each in (first, second)]
        name = layouts.graph.one('MatMul', *names)
    else:
        name = _einsum(layouts, given, (left, right), (left_batch, right_batch), free)
    return [stored_in_order(name, output.shape, output.dtype)]


def _matrix(value: Constant, contracted: int) -> np.ndarray:
    """A constant with the axis that is summed over first."""
    matrix = value.whole()
    return matrix if contracted == 0 else matrix.T


def _by_matrix(
    layouts: Layouts, operation: Operation, x: Tensor, contracted: int, matrix: np.ndarray, last: bool
) -> Tensor:
    """A product with a constant matrix over one axis; the new axis is stored where the old one was.

    Args:
        contracted: the traced axis of ``x`` that is summed over.
        matrix: ``[old, new]``.
        last: whether the new axis is the last of the result as traced, or the first.
    """
    graph, output = layouts.graph, operation.outputs[0]
    x = layouts.repeated(x, [contracted])
    rank, place = len(x.shape), x.stored(contracted)
    if rank == 4 and place == 1:
        # A convolution by single pixels leaves the channels first.
        name = graph.add('Conv', [x.name, graph.constant(matrix.T[:, :, None, None])], kernel_shape=[1, 1])[0]
    elif place == rank - 2:
        name = graph.one('MatMul', graph.constant(matrix.T), x.name)
    else:
        if place != rank - 1:
            x = layouts.ordered(x, [axis for axis in x.order if axis != contracted] + [contracted])
        name = graph.one('MatMul', x.name, graph.constant(matrix))
    others = [axis for axis in range(rank) if axis != contracted]
    new = rank - 1 if last else 0
    places = {axis: index + (not last) for index, axis in enumerate(others)} | {contracted: new}
    extents = [output.shape[new]] * rank
    for axis in others:
        extents[places[axis]] = x.extents[axis]
    order = tuple(places[axis] for axis in x.order)
    return Tensor(name, output.shape, tuple(extents), order, output.dtype)


def _einsum(
    layouts: Layouts, given: Sequence[Given], contracted: Sequence, batch: Sequence, free: Sequence[list[int]]
) -> str:
    letters = iter(string.ascii_lowercase)
    named: list[dict[int, str]] = [{}, {}]
    for pairs in (zip(*batch, strict=True), zip(*contracted, strict=True)):
        for one, two in pairs:
            named[0][one] = named[1][two] = next(letters)
    for side in (0, 1):
        named[side].update({axis: next(letters) for axis in free[side]})
    tensors = [layouts.repeated(layouts.tensor(each)) for each in given]
    terms = [''.join(names[axis] for axis in each.order) for each, names in zip(tensors, named, strict=True)]
    result = [named[0][axis] for axis in batch[0]] + [named[side][axis] for side in (0, 1) for axis in free[side]]
    return layouts.graph.one(
        'Einsum', *(each.name for each in tensors), equation=f'{terms[0]},{terms[1]}->{"".join(result)}'
    )


def folded(layouts: Layouts, operation: Operation, x: Tensor, constant: Constant, first: bool) -> Tensor | None:
    """An operation on the result of a convolution, made part of the convolution's kernel and bias.

    Args:
        x: the result, which nothing else uses.
        constant: one number per channel, or one for all.
        first: whether the constant is the first operand.

    Returns:
        ``None`` if it cannot be done.
    """
    node = layouts.graph.producer(x.name)
    if node is None or node.op_type != 'Conv':
        return None
    kernel = layouts.graph.array(node.input[1])
    if kernel is None or x.shape != operation.outputs[0].shape or x.dtype != operation.outputs[0].dtype:
        return None
    if (first and operation.name in ('sub', 'div')) or operation.name not in ('add', 'sub', 'mul', 'div'):
        return None
    values = constant.array
    if values.size > 1 and values.size != values.shape[x.order[1]]:
        return None
    channels = len(kernel)
    values = np.broadcast_to(values.reshape(-1), channels)
    bias = np.zeros(channels, kernel.dtype) if len(node.input) < 3 else layouts.graph.array(node.input[2])
    assert bias is not None
    if operation.name in ('add', 'sub'):
        bias = bias + values if operation.name == 'add' else bias - values
    else:
        factor = values if operation.name == 'mul' else 1 / values
        kernel, bias = kernel * factor[:, None, None, None], bias * factor
    inputs = [node.input[0], layouts.graph.constant(kernel), layouts.graph.constant(bias)]
    del node.input[:]
    node.input.extend(inputs)
    return dataclasses.replace(x)


OPERATORS = {'conv_general_dilated': convolution, 'dot_general': product}
