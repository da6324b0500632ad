"""Evaluate a trained or published model on a data set, with every metric of its task.

    python -m experiments.evaluate --workdir runs/x                              a run, on its own test split
    python -m experiments.evaluate --workdir runs/x --dataset voc:PATH           on other data with the same classes
    python -m experiments.evaluate --model NAME --weights SOURCE --dataset NAME  published weights

Classes are matched by their names; those of ImageNet also by their WordNet ids. One that the model lacks is ignored
where nothing of it is evaluated. A data set whose folder has no test split is split as a training splits it:
--split all takes every image of it.
"""

import argparse
from typing import Any

from backbones.errors import UserError
from experiments.cli import command_line
from experiments.data import options as data_options
from experiments.prediction import model_options

# Options of data sets that a data set of one's own may need.
_READING = ('stored_size', 'layout', 'exclude', 'ignore_label', 'class_names', 'group')


def main(argv: list[str] | None) -> None:
    """Evaluate a model."""
    options = _parser().parse_args(argv)
    _check(options)
    # Imports JAX, which neither help nor a wrong option waits for.
    from experiments.commands import evaluate

    evaluate.run(options, {key: getattr(options, key) for key in _READING if getattr(options, key) is not None})


def _parser() -> argparse.ArgumentParser:
    arguments = command_line.parser(__doc__, config=False, workdir=False)
    model = arguments.add_argument_group('the model')
    model_options.add(model)
    data = arguments.add_argument_group('the data')
    data.add_argument('--dataset', metavar='NAME', help="a data set, such as voc:PATH (default: the run's own)")
    data.add_argument('--split', default='test', metavar='SPLIT', help="'train', 'validation', 'test' or 'all' (test)")
    data.add_argument('--limit', type=command_line.positive, metavar='IMAGES', help='at most so many images')
    command_line.add_data_directory(data)
    fields: Any = data_options.ReadingOptions.__dataclass_fields__
    for key in _READING:
        meaning = fields[key].metadata['meaning'].replace('%', '%%')
        data.add_argument(f'--{key}', type=type(fields[key].default), metavar='VALUE', help=meaning)
    result = arguments.add_argument_group('results')
    result.add_argument('--json', type=command_line.path, metavar='FILE', help='write all metrics to FILE')
    return arguments


def _check(options: argparse.Namespace) -> None:
    model_options.check(options)
    if options.json is not None and options.json.is_dir():
        raise UserError(f'--json {options.json} is a directory; name a file')
    if options.model is not None and options.dataset is None:
        raise UserError('published weights have no data set of their own: name one with --dataset')
    if options.dataset is None and any(getattr(options, key) is not None for key in _READING):
        raise UserError("a run's own data set is read as the run read it; name another one with --dataset")


if __name__ == '__main__':
    command_line.run(main)
