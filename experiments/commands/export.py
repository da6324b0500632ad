"""The work of ``experiments.export``: a file, and how far its results are from JAX's."""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from backbones.errors import UserError
from backbones.prediction import fitting, image_sources, trained_model
from backbones.prediction.trained_model import TrainedModel
from backbones.preprocessing import Preprocessing
from experiments import tasks
from experiments.cli import display
from experiments.data import contents, loading
from experiments.data.dataset import Dataset
from experiments.data.options import ReadingOptions
from experiments.export import exports, int8, onnx_file, stablehlo_file
from experiments.export.exports import Export
from experiments.export.onnx_predictor import OnnxPredictor
from experiments.prediction import class_matching, evaluation, splits
from experiments.results import metric_names

# More hardly move the ranges of activations.
_CALIBRATION_IMAGES = 128


def run(options: argparse.Namespace) -> None:
    """Export a model."""
    model = trained_model.read(
        options.workdir or options.weights or options.model,
        options.model if options.weights else None,
        image_size=options.image_size,
        classes=options.classes,
    )
    if options.format == 'int8':
        _quantise(model, options)
        return
    exported = exports.export_of(
        model, options.features, options.pixels, options.image_size, options.before_suppression
    )
    if options.format == 'stablehlo':
        stablehlo_file.save(stablehlo_file.build(exported), options.to)
        compute: Callable[[Any], Any] | None = stablehlo_file.load(options.to)
    else:
        onnx_file.save(onnx_file.build(exported), options.to)
        compute = onnx_file.session_if_installed(options.to)
    _tell(options.to, exported, compute)


def _quantise(model: TrainedModel, options: argparse.Namespace) -> None:
    """Write the 8-bit file, and say what it costs on labelled images."""
    exported = exports.export_of(model, pixels=True, image_size=options.image_size)
    if not isinstance(model.input, Preprocessing):
        raise UserError(f'inputs of {model.source} have several sizes, and an 8-bit file one; export it as onnx')
    dataset = _dataset(model, options)
    sources = list(image_sources.expand(options.calibrate)) if options.calibrate else _training_images(dataset)
    count = min(len(sources), _CALIBRATION_IMAGES)
    chosen = [sources[index * len(sources) // count] for index in range(count)]
    with tempfile.TemporaryDirectory() as directory:
        whole = Path(directory) / 'float32.onnx'
        onnx_file.save(onnx_file.build(exported), whole)
        display.console.print(f'calibrating on {count:,} images', markup=False, highlight=False)
        int8.quantise(whole, (_input(each, model) for each in chosen), options.to)
        now, before = _size(options.to), _size(whole)
        told = f'{options.to}: {now / 1e6:.1f} MB, {now / before:.2f} of the {before / 1e6:.1f} MB in float32'
        display.console.print(told, soft_wrap=True, markup=False, highlight=False)
        if dataset is None:
            display.console.print('what it costs is not known: name labelled images with --dataset', style='yellow')
            return
        _tell_cost(model, dataset, whole, options.to)


def _dataset(model: TrainedModel, options: argparse.Namespace) -> Dataset | None:
    if options.dataset:
        task = tasks.find(model.task)
        loading.check_name(options.dataset, task.truth, of_model=True)
        return loading.load(options.dataset, options.data_dir, ReadingOptions(), task.truth)
    return splits.dataset_of(options.workdir, options.data_dir) if options.workdir else None


def _training_images(dataset: Dataset | None) -> list[Any]:
    assert dataset is not None, 'a run has data'
    return list(splits.images(dataset, splits.chosen(dataset, 'train', _CALIBRATION_IMAGES)))


def _input(source: Any, model: TrainedModel) -> np.ndarray:
    return fitting.fit(image_sources.pixels(source, model.reading), model.image_input).pixels[None]


def _tell_cost(model: TrainedModel, dataset: Dataset, whole: Path, quantised: Path) -> None:
    indices = splits.chosen(dataset, 'test', None)
    matching = class_matching.match(model.names, dataset.classes, contents.present(dataset, indices))
    found = [
        evaluation.evaluate(OnnxPredictor(model, path), dataset, indices, matching, f'{kind} on {dataset.name}')
        for path, kind in ((whole, 'float32'), (quantised, '8 bits'))
    ]
    table = Table(title=f'{dataset.name}, test, {len(found[0].examples):,} images', title_justify='left')
    table.add_column('metric')
    for kind in ('float32', '8 bits'):
        table.add_column(kind, justify='right')
    for name in found[0].metrics:
        if '/' not in name:
            table.add_row(name, *(metric_names.text(name, each.metrics[name]) for each in found))
    display.console.print(table)


def _size(path: Path) -> int:
    """Bytes of a file, with those of its weights where these have a file of their own."""
    return sum(each.stat().st_size for each in (path, onnx_file.weights_of(path)) if each.exists())


def _tell(path: Path, exported: Export, compute: Callable[[Any], Any] | None) -> None:
    """What was written, and how far its results are from JAX's.

    Raises:
        UserError: further than sums in another order can be.
    """
    differences = onnx_file.largest_difference(exported, compute) if compute is not None else {}
    table = Table(show_edge=False, pad_edge=False)
    for column in ('', 'name', 'type', 'shape', 'difference from JAX'):
        table.add_column(column, justify='left')
    results = zip(exported.outputs, exported.results(), strict=True)
    rows = [('input', exported.input, exported.images), *(('output', *each) for each in results)]
    for kind, name, value in rows:
        found = differences.get(name)
        told = '' if kind == 'input' else 'not compared' if found is None else f'{found:.1e} of the largest value'
        table.add_row(kind, name, str(value.dtype), ' × '.join(map(str, value.shape)), told)
    display.console.print(table)
    display.console.print(f'{path}: {_size(path) / 1e6:.1f} MB', soft_wrap=True, markup=False, highlight=False)
    if compute is None:
        display.console.print(
            "ONNX Runtime is not installed, so nothing was compared; pip install -e '.[onnx]' installs it",
            style='yellow',
            markup=False,
        )
    worst = max(differences.values(), default=0.0)
    if worst > exported.tolerance:
        raise UserError(
            f'{path} was written, but its results differ from those of JAX by {worst:.1e} of the largest value, more '
            f'than {exported.tolerance:g}'
        )
