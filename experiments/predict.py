"""Predict images, or classify texts, with a trained or published model.

    python -m experiments.predict --workdir runs/x IMAGE …                       a run of experiments.train
    python -m experiments.predict --model NAME --weights SOURCE IMAGE …          published weights
    python -m experiments.predict --workdir runs/x --split test --save DIR       its own images, beside the truth

An IMAGE is a file, a directory, or a pattern in quotes such as 'photos/**/*.jpg'. Boxes, masks and probabilities are
those of the image as it is seen upright, in its own pixels. Files that cannot be read are named and left out.
For a model that reads texts, each argument is a text, or a file .txt with a text on every line.
"""

import argparse

from backbones.errors import UserError
from experiments.cli import command_line
from experiments.prediction import model_options


def main(argv: list[str] | None) -> None:
    """Predict images."""
    options = _parser().parse_args(argv)
    _check(options)
    # Imports JAX, which neither help nor a wrong option waits for.
    from experiments.commands import predict

    predict.run(options)


def _parser() -> argparse.ArgumentParser:
    arguments = command_line.parser(__doc__, config=False, workdir=False)
    arguments.add_argument('images', nargs='*', metavar='IMAGE', help='files, directories, patterns; or texts')
    model = arguments.add_argument_group('the model')
    model_options.add(model)
    model.add_argument(
        '--score_threshold',
        type=float,
        default=0.25,
        metavar='SCORE',
        help='boxes that are shown have higher scores (0.25)',
    )
    own = arguments.add_argument_group("the run's own images, in place of IMAGE")
    own.add_argument(
        '--split', metavar='SPLIT', help="'train', 'validation', 'test' or 'all' of the run's data set, with the truth"
    )
    command_line.add_data_directory(own)
    result = arguments.add_argument_group('results')
    result.add_argument('--limit', type=command_line.positive, metavar='IMAGES', help='at most so many images')
    result.add_argument('--save', type=command_line.path, metavar='DIR', help='write a picture of each image into DIR')
    result.add_argument(
        '--json', type=command_line.path, action='append', default=[], metavar='FILE',
        help='write results: a line of JSON per image to FILE.jsonl, or the layout of COCO to FILE.json (repeatable)',
    )  # fmt: skip
    return arguments


def _check(options: argparse.Namespace) -> None:
    if options.save is not None and options.save.exists() and not options.save.is_dir():
        raise UserError(f'--save {options.save} is a file; name a directory for the pictures')
    if len({path.absolute() for path in options.json}) < len(options.json):
        raise UserError('--json names the same file twice')
    model_options.check(options)
    if options.split and not options.workdir:
        raise UserError("--split is of a run's data set and needs --workdir DIR")
    if bool(options.images) == bool(options.split):
        both = f'{options.images[0]!r} and --split {options.split} were both given: ' if options.images else ''
        raise UserError(f'{both}name the images to predict, or a --split of the data set of the run')
    for path in options.json:
        if path.is_dir():
            raise UserError(f'--json {path} is a directory; name a file')
        if path.suffix not in ('.json', '.jsonl'):
            raise UserError(f'--json {path} must end in .jsonl (a line per image) or .json (the layout of COCO)')


if __name__ == '__main__':
    command_line.run(main)
