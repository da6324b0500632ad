"""Ultralytics' models: as far as their backbone goes, and whole."""

import os
import tempfile

# Read when the package is imported: it writes its settings somewhere, and asks for updates.
os.environ['YOLO_CONFIG_DIR'] = tempfile.mkdtemp()
os.environ['YOLO_OFFLINE'] = 'true'

from references.common import Outputs, Reference
from torch import Tensor
from ultralytics.nn import tasks
from weights import Case

# Index of the last layer of each stage.
_LAST = (0, 2, 4, 6, 10)

# What a whole model is for → suffix of its configuration, and its class.
TASKS = {
    'detect': ('', tasks.DetectionModel),
    'segment': ('-seg', tasks.SegmentationModel),
    'pose': ('-pose', tasks.PoseModel),
    'obb': ('-obb', tasks.OBBModel),
    'semantic': ('-sem', tasks.SemanticSegmentationModel),
    'depth': ('-depth', tasks.DepthModel),
    'classify': ('-cls', tasks.ClassificationModel),
}


def yolo(case: Case) -> Reference:
    """Layers 0 to 10; ``pooled`` is the mean of the last, for which the reference has no name."""
    model = tasks.DetectionModel(f'{case.backbone}.yaml', verbose=False)
    model.model = model.model[: _LAST[-1] + 1]

    def run(x: Tensor) -> Outputs:
        outputs = {}
        for index, layer in enumerate(model.model):
            x = layer(x)
            if index in _LAST:
                outputs[f'stage{len(outputs) + 1}'] = x
        return outputs | {'pooled': x.mean((2, 3))}

    return Reference(model, run)


def whole_yolo(case: Case) -> Reference:
    """A whole model for the task that the case gives as its layout; only its keys and shapes are asked for."""
    suffix, model = TASKS[case.layout]
    return Reference(model(f'{case.backbone}{suffix}.yaml', verbose=False), run=lambda images: {})
