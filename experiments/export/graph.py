"""Build an ONNX graph: nodes, constants without duplicates, and values whose stored axes need not be in order."""

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from experiments.export.program import Constant, Dimension, Shape, is_known

# Gelu is an operation since 20.
OPSET = 20


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
    """A value of the traced program in the graph.

    Attributes:
        name: of the stored value.
        shape: as traced.
        extents: like ``shape``, but 1 along axes where the stored value is still to be repeated.
        order: for each stored axis, which traced axis it is. A convolution's result is stored channels first although
            the program has them last, and nothing is moved until an operation needs it.
        dtype: type of the elements.
    """

    name: str
    shape: Shape
    extents: Shape
    order: tuple[int, ...]
    dtype: np.dtype

    def stored(self, axis: int) -> int:
        """The stored axis of a traced one."""
        return self.order.index(axis)

    @property
    def in_order(self) -> bool:
        """Whether the axes are stored as traced."""
        return self.order == tuple(range(len(self.order)))


def stored_in_order(name: str, shape: Shape, dtype: np.dtype) -> Tensor:
    """A value whose axes are stored as traced."""
    return Tensor(name, shape, shape, tuple(range(len(shape))), dtype)


class Graph:
    """An ONNX graph under construction.

    Attributes:
        nodes: in an order in which they can be computed.
        place: the module whose operations are being added; names of nodes begin with it.
    """

    def __init__(self):
        self.nodes: list[onnx.NodeProto] = []
        self.place = ''
        self._constants: dict[str, np.ndarray] = {}
        self._names: dict[bytes, str] = {}
        self._producers: dict[str, onnx.NodeProto] = {}
        self._known: dict[tuple, str] = {}
        self._taken: set[str] = set()
        self._count = 0
        # Of sums: how many terms each has, and the rank of what is summed.
        self.terms: dict[str, int] = {}
        self.ranks: dict[str, int] = {}

    def add(self, kind: str, inputs: Sequence[str], outputs: int = 1, **attributes) -> list[str]:
        """Add a node; the names of its outputs."""
        self._count += 1
        name = f'{self.place}/{kind}_{self._count}'.lstrip('/')
        names = [name if index == 0 else f'{name}:{index}' for index in range(outputs)]
        node = helper.make_node(kind, list(inputs), names, name=name, **attributes)
        self.nodes.append(node)
        self._taken.update(inputs)
        self._producers.update(dict.fromkeys(names, node))
        return names

    def one(self, kind: str, *inputs: str, **attributes) -> str:
        """Add a node with one output; its name. The same node is not added twice."""
        key = (kind, inputs, tuple(sorted((key, str(value)) for key, value in attributes.items())))
        if key not in self._known:
            self._known[key] = self.add(kind, inputs, **attributes)[0]
        return self._known[key]

    def constant(self, array: np.ndarray | np.generic) -> str:
        """The name of a constant."""
        array = np.ascontiguousarray(array)
        digest = hashlib.sha256(f'{array.dtype}{array.shape}'.encode() + array.tobytes()).digest()
        if digest not in self._names:
            self._names[digest] = name = f'constant_{len(self._names)}'
            self._constants[name] = array
        return self._names[digest]

    def integers(self, *values: int) -> str:
        """The name of a constant list of integers."""
        return self.constant(np.array(values, np.int64))

    def producer(self, name: str) -> onnx.NodeProto | None:
        """The node that computes a value; ``None`` for inputs and constants."""
        return self._producers.get(name)

    def is_taken(self, name: str) -> bool:
        """Whether a node takes a value."""
        return name in self._taken

    def array(self, name: str) -> np.ndarray | None:
        """The values of a constant; ``None`` for anything else."""
        return self._constants.get(name)

    def model(
        self,
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[onnx.ValueInfoProto],
        name: str,
    ) -> onnx.ModelProto:
        """The finished model, without nodes and constants that no output needs."""
        needed = {output.name for output in outputs}
        nodes = []
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                nodes.append(node)
                needed.update(node.input)
        used = [(name, array) for name, array in self._constants.items() if name in needed]
        constants = [numpy_helper.from_array(array, name) for name, array in used]
        graph = helper.make_graph(nodes[::-1], name, list(inputs), list(outputs), constants)
        opset = helper.make_opsetid('', OPSET)
        version = helper.find_min_ir_version_for([opset])
        return helper.make_model(graph, opset_imports=[opset], ir_version=version, producer_name='vision-backbones')


