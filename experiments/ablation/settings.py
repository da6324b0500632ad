"""Further axes of an ablation: config keys that have several values, and the settings of a cell that they give.

A key whose single value is a tuple, such as ``knn.neighbours``, is an axis if its value is a tuple of tuples.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import ml_collections

from backbones.errors import UserError
from experiments.ablation.dependencies import FROZEN_REGIMES, dependencies
from experiments.cli import work_directories
from experiments.cli.config_help import Described
from experiments.data import options
from experiments.results.axes import BASE_AXES, Cell, Settings, settings_from_json

# Keys that the features of a frozen backbone depend on; the others concern heads, or trainings.
_OF_FEATURES = ('image_size', 'image_height', 'text_length', 'strict_weights', 'calibration_images', 'tap')


def of_features(settings: Settings) -> Settings:
    """The settings that the features of a frozen backbone depend on."""
    return tuple(each for each in settings if each[0] in _OF_FEATURES)


def of_passes(settings: Settings) -> Settings:
    """The settings that a pass over a data set depends on, which gives the features of every tap."""
    return tuple(each for each in of_features(settings) if each[0] != 'tap')


def of_networks(settings: Settings) -> Settings:
    """The settings other than those of heads on stored features."""
    return tuple(each for each in settings if each[0].partition('.')[0] not in FROZEN_REGIMES)


def axes(config: Mapping[str, Any], keys: Mapping[str, Described]) -> dict[str, tuple]:
    """The keys that have several values, in the order of the table, each with its distinct values.

    Args:
        config: of an ablation, nested; tuples may have become lists.
        keys: the table of its keys.
    """
    flat = work_directories.flatten(config)
    found = {}
    for key, row in keys.items():
        values = flat.get(key)
        if key not in BASE_AXES and isinstance(values, tuple | list) and _is_axis(values, row.default):
            found[key] = tuple(value for _, value in settings_from_json(dict(enumerate(values))))
    return {key: distinct for key, values in found.items() if len(distinct := tuple(dict.fromkeys(values))) != 1}


def _is_axis(values: Sequence, default: Any) -> bool:
    if not isinstance(default, tuple):
        return True
    return bool(values) and all(isinstance(value, tuple | list) for value in values)


def resolved(
    config: ml_collections.ConfigDict, keys: Mapping[str, Described], settings: Settings
) -> ml_collections.ConfigDict:
    """A copy of an ablation's config in which every key has one value: that of the settings, or the first of an axis.

    Args:
        keys: the table of its keys.
        settings: of a cell.
    """
    copied = config.copy_and_resolve_references()
    flat = work_directories.flatten(config.to_dict())
    several = {
        key: flat[key][0]
        for key, row in keys.items()
        if key not in BASE_AXES and isinstance(flat[key], tuple) and flat[key] and _is_axis(flat[key], row.default)
    }
    for key, value in {**several, **dict(settings)}.items():
        *groups, name = key.split('.')
        node = copied
        for group in groups:
            node = node[group]
        node[name] = value
    return copied


def spanned(cells: Iterable[Cell], config: ml_collections.ConfigDict, keys: Mapping[str, Described]) -> list[Cell]:
    """The cells at every combination of the values of further axes, of those that each depends on.

    Args:
        cells: without settings.
        config: of the ablation.
        keys: the table of its keys.

    Raises:
        UserError: an axis has no value, says how data sets are read, or concerns none of the cells.
    """
    cells = list(cells)
    found = axes(config.to_dict(), keys)
    for key, values in found.items():
        if not values:
            raise UserError(f'config key {key!r} is empty; it needs at least one value')
        if key in options.KEYS:
            raise UserError(
                f'config key {key!r} has {len(values)} values, but data sets are read once for all cells; give it one, '
                'and run the others in a --workdir of their own (experiments.report makes one table of them)'
            )
    flat, concerned, result = work_directories.flatten(config.to_dict()), set(), []
    for cell in cells:
        concerning = dependencies(cell, flat)
        own = {key: found[key] for key in sorted(found) if key in concerning}
        concerned |= own.keys()
        for values in itertools.product(*own.values()):
            result.append(dataclasses.replace(cell, settings=tuple(zip(own, values, strict=True))))
    idle = [key for key in found if cells and key not in concerned]
    if idle:
        raise UserError(
            f'config key {idle[0]!r} has {len(found[idle[0]])} values, but no cell of this ablation depends on it: '
            'give it one value, or change the regimes or backbones'
        )
    return result


def combinations(config: ml_collections.ConfigDict, keys: Mapping[str, Described]) -> list[ml_collections.ConfigDict]:
    """The config at every combination of the values of its further axes; the config alone if it has none."""
    found = axes(config.to_dict(), keys)
    return [
        resolved(config, keys, tuple(zip(found, values, strict=True))) for values in itertools.product(*found.values())
    ]


def with_values(
    cell: Cell, config: Mapping[str, Any], wanted: Iterable[str], defaults: Mapping[str, Any] | None = None
) -> Cell:
    """The cell with the values that it was computed with as settings, of those wanted keys that it depends on.

    Args:
        config: what it was, or would be, computed with, nested.
        wanted: keys that are axes; settings of other keys stay.
        defaults: values of keys that ``config`` lacks, nested.
    """
    wanted = list(dict.fromkeys((*(key for key, _ in cell.settings), *wanted)))
    flat = {**work_directories.flatten(defaults or {}), **work_directories.flatten(config)}
    values = dependencies(cell, flat)
    known = dict(cell.settings)
    found = {key: known.get(key, values.get(key)) for key in sorted(wanted) if key in known or key in values}
    return dataclasses.replace(cell, settings=settings_from_json(found))
