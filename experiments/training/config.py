"""Every value that a training reads."""

import ml_collections


def default_config() -> ml_collections.ConfigDict:
    """Every value that a training reads; config files change some of them."""
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.backbone = 'resnet_micro'
    config.weights = ''  # source of pretrained weights; empty: random initialisation
    config.regime = 'scratch'
    config.dataset = 'tfds:cifar10'
    config.stored_size = 256  # side to which images of several sizes are brought when they are decoded
    config.bad_files_limit = 10  # more unreadable files than this in a folder end the run
    config.image_size = 0  # side of the model's input; 0: what the preprocessing says
    config.fraction = 1.0  # share of the training labels that is used
    config.epochs = 10.0
    config.batch_size = 128
    config.optimizer = 'adamw'
    config.learning_rate = 1e-3
    config.warmup_epochs = 1.0
    config.weight_decay = 0.05
    config.clip_norm = 0.0  # 0: no clipping
    config.label_smoothing = 0.0
    config.dropout = 0.0
    config.flip = True
    config.shift = 0  # random shifts of up to this many stored pixels
    config.dtype = 'float32'  # of the computation; parameters are always float32
    config.checkpoint_epochs = 1  # whole epochs, so that the metrics of an epoch are whole, too
    config.keep_checkpoints = 2
    return config
