"""The work of ``experiments.models``: tables of backbones and published models."""

import argparse
import fnmatch

import flax.linen as nn
from rich.table import Table

import backbones
from backbones import published_models
from backbones.cost import GFLOPS
from backbones.errors import UserError, unknown
from backbones.inputs import AnyPreprocessing
from backbones.pretrained.keymaps import layouts
from backbones.published import LICENCES_OF_FILES, Licence
from backbones.text.tokenising import Tokenising
from experiments.cli import display, narrow_terminals

_STAGES = 'channels of the stages (strides)'
_LAYOUTS = 'loads and saves'
# Of a description, in columns: in a pipe nothing else limits it.
_WIDEST = 120
SORT_KEYS = {
    'name': lambda info: info.name,
    'params': lambda info: info.params,
    'gflops': lambda info: GFLOPS[info.name],
}


def select(
    patterns: list[str], family: str | None, max_params: float | None, max_gflops: float | None, sort: str
) -> list[backbones.BackboneInfo]:
    """Backbones that meet all conditions.

    Args:
        patterns: names, or patterns with ``*`` and ``?``; none means all.

    Raises:
        UserError: a name or pattern matches nothing, or no backbone meets the conditions.
    """
    names = backbones.names(family)
    for pattern in patterns:
        if not fnmatch.filter(backbones.names(), pattern):
            raise unknown('backbone', pattern, backbones.names())
    chosen = [
        backbones.info(name)
        for name in names
        if not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    ]
    chosen = [info for info in chosen if max_params is None or info.params <= max_params]
    chosen = [info for info in chosen if max_gflops is None or GFLOPS[info.name] <= max_gflops]
    if not chosen:
        raise UserError('no backbone meets these conditions')
    return sorted(chosen, key=SORT_KEYS[sort])


def listing(infos: list[backbones.BackboneInfo]) -> Table:
    """One row per backbone."""
    table = Table(title=f'{len(infos)} backbones', title_justify='left')
    for column in ('name', 'family', 'parameters', 'GFLOPs', 'input', 'licence', _STAGES, _LAYOUTS):
        table.add_column(column, justify='right' if column in ('parameters', 'GFLOPs', 'input') else 'left')
    for info in infos:
        channels, strides = (
            ' '.join(str(getattr(stage, field)) for stage in info.stages) for field in ('channels', 'stride')
        )
        module, length = backbones.create(info.name), info.preprocessing.size[0]
        table.add_row(
            info.name,
            info.family,
            f'{info.params:,}',
            f'{GFLOPS[info.name]:.2f}',
            f'{length} {"tokens" if info.family == "text" else "px"}',
            next((each.name for each in (*info.licences, *_licences_of_files(module).values())), '–'),
            f'{channels} ({strides})',
            ' '.join(layouts(module)) or 'native',
        )
    return table


def published() -> Table:
    """One row per published detector or segmenter."""
    table = Table(title=f'{len(published_models.TABLE)} published models', title_justify='left')
    for column in ('name', 'task', 'backbone', 'head'):
        table.add_column(column, no_wrap=True)
    table.add_column('parameters', justify='right')
    table.add_column('licence of the weights')
    for name, row in published_models.TABLE.items():
        licence = LICENCES_OF_FILES['ultralytics' if row.options['head'] == 'yolo' else 'torchvision']
        task = 'detection' if row.create is backbones.create_detector else 'segmentation'
        table.add_row(name, task, row.backbone, row.options['head'], f'{row.params:,}', licence.name)
    return table


def description(info: backbones.BackboneInfo) -> Table:
    """A table of everything known about one backbone."""
    table = Table(title=info.name, title_justify='left', show_header=False)
    table.add_column()
    table.add_column(overflow='fold')  # addresses stay whole
    module = backbones.create(info.name)
    preprocessing = info.preprocessing
    of_texts = isinstance(preprocessing, Tokenising)
    side = info.image_size
    example = f'text of {preprocessing.length} tokens' if of_texts else f'image of {side}x{side} pixels'
    summary = (type(module).__doc__ or '').strip().partition('\n')[0]
    rows = {
        'family': f'{info.family}: {type(module).__name__} – {summary}',
        'parameters': f'{info.params:,} without a classifier',
        'GFLOPs': f'{GFLOPS[info.name]:.3f} for one {example}',
        'stages': '\n'.join(
            f'{stage.name}: {stage.channels} channels'
            + ('' if of_texts else f', stride {stage.stride}, {-(-side // stage.stride)}x{-(-side // stage.stride)}')
            for stage in info.stages
        ),
        'pooled': f'{info.pooled} channels',
        'layouts': ', '.join(['native', *layouts(module)]) + ' (load_weights reads them, save_weights writes them)',
        'known weights': _weights(info, module),
        'preprocessing': _in_words(preprocessing),
        'options': ', '.join(
            f'{name}={value!r}'
            for name, value in vars(module).items()
            if isinstance(value, str | int | float | bool) and name != 'name'
        ),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _weights(info: backbones.BackboneInfo, module: nn.Module) -> str:
    """Each source with its licence; where there is none, whose files there are."""
    sources = [f'{source}: {licence}' for source, licence in zip(info.weights, info.licences, strict=True)]
    own = [f'a file of {layout}: {licence}' for layout, licence in _licences_of_files(module).items()]
    return '\n'.join(sources or own) or 'none'


def _licences_of_files(module: nn.Module) -> dict[str, Licence]:
    """By layout, the licences of files that are loaded from a path."""
    return {layout: LICENCES_OF_FILES[layout] for layout in layouts(module) if layout in LICENCES_OF_FILES}


def _in_words(preprocessing: AnyPreprocessing) -> str:
    """From images, or texts, to the input."""
    if isinstance(preprocessing, Tokenising):
        tokenizer = 'the tokenizer.json of the weights'
        if preprocessing.tokenizer:
            tokenizer = f'a tokenizer of its own ({preprocessing.vocabulary_in_words()})'
        return f'{tokenizer}; at most {preprocessing.length} tokens of a text'
    size = preprocessing.size[0]
    resized = size if preprocessing.fit == 'letterbox' else round(size / preprocessing.crop)
    sides = {'crop': 'shorter side', 'squash': 'both sides', 'letterbox': 'longer side'}[preprocessing.fit]
    crop = '' if resized == size else f', centre of {size}'
    crop += ', the rest filled with grey' if preprocessing.fit == 'letterbox' else ''
    constants = f'mean {_numbers(preprocessing.mean)}, std {_numbers(preprocessing.std)}'
    return f'{sides} to {resized} ({preprocessing.interpolation}){crop}, {constants}'


def _numbers(values: tuple[float, ...]) -> str:
    return ' '.join(f'{value:.3g}' for value in values)


def run(options: argparse.Namespace) -> None:
    """Print a table, or a description of each backbone if all names are given in full."""
    console = display.make_console(stderr=False)
    if options.published:
        console.print(published())
        return
    infos = select(options.names, options.family, options.max_params, options.max_gflops, options.sort)
    if options.names and all(name in backbones.names() for name in options.names):
        for info in infos:
            console.print(description(info), width=min(console.width, _WIDEST))
        return
    table = listing(infos)
    titles = [column.header for column in table.columns]
    optional = [titles.index(title) for title in (_LAYOUTS, _STAGES, 'licence', 'family')]
    shown = narrow_terminals.fitted(table, optional, console)
    console.print(shown.table)
    if note := shown.note(console, 'python -m experiments.models NAME has all of one'):
        console.print(note, style='yellow', soft_wrap=True)
