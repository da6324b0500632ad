"""The options of commands that use a trained or published model."""

import argparse
from typing import TYPE_CHECKING

import backbones
from backbones.errors import UserError
from experiments.cli import command_line

if TYPE_CHECKING:  # it imports JAX, which reading the options does not need
    from backbones.prediction.predictor import Predictor
    from backbones.prediction.text_predictor import TextPredictor


def add(arguments: argparse._ActionsContainer, batches: bool = True) -> None:
    """Add what names a model (``check`` and ``load``), and by default the size of batches."""
    arguments.add_argument(
        '--workdir', type=command_line.path, help='a run of experiments.train, or one of its checkpoints'
    )
    arguments.add_argument(
        '--model', metavar='NAME', help='a backbone with a classifier, or a published detector or segmenter'
    )
    arguments.add_argument('--weights', metavar='SOURCE', help='its weights (default: the usual ones of the backbone)')
    arguments.add_argument(
        '--classes', type=_names, metavar='A,B,…', help='names of the classes of weights that were tuned to others'
    )
    arguments.add_argument(
        '--image_size', type=image_size, metavar='PIXELS', help='side of the input, or HEIGHTxWIDTH (as trained)'
    )
    if batches:
        arguments.add_argument(
            '--batch_size', type=command_line.positive, default=8, metavar='IMAGES', help='images per step (8)'
        )


def check(options: argparse.Namespace) -> None:
    """Check that options name one model.

    Raises:
        UserError: none, or two.
    """
    if (options.workdir is None) == (options.model is None):
        both = f'--workdir {options.workdir} and --model {options.model} were both given: ' if options.model else ''
        raise UserError(f'{both}name the model: --workdir DIR for a run, or --model NAME for published weights')
    for option in ('weights', 'classes'):
        if getattr(options, option) and not options.model:
            raise UserError(f'--{option} belongs to --model NAME; a run has its own {option}')


def load(options: argparse.Namespace, score_threshold: float | None) -> 'Predictor | TextPredictor':
    """The model that options name.

    Raises:
        UserError: see ``backbones.load``.
    """
    return backbones.load(
        options.workdir or options.weights or options.model,
        options.model if options.weights else None,
        batch_size=options.batch_size,
        score_threshold=score_threshold,
        image_size=options.image_size,
        classes=options.classes,
    )


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(','))
    if not all(names):
        raise argparse.ArgumentTypeError(f'{text!r} has a class without a name')
    return names


def image_size(text: str) -> int | tuple[int, int]:
    """A side in pixels, or ``HEIGHTxWIDTH``, as an argument."""
    sides = tuple(map(command_line.positive, text.split('x')))
    if len(sides) > 2:
        raise argparse.ArgumentTypeError(f'{text!r} is neither a side nor HEIGHTxWIDTH')
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])
