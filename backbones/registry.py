"""Every backbone by name: one explicit table; nothing is registered by an import.

A row says how the module is built and what is known about it without building it. To add a backbone, write its module
and add a row to the table of its family; ``tests/backbones/test_registry.py`` then checks its parameter count.
"""

import dataclasses

import flax.linen as nn

from backbones.cnn.table import TABLE as CNN
from backbones.entry import BackboneInfo, Entry, StageInfo
from backbones.errors import UserError, check_output_stride, unknown
from backbones.heads.classification import ClassificationHead
from backbones.inputs import AnyPreprocessing
from backbones.model import Model
from backbones.published import WEIGHTS, licence
from backbones.text.table import TABLE as TEXT
from backbones.vit.table import TABLE as VIT

FAMILIES = ('cnn', 'vit', 'text')
# As people write them.
FAMILY_NAMES = {'cnn': 'CNN', 'vit': 'ViT', 'text': 'text'}

# Options of a ViT that are sides of squares, in pixels and in patches; Swin checks its window itself.
_SIDES = {'patch', 'position_grid'}

TABLE: dict[str, Entry] = {**CNN, **VIT, **TEXT}


def names(family: str | None = None) -> list[str]:
    """Registered names, all or those of one family (``'cnn'``, ``'vit'`` or ``'text'``), sorted."""
    if family is not None and family not in FAMILIES:
        raise unknown('family', family, FAMILIES)
    return sorted(name for name, entry in TABLE.items() if family in (None, entry.family))


def entry(name: str) -> Entry:
    """The row of a name.

    Raises:
        UserError: no such backbone; the nearest names are offered.
    """
    if name not in TABLE:
        raise unknown('backbone', name, TABLE)
    return TABLE[name]


def info(name: str) -> BackboneInfo:
    """Static facts about a backbone; no parameters are created."""
    row = entry(name)
    module = row.constructor()
    stages = tuple(
        StageInfo(f'stage{index}', channels, stride)
        for index, (channels, stride) in enumerate(
            zip(module.stage_channels(), module.stage_strides(), strict=True), start=1
        )
    )
    pooled = module.pooled_channels()
    weights = WEIGHTS.get(name, ())
    return BackboneInfo(
        name,
        row.family,
        row.params,
        stages,
        pooled,
        0 if row.family == 'text' else row.preprocessing.size[0],
        row.preprocessing,
        weights,
        tuple(map(licence, weights)),
    )


def preprocessing_of(name: str, layout: str) -> AnyPreprocessing:
    """The preprocessing that the weights of a layout expect where no configuration comes with them."""
    row = entry(name)
    return row.layout_preprocessing.get(layout, row.preprocessing)


def create(name: str, **overrides) -> nn.Module:
    """The backbone as a linen module without a classifier; ``apply(variables, images, train=False)`` → ``Features``.

    Args:
        name: a registered name.
        **overrides: attributes of the module to change, such as ``dtype=jnp.bfloat16``.

    Raises:
        UserError: no such backbone, no such attribute, a side (``patch``, ``position_grid``) that is not a positive
            whole number, or an ``output_stride`` that the backbone cannot have.
    """
    constructor = entry(name).constructor
    module = constructor()
    fields = {field.name for field in dataclasses.fields(module)} - {'parent', 'name'}  # ty: ignore[invalid-argument-type]
    for override in overrides:
        if override not in fields:
            raise unknown(f'option of the backbone {name}', override, fields)
    for side in _SIDES & overrides.keys():
        value = overrides[side]
        if (value, side) != (None, 'position_grid') and (type(value) is not int or value < 1):
            raise UserError(f'{side} of the backbone {name} must be a positive whole number, not {value!r}')
    module = module.clone(**overrides)
    if 'output_stride' in overrides:
        check_output_stride(module.output_stride, module.output_strides())
    return module


def create_classifier(name: str, num_classes: int, **overrides) -> Model:
    """The backbone with a linear head: parameters ``{'backbone': …, 'head': …}``, output ``float32[batch, classes]``.

    Args:
        name: a registered name.
        num_classes: number of logits.
        **overrides: as ``create`` takes them, and ``dropout``, the rate before the head while training.

    Raises:
        UserError: no such backbone or option, or fewer than one class.
    """
    if num_classes < 1:
        raise UserError(f'num_classes must be at least 1, not {num_classes}')
    dropout = overrides.pop('dropout', entry(name).dropout)
    backbone = create(name, **overrides)
    distilled = getattr(backbone, 'pooling', None) == 'distillation'
    return Model(backbone, None, ClassificationHead(num_classes, dropout, backbone.dtype, distilled))
