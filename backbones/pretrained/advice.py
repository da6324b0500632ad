"""Advice where a file does not fit a backbone: another registered name, or an option, that would."""

import dataclasses
import math
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import flax.linen as nn
import numpy as np

from backbones import registry
from backbones.pretrained import keymaps
from backbones.pretrained.compatibility import HARMLESS
from backbones.pretrained.keymaps.native import native_keymap
from backbones.pretrained.keymaps.rules import KeyMap, Rule
from backbones.pretrained.merge import Report
from backbones.text.encoder import TextEncoder
from backbones.vit.vit import VisionTransformer

# The way positions are resampled does not tell one file from another.
_NOT_COMPARED = {*HARMLESS, 'position_method', 'position_grid'}


def nearest(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """The registered backbones whose key map knows every key and whose number of parameters is the file's."""
    names = []
    for name, row in registry.TABLE.items():
        keymaps_of_name = [native_keymap(arrays), *map(KeyMap, keymaps.layouts(row.constructor()).values())]
        if any(_size(arrays, keymap) == row.params for keymap in keymaps_of_name):
            names.append(name)
    return names


def _size(arrays: Mapping[str, np.ndarray], keymap: KeyMap) -> int | None:
    """How many parameters of a backbone the arrays hold, or ``None`` where the key map does not know all keys."""
    size = 0
    for key, array in arrays.items():
        found = keymap.find(key)
        if found is None:
            return None
        line = found[0]
        counts = isinstance(line, Rule) and not line.optional and line.path.startswith('params/backbone/')
        size += array.size if counts else 0
    return size


def suggestion(arrays: Mapping[str, np.ndarray], name: str) -> str:
    """``'; it fits resnet50'``, or an empty string."""
    names = [each for each in nearest(arrays) if each != name]
    return f'; it fits {" or ".join(names[:3])}' if names else ''


def remedies(
    module: nn.Module,
    report: Report,
    arrays: Mapping[str, np.ndarray],
    input_channels: int,
    held: Mapping[str, np.ndarray],
) -> list[str]:
    """What to pass or to load instead, for those misfits whose cause is known.

    Args:
        module: the backbone that was to take the file.
        report: report of the attempt.
        arrays: the file's arrays, by its own keys.
        input_channels: number of channels of the images that the module was to take.
        held: the file's arrays by our paths.
    """
    found = [*_of_shapes(module, report, input_channels), *_of_detectors(report, held)]
    if isinstance(module, VisionTransformer):
        found += _of_tokens(module, report, arrays)
    if isinstance(module, TextEncoder):
        found += _of_texts(report)
    return found


def _of_shapes(module: nn.Module, report: Report, input_channels: int) -> Iterator[str]:
    projection = 'params/backbone/projection/kernel'
    auxiliary = 'params/head/auxiliary/'
    if any(path.startswith(auxiliary) for path in report.missing):
        yield "it has no auxiliary head: make the model with head_options={'auxiliary': False}"
    if projection in report.missing:
        yield 'it has no projection: pass projected_channels=None'
    for path, file, ours in report.misfit:
        if path == projection:
            yield f'its projection is to {file[-1]} channels: pass projected_channels={file[-1]}'
        elif path == 'params/backbone/position_embedding' and isinstance(module, VisionTransformer):
            yield from _of_positions(module, file, ours)
        elif path == 'params/backbone/patch_embedding/kernel' and file[2:] == ours[2:] and file[0] == file[1]:
            names = _siblings(module, patch=file[0])
            yield f'its patches are of {file[0]} pixels: ' + _either(names, f'patch={file[0]}')
        elif path == 'params/head/classifier/kernel' and file[:-1] == ours[:-1]:
            yield f'it has {file[-1]} classes: make the model with num_classes={file[-1]}'
        elif re.fullmatch(r'.*/auxiliary\d/dense2/kernel', path):
            yield f'pass auxiliary_classes={file[-1]}, or 0 for no auxiliary heads'
        elif len(file) == len(ours) == 4 and ours[2] == input_channels and file == (*ours[:2], file[2], ours[3]):
            # Only a first convolution takes so few channels.
            yield f'it is for images of {file[2]} channels: pass input_channels={file[2]}'


def _of_detectors(report: Report, held: Mapping[str, np.ndarray]) -> Iterator[str]:
    one_to_one = any(path.startswith('params/head/one_to_one') for path in held)
    if one_to_one and any(path.startswith('params/head/one_to_many') for path in report.missing):
        yield "it has no one-to-many branch: make the model with head_options={'branches': 'one_to_one'}"
    boxes = held.get('params/head/box_deltas/bias')
    for path, file, ours in report.misfit:
        if path == 'params/head/class_logits/bias' and boxes is not None:
            classes = file[0] // (len(boxes) // 4)
            yield (
                f'its head has {classes} classes: make the model with num_classes={classes} (or name them: '
                "classes=… of load), or take its parts ('backbone', 'neck')"
            )
        elif path == 'params/head/box_head/class_logits/bias':
            yield (
                f'its head has {file[0]} outputs, of which one is the background: make the model with '
                f"num_classes={file[0] - 1} (or name them: classes=… of load), or take its parts ('backbone', 'neck')"
            )
        elif re.fullmatch(r'params/head/one_to_(many|one)3/classes/bias', path):
            yield (
                f'its head has {file[0]} classes: make the model with num_classes={file[0]} (or name them: '
                "classes=… of load), or take its parts ('backbone', 'neck')"
            )
            return  # the other branch has as many
        elif re.fullmatch(r'params/neck/lateral\d/bias', path):
            yield f"its neck has {file[0]} channels: make the model with neck_options={{'channels': {file[0]}}}"
            return  # which nothing after the neck fits either
        elif path == 'params/neck/extra1/kernel' and file[3] == ours[3]:
            yield (
                'its p6 is made of another map: make the model with '
                f"neck_options={{'extra_from_stage': {file[2] > ours[2]}}}"
            )


def _of_positions(module: VisionTransformer, file: tuple[int, ...], ours: tuple[int, ...]) -> Iterator[str]:
    count = file[1] - len(module.prefix)
    side = math.isqrt(max(count, 0))
    if file[2] != ours[2] or side < 1 or side**2 != count:
        return
    told = f'its positions are a grid of {side}x{side}: pass position_grid={side}'
    if module.position_grid is None:
        yield f'{told}, which keeps them and resamples them for every image'
    else:
        yield f'{told}, or position_grid=None and image_size={side * module.patch} (another size resamples them)'


def _of_tokens(module: VisionTransformer, report: Report, arrays: Mapping[str, np.ndarray]) -> Iterator[str]:
    registers = [arrays[key].shape[-2] for key in report.unexpected if re.fullmatch(r'(.*\.)?reg(ister)?_tokens?', key)]
    if registers:
        count = registers[0]
        yield f'it has {count} registers: ' + _either(_siblings(module, registers=count), f'registers={count}')
    elif 'params/backbone/register_tokens' in report.missing:
        yield 'it has no registers: ' + _either(_siblings(module, registers=0), 'registers=0')
    if 'fc_norm.weight' in report.unexpected:
        yield "it normalises what it has pooled: pass pooling='average', norm_after_pooling=True"
    distilled = {'prefix': ('class_token', 'distillation_token'), 'pooling': 'distillation'}
    plain = {'prefix': ('class_token',), 'pooling': 'token'}
    if any(re.fullmatch(r'(.*\.)?(dist|distillation)_token', key) for key in report.unexpected):
        yield 'it has a distillation token: ' + _either(_siblings(module, **distilled), _options(distilled))
    elif 'params/backbone/distillation_token' in report.missing:
        yield 'it has no distillation token: ' + _either(_siblings(module, **plain), _options(plain))


def _of_texts(report: Report) -> Iterator[str]:
    embedding = 'params/backbone/embedding/'
    options = {'word': 'vocabulary', 'position': 'positions', 'token_type': 'types'}
    for path, file, ours in report.misfit:
        option = options.get(path.removeprefix(embedding))
        if option is not None and file[1:] == ours[1:]:
            yield f'pass {option}={file[0]}'
    if any(path.startswith('params/backbone/pooler/') for path in report.missing):
        yield "it has no pooler: pass pooling='token' or pooling='mean'"


def _options(options: Mapping[str, Any]) -> str:
    return ', '.join(f'{name}={value!r}' for name, value in options.items())


def _either(names: Collection[str], options: str) -> str:
    return f'load it into {" or ".join(names)}' if names else f'pass {options}'


def _siblings(module: nn.Module, **changes: Any) -> list[str]:
    """The registered backbones that differ from this one only in the changes."""
    kept = [field.name for field in dataclasses.fields(module) if field.name not in _NOT_COMPARED]  # ty: ignore[invalid-argument-type]
    wanted = {name: getattr(module, name) for name in kept} | changes
    others = ((name, row.constructor()) for name, row in registry.TABLE.items())
    return [
        name
        for name, other in others
        if type(other) is type(module) and all(getattr(other, field) == value for field, value in wanted.items())
    ]
