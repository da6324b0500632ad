"""How deep in a model each parameter lies, found by observing a forward pass; no table per family.

Parameter trees are those of ``create_classifier``. The only assumption about a backbone is what all of them share: a
stage is a direct child named ``stageN``, and where a stage names its blocks, it names them ``blockM``.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Literal, TypeVar

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict

from backbones import inputs
from backbones.errors import UserError, unknown

KINDS = ('stage', 'block')
Kind = Literal['stage', 'block']

# Path of a module such as 'backbone/stage1/block1' → its position among all modules that inference runs.
Order = Mapping[str, int]

T = TypeVar('T')


@dataclasses.dataclass(frozen=True)
class Unit:
    """Parameters that lie equally deep.

    Attributes:
        name: ``'input'``, a stage (``'stage2'``) or a block (``'stage2/block1'``), ``'output'`` or ``'head'``.
        paths: paths of its parameters, such as ``'backbone/stage2/block1/conv1/kernel'``, in the order of execution.
    """

    name: str
    paths: tuple[str, ...]


def visit(
    model: nn.Module, variables: dict, images_shape: tuple[int, ...], look: Callable[[nn.Module], T]
) -> dict[str, T]:
    """What ``look`` returns for each module that inference runs, by path, in the order of first calls.

    Nothing is computed. A module that runs only in training, such as an auxiliary head, is left out.

    Args:
        model: a module called with images and ``train``.
        variables: the model's variables, arrays or their shapes.
        images_shape: ``(batch, height, width, channels)``, or ``(batch, length)`` of texts, which the model accepts.
        look: called with each module while it is bound; it must not keep a reference to it.
    """
    images = inputs.spec_of_shape(images_shape)
    seen: dict[str, T] = {}

    def interceptor(call, args, kwargs, context):
        path = '/'.join(context.module.path)
        if context.method_name == '__call__' and path not in seen:
            seen[path] = look(context.module)
        return call(*args, **kwargs)

    with nn.intercept_methods(interceptor):
        jax.eval_shape(lambda variables, images: model.apply(variables, images, train=False), variables, images)
    return seen


def execution_order(model: nn.Module, variables: dict, images_shape: tuple[int, ...]) -> Order:
    """Position of each module that inference runs, by the order of first calls; a parameter has its module's position.

    The root's path is ``''``. A module is called before its children, so what belongs directly to the backbone (class
    token, positions) comes before its stages.

    Args:
        model: a ``Model``.
        variables: the model's variables, arrays or their shapes.
        images_shape: ``(batch, height, width, channels)``, or ``(batch, length)`` of texts, which the model accepts.
    """
    return {path: position for position, path in enumerate(visit(model, variables, images_shape, lambda module: None))}


def units(params: dict, order: Order, kind: Kind) -> list[Unit]:
    """All parameters by depth: ``input``, each stage or block in order of execution, ``output``, ``head``.

    ``input`` is what runs before the first stage (stem, embedding, tokens, positions), ``output`` what runs after the
    last one (final normalisation, hidden layers); either may be empty. Whatever inference does not run belongs to the
    head: an auxiliary head serves only the loss. A stage without parameters is not a unit.

    The blocks of a stage are its children ``blockM`` or, in a stage that has none, every child with a kernel (the
    convolutions of VGG, the layers of YOLO). Anything else in a stage belongs to the block that it runs after (a
    transition, a normalisation), or to the first one (downsampling).

    Args:
        params: parameters of a ``Model``, arrays or their shapes; adapters beside a kernel may be among them.
        order: that of the same model, from ``execution_order``.
        kind: ``'stage'`` or ``'block'``.

    Raises:
        UserError: an unknown kind, or parameters that are not those of a classifier with stages.
    """
    if kind not in KINDS:
        raise unknown('kind of unit', kind, KINDS)
    leaves = flatten_dict(params, sep='/')
    depths = {path: order[module] for path in leaves if (module := path.rpartition('/')[0]) in order}
    backbone = sorted((path for path in depths if path.startswith('backbone/')), key=depths.__getitem__)
    stages: dict[str, list[str]] = {}
    outside = []
    for path in backbone:
        match = re.match(r'backbone/(stage\d+)/', path)
        (stages.setdefault(match[1], []) if match else outside).append(path)
    if not stages:
        raise UserError('the parameters have no stage in a backbone: they are not those of a classifier')
    first = min(depths[paths[0]] for paths in stages.values())
    result = [Unit('input', tuple(path for path in outside if depths[path] < first))]
    for stage, paths in stages.items():
        result += [Unit(stage, tuple(paths))] if kind == 'stage' else _blocks(stage, paths, leaves)
    result.append(Unit('output', tuple(path for path in outside if depths[path] > first)))
    return [*result, Unit('head', tuple(path for path in leaves if path not in set(backbone)))]


def _blocks(stage: str, paths: list[str], leaves: Mapping) -> list[Unit]:
    """The parameters of one stage, given in the order of execution, by block."""
    children: dict[str, list[str]] = {}
    for path in paths:
        children.setdefault(path.split('/')[2], []).append(path)
    blocks = [child for child in children if re.fullmatch(r'block\d+', child)]
    if not blocks:
        blocks = [child for child, own in children.items() if any(np.ndim(leaves[path]) > 1 for path in own)]
    groups: dict[str, list[str]] = {block: [] for block in blocks}
    current = blocks[0]
    for child, own in children.items():
        current = child if child in groups else current
        groups[current] += own
    return [Unit(f'{stage}/{block}', tuple(own)) for block, own in groups.items()]