def elements(dtype: np.dtype) -> int:
    """ONNX's number of a type of elements."""
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


class Layouts:
    """Bring values into the order and the form that an operation needs."""

    def __init__(self, graph: Graph):
        self.graph = graph
        # An input, its symbolic axis and that symbol.
        self._batch: tuple[str, int, Dimension] | None = None

    def tensor(self, value: Tensor | Constant, like: tuple[int, ...] | None = None) -> Tensor:
        """A constant in the graph, stored in an order; a tensor as it is."""
        if isinstance(value, Tensor):
            return value
        order = like if like is not None and len(like) == value.array.ndim else tuple(range(value.array.ndim))
        name = self.graph.constant(value.array.transpose(order))
        return Tensor(name, value.shape, value.array.shape, order, value.dtype)

    def ordered(self, value: Tensor | Constant, order: Sequence[int] | None = None) -> Tensor:
        """The value with its axes stored in an order, by default as traced."""
        order = tuple(range(len(value.shape))) if order is None else tuple(order)
        tensor = self.tensor(value, order)
        if tensor.order == order:
            return tensor
        permutation = [tensor.order.index(axis) for axis in order]
        name = self.graph.one('Transpose', tensor.name, perm=permutation)
        return dataclasses.replace(tensor, name=name, order=order)

    def repeated(self, tensor: Tensor, axes: Sequence[int] | None = None) -> Tensor:
        """The value with its extents along some traced axes, by default all, as in its shape."""
        axes = range(len(tensor.shape)) if axes is None else axes
        open_axes = [axis for axis in axes if not same(tensor.extents[axis], tensor.shape[axis])]
        if not open_axes:
            return tensor
        extents = tuple(tensor.shape[axis] if axis in open_axes else 1 for axis in tensor.order)
        target = self.shape(extents)
        name = self.graph.one('Expand', tensor.name, target)
        new = tuple(tensor.shape[axis] if axis in open_axes else extent for axis, extent in enumerate(tensor.extents))
        return dataclasses.replace(tensor, name=name, extents=new)

    def shape(self, extents: Shape) -> str:
        """The name of a list of extents, of which the batch may be one."""
        if all(is_known(extent) for extent in extents):
            return self.graph.integers(*map(int, extents))
        parts = [self.graph.integers(int(extent)) if is_known(extent) else self.batch(extent) for extent in extents]
        return self.graph.one('Concat', *parts, axis=0)

    def batch(self, extent: Dimension) -> str:
        """The name of a list that holds one symbolic extent, a multiple of the batch."""
        if self._batch is None:
            raise ValueError('a symbolic dimension in a program without a symbolic input')
        tensor, axis, symbol = self._batch
        size = self.graph.one('Shape', tensor, start=axis, end=axis + 1)
        factor = multiple(extent, symbol)
        return size if factor == 1 else self.graph.one('Mul', size, self.graph.integers(factor))

    def note_batch(self, name: str, axis: int, symbol: Dimension) -> None:
        """Note where the batch can be read."""
        self._batch = (name, axis, symbol)


def same(one: Dimension, other: Dimension) -> bool:
    """Whether two dimensions are equal."""
    return bool(is_known(one) == is_known(other) and one == other)


def multiple(extent: Dimension, symbol: Dimension) -> int:
    """How many times a symbol an expression is.

    Raises:
        ValueError: it is no multiple of it.
    """
    factor, rest = divmod(extent, symbol)
    if not is_known(factor) or not (is_known(rest) and rest == 0):
        raise ValueError(f'a dimension of {extent}')
    return int(factor)
