"""The work of ``experiments.demo``: a picture of generated images and what two models see in them."""

import argparse

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

import backbones
from backbones.prediction import drawing
from backbones.prediction.predictor import Predictor
from experiments.cli import atomic_files, display
from experiments.data import shapes
from experiments.data.truth import IGNORE

DETECTOR, SEGMENTER = 'bundled:shapes_detector', 'bundled:shapes_segmenter'
COLUMNS = 2
SCORE = 0.5
# Pixels by which the picture is larger than the images.
ENLARGED = 3


def run(options: argparse.Namespace) -> None:
    """Predict and draw."""
    made = shapes.generate(options.images, seed=options.seed)
    detector = backbones.load(DETECTOR, score_threshold=SCORE)
    segmenter = backbones.load(SEGMENTER)
    images = list(made.images)
    assert isinstance(detector, Predictor) and isinstance(segmenter, Predictor)
    with display.progress() as bar:
        task = bar.add_task('predicting', total=2, note='', brief=True)
        detections = detector(images)
        bar.advance(task)
        segments = segmenter(images)
        bar.advance(task)
    output = display.make_console(stderr=False)
    pairs = []
    for index, (detection, segment) in enumerate(zip(detections, segments, strict=True)):
        assert detection.boxes is not None and detection.classes is not None and segment.mask is not None
        objects = made.boxes.classes[index] >= 0
        truth = made.masks[index], made.boxes.boxes[index][objects], made.boxes.classes[index][objects]
        seen = segment.mask, detection.boxes, detection.classes, detection.scores
        panels = [_panel(images[index], *truth), _panel(images[index], *seen)]
        pairs.append(drawing.beside(panels, ('truth', 'predicted')))
        output.print(detection.summary(f'image {index + 1}'), markup=False, highlight=False)
    rows = [drawing.beside(pairs[first : first + COLUMNS]) for first in range(0, len(pairs), COLUMNS)]
    with (
        atomic_files.os_errors_as_user_errors(lambda: 'choose another file for --save'),
        atomic_files.atomic_write(options.save, 'wb') as stream,
    ):
        drawing.above_each_other(rows).save(stream, format='png', optimize=True)
    display.console.print(f'the picture is {options.save}', markup=False, highlight=False, soft_wrap=True)


def _panel(
    image: UInt8[np.ndarray, 'height width 3'],
    mask: Int[np.ndarray, 'height width'],
    boxes: Float[np.ndarray, 'n 4'],
    classes: Int[np.ndarray, 'n'],
    scores: Float[np.ndarray, 'n'] | None = None,
) -> Image.Image:
    """An image with both; a shape has the colour of its class in the mask, where 0 is the background."""
    picture = drawing.enlarged(Image.fromarray(image), ENLARGED)
    size = picture.size
    names = ('background', *shapes.CLASSES)
    picture = drawing.with_mask(picture, mask.repeat(ENLARGED, 0).repeat(ENLARGED, 1), names, IGNORE)
    # No label lies on the legend below the image.
    inside = picture.crop((0, 0, *size))
    named = [names[each + 1] for each in classes]
    picture.paste(drawing.with_boxes(inside, boxes * ENLARGED, named, classes + 1, scores))
    return picture
