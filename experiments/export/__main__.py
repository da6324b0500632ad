"""Export a trained or published model to a file that runs without this repository.

    python -m experiments.export --workdir runs/x --to x.onnx                        a run of experiments.train
    python -m experiments.export --model NAME --weights SOURCE --to x.onnx           published weights
    python -m experiments.export --model NAME --features pooled --to x.onnx          the backbone's features alone
    python -m experiments.export --workdir runs/x --format stablehlo --to x.hlo      for jax.export

The file takes batches of any number of images, channels last as everywhere here: float32 normalised as the model
expects it, or with --pixels uint8 from 0 to 255, normalised inside. What it returns is compared with JAX's own result.
Task, classes and preprocessing are in the file's metadata.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.table import Table

from backbones.errors import UserError
from backbones.prediction import trained_model
from experiments.cli import command_line, display
from experiments.export import exports, onnx_file, stablehlo_file
from experiments.export.exports import Export
from experiments.prediction import model_options

_FORMATS = ('onnx', 'stablehlo')


def main(argv: list[str] | None) -> None:
    """Export a model."""
    options = _parser().parse_args(argv)
    model_options.check(options)
    if options.to.is_dir():
        raise UserError(f'--to {options.to} is a directory; name a file')
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
        run: Callable[[Any], Any] | None = stablehlo_file.load(options.to)
    else:
        onnx_file.save(onnx_file.build(exported), options.to)
        run = onnx_file.session_if_installed(options.to)
    _tell(options.to, exported, run)


def _tell(path: Path, exported: Export, run: Callable[[Any], Any] | None) -> None:
    """What was written, and how far its results are from JAX's.

    Raises:
        UserError: further than sums in another order can be.
    """
    differences = onnx_file.largest_difference(exported, run) if run is not None else {}
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
    if run is None:
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


def _parser() -> argparse.ArgumentParser:
    arguments = command_line.parser(__doc__ or '', config=False, workdir=False)
    model_options.add(arguments.add_argument_group('the model'), batches=False)
    file = arguments.add_argument_group('the file')
    file.add_argument('--to', type=command_line.path, required=True, metavar='FILE', help='the file to write')
    file.add_argument('--format', choices=_FORMATS, default='onnx', help='onnx (default), or stablehlo for jax.export')
    file.add_argument(
        '--pixels',
        nargs='?',
        const=True,
        default=False,
        type=_pixels,
        metavar='HEIGHTxWIDTH',
        help='take uint8 pixels: of the size of the input, or of this size, which is resized inside',
    )
    file.add_argument(
        '--features', metavar='TAP', help='features of the backbone in place of the results: pooled, stages, grid, …'
    )
    file.add_argument(
        '--before_suppression',
        action='store_true',
        help='of a one-stage detector, the box and the scores of every anchor',
    )
    return arguments


def _pixels(text: str) -> tuple[int, int]:
    size = model_options.image_size(text)
    return size if isinstance(size, tuple) else (size, size)


if __name__ == '__main__':
    command_line.run(main)
