"""Every value that a training reads, and what can be said against a config before anything is computed."""

import ml_collections

from backbones.errors import UserError, unknown
from backbones.preprocessing import FITS

# Where and how a run computes, but not what: these may differ between the runs that share a work directory.
FREE_KEYS = frozenset(
    {
        'mesh.data',
        'mesh.fsdp',
        'threads',
        'processes',
        'prefetch',
        'checkpoint_epochs',
        'keep_checkpoints',
        'non_finite',
        'tensorboard',
        'wandb_project',
    }
)


def default_config() -> ml_collections.ConfigDict:
    """Every value that a training reads; config files change some of them."""
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.backbone = 'resnet_micro'
    config.weights = ''  # source of pretrained weights; empty: random initialisation
    config.dataset = 'tfds:cifar10'
    config.stored_size = 256  # side to which images of several sizes are brought when they are decoded
    config.fit = 'crop'  # how an image of other proportions is brought to a square: or 'squash', 'letterbox'
    config.image_size = 0  # side of the model's input; 0: what the preprocessing says
    config.fraction = 1.0  # share of the training labels that is used

    # What trains: linear, partial:K, partial:Kblocks, lpft, finetune, bitfit, lora:RANK, scratch.
    config.regime = 'scratch'
    config.layer_decay = 1.0  # factor on the learning rate per block away from the head
    config.lora_alpha = 0.0  # an adapter is scaled by lora_alpha / rank; 0: by 1
    config.probe_epochs = 5.0  # of lpft's first phase
    config.probe_learning_rate = 3e-3

    config.epochs = 10.0
    config.batch_size = 128  # of all devices and processes together
    config.accumulation = 1  # parts into which a batch is cut, one after the other; the update is the whole batch's
    config.sampler = 'shuffle'  # or 'balanced': every class equally often
    config.class_weights = 'none'  # or 'balanced': the loss counts rare classes for more

    config.optimizer = 'adamw'  # or 'sgd', 'lamb'
    config.learning_rate = 1e-3
    config.warmup_epochs = 1.0
    config.weight_decay = 0.05
    config.clip_norm = 0.0  # 0: no clipping
    config.ema_decay = 0.0  # of the moving average of the parameters, which is then evaluated; 0: none
    config.early_stopping_epochs = 0  # epochs without a better validation accuracy that end a training; 0: never

    config.label_smoothing = 0.0
    config.dropout = 0.0
    config.mixup = 0.0  # parameters of the beta distribution of the shares; 0: off
    config.cutmix = 0.0
    config.flip = True
    config.shift = 0  # random shifts of up to this many stored pixels
    config.crop_scale = 0.0  # random resized crops of at least this share of the area; 0: none
    config.rand_augment_layers = 0  # random operations per image; 0: none
    config.rand_augment_magnitude = 9.0  # from 0 to 30

    config.dtype = 'float32'  # of the computation; parameters are always float32
    config.gradient_checkpointing = False  # blocks are computed again in the backward pass: less memory, more time
    config.mesh = ml_collections.ConfigDict()
    config.mesh.data = -1  # devices that share the batch; -1: all that are left
    config.mesh.fsdp = 1  # devices that share the batch and the parameters

    config.threads = 0  # that read the data; 0: one per core
    config.processes = 0  # that read the data, each with its threads; 0: only threads
    config.prefetch = 4  # batches read ahead
    config.bad_files_limit = 10  # more unreadable examples than this end the run

    config.non_finite = 'stop'  # at a loss or gradient that is no number; or 'skip': leave this step's update out
    config.evaluate_epochs = 1  # epochs between evaluations on the validation split
    config.log_steps = 0  # steps between rows in metrics.jsonl; 0: only the epochs' rows
    config.tensorboard = False
    config.wandb_project = ''
    config.checkpoint_epochs = 1.0
    config.keep_checkpoints = 2
    config.keep_best = False  # the result is the epoch with the best validation accuracy, not the last one
    return config


_POSITIVE = (
    'epochs', 'batch_size', 'learning_rate', 'checkpoint_epochs', 'evaluate_epochs', 'accumulation', 'probe_epochs',
    'probe_learning_rate', 'prefetch', 'keep_checkpoints', 'mesh.fsdp',
)  # fmt: skip
_NOT_NEGATIVE = (
    'warmup_epochs', 'weight_decay', 'clip_norm', 'early_stopping_epochs', 'mixup', 'cutmix', 'shift', 'lora_alpha',
    'rand_augment_layers', 'threads', 'processes', 'bad_files_limit', 'log_steps', 'image_size',
)  # fmt: skip
_SHARES = ('label_smoothing', 'dropout', 'crop_scale', 'ema_decay')
_CHOICES = {
    'dtype': ('float32', 'bfloat16'),
    'fit': FITS,
    'non_finite': ('stop', 'skip'),
}


def check(config: ml_collections.ConfigDict) -> None:
    """Ranges and choices that need neither data nor devices.

    Raises:
        UserError: a value that can't be meant; names the key.
    """
    for key, choices in _CHOICES.items():
        if config[key] not in choices:
            raise unknown(key, config[key], choices)
    for key in _POSITIVE:
        if _value(config, key) <= 0:
            raise UserError(f'config key {key!r} must be positive, not {_value(config, key)}')
    for key in _NOT_NEGATIVE:
        if config[key] < 0:
            raise UserError(f'config key {key!r} must not be negative, but is {config[key]}')
    for key in _SHARES:
        if not 0 <= config[key] < 1:
            raise UserError(f'config key {key!r} must lie in [0, 1), not {config[key]}')
    if not 0 < config.layer_decay <= 1:
        raise UserError(f"config key 'layer_decay' must lie in (0, 1], not {config.layer_decay}")
    if not 0 <= config.rand_augment_magnitude <= 30:
        raise UserError(f"config key 'rand_augment_magnitude' must lie in [0, 30], not {config.rand_augment_magnitude}")
    if config.mesh.data != -1 and config.mesh.data <= 0:
        raise UserError(f"config key 'mesh.data' must be positive or -1 (all devices), not {config.mesh.data}")


def _value(config: ml_collections.ConfigDict, key: str):
    *parents, last = key.split('.')
    for parent in parents:
        config = config[parent]
    return config[last]
