"""Draw what several runs on one data set predict beside the truth, in one picture.

    python benchmarks/draw_predictions.py docs/streets.png 2 frozen=runs/a/trainings/CELL/0.001 tuned=runs/b

The first argument is the picture, the second the number of test images, evenly spread over the split; then come titles
with the runs that they stand for. Run it where the runs were made, so that their data are found.
"""

import sys
from pathlib import Path

from PIL import Image

import backbones
from backbones.prediction import drawing
from experiments.prediction import splits

# Lowest score of the boxes that are drawn, and width of each image in the picture.
SCORE, WIDTH = 0.4, 300


def main(output: str, limit: str, *runs: str) -> None:
    """Draw the picture."""
    titles, sources = zip(*(run.split('=', 1) for run in runs), strict=True)
    dataset = splits.dataset_of(Path(sources[0]), None)
    indices = splits.chosen(dataset, 'test', int(limit))
    predictions = [
        backbones.load(source, score_threshold=SCORE)(list(splits.images(dataset, indices))) for source in sources
    ]
    rows = []
    for index, results in zip(indices, zip(*predictions, strict=True), strict=True):
        pictures = [splits.truth_picture(dataset, index, results[0]), *(each.plot() for each in results)]
        pictures = [
            each.resize((WIDTH, round(each.height * WIDTH / each.width)), Image.Resampling.LANCZOS) for each in pictures
        ]
        rows.append(drawing.beside(pictures, ('truth', *titles)))
    drawing.above_each_other(rows).save(output, optimize=True)


if __name__ == '__main__':
    main(*sys.argv[1:])
