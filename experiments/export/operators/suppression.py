"""Non-maximum suppression as ``backbones.boxes.nms.suppress`` does it, with ONNX's own operation inside."""

from collections.abc import Sequence

import numpy as np

from backbones.boxes.nms import MOVED
from experiments.export.graph import Layouts, Tensor, elements, stored_in_order
from experiments.export.program import Constant, Dimension, Operation, Shape

Given = Tensor | Constant

# Below every score there is.
_NONE = np.float32(-np.inf)
_LEAST = np.float32(np.finfo(np.float32).min)


def suppress(layouts: Layouts, operation: Operation, given: Sequence[Given]) -> list[Tensor]:
    """The best boxes of each image, padded.

    Raises:
        NotImplementedError: one image without the axis of a batch, or a threshold that is computed.
    """
    output, threshold = operation.outputs[0], given[4]
    if len(output.shape) != 3 or not isinstance(threshold, Constant):
        raise NotImplementedError('one image without the axis of a batch, or a threshold that is computed')
    graph, most = layouts.graph, int(output.shape[1])
    batch = next(each.shape[0] for each in given if isinstance(each, Tensor) and len(each.shape) > 1)
    boxes, scores, classes, valid = (
        _batched(layouts, each, batch, rank) for each, rank in zip(given[:4], (3, 2, 2, 2), strict=True)
    )
    count = int(given[1].shape[-1])

    zero, none = graph.constant(np.float32(0)), graph.constant(_NONE)
    there = graph.one('Where', valid, scores, none)
    compared = _moved(layouts, boxes, classes, valid)
    of_class = _of_classes(layouts, there, classes)
    options = [np.array([most], np.int64), threshold.array.astype(np.float32).reshape(1), _LEAST.reshape(1)]
    kept = graph.add('NonMaxSuppression', [compared, of_class, *map(graph.constant, options)])[0]
    # From triples of image, class and box to a mark at each box that is kept.
    pairs = graph.one('Gather', kept, graph.integers(0, 2), axis=1)
    blank = graph.one('Mul', graph.one('Cast', valid, to=elements(np.dtype(np.float32))), zero)
    number = graph.one('Shape', kept, start=0, end=1)
    marks = graph.one('ScatterND', blank, pairs, graph.one('Expand', graph.constant(np.float32(1)), number))
    marked = graph.one('Where', graph.one('Greater', marks, zero), there, none)
    taken = min(most, count)
    best, places = graph.add('TopK', [marked, graph.integers(taken)], 2, axis=1, largest=1, sorted=1)
    found = graph.one('Greater', best, graph.constant(_LEAST))

    last, nothing = graph.integers(-1), graph.constant(np.asarray(-1, given[2].dtype))
    at = graph.one('Unsqueeze', places, last)
    results = (
        graph.one('Where', graph.one('Unsqueeze', found, last), graph.one('GatherND', boxes, at, batch_dims=1), zero),
        graph.one('Where', found, best, zero),
        graph.one('Where', found, graph.one('GatherND', classes, at, batch_dims=1), nothing),
        found,
    )
    return [
        _padded(layouts, name, variable.shape, variable.dtype, most - taken, -1 if index == 2 else 0)
        for index, (name, variable) in enumerate(zip(results, operation.outputs, strict=True))
    ]


def _batched(layouts: Layouts, value: Given, batch: Dimension, rank: int) -> str:
    """The name of a value with the axis of the batch in front."""
    x = layouts.repeated(layouts.ordered(value))
    if len(x.shape) == rank:
        return x.name
    return layouts.graph.one('Expand', x.name, layouts.shape((batch, *x.shape)))


def _moved(layouts: Layouts, boxes: str, classes: str, valid: str) -> str:
    """Boxes as they are compared: up to 1,000 of them, each class at a place of its own."""
    graph = layouts.graph
    last, float32 = graph.integers(-1), elements(np.dtype(np.float32))
    inside = graph.one('Where', graph.one('Unsqueeze', valid, last), boxes, graph.constant(np.float32(0)))
    largest = graph.one('ReduceMax', inside, graph.integers(1, 2), keepdims=1)
    step = graph.one('Add', largest, graph.constant(np.float32(1)))
    shift = graph.one('Mul', graph.one('Unsqueeze', graph.one('Cast', classes, to=float32), last), step)
    number = graph.one('ReduceSum', graph.one('Cast', valid, to=float32), graph.integers(1), keepdims=1)
    many = graph.one('Unsqueeze', graph.one('Greater', number, graph.constant(np.float32(MOVED))), last)
    return graph.one('Where', many, boxes, graph.one('Add', boxes, shift))


def _of_classes(layouts: Layouts, scores: str, classes: str) -> str:
    """Scores ``[batch, class, box]``: of boxes of the class alone."""
    graph = layouts.graph
    long = elements(np.dtype(np.int64))
    whole = graph.one('Cast', classes, to=long)
    highest = graph.one('ReduceMax', whole, keepdims=0)
    end = graph.one('Add', highest, graph.constant(np.int64(1)))
    numbers = graph.one('Range', graph.constant(np.int64(0)), end, graph.constant(np.int64(1)))
    same = graph.one('Equal', graph.one('Unsqueeze', whole, graph.integers(1)), _column(layouts, numbers))
    return graph.one('Where', same, graph.one('Unsqueeze', scores, graph.integers(1)), graph.constant(_NONE))


def _column(layouts: Layouts, numbers: str) -> str:
    return layouts.graph.one('Unsqueeze', numbers, layouts.graph.integers(0, 2))


def _padded(layouts: Layouts, name: str, shape: Shape, dtype: np.dtype, missing: int, value: int) -> Tensor:
    graph = layouts.graph
    if missing:
        ends = [0] * (2 * len(shape))
        ends[len(shape) + 1] = missing
        if dtype.kind == 'b':
            number = graph.one('Cast', name, to=elements(np.dtype(np.int32)))
            padded = graph.one('Pad', number, graph.integers(*ends), graph.constant(np.int32(0)))
            name = graph.one('Cast', padded, to=elements(np.dtype(bool)))
        else:
            name = graph.one('Pad', name, graph.integers(*ends), graph.constant(np.asarray(value, dtype)))
    return stored_in_order(name, shape, dtype)


OPERATORS = {'suppress': suppress}
