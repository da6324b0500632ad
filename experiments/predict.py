"""Predict images with a trained or published model.

    python -m experiments.predict --workdir runs/x IMAGE …                       a run of experiments.train
    python -m experiments.predict --model NAME --weights SOURCE IMAGE …          published weights
    python -m experiments.predict --workdir runs/x --split test --save DIR       its own images, beside the truth

An IMAGE is a file, a directory, or a pattern in quotes such as 'photos/**/*.jpg'. Boxes, masks and probabilities are
those of the image as it is seen upright, in its own pixels. Files that cannot be read are named and left out.
"""

import argparse
import contextlib
import json
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import backbones
from backbones.errors import UserError
from backbones.prediction import image_sources
from backbones.prediction.prediction import Prediction
from experiments.cli import atomic_files, command_line, display
from experiments.prediction import splits, telling

# Up to so many images, each has a table of its own.
_TABLES = 3
# Formats of pictures, and the largest side that each can have.
_LARGEST = {'.jpg': 65_500, '.jpeg': 65_500, '.webp': 16_383, '.png': 2**31 - 1}


def main(argv: list[str] | None) -> None:
    """Predict images."""
    options = _parser().parse_args(argv)
    _check(options)
    source, name = (options.workdir, None) if options.workdir else (options.weights or options.model, options.model)
    predictor = backbones.load(
        source,
        name if options.weights else None,
        batch_size=options.batch_size,
        score_threshold=options.score_threshold,
        image_size=options.image_size,
    )
    if predictor.model.task == 'classification' and any(path.suffix == '.json' for path in options.json):
        raise UserError('the layout of COCO has no classes of whole images: write them to --json FILE.jsonl')
    dataset, indices = None, None
    if options.split:
        dataset = splits.dataset_of(options.workdir, options.data_dir)
        indices = splits.chosen(dataset, options.split, options.limit)
        names, images = [dataset.ids[index] for index in indices], splits.images(dataset, indices)
    else:
        found = list(image_sources.expand(options.images))[: options.limit]
        names, images = [str(each) for each in found], iter(found)
        if options.save and any(Path(name).parent.resolve() == options.save.resolve() for name in names):
            raise UserError(
                f'--save {options.save} holds images that are predicted, and pictures would take their names; name '
                'another directory'
            )
    output = display.make_console(stderr=False)
    pictures = _Pictures(options.save) if options.save else None
    left_out = 0
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(_writer(path, predictor.names)) for path in options.json]
        bar = stack.enter_context(display.progress())
        task = bar.add_task('predicting', total=len(names), note='', brief=len(names) <= _TABLES)
        for number, (image, prediction) in enumerate(zip(names, predictor.stream(images), strict=True)):
            bar.advance(task)
            if isinstance(prediction, UserError):
                left_out += 1
                display.console.print(f'left out: {prediction}', style='yellow', markup=False, soft_wrap=True)
                continue
            if len(names) <= _TABLES:
                output.print(telling.heading(image, prediction), soft_wrap=True, markup=False, highlight=False)
                output.print(telling.table(prediction))
            else:
                output.print(prediction.summary(image), soft_wrap=True, markup=False, highlight=False)
            for write in writers:
                write(image, prediction)
            if pictures is not None:
                picture = prediction.plot()
                if dataset is not None and indices is not None:
                    picture = splits.beside_truth(splits.truth_picture(dataset, indices[number], prediction), picture)
                pictures.save(image, picture)
    if left_out == len(names):
        raise UserError(f'none of the {len(names):,} images can be predicted; the reasons are above')
    done = len(names) - left_out
    told = f'{done:,} image{"" if done == 1 else "s"}'
    told += f', {left_out:,} left out' if left_out else ''
    told += f'; pictures in {options.save}' if options.save else ''
    told += f'; results in {", ".join(map(str, options.json))}' if options.json else ''
    display.console.print(told, soft_wrap=True, markup=False, highlight=False)


def _parser() -> argparse.ArgumentParser:
    arguments = command_line.parser(__doc__, config=False, workdir=False)
    arguments.add_argument('images', nargs='*', metavar='IMAGE', help='files, directories, patterns')
    model = arguments.add_argument_group('the model')
    command_line.add_model(model)
    model.add_argument(
        '--score_threshold',
        type=float,
        default=0.25,
        metavar='SCORE',
        help='lowest score of the boxes that are shown (0.25)',
    )
    own = arguments.add_argument_group("the run's own images, in place of IMAGE")
    own.add_argument(
        '--split', metavar='SPLIT', help="'train', 'validation' or 'test' of the run's data set, with the truth"
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
    command_line.check_model(options)
    if options.split and not options.workdir:
        raise UserError("--split is of a run's data set and needs --workdir DIR")
    if bool(options.images) == bool(options.split):
        raise UserError('name the images to predict, or a --split of the data set of the run')
    for path in options.json:
        if path.is_dir():
            raise UserError(f'--json {path} is a directory; name a file')
        if path.suffix not in ('.json', '.jsonl'):
            raise UserError(f'--json {path} must end in .jsonl (a line per image) or .json (the layout of COCO)')


class _Pictures:
    """Pictures in a directory, each under the name of its image; of several with one name, the later have a number."""

    def __init__(self, directory: Path):
        self._directory = directory
        self._used: set[str] = set()

    def save(self, image: str, picture: Any) -> None:
        name = Path(image)
        suffix = name.suffix.lower()
        if suffix not in _LARGEST or max(picture.size) > _LARGEST[suffix]:
            suffix = '.png'
        stem, number = name.name.removesuffix(name.suffix), 1
        while (unique := f'{stem}{f"-{number}" if number > 1 else ""}{suffix}') in self._used:
            number += 1
        self._used.add(unique)
        with (
            atomic_files.os_errors_as_user_errors(lambda: 'the pictures before it are written'),
            atomic_files.atomic_write(self._directory / unique, 'wb') as stream,
        ):
            picture.save(stream, format={'.jpg': 'jpeg'}.get(suffix, suffix[1:]))


@contextlib.contextmanager
def _writer(path: Path, names: tuple[str, ...]) -> Generator[Callable[[str, Prediction], None]]:
    """A function that adds a result to a file, which appears at the end, also where the command is interrupted."""
    coco = telling.CocoResults(names)
    ended: BaseException | None = None
    count = 0
    with (
        atomic_files.os_errors_as_user_errors(lambda: 'choose another file for --json'),
        atomic_files.atomic_write(path) as stream,
    ):

        def write(image: str, prediction: Prediction) -> None:
            nonlocal count
            count += 1
            if path.suffix == '.json':
                coco.add(image, prediction)
            else:
                stream.write(f'{json.dumps({**prediction.as_json(), "path": image})}\n')

        try:
            yield write
        except BaseException as error:
            if not count:
                raise  # an earlier file of this name stays
            ended = error
        if path.suffix == '.json':
            json.dump(coco.as_json(), stream)
    if ended is not None:
        raise ended


if __name__ == '__main__':
    command_line.run(main)
