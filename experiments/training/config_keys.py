"""The single table of every value that a training run reads; it needs no JAX, so that ``--help`` can list it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import ml_collections

from experiments.data.options import ReadingOptions
from experiments.training.value_checks import (
    Check,
    OneOf,
    all_or_positive,
    anything,
    channels,
    closed_share,
    depth,
    detections,
    magnitude,
    not_negative,
    one_of,
    positive,
    positive_share,
    scale,
    seed,
    share,
    side,
    text_length,
)


@dataclasses.dataclass(frozen=True)
class ConfigKey:
    """One row of the table.

    Attributes:
        default: the value if none is given, also for work directories that are older than the key.
        meaning: a description for the reader.
        check: raises a ``UserError`` for an invalid value; needs neither data nor devices.
        free: whether it only affects where and how a run computes, so that it may differ between the runs of a work
            directory.
        compiled: whether it enters the compiled step; runs that differ in no such key share their programs.
    """

    default: Any
    meaning: str
    check: Check = anything
    free: bool = False
    compiled: bool = False

    @property
    def choices(self) -> tuple[str, ...]:
        """The values that the check allows, if it lists them."""
        return self.check.choices if isinstance(self.check, OneOf) else ()


# ``ReadingOptions`` checks their values itself.
_READING = {
    field.name: ConfigKey(
        field.default,
        field.metadata['meaning'],
        one_of(*field.metadata['choices']) if field.metadata['choices'] else anything,
    )
    for field in dataclasses.fields(ReadingOptions)
}

# Checked elsewhere, where the names are known: backbone, dataset, weights, optimizer, sampler, class_weights.
KEYS: Mapping[str, ConfigKey] = {
    'task': ConfigKey('classification', 'what is learned: a key of experiments.tasks.TABLE'),
    'seed': ConfigKey(0, 'seed of the random weights, the order of the examples, augmentation and dropout', seed),
    'backbone': ConfigKey('resnet_micro', 'a registered name', compiled=True),
    'weights': ConfigKey(
        '', "source of pretrained weights; empty: random initialisation; 'random': random ones that stay frozen"
    ),
    'weights_parts': ConfigKey(
        'backbone', "what is taken of the weights: 'backbone', 'neck' (and the backbone), or 'all' (and the head)",
        one_of('backbone', 'neck', 'all'),
    ),
    'calibration_images': ConfigKey(
        64, "training images that give the BatchNorm statistics of weights that are 'random' and stay so", positive
    ),
    'strict_weights': ConfigKey(
        True, 'whether weights that do not fit are an error; if not, what they leave out is printed and stays random'
    ),
    'dataset': ConfigKey('tfds:cifar10', 'a name as experiments.data.loading takes it'),
    'image_size': ConfigKey(0, "side of the model's input; 0: what the preprocessing says", side),
    'image_height': ConfigKey(
        0, 'height of the input where it is not square, and image_size its width; 0: square', side
    ),
    'text_length': ConfigKey(0, 'most tokens of a text; 0: what the weights say', text_length),
    **_READING,
    'fraction': ConfigKey(1.0, 'share of the training labels to use', positive_share),
    'shots': ConfigKey(
        0, 'labelled training images or texts of each class, instead of a fraction; 0: as fraction says', not_negative
    ),
    # What trains.
    'regime': ConfigKey(
        'scratch', 'linear (dense: frozen), partial:K, partial:Kblocks, lpft, finetune, bitfit, lora:RANK, scratch',
        compiled=True
    ),
    'layer_decay': ConfigKey(
        1.0, 'factor on the learning rate per block away from the head', positive_share, compiled=True
    ),
    'lora_alpha': ConfigKey(
        0.0, 'adapters are scaled by lora_alpha / rank; 0: by 1', not_negative, compiled=True
    ),
    'probe_epochs': ConfigKey(5.0, "epochs of lpft's first phase", positive),
    'probe_learning_rate': ConfigKey(3e-3, "learning rate of lpft's first phase", positive),
    # Neck and head of a dense task.
    'head': ConfigKey(
        '',
        'segmentation: fcn, linear, deeplabv3, upernet; detection: fcos, retinanet, faster_rcnn, yolo; '
        "'': the first of them",
    ),
    'neck': ConfigKey('fpn', "fpn, pan, simple_pyramid, yolo_pan; for segmentation and faster_rcnn also 'none'"),
    'strides': ConfigKey(
        (),
        "strides of the neck's levels in pixels, powers of two; (): (8, 16, 32), for segmentation and faster_rcnn "
        'from 4 on',
    ),
    'neck_channels': ConfigKey(0, 'channels of each level of the neck; 0: 256', channels),
    'head_channels': ConfigKey(
        0,
        "channels inside the head; 0: those of a detector's neck, of a segmenter's reference; a linear head has none",
        channels,
    ),
    'head_depth': ConfigKey(
        0, "convolutions in each tower of a detector; 0: 4; of faster_rcnn's proposals; 0: 1", depth
    ),
    'output_stride': ConfigKey(
        0, 'stride of the last map of a backbone that can be dilated: 8, 16, 32; 0: as the head expects', not_negative
    ),
    'auxiliary_head': ConfigKey(False, 'whether a second head on an earlier map adds to the loss of a segmenter'),
    # The batch and the loss.
    'epochs': ConfigKey(10.0, 'epochs of the last phase', positive),
    'batch_size': ConfigKey(128, 'batch size of all devices and processes together', positive),
    'accumulation': ConfigKey(
        1, 'micro-batches that a batch is split into; they are processed in sequence, for one update', positive,
        compiled=True,
    ),
    'sampler': ConfigKey('shuffle', "or 'balanced': every class equally often"),
    'class_weights': ConfigKey('none', "or 'balanced': rare classes count more in the loss"),
    'dice': ConfigKey(0.0, 'segmentation: weight of the Dice loss, added to the cross-entropy', not_negative),
    # The optimizer.
    'optimizer': ConfigKey('adamw', "or 'sgd', 'lamb'", compiled=True),
    'learning_rate': ConfigKey(1e-3, 'learning rate of the last phase, after the warm-up', positive),
    'warmup_epochs': ConfigKey(1.0, 'epochs over which the learning rate rises from 0', not_negative),
    'weight_decay': ConfigKey(0.05, 'weight decay of kernels', not_negative, compiled=True),
    'clip_norm': ConfigKey(0.0, 'largest gradient norm; 0: no clipping', not_negative, compiled=True),
    'ema_decay': ConfigKey(
        0.0, 'decay of the moving average of the parameters, which is then evaluated; 0: none', share, compiled=True
    ),
    'early_stopping_epochs': ConfigKey(
        0, 'patience: epochs without a better validation score that end a phase; 0: never', not_negative
    ),
    # Augmentation and regularisation.
    'label_smoothing': ConfigKey(0.0, 'share of the target that is spread over all classes', share),
    'dropout': ConfigKey(0.0, 'share of the pooled features that is dropped in training', share, compiled=True),
    'mixup': ConfigKey(0.0, 'parameter of the beta distribution of mixing ratios; 0: off', not_negative),
    'cutmix': ConfigKey(0.0, 'parameter of the beta distribution of mixing ratios; 0: off', not_negative),
    'flip': ConfigKey(True, 'mirror half of the images left to right'),
    'shift': ConfigKey(0, 'random shifts of up to this many stored pixels', not_negative),
    'crop_scale': ConfigKey(0.0, 'random resized crops of at least this share of the area; 0: none', share),
    'rand_augment_layers': ConfigKey(0, 'random operations per image; 0: none', not_negative),
    'rand_augment_magnitude': ConfigKey(9.0, 'strength of these operations, from 0 to 30', magnitude),
    'smallest_scale': ConfigKey(1.0, 'images of dense tasks are scaled by a random factor, of at least this', scale),
    'largest_scale': ConfigKey(1.0, 'and of at most this; what no longer fits is cut off', scale),
    'mosaic': ConfigKey(0.0, 'share of the training images of dense tasks that are four in one', closed_share),
    'colour_jitter': ConfigKey(
        0.0, 'random change of brightness, contrast and saturation in dense tasks, as a share', share
    ),
    # Evaluation of a detector.
    'score_threshold': ConfigKey(0.05, 'detections below this score are left out', share),
    'max_detections': ConfigKey(100, 'largest number of detections in an image', detections),
    # Devices and memory.
    'dtype': ConfigKey(
        'float32', "type of the computation; or 'bfloat16'; parameters are always float32",
        one_of('float32', 'bfloat16'), compiled=True,
    ),
    'gradient_checkpointing': ConfigKey(
        False, 'recompute blocks in the backward pass: less memory, more time', compiled=True
    ),
    'mesh.data': ConfigKey(-1, 'devices that share the batch; -1: all that are left', all_or_positive, free=True),
    'mesh.fsdp': ConfigKey(1, 'devices that share the batch and the parameters', positive, free=True),
    # Reading.
    'threads': ConfigKey(0, 'threads that read the data; 0: one per core', not_negative, free=True),
    'processes': ConfigKey(
        0, 'processes that read the data, each with its own threads; 0: only threads', not_negative, free=True
    ),
    'prefetch': ConfigKey(4, 'batches read ahead', positive, free=True),
    # What is reported and kept.
    'non_finite': ConfigKey(
        'stop', "action at a non-finite loss or gradient; or 'skip': skip this step's update",
        one_of('stop', 'skip'), free=True,
    ),
    'evaluate_epochs': ConfigKey(1, 'epochs between evaluations on the validation split', positive),
    'log_steps': ConfigKey(0, "steps between rows in metrics.jsonl; 0: only the epochs' rows", not_negative),
    'tensorboard': ConfigKey(False, 'also write TensorBoard files', free=True),
    'wandb_project': ConfigKey('', 'Weights & Biases project; empty: none', free=True),
    'checkpoint_epochs': ConfigKey(1.0, 'epochs between checkpoints', positive, free=True),
    'keep_checkpoints': ConfigKey(2, 'how many of the newest checkpoints to keep', positive, free=True),
    'keep_best': ConfigKey(False, 'the result is the epoch with the best validation score, not the last one'),
}  # fmt: skip

FREE_KEYS = frozenset(key for key, row in KEYS.items() if row.free)
_COMPILED_KEYS = tuple(key for key, row in KEYS.items() if row.compiled)


def default_config() -> ml_collections.ConfigDict:
    """Every value that a training run reads; config files change some of them."""
    return with_defaults(KEYS)


def with_defaults(
    keys: Mapping[str, ConfigKey], kind: type[ml_collections.ConfigDict] = ml_collections.ConfigDict
) -> ml_collections.ConfigDict:
    """A config of every key's default; a key such as ``mesh.data`` lies in a group."""
    config = kind()
    for key, row in keys.items():
        node = config
        *groups, name = key.split('.')
        for group in groups:
            if group not in node:
                node[group] = kind()
            node = node[group]
        node[name] = row.default
    return config


def compiled_values(config: ml_collections.ConfigDict) -> tuple[tuple[str, Any], ...]:
    """Keys and values that enter the compiled steps, besides the task and the devices; hashable."""
    return tuple((key, value_of(config, key)) for key in _COMPILED_KEYS)


def value_of(config: ml_collections.ConfigDict, key: str) -> Any:
    """The value of a key such as ``mesh.data``."""
    *parents, last = key.split('.')
    for parent in parents:
        config = config[parent]
    return config[last]
