"""A traced program as an ONNX model."""

import collections
from collections.abc import Sequence

import onnx
from onnx import helper

from backbones.errors import UserError
from experiments.export.graph import Graph, Layouts, Tensor, elements, stored_in_order
from experiments.export.operators import arrangement, elementwise, indexing, products, reductions, suppression
from experiments.export.program import Constant, Operation, Program, Value, Variable, is_known, used

OPERATORS = {
    **elementwise.OPERATORS,
    **arrangement.OPERATORS,
    **products.OPERATORS,
    **reductions.OPERATORS,
    **indexing.OPERATORS,
    **suppression.OPERATORS,
}


def convert(program: Program, inputs: Sequence[str], outputs: Sequence[str], name: str = 'model') -> onnx.ModelProto:
    """Make an ONNX model of a program.

    Args:
        program: what ``program.trace`` returns.
        inputs, outputs: their names.
        name: of the graph.

    Raises:
        UserError: an operation that has no counterpart here; the message says where it comes from.
    """
    graph = Graph()
    layouts = Layouts(graph)
    values: dict[Variable, Tensor] = {}
    for label, variable in zip(inputs, program.inputs, strict=True):
        values[variable] = stored_in_order(label, variable.shape, variable.dtype)
        for axis, extent in enumerate(variable.shape):
            if not is_known(extent):
                layouts.note_batch(label, axis, extent)
    uses = collections.Counter(id(value) for value in used(program))
    # Uses to come of each stored value, which several variables may share.
    left: collections.Counter[str] = collections.Counter()
    for variable, tensor in values.items():
        left[tensor.name] += uses[id(variable)]
    for operation in program.operations:
        graph.place = operation.place
        given = [values[each] if isinstance(each, Variable) else each for each in operation.inputs]
        results = _convert(layouts, operation, given, left)
        left.subtract(each.name for each in given if isinstance(each, Tensor))
        for variable, tensor in zip(operation.outputs, results, strict=True):
            values[variable] = tensor
            left[tensor.name] += uses[id(variable)]
    graph.place = ''
    finished = [_output(layouts, values, value, label) for value, label in zip(program.outputs, outputs, strict=True)]
    model = graph.model(
        [_info(label, each) for label, each in zip(inputs, program.inputs, strict=True)], finished, name
    )
    onnx.checker.check_model(model)
    return model


def _convert(
    layouts: Layouts, operation: Operation, given: Sequence[Tensor | Constant], left: collections.Counter[str]
) -> Sequence[Tensor]:
    merged = _merged(layouts, operation, given, left)
    if merged is not None:
        return [merged]
    convert_one = OPERATORS.get(operation.name)
    reason = f'{operation.name!r} has no counterpart'
    if convert_one is not None:
        try:
            return convert_one(layouts, operation, given)
        except NotImplementedError as error:
            reason = f'{operation.name!r} with {error} has no counterpart'
    raise UserError(
        f'{operation.place or "the model"} cannot be exported to ONNX: the operation {reason} there; '
        '--format stablehlo takes every model'
    )


def _merged(
    layouts: Layouts, operation: Operation, given: Sequence[Tensor | Constant], left: collections.Counter[str]
) -> Tensor | None:
    """The result of an operation that becomes part of the one before it; ``None`` if it stands for itself."""
    if len(given) != 2 or isinstance(given[0], Constant) == isinstance(given[1], Constant):
        return None
    first = isinstance(given[0], Constant)
    constant, x = given if first else given[::-1]
    assert isinstance(constant, Constant) and isinstance(x, Tensor)
    if operation.name == 'div' and not first and (divisor := constant.scalar()) is not None:
        result = reductions.mean(layouts, x, divisor)
        if result is not None:
            return result
    if left[x.name] == 1 and not layouts.graph.is_taken(x.name):
        return products.folded(layouts, operation, x, constant, first)
    return None


def _output(layouts: Layouts, values: dict, value: Value, label: str) -> onnx.ValueInfoProto:
    tensor = values[value] if isinstance(value, Variable) else value
    tensor = layouts.repeated(layouts.ordered(tensor))
    layouts.graph.nodes.append(helper.make_node('Identity', [tensor.name], [label], name=label))
    return _info(label, value)


def _info(label: str, value: Value) -> onnx.ValueInfoProto:
    shape = [int(extent) if is_known(extent) else str(extent) for extent in value.shape]
    return helper.make_tensor_value_info(label, elements(value.dtype), shape)
