"""Parts of values chosen by indices, and orders of values."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jax import lax

from experiments.export.graph import Layouts, Tensor, elements, same, stored_in_order
from experiments.export.operators.arrangement import dropped, sliced
from experiments.export.program import Constant, Operation

Given = Tensor | Constant


def gather(layouts: Layouts, operation: Operation, given: Sequence[Given]) -> list[Tensor]:
    """Slices that begin at indices: a slice, a choice along one axis, or a choice along one axis for each of a batch.

    Raises:
        NotImplementedError: any other choice, or indices that may lie outside.
    """
    numbers, sizes = operation.params['dimension_numbers'], operation.params['slice_sizes']
    x, indices = layouts.tensor(given[0]), given[1]
    chosen = numbers.start_index_map
    mode = lax.GatherScatterMode.from_any(operation.params['mode'])
    if not isinstance(indices, Constant) and mode == lax.GatherScatterMode.FILL_OR_DROP:
        raise NotImplementedError('indices that may lie outside')
    whole = {axis for axis, size in enumerate(sizes) if same(size, x.shape[axis])}
    if isinstance(indices, Constant) and indices.array.ndim == 1:
        starts, stops = [0] * len(x.shape), list(x.shape)
        for axis, start in zip(chosen, indices.array.tolist(), strict=True):
            limit = start if axis in whole else int(x.shape[axis]) - int(sizes[axis])
            starts[axis] = 0 if axis in whole else min(max(start, 0), limit)
        for axis, size in enumerate(sizes):
            if axis not in whole:
                stops[axis] = starts[axis] + int(size)
        return [dropped(layouts, sliced(layouts, x, starts, stops, [1] * len(starts)), numbers.collapsed_slice_dims)]
    if isinstance(indices, Constant):
        x, indices, chosen = _cut_first(layouts, x, indices, operation)
        whole |= set(numbers.start_index_map) - {*chosen}
    free = len(sizes) - len(chosen) - len(numbers.operand_batching_dims)
    if set(numbers.collapsed_slice_dims) != set(chosen) or len(whole - {*chosen}) < free:
        raise NotImplementedError('slices of a part of an axis')
    if isinstance(indices, Constant) and indices.array.ndim == len(chosen) + 1 and not numbers.operand_batching_dims:
        grid = _grid(indices.array)
        if grid is not None:
            return [_of_grid(layouts, operation, x, chosen, grid)]
    if len(chosen) != 1:
        raise NotImplementedError('a choice along several axes at once')
    axis = chosen[0]
    if not numbers.operand_batching_dims:
        return [_along(layouts, operation, x, axis, indices)]
    leading = tuple(range(axis))
    if tuple(numbers.operand_batching_dims) == leading == tuple(numbers.start_indices_batching_dims):
        data = layouts.repeated(layouts.ordered(x))
        places = layouts.repeated(layouts.ordered(indices))
        name = layouts.graph.one('GatherND', data.name, _long(layouts, places), batch_dims=axis)
        return [stored_in_order(name, operation.outputs[0].shape, data.dtype)]
    raise NotImplementedError('a choice along another axis than the first after those of the batch')


def _cut_first(
    layouts: Layouts, x: Tensor, indices: Constant, operation: Operation
) -> tuple[Tensor, Constant, tuple[int, ...]]:
    """The axes along which every slice begins at the same index cut; what is left to choose."""
    numbers, sizes = operation.params['dimension_numbers'], operation.params['slice_sizes']
    starts, stops, left = [0] * len(x.shape), list(x.shape), []
    for number, axis in enumerate(numbers.start_index_map):
        column = indices.array[..., number]
        if axis in numbers.collapsed_slice_dims or (column != column.flat[0]).any():
            left.append(number)
        elif not same(sizes[axis], x.shape[axis]):
            starts[axis] = min(max(int(column.flat[0]), 0), int(x.shape[axis]) - int(sizes[axis]))
            stops[axis] = starts[axis] + int(sizes[axis])
    rest = indices.array[..., left]
    chosen = tuple(numbers.start_index_map[number] for number in left)
    return sliced(layouts, x, starts, stops, [1] * len(starts)), Constant(rest, rest.shape), chosen


def _grid(indices: np.ndarray) -> list[np.ndarray] | None:
    """For each axis the indices along it, if all combinations of them are meant, in order; ``None`` otherwise."""
    axes = [indices[..., number] for number in range(indices.shape[-1])]
    rows = [np.moveaxis(each, number, 0).reshape(each.shape[number], -1) for number, each in enumerate(axes)]
    return [each[:, 0] for each in rows] if all((each == each[:, :1]).all() for each in rows) else None


def _of_grid(
    layouts: Layouts, operation: Operation, x: Tensor, chosen: Sequence[int], grid: Sequence[np.ndarray]
) -> Tensor:
    for axis, indices in zip(chosen, grid, strict=True):
        x = layouts.repeated(x, [axis])
        indices = np.clip(indices, 0, int(x.shape[axis]) - 1).astype(np.int64)
        steps = np.diff(indices)
        if len(indices) > 1 and steps[0] > 0 and (steps == steps[0]).all():
            starts, stops, by = [0] * len(x.shape), list(x.shape), [1] * len(x.shape)
            starts[axis], stops[axis], by[axis] = int(indices[0]), int(indices[-1]) + 1, int(steps[0])
            x = sliced(layouts, x, starts, stops, by)
        else:
            name = layouts.graph.one('Gather', x.name, layouts.graph.constant(indices), axis=x.stored(axis))
            extents = tuple(len(indices) if place == axis else extent for place, extent in enumerate(x.extents))
            shape = tuple(len(indices) if place == axis else extent for place, extent in enumerate(x.shape))
            x = dataclasses.replace(x, name=name, shape=shape, extents=extents)
    # As traced, the chosen axes may stand elsewhere.
    output = operation.outputs[0]
    offsets = operation.params['dimension_numbers'].offset_dims
    batch = iter(place for place in range(len(output.shape)) if place not in offsets)
    kept = iter(offsets)
    new = {axis: next(kept) for axis in range(len(x.shape)) if axis not in chosen}
    new |= {axis: next(batch) for axis in chosen}
    extents = [x.extents[axis] for axis in sorted(new, key=lambda axis: new[axis])]
    order = tuple(new[axis] for axis in x.order)
    return dataclasses.replace(x, shape=output.shape, extents=tuple(extents), order=order)


def _along(layouts: Layouts, operation: Operation, x: Tensor, axis: int, indices: Given) -> Tensor:
    x = layouts.repeated(layouts.ordered(x))
    output = operation.outputs[0]
    limit = int(x.shape[axis]) - 1
    if isinstance(indices, Constant):
        indices = dataclasses.replace(indices, array=np.clip(indices.array, 0, limit).astype(np.int64))
    places = layouts.repeated(layouts.ordered(indices))
    places = dropped(layouts, places, [len(places.shape) - 1])
    name = layouts.graph.one('Gather', x.name, _long(layouts, places), axis=axis)
    offsets = operation.params['dimension_numbers'].offset_dims
    batch = [place for place in range(len(output.shape)) if place not in offsets]
    order = (*offsets[:axis], *batch, *offsets[axis:])
    return Tensor(name, output.shape, output.shape, order, output.dtype)


def _long(layouts: Layouts, indices: Tensor) -> str:
    return layouts.graph.one('Cast', indices.name, to=elements(np.dtype(np.int64)))


def dynamic_slice(layouts: Layouts, operation: Operation, given: Sequence[Given]) -> list[Tensor]:
    """A slice that begins where constants say.

    Raises:
        NotImplementedError: it begins where it is computed.
    """
    x, sizes = layouts.tensor(given[0]), operation.params['slice_sizes']
    if not all(isinstance(each, Constant) for each in given[1:]):
        raise NotImplementedError('a slice that begins where it is computed')
    starts, stops = [], []
    for axis, (start, size) in enumerate(zip(given[1:], sizes, strict=True)):
        assert isinstance(start, Constant)
        whole = same(size, x.shape[axis])
        first = 0 if whole else min(max(int(start.array), 0), int(x.shape[axis]) - int(size))
        starts.append(first)
        stops.append(x.shape[axis] if whole else first + int(size))
    return [sliced(layouts, x, starts, stops, [1] * len(starts))]


def top_k(layouts: Layouts, operation: Operation, given: Sequence[Given]) -> list[Tensor]:
    """The largest values along the last axis, and their places."""
    x = layouts.repeated(layouts.ordered(given[0]))
    count = layouts.graph.integers(operation.params['k'])
    values, places = layouts.graph.add('TopK', [x.name, count], 2, axis=len(x.shape) - 1, largest=1, sorted=1)
    shape, dtype = operation.outputs[0].shape, operation.outputs[1].dtype
    index = layouts.graph.one('Cast', places, to=elements(dtype))
    return [stored_in_order(values, shape, x.dtype), stored_in_order(index, shape, dtype)]


def sort(layouts: Layouts, operation: Operation, given: Sequence[Given]) -> list[Tensor]:
    """The values of one array in ascending order along an axis.

    Raises:
        NotImplementedError: several arrays.
    """
    if len(given) != 1:
        raise NotImplementedError('several arrays')
    axis = operation.params['dimension'] % len(given[0].shape)
    x = layouts.repeated(layouts.tensor(given[0]))
    count = layouts.graph.integers(int(x.shape[axis]))
    name = layouts.graph.add('TopK', [x.name, count], 2, axis=x.stored(axis), largest=0, sorted=1)[0]
    return [dataclasses.replace(x, name=name)]


OPERATORS = {'gather': gather, 'dynamic_slice': dynamic_slice, 'top_k': top_k, 'sort': sort}
