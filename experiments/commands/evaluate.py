"""The work of ``experiments.evaluate``: predictions of a split, and every metric of their task."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from backbones.errors import listed
from backbones.prediction.predictor import Predictor
from backbones.prediction.text_predictor import TextPredictor
from backbones.text.tokenising import Tokenising
from experiments import tasks
from experiments.cli import atomic_files, display
from experiments.data import account, contents, loading
from experiments.data.dataset import Dataset
from experiments.data.options import ReadingOptions
from experiments.data.text_lengths import cut_in_words
from experiments.data.texts import Inputs
from experiments.prediction import class_matching, evaluation, model_options, splits
from experiments.results import metric_names


def run(options: argparse.Namespace, reading: Mapping[str, Any]) -> None:
    """Evaluate a model.

    Args:
        options: of the command.
        reading: those of ``ReadingOptions`` among them that are given.
    """
    splits.check_name(options.split)
    predictor = model_options.load(options, None)
    task = tasks.find(predictor.model.task)
    inputs: Inputs = 'texts' if isinstance(predictor.model.input, Tokenising) else 'images'
    dataset = _dataset(options, reading, task, inputs)
    account.show_notes(dataset)
    indices = splits.chosen(dataset, options.split, options.limit)
    matching = class_matching.match(predictor.names, dataset.classes, contents.present(dataset, indices))
    _say_how(predictor, dataset, matching, options.split)
    found = evaluation.evaluate(predictor, dataset, indices, matching, options.split)
    output = display.make_console(stderr=False)
    title = f'{dataset.name}, {options.split}, {len(found.examples):,} {inputs}'
    output.print(title, soft_wrap=True, markup=False, highlight=False)
    output.print(*_tables(found.metrics, dataset.classes), sep='\n')
    if isinstance(predictor, TextPredictor) and found.cut:
        told = cut_in_words(found.cut, len(found.examples), predictor.length, 'the model reads no more')
        display.console.print(told, style='yellow', soft_wrap=True, markup=False, highlight=False)
    if options.json:
        result = {
            'model': str(options.workdir or options.model),
            'weights': options.weights,
            'task': task.name,
            'dataset': dataset.name,
            'split': options.split,
            'fingerprint': dataset.fingerprint(),
            'examples': len(found.examples),
            'left_out': found.left_out,
            **({'cut': found.cut} if inputs == 'texts' else {}),
            'metrics': found.metrics,
        }
        with atomic_files.os_errors_as_user_errors(lambda: 'choose another file for --json'):
            atomic_files.write_json(options.json, result)
        display.console.print(f'written: {options.json}', soft_wrap=True, markup=False)


def _say_how(predictor: Predictor | TextPredictor, dataset: Dataset, matching: np.ndarray, split: str) -> None:
    """Say what a reader of the metrics could not guess."""
    first = int(np.flatnonzero(matching >= 0)[0])
    name, theirs = predictor.names[first], dataset.classes[matching[first]]
    notes = []
    if theirs.isdecimal() and not name.isdecimal():
        notes.append(f'classes are matched by their numbers: {theirs} is {name}, and so on')
    lacking = [name for index, name in enumerate(dataset.classes) if index not in matching]
    if lacking:
        it = 'it' if len(lacking) == 1 else 'them'
        notes.append(f'ignored, as the model lacks {it} and nothing of {it} is in {split}: {listed(lacking, 5)}')
    if dataset.files is None and dataset.stored_size is not None:
        notes.append(f'images are evaluated at the {"x".join(map(str, dataset.stored_size))} pixels they are stored at')
    for note in notes:
        display.console.print(note, soft_wrap=True, markup=False, highlight=False)


def _dataset(
    options: argparse.Namespace, reading: Mapping[str, Any], task: type[tasks.Task], inputs: Inputs
) -> Dataset:
    if options.dataset is None:
        return splits.dataset_of(options.workdir, options.data_dir)
    loading.check_name(options.dataset, task.truth, of_model=True, inputs=inputs)
    whole = options.split == 'all'
    return loading.load(
        options.dataset, options.data_dir, ReadingOptions(**reading), task.truth, whole=whole, inputs=inputs
    )


def _tables(metrics: dict[str, float], names: Sequence[str]) -> list[Table]:
    """The metrics of all classes together, first those that are shares, and one row per class."""
    tables = []
    for title, others in (('per cent', False), ('value', True)):
        shown = [name for name in metrics if '/' not in name and (name in metric_names.NO_SHARES) == others]
        if shown:
            tables.append(Table())
            tables[-1].add_column('metric')
            tables[-1].add_column(title, justify='right')
            for name in shown:
                tables[-1].add_row(name, metric_names.text(name, metrics[name]))
    kinds = list(dict.fromkeys(name.partition('/')[0] for name in metrics if '/' in name))
    classes = Table()
    classes.add_column('class')
    for kind in kinds:
        classes.add_column(kind, justify='right')
    for name in names:
        values = [metrics.get(f'{kind}/{name}') for kind in kinds]
        if any(value is not None for value in values):
            classes.add_row(escape(name), *('–' if value is None else f'{100 * value:.1f}' for value in values))
    return [*tables, classes]
