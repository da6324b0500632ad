"""The work of ``experiments.predict``: images, split after split or file after file, and what is seen in them."""

import argparse
import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from backbones.errors import UserError
from backbones.images import Source
from backbones.prediction import image_sources
from backbones.prediction.prediction import Prediction
from backbones.prediction.predictor import Predictor
from backbones.prediction.text_predictor import TextPredictor
from experiments.cli import display
from experiments.commands import predict_texts
from experiments.data.coco_ids import CocoIds
from experiments.prediction import model_options, splits, telling, writing

# Up to so many images, each has a table of its own.
_TABLES = 3


def run(options: argparse.Namespace) -> None:
    """Predict images."""
    if options.split:
        splits.check_name(options.split)
    predictor = model_options.load(options, options.score_threshold)
    if isinstance(predictor, TextPredictor):
        predict_texts.run(predictor, options)
        return
    if predictor.model.task == 'classification' and any(path.suffix == '.json' for path in options.json):
        raise UserError('the layout of COCO has no classes of whole images: write them to --json FILE.jsonl')
    asked = _of_split(options) if options.split else _of_arguments(options)
    if options.save and options.save.resolve() in {path.parent.resolve() for path in asked.files}:
        raise UserError(
            f'--save {options.save} holds images that are predicted, and pictures would take their names; name '
            'another directory'
        )
    left_out = _predict(predictor, asked, options)
    done = len(asked.names) - left_out
    told = f'{done:,} image{"" if done == 1 else "s"}'
    told += f', {left_out:,} left out' if left_out else ''
    told += f'; pictures in {options.save}' if options.save else ''
    told += f'; results in {", ".join(map(str, options.json))}' if options.json else ''
    display.console.print(told, soft_wrap=True, markup=False, highlight=False)


@dataclasses.dataclass(frozen=True)
class _Asked:
    """The images to predict.

    Attributes:
        names: what each is called.
        images: each of them, in the same order.
        files: those whose directories no picture is written to.
        picture: from the number of an image and what was seen in it to a picture of both.
        own: what annotation files of COCO call the images and classes, if they are from some.
    """

    names: Sequence[str]
    images: Iterator[Source | np.ndarray]
    files: Sequence[Path]
    picture: Callable[[int, Prediction], Image.Image]
    own: CocoIds | None = None


def _of_arguments(options: argparse.Namespace) -> _Asked:
    found = list(image_sources.expand(options.images))[: options.limit]
    names = [str(each) for each in found]
    return _Asked(names, iter(found), [Path(name) for name in names], lambda _, prediction: prediction.plot())


def _of_split(options: argparse.Namespace) -> _Asked:
    dataset = splits.dataset_of(options.workdir, options.data_dir)
    indices = splits.chosen(dataset, options.split, options.limit)

    def picture(number: int, prediction: Prediction) -> Image.Image:
        return splits.beside_truth(splits.truth_picture(dataset, indices[number], prediction), prediction.plot())

    names = [dataset.ids[index] for index in indices]
    files = [path for path in dataset.files or () if path is not None]
    return _Asked(names, splits.images(dataset, indices), files, picture, dataset.coco_ids)


def _predict(predictor: Predictor, asked: _Asked, options: argparse.Namespace) -> int:
    """Predict and tell; the number of images that were left out.

    Raises:
        UserError: all were.
    """
    in_full = len(asked.names) <= _TABLES
    pictures = writing.Pictures(options.save) if options.save else None
    left_out = 0
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(writing.writer(path, predictor.names, asked.own)) for path in options.json]
        bar = stack.enter_context(display.progress())
        output = display.beside(bar)
        task = bar.add_task('predicting', total=len(asked.names), note='', brief=in_full)
        for number, (name, prediction) in enumerate(zip(asked.names, predictor.stream(asked.images), strict=True)):
            bar.advance(task)
            if isinstance(prediction, UserError):
                left_out += 1
                display.console.print(f'left out: {prediction}', style='yellow', markup=False, soft_wrap=True)
                continue
            told = telling.heading(name, prediction) if in_full else prediction.summary(name)
            output.print(told, soft_wrap=True, markup=False, highlight=False)
            if in_full:
                output.print(telling.table(prediction))
            for write in writers:
                write(name, prediction)
            if pictures is not None:
                pictures.save(name, asked.picture(number, prediction))
        if left_out == len(asked.names):
            raise UserError(f'none of the {left_out:,} images can be predicted; the reasons are above')
    return left_out
