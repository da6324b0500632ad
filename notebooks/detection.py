# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A detector: load, predict an image, show the result
#
# The detector here is FCOS on a backbone of 0.46 million parameters, trained on generated images by the recipe of `configs/pretrain/shapes.py`; its weights come with the repository. Everything below works in the same way with a run of `experiments.train` and with published detectors (`python -m experiments.models --published`).

# %%
# %matplotlib inline
import numpy as np
from PIL import Image

import backbones
from backbones.prediction import drawing
from experiments.data import shapes

detector = backbones.load('bundled:shapes_detector', score_threshold=0.5)
detector

# %% [markdown]
# ## Predict
#
# Images that it has not seen: the data set of its training has seed 0.

# %%
made = shapes.generate(4, seed=7)
results = detector(list(made.images))
for number, result in enumerate(results, 1):
    print(result.summary(f'image {number}'))

# %% [markdown]
# ## Show

# %%
pictures = [drawing.enlarged(Image.fromarray(image), 2) for image in made.images]
seen = [
    drawing.with_boxes(
        picture, 2 * result.boxes, [result.names[each] for each in result.classes], result.classes, result.scores
    )
    for picture, result in zip(pictures, results, strict=True)
]
drawing.beside(seen)

# %% [markdown]
# ## Evaluate
#
# AP is COCO's, by pycocotools, over many more images, with every box above the score threshold that detectors are evaluated with.

# %%
from experiments.results import coco_metrics
from experiments.results.detected_boxes import DetectedBoxes

unseen = shapes.generate(60, seed=8)
found = backbones.load('bundled:shapes_detector', score_threshold=None)(list(unseen.images))
most = max(len(each.scores) for each in found)


def padded(values, fill=0):
    """Arrays of every image in one, whose rows beyond an image's own are the fill."""
    arrays = [np.asarray(each) for each in values]
    return np.stack(
        [np.pad(each, [(0, most - len(each)), *[(0, 0)] * (each.ndim - 1)], constant_values=fill) for each in arrays]
    )


detections = DetectedBoxes(
    padded(each.boxes for each in found),
    padded(each.scores for each in found),
    padded(each.classes for each in found),
    padded((np.ones(len(each.scores), bool) for each in found), False),
)
evaluation = coco_metrics.evaluate(unseen.boxes, detections, shapes.CLASSES)
low, high = evaluation.bootstrap()['AP']
print(f'AP {100 * evaluation.metrics["AP"]:.1f}, {100 * low:.1f} to {100 * high:.1f} for other images of the same kind')
for name in shapes.CLASSES:
    print(f'{name:10} {100 * evaluation.metrics[f"AP/{name}"]:.1f}')

# %% [markdown]
# ## Your own images
#
# A detector of your own is one command, and its work directory is loaded like the weights above, `backbones.load('runs/cells')`:
#
# ```console
# $ python -m experiments.train --workdir runs/cells --config configs/detection.py:backbone=efficientnet_lite0,dataset=voc:PATH \
#     --config.image_height=240 --config.epochs=40
# ```
#
# What that gives on blood cells under the microscope (BCCD) is in [the results](../docs/results.md#bccd): the boxes of the annotation beside those of three detectors.

# %%
Image.open('../docs/cells.png')
