"""The work of ``experiments.export``: a file, and how far its results are from JAX's."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.table import Table

from backbones.errors import UserError
from backbones.prediction import trained_model
from experiments.cli import display
from experiments.export import exports, onnx_file, stablehlo_file
from experiments.export.exports import Export


def run(options: argparse.Namespace) -> None:
    """Export a model."""
    model = trained_model.read(
        options.workdir or options.weights or options.model,
        options.model if options.weights else None,
        image_size=options.image_size,
        classes=options.classes,
    )
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
    size = sum(each.stat().st_size for each in (path, onnx_file.weights_of(path)) if each.exists())
    display.console.print(f'{path}: {size / 1e6:.1f} MB', soft_wrap=True, markup=False, highlight=False)
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
