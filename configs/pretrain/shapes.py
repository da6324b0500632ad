"""Train the small detector and segmenter of generated shapes that this repository carries: the recipe of their weights.

python -m experiments.train --config configs/pretrain/shapes.py:task=detection --workdir runs/pretrain/shapes_detector
python -m experiments.train --config configs/pretrain/shapes.py:task=segmentation --workdir runs/pretrain/shapes_segmenter
"""

from configs import detection, segmentation


def get_config(task: str = 'detection'):
    module = detection if task == 'detection' else segmentation
    config = module.get_config('resnet_micro', 'shapes')
    config.image_size = config.stored_size = 128
    config.strides = (4, 8, 16)
    config.neck_channels = config.head_channels = 64
    config.smallest_scale, config.largest_scale = 0.75, 1.33
    config.batch_size = 16
    config.learning_rate = 2e-3
    config.epochs = 40.0
    if task == 'segmentation':
        # What shapes are, the detector has learned: backbone and neck begin with its own.
        config.weights, config.weights_parts = 'bundled:shapes_detector', 'neck'
        config.strict_weights = False  # the levels that only a detector has are left out
        config.epochs = 30.0
    return config
