"""Which parts of a model are wanted from a file, and the network in the file that has them."""

from collections.abc import Mapping, Sequence

import flax.linen as nn
import numpy as np

from backbones import registry
from backbones.errors import UserError, listed, unknown
from backbones.model import Model
from backbones.pretrained import keymaps
from backbones.pretrained.keymaps.native import PARTS, part_of
from backbones.pretrained.keymaps.rules import Translation
from backbones.pretrained.recognition import Layouts, recognise
from backbones.pretrained.selection import select
from backbones.published_models import published_on


def wanted_parts(parts: Sequence[str] | None, classifier: bool, model: Model | None) -> tuple[str, ...]:
    """The wanted parts, in the order of a model.

    Raises:
        UserError: an unknown part, none at all, one that ``model`` does not have, or ``classifier`` beside other parts.
    """
    there = PARTS if model is None or model.neck is not None else ('backbone', 'head')
    if parts is None:
        parts = ('backbone',) if model is None else there
        classifier = classifier and model is None
    if isinstance(parts, str) or not parts:
        raise UserError(
            f"parts must name some of {', '.join(PARTS)}, such as parts=('backbone', 'head'), not {parts!r}"
        )
    for part in parts:
        if part not in there:
            raise unknown('part of a model' if part not in PARTS else 'part of this model', part, there)
    wanted = tuple(part for part in PARTS if part in parts)
    if not classifier or wanted == ('backbone', 'head'):
        return wanted
    if wanted != ('backbone',):
        raise UserError(f"classifier=True means parts=('backbone', 'head'), not parts={tuple(parts)}; leave one out")
    return 'backbone', 'head'


def backbone_of(model: Model, name: str, overrides: Mapping) -> nn.Module:
    """The model's backbone.

    Raises:
        UserError: it is of another kind than the named one, or options of the backbone are passed beside it.
    """
    if overrides:
        raise UserError(f'model=… has its options already; leave out {listed(overrides)}, or make the model with them')
    kind = type(registry.create(name))
    if type(model.backbone) is not kind:
        raise UserError(
            f'model=… has a backbone of the kind {type(model.backbone).__name__}, but {name} is a {kind.__name__}'
        )
    return model.backbone


def possible_layouts(
    model: Model | None, module: nn.Module, name: str, wanted: Sequence[str], overrides: Mapping
) -> list[Layouts]:
    """The layouts that a file may have: the first of these lists in which it has all wanted parts.

    Where more than a backbone is wanted and nobody says of what model, it may be a published one.
    """
    if model is not None:
        return [keymaps.model_layouts(model)]
    own = list(keymaps.layouts(module).items())
    if wanted == ('backbone',):
        return [own]
    return [own, [each for usual in published_on(name, **overrides) for each in keymaps.model_layouts(usual)]]


def find_network(
    module: nn.Module,
    arrays: Mapping[str, np.ndarray],
    prefix: str,
    name: str,
    source: str,
    layouts: Sequence[Layouts],
    wanted: Sequence[str],
) -> tuple[dict[str, np.ndarray], tuple[str, ...], str, Translation]:
    """The arrays of the network that is wanted, the keys of the others, its layout, and its arrays in our axes.

    Of several lists of layouts, the first in which all wanted parts are found decides, or else the first.

    Raises:
        UserError: see ``select`` and ``recognise``; of several lists, what is wrong with the first.
    """
    results, errors = [], []
    for known in layouts:
        try:
            inside, apart = select(module, arrays, prefix, name, source, [lines for _, lines in known])
            layout, translation = recognise(module, inside, name, source, known)
        except UserError as error:
            errors.append(error)
            continue
        results.append((inside, apart, layout, translation))
        if {part_of(path) for path in translation.arrays}.issuperset(wanted):
            return results[-1]
    if not results:
        raise errors[0]
    return results[0]
