"""Operations that move, repeat, cut and join values without computing anything."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from experiments.export.graph import Layouts, Tensor, same, stored_in_order
from experiments.export.program import Constant, Dimension, Operation, Shape, is_known

Given = Tensor | Constant


def transpose(layouts: Layouts, operation: Operation, given: Sequence[Given]) -> list[Tensor]:
    """Nothing is moved: the stored axes stand for others."""
    x = layouts.tensor(given[0])
    permutation = tuple(operation.params['permutation'])
    order = tuple(permutation.index(axis) for axis in x.order)
    extents = tuple(x.extents[axis] for axis in permutation)
    return [dataclasses.replace(x, shape=operation.outputs[0].shape, extents=extents, order=order)]


def reshape(layouts: Layouts, operation: Operation, given: Sequence[Given]) -> list[Tensor]:
    """Another shape of the same elements in the same order."""
    target = operation.outputs[0].shape
    x = layouts.tensor(given[0])
    if _without_ones(x.shape) == _without_ones(target):
        return [_other_ones(layouts, x, target)]
    x = layouts.repeated(layouts.ordered(x))
    return [stored_in_order(reshaped(layouts, x.name, target), target, x.dtype)]


def reshaped(layouts: Layouts, name: str, target: Shape) -> str:
    """A value that is stored in order, with another shape."""
    extents = [int(extent) if is_known(extent) else -1 for extent in target]
    if extents.count(-1) > 1:
        return layouts.graph.one('Reshape', name, layouts.shape(target))
    return layouts.graph.one('Reshape', name, layouts.graph.integers(*extents))


def squeeze(layouts: Layouts, operation: Operation, given: Sequence[Given]) -> list[Tensor]:
    """Without some axes of extent 1."""
    x = layouts.tensor(given[0])
    return [dropped(layouts, x, [axis % len(x.shape) for axis in operation.params['dimensions']])]


def dropped(layouts: Layouts, x: Tensor, axes: Sequence[int]) -> Tensor:
    """Without some traced axes of extent 1."""
    if not axes:
        return x
    kept = [axis for axis in range(len(x.shape)) if axis not in axes]
    name = layouts.graph.one('Squeeze', x.name, layouts.graph.integers(*sorted(x.stored(axis) for axis in axes)))
    order = tuple(kept.index(axis) for axis in x.order if axis in kept)
    return dataclasses.replace(
        x, name=name, shape=_chosen(x.shape, kept), extents=_chosen(x.extents, kept), order=order
    )


def added(layouts: Layouts, x: Tensor, places: Sequence[int], rank: int) -> Tensor:
    """With axes of extent 1; ``places`` are those of the present axes among the ``rank`` of the result."""
    new = [axis for axis in range(rank) if axis not in places]
    if not new:
        return x
    shape, extents = ([1] * rank for _ in range(2))
    for axis, place in enumerate(places):
        shape[place], extents[place] = x.shape[axis], x.extents[axis]
    order = [places[axis] for axis in x.order]
    name, stored = _undone(layouts, x, len(new))
    if stored is not None:
        # The axes that a reduction has left are where they were.
        whole = _between(order, stored, new, rank)
        return dataclasses.replace(x, name=name, shape=tuple(shape), extents=tuple(extents), order=whole)
    for axis in new:
        order.insert(_beside(order, axis), axis)
    axes = sorted(order.index(axis) for axis in new)
    name = layouts.graph.one('Unsqueeze', x.name, layouts.graph.integers(*axes))
    return dataclasses.replace(x, name=name, shape=tuple(shape), extents=tuple(extents), order=tuple(order))


def _undone(layouts: Layouts, x: Tensor, count: int) -> tuple[str, list[int] | None]:
    """The value before axes were squeezed out, and which; ``None`` if that is not what made it."""
    node = layouts.graph.producer(x.name)
    if node is None or node.op_type != 'Squeeze':
        return x.name, None
    axes = layouts.graph.array(node.input[1])
    if axes is None or len(axes) != count:
        return x.name, None
    return node.input[0], axes.tolist()


def _between(order: Sequence[int], stored: Sequence[int], new: Sequence[int], rank: int) -> tuple[int, ...]:
    """An order with new axes at stored places."""
    rest, fresh = iter(order), iter(new)
    return tuple(next(fresh) if place in stored else next(rest) for place in range(rank))


def _beside(order: Sequence[int], axis: int) -> int:
    """Where a new axis is stored: after the axis before it, so that an order stays as it is."""
    return order.index(axis - 1) + 1 if axis - 1 in order else 0


def broadcast(layouts: Layouts, operation: Operation, given: Sequence[Given]) -> list[Tensor]:
    """New axes; what is repeated is repeated where it is needed."""
    x = layouts.tensor(given[0])
    target = operation.outputs[0].shape
    places = list(operation.params['broadcast_dimensions'])
    return [dataclasses.replace(added(layouts, x, places, len(target)), shape=target)]


def _other_ones(layouts: Layouts, x: Tensor, target: Shape) -> Tensor:
    """A shape that differs by axes of extent 1."""
    ones = [axis for axis, extent in enumerate(x.shape) if _is_one(extent)]
    x = dropped(layouts, x, ones)
    places = [axis for axis, extent in enumerate(target) if not _is_one(extent)]
    return added(layouts, x, places, len(target))


def _is_one(extent: Dimension) -> bool:
    return is_known(extent) and extent == 1


def _without_ones(shape: Shape) -> list:
    return [extent for extent in shape if not _is_one(extent)]


def _chosen(values: Sequence, kept: Sequence[int]) -> tuple:
    return tuple(values[axis] for axis in kept)


def cut(layouts: Layouts, operation: Operation, given: Sequence[Given]) -> list[Tensor]:
    """A part of each axis."""
    params = operation.params
    x = layouts.tensor(given[0])
    steps = params['strides'] or (1,) * len(x.shape)
    return [sliced(layouts, x, params['start_indices'], params['limit_indices'], steps)]


def sliced(layouts: Layouts, x: Tensor, starts: Sequence, stops: Sequence, steps: Sequence[int]) -> Tensor:
    """From ``start`` to before ``stop`` along each traced axis."""
    extents, shape, cuts = list(x.extents), list(x.shape), []
    for axis, (start, stop, step) in enumerate(zip(starts, stops, steps, strict=True)):
        if is_known(start) and start == 0 and step == 1 and same(stop, x.shape[axis]):
            continue
        new = -(-(int(stop) - int(start)) // step)
        shape[axis] = new
        if not _is_one(x.extents[axis]) or _is_one(x.shape[axis]):
            extents[axis] = new
            cuts.append((x.stored(axis), int(start), int(stop), step))
    name = x.name
    if cuts:
        columns = [layouts.graph.integers(*column) for column in zip(*cuts, strict=True)]
        name = layouts.graph.one('Slice', name, columns[1], columns[2], columns[0], columns[3])
    return dataclasses.replace(x, name=name, shape=tuple(shape), extents=tuple(extents))


def split(layouts: Layouts, operation: Operation, given: Sequence[Given]) -> list[Tensor]:
    """Parts along one axis."""
    axis, sizes = operation.params['axis'], operation.params['sizes']
    x = layouts.repeated(layouts.tensor(given[0]), [axis])
    names = layouts.graph.add('Split', [x.name, layouts.graph.integers(*sizes)], len(sizes), axis=x.stored(axis))
    parts = []
    for name, size in zip(names, sizes, strict=True):
        shape, extents = list(x.shape), list(x.extents)
        shape[axis] = extents[axis] = size
        parts.append(dataclasses.replace(x, name=name, shape=tuple(shape), extents=tuple(extents)))
    return parts


def concatenate(layouts: Layouts, operation: Operation, given: Sequence[Given]) -> list[Tensor]:
    """Values side by side along one axis."""
    from experiments.export.operators.elementwise import preferred

    axis, output = operation.params['dimension'], operation.outputs[0]
    tensors = [each for each in given if isinstance(each, Tensor)]
    order = preferred(tensors)
    parts = [layouts.repeated(layouts.ordered(each, order)).name for each in given]
    name = layouts.graph.one('Concat', *parts, axis=order.index(axis))
    return [Tensor(name, output.shape, output.shape, order, output.dtype)]


def stack(layouts: Layouts, operation: Operation, given: Sequence[Given]) -> list[Tensor]:
    """Values one after the other along a new axis."""
    axis, output = operation.params['axis'], operation.outputs[0]
    rank = len(output.shape)
    places = [place for place in range(rank) if place != axis]
    parts = [layouts.repeated(layouts.ordered(added(layouts, layouts.tensor(each), places, rank))) for each in given]
    name = layouts.graph.one('Concat', *(each.name for each in parts), axis=axis)
    return [stored_in_order(name, output.shape, output.dtype)]


def pad(layouts: Layouts, operation: Operation, given: Sequence[Given]) -> list[Tensor]:
    """Values around; negative ones cut off.

    Raises:
        NotImplementedError: values between, or a padding that is computed.
    """
    config, output = operation.params['padding_config'], operation.outputs[0]
    if any(between for _, _, between in config) or not isinstance(given[1], Constant):
        raise NotImplementedError('padding between the values, or by a computed one')
    x = layouts.tensor(given[0])
    padded = [axis for axis, (low, high, _) in enumerate(config) if low or high]
    x = layouts.repeated(x, padded)
    pads = [[config[axis][side] for axis in x.order] for side in (0, 1)]
    value = layouts.graph.constant(np.asarray(given[1].scalar(), x.dtype))
    name = layouts.graph.one('Pad', x.name, layouts.graph.integers(*pads[0], *pads[1]), value)
    extents = tuple(output.shape[axis] if axis in padded else extent for axis, extent in enumerate(x.extents))
    return [dataclasses.replace(x, name=name, shape=output.shape, extents=extents)]


def reverse(layouts: Layouts, operation: Operation, given: Sequence[Given]) -> list[Tensor]:
    """The last element first."""
    x = layouts.tensor(given[0])
    name = x.name
    for axis in operation.params['dimensions']:
        indices = np.arange(int(x.shape[axis]))[::-1].astype(np.int64)
        if not _is_one(x.extents[axis]):
            name = layouts.graph.one('Gather', name, layouts.graph.constant(indices), axis=x.stored(axis))
    return [dataclasses.replace(x, name=name)]


OPERATORS = {
    'transpose': transpose,
    'reshape': reshape,
    'squeeze': squeeze,
    'broadcast_in_dim': broadcast,
    'slice': cut,
    'split': split,
    'concatenate': concatenate,
    'stack': stack,
    'pad': pad,
    'rev': reverse,
}
