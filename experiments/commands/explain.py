"""The work of ``experiments.explain``: images and what models attend to in them, as pictures and numbers."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import backbones
from backbones.errors import UserError
from backbones.explanation import methods
from backbones.images import Source
from backbones.prediction import image_sources
from backbones.prediction.text_predictor import TextPredictor
from backbones.pretrained import sources
from experiments.cli import display, work_directories
from experiments.commands import explain_texts
from experiments.data import loading
from experiments.data.dataset import Dataset
from experiments.explanation import (
    contact_sheet,
    explained_models,
    explaining,
    explanation_files,
    pictures,
    training_images,
)
from experiments.explanation.explained_models import ExplainedModel
from experiments.explanation.explaining import Column, Explained, Explainer
from experiments.explanation.pictures import Explanation, Shown
from experiments.features.store import DEFAULT_LIMIT, Store, parse_size
from experiments.results import explanations as stored


def run(options: argparse.Namespace, argv: Sequence[str]) -> None:
    """Explain images.

    Args:
        options: of the command.
        argv: the words that they are of.
    """
    texts = _of_texts(options)
    if texts is not None:
        explain_texts.run(texts, options, argv)
        return
    images = list(image_sources.expand(options.images))[: options.limit]
    output = _output(options)
    _check_places(output, images)
    models = [each for named in options.named for each in explained_models.read(named, options.image_size)]
    columns = _columns(models, options)
    datasets = [_dataset(model, options) if options.nearest else None for model in models]
    store = Store(options.cache_dir, parse_size(DEFAULT_LIMIT))
    shown, rows = _explain(columns, datasets, images, options.nearest, store)
    command = explanation_files.command(argv)
    written = _write(output, shown, rows, command)
    key = explanation_files.key(options.method, options.stage, options.target)
    for workdir in _work_directories(options):
        written.append(_write_for_page(workdir, key, shown, rows, command))
    told = f'{len(shown):,} image{"" if len(shown) == 1 else "s"}; written: {", ".join(map(str, written))}'
    display.console.print(told, soft_wrap=True, markup=False, highlight=False)


def _of_texts(options: argparse.Namespace) -> TextPredictor | None:
    """The model, if the first that is named reads texts."""
    first = options.named[0]
    if (_backbone(first.workdir) if first.workdir else first.model) not in backbones.names('text'):
        return None
    source = first.workdir or first.weights or first.model
    found = backbones.load(source, first.model if first.weights else None)
    assert isinstance(found, TextPredictor), 'a text encoder reads texts'
    return found


def _backbone(workdir: Path) -> str | None:
    """The backbone of a run, of its checkpoint, or of its weights elsewhere; ``None`` for an ablation, or nothing."""
    config = work_directories.read_config(workdir)
    if config is not None:
        return config.get('backbone')
    try:
        description, _ = sources.kept(sources.resolve(str(workdir)))
    except UserError:
        return None  # who reads its models says what is wrong
    return None if description is None else description.backbone


def _columns(models: Sequence[ExplainedModel], options: argparse.Namespace) -> list[Column]:
    names = explained_models.distinct(models)
    columns = []
    for model, name in zip(models, names, strict=True):
        has_stages = methods.METHODS[options.method or methods.usual(model.network)].stages(
            model.network, model.variables
        )
        columns.append(
            explaining.column(model, name, options.method, options.stage if has_stages else None, options.target)
        )
    if options.stage and not any(each.stage for each in columns):
        raise UserError('--stage belongs to --method gradcam and pca; attention rollout is of the whole backbone')
    if options.target is not None and not any(each.class_index is not None for each in columns):
        raise UserError('--class belongs to --method gradcam: no other method explains a class')
    return columns


def _dataset(model: ExplainedModel, options: argparse.Namespace) -> Dataset:
    if options.dataset is not None:
        return loading.load(options.dataset, options.data_dir)
    if model.dataset is None:
        raise UserError(f'the data that {model.name} was trained on are not known: name a data set with --dataset')
    return model.dataset(options.data_dir)


def _explain(
    columns: Sequence[Column],
    datasets: Sequence[Dataset | None],
    images: Sequence[Source | Any],
    nearest: int | None,
    store: Store,
) -> tuple[list[Shown], list[list[Explanation]]]:
    """What is shown of each image that can be read, and what each column says about it.

    Raises:
        UserError: no image can be read, or the outputs of a model are not finite.
    """
    explainers = [Explainer(column) for column in columns]
    shown: list[Shown] = []
    places: list[Source | Any] = []
    found: list[list[Explained]] = []
    output = display.make_console(stderr=False)
    with display.progress() as bar:
        task = bar.add_task('explaining', total=len(images), note='', brief=True)
        for number, image in enumerate(images):
            name = str(image) if isinstance(image, Path | str) else f'image {number + 1}'
            bar.advance(task)
            try:
                pixels = {each.model.reading: image_sources.pixels(image, each.model.reading) for each in columns}
            except UserError as error:
                display.console.print(f'left out: {error}', style='yellow', markup=False, soft_wrap=True)
                continue
            found.append([explainer(pixels[explainer.column.model.reading], name) for explainer in explainers])
            shown.append(Shown.of(name, pixels[columns[0].model.reading]))
            places.append(image)
    if not shown:
        raise UserError(f'none of the {len(images):,} images can be explained; the reasons are above')
    by_column = [explaining.together(*each) for each in zip(columns, zip(*found, strict=True), strict=True)]
    similar = [
        training_images.neighbours(
            explainer, dataset, places, np.stack([each.pooled for each in explained]), nearest, store
        )
        if nearest and dataset is not None
        else [None] * len(shown)
        for explainer, dataset, explained in zip(explainers, datasets, by_column, strict=True)
    ]
    rows = [
        [
            Explanation(column, by_column[place][number], similar[place][number], datasets[place])
            for place, column in enumerate(columns)
        ]
        for number in range(len(shown))
    ]
    for each, row in zip(shown, rows, strict=True):
        text = '; '.join(map(pictures.in_words, row))
        output.print(
            f'{each.name}  {each.size[0]}x{each.size[1]}  {text}', soft_wrap=True, markup=False, highlight=False
        )
    return shown, rows


def _write(output: Path, shown: Sequence[Shown], rows: Sequence[list[Explanation]], command: str) -> list[Path]:
    work_directories.make(output)
    used: set[str] = set()
    for each, row in zip(shown, rows, strict=True):
        stem = Path(each.name).stem if '/' not in Path(each.name).name else 'image'
        name, number = f'{stem}.png', 2
        while name in used | {'sheet.png'}:
            name, number = f'{stem}-{number}.png', number + 1
        used.add(name)
        explanation_files.write_picture(output / name, _sheet([each], [row], explanation_files.IMAGE_CELL))
    most = explanation_files.SHEET_ROWS
    explanation_files.write_picture(
        output / 'sheet.png', _sheet(shown[:most], rows[:most], explanation_files.SHEET_CELL)
    )
    if len(shown) > most:
        display.console.print(
            f'sheet.png shows the first {most} of {len(shown):,} images; each has a picture of its own'
        )
    numbers = [
        {'image': each.name, 'width': each.size[0], 'height': each.size[1], 'models': list(map(pictures.as_json, row))}
        for each, row in zip(shown, rows, strict=True)
    ]
    explanation_files.write_json(output / 'explanation.json', {'command': command, 'images': numbers})
    return [output / 'sheet.png']


def _write_for_page(
    workdir: Path, key: str, shown: Sequence[Shown], rows: Sequence[list[Explanation]], command: str
) -> Path:
    most = explanation_files.PAGE_ROWS
    picture = _sheet(shown[:most], rows[:most], explanation_files.PAGE_CELL, notes=False)
    columns = [each.column for each in rows[0]]
    about = {
        'title': ', '.join(dict.fromkeys(f'{each.model.name}: {each.label}' for each in columns)),
        'caption': ' '.join(pictures.notes(shown[:most], rows[:most])),
        'header': ['image', *(f'{each.model.name} ({each.model.about})' for each in columns)],
        'rows': [
            [each.name, *map(pictures.in_words, row)] for each, row in zip(shown[:most], rows[:most], strict=True)
        ],
        'command': command,
    }
    return explanation_files.write_for_page(workdir, key, picture, about)


def _sheet(shown: Sequence[Shown], rows: Sequence[list[Explanation]], width: int, notes: bool = True) -> Image.Image:
    cells = [pictures.row(each, row, width) for each, row in zip(shown, rows, strict=True)]
    return contact_sheet.sheet(
        pictures.headings(rows[0]),
        cells,
        width,
        pictures.notes(shown, rows) if notes else (),
        pictures.has_scale(rows[0]),
    )


def _output(options: argparse.Namespace) -> Path:
    if options.output is not None:
        return options.output
    missing = next((each.workdir for each in options.named if each.workdir and not each.workdir.exists()), None)
    workdir = next(iter(_work_directories(options)), missing)
    if workdir is None:
        place = next((f'{each.workdir} is' for each in options.named if each.workdir), 'published weights have')
        raise UserError(f'{place} no work directory: name a directory for the pictures with --output DIR')
    return workdir / stored.DIRECTORY / explanation_files.key(options.method, options.stage, options.target)


def _work_directories(options: argparse.Namespace) -> list[Path]:
    """Those that were named, each once; a file of weights or a checkpoint is none."""
    named = dict.fromkeys(each.workdir for each in options.named if each.workdir)
    return [each for each in named if work_directories.read_config(each) is not None]


def _check_places(output: Path, images: Sequence[Source | Any]) -> None:
    if output.exists() and not output.is_dir():
        raise UserError(f'--output {output} is a file; name a directory for the pictures')
    if output.resolve() in {Path(each).parent.resolve() for each in images if isinstance(each, Path | str)}:
        raise UserError(
            f'--output {output} holds images that are explained, and pictures would take their names; name another '
            'directory'
        )
