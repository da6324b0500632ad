"""Export a trained or published model to a file that runs without this repository.

    python -m experiments.export --workdir runs/x --to x.onnx                        a run of experiments.train
    python -m experiments.export --model NAME --weights SOURCE --to x.onnx           published weights
    python -m experiments.export --model NAME --features pooled --to x.onnx          the backbone's features alone
    python -m experiments.export --workdir runs/x --format stablehlo --to x.hlo      for jax.export
    python -m experiments.export --workdir runs/x --format int8 --to x.onnx          8-bit, calibrated on its images

The file takes batches of any number of images, channels last as everywhere here: float32 normalised as the model
expects it, or with --pixels uint8 from 0 to 255, normalised inside. What it returns is compared with JAX's own result.
Task, classes and preprocessing are in the file's metadata.
"""

import argparse

from backbones.errors import UserError
from experiments.cli import command_line
from experiments.prediction import model_options


def main(argv: list[str] | None) -> None:
    """Export a model."""
    options = _parser().parse_args(argv)
    model_options.check(options)
    quantised = options.format == 'int8'
    if not quantised and (options.calibrate or options.dataset):
        raise UserError('--calibrate and --dataset belong to --format int8')
    if quantised and (options.features or options.before_suppression or isinstance(options.pixels, tuple)):
        raise UserError('--format int8 is of a whole model on pixels of its input size; leave out the other options')
    if quantised and options.model and not options.calibrate:
        raise UserError(
            'published weights have no images of their own: name some to calibrate with, --calibrate IMAGE …'
        )
    if options.to.is_dir():
        raise UserError(f'--to {options.to} is a directory; name a file')
    # Imports JAX, which neither help nor a wrong option waits for.
    from experiments.commands import export

    export.run(options)


def _parser() -> argparse.ArgumentParser:
    arguments = command_line.parser(__doc__, config=False, workdir=False)
    model_options.add(arguments.add_argument_group('the model'), batches=False)
    file = arguments.add_argument_group('the file')
    file.add_argument('--to', type=command_line.path, required=True, metavar='FILE', help='the file to write')
    file.add_argument(
        '--format',
        choices=('onnx', 'int8', 'stablehlo'),
        default='onnx',
        help='onnx (default); int8: ONNX with 8-bit weights and activations; stablehlo: for jax.export',
    )
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
    quantised = arguments.add_argument_group('--format int8')
    quantised.add_argument(
        '--calibrate',
        nargs='+',
        metavar='IMAGE',
        default=[],
        help='images that show what activations there are: files, directories, patterns (default: training images of '
        'the run)',
    )
    quantised.add_argument(
        '--dataset',
        metavar='NAME',
        help="labelled images whose test split shows what it costs (default: the run's own)",
    )
    command_line.add_data_directory(quantised)
    return arguments


def _pixels(text: str) -> tuple[int, int]:
    size = model_options.image_size(text)
    return size if isinstance(size, tuple) else (size, size)


if __name__ == '__main__':
    command_line.run(main)
