"""One training run: data in order, steps, checkpoints, evaluation."""

import dataclasses
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from jaxtyping import Array, Int

import backbones
from backbones import freezing
from backbones.errors import UserError, unknown
from backbones.preprocessing import Preprocessing
from experiments import display, files
from experiments.data.dataset import Dataset, stratified_fraction
from experiments.inference import Inference, input_preprocessing
from experiments.training.augmentation import augment
from experiments.training.checkpoints import Checkpoints
from experiments.training.step import create_state, make_optimizer, make_train_step

# Regime → freezing rules.
REGIMES: dict[str, tuple[freezing.Rule, ...]] = {
    'linear': freezing.FREEZE_BACKBONE,
    'finetune': freezing.TRAIN_EVERYTHING,
    'scratch': freezing.TRAIN_EVERYTHING,
}


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a training leaves behind.

    Attributes:
        model: the classifier.
        variables: its parameters and statistics.
        preprocessing: what its input needs.
        steps: number of steps taken.
        examples: number of training examples.
        images_per_second: training throughput without the first step of this process.
    """

    model: nn.Module
    variables: dict
    preprocessing: Preprocessing
    steps: int
    examples: int
    images_per_second: float


def epoch_order(seed: int, epoch: int, indices: Int[np.ndarray, ' subset']) -> Int[np.ndarray, ' subset']:
    """The order of the examples in one epoch, a pure function of seed and epoch."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(indices)


def batches(
    seed: int, first_step: int, last_step: int, batch_size: int, indices: Int[np.ndarray, ' subset']
) -> Iterator[Int[np.ndarray, ' batch_size']]:
    """The indices of each step's batch: full batches, so the last examples of an epoch are left to the next one."""
    per_epoch = len(indices) // batch_size
    epoch, order = -1, indices
    for step in range(first_step, last_step):
        if step // per_epoch != epoch:
            epoch = step // per_epoch
            order = epoch_order(seed, epoch, indices)
        start = step % per_epoch * batch_size
        yield order[start : start + batch_size]


def _check(config: ml_collections.ConfigDict) -> None:
    if config.regime not in REGIMES:
        raise unknown('regime', config.regime, REGIMES)
    if config.dtype not in ('float32', 'bfloat16'):
        raise unknown('dtype', config.dtype, ('float32', 'bfloat16'))
    if config.regime != 'scratch' and not config.weights:
        raise UserError(
            f'the regime {config.regime!r} starts from pretrained weights and config key weights is empty; '
            f"name a source, or take the regime 'scratch'"
        )
    for key in ('epochs', 'batch_size', 'learning_rate', 'checkpoint_epochs'):
        if config[key] <= 0:
            raise UserError(f'config key {key!r} must be positive, not {config[key]}')


def fit(config: ml_collections.ConfigDict, dataset: Dataset, directory: Path) -> Trained:
    """Train a classifier; resumes from the newest checkpoint in ``directory``.

    Writes ``metrics.jsonl`` (one row per epoch: training metrics, validation accuracy) and ``checkpoints/``.

    Raises:
        UserError: a value of the config does not fit.
    """
    _check(config)
    train_indices = stratified_fraction(
        dataset.labels, dataset.splits['train'], config.fraction, config.seed, len(dataset.classes)
    )
    batch_size = min(config.batch_size, len(train_indices))
    steps_per_epoch = len(train_indices) // batch_size
    steps = math.ceil(config.epochs * steps_per_epoch)

    model = backbones.create_classifier(
        config.backbone, len(dataset.classes), dtype=jnp.dtype(config.dtype), dropout=config.dropout
    )
    preprocessing = input_preprocessing(config.backbone, config.weights, config.image_size)
    init_key, step_key = jax.random.split(jax.random.key(config.seed))
    variables = _initial_variables(config, model, preprocessing, init_key)
    rules = REGIMES[config.regime]
    mask = freezing.mask(variables['params'], rules)
    display.console.print(
        display.freeze_table(
            f'{config.backbone} · {config.regime} · {dataset.name}', freezing.table(variables['params'], rules)
        )
    )

    warmup = min(round(config.warmup_epochs * steps_per_epoch), steps // 2)
    schedule = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, warmup, steps)
    optimizer = make_optimizer(config.optimizer, schedule, config.weight_decay, config.clip_norm)
    state = create_state(variables, mask, optimizer, step_key)

    def prepare(key: Array, images: Array) -> Array:
        return preprocessing(augment(key, images, config.flip, config.shift))

    train_step = jax.jit(make_train_step(model, mask, optimizer, prepare, config.label_smoothing), donate_argnums=0)
    logits = logits_of(model, preprocessing)

    metrics_file = directory / 'metrics.jsonl'
    with Checkpoints(directory / 'checkpoints', config.keep_checkpoints) as checkpoints, display.progress() as bar:
        state = checkpoints.restore_latest(state) or state
        first = int(state.step)
        history = [row for row in files.read_jsonl(metrics_file) if row['step'] <= first]
        task = bar.add_task(f'{config.backbone} {config.regime}', total=steps, completed=first, note='compiling')
        measured, meter = [], Meter()
        for step, indices in enumerate(batches(config.seed, first, steps, batch_size, train_indices), start=first + 1):
            batch = {'image': dataset.images[indices], 'label': dataset.labels[indices]}
            state, metrics = train_step(state, batch)
            measured.append(metrics)
            ends_epoch = step % steps_per_epoch == 0 or step == steps
            if step == first + 1 or step % 20 == 0 or ends_epoch:
                loss = float(metrics['loss'])  # waits for the device
                meter.lap(step)
                note = f'loss {loss:.3f}, {meter.steps_per_second * batch_size:.0f} images/s'
                bar.update(task, completed=step, note=note)
            if ends_epoch:
                history.append(
                    {
                        'step': step,
                        'epoch': step / steps_per_epoch,
                        **{name: float(np.mean([each[name] for each in measured])) for name in measured[0]},
                        'learning_rate': float(jnp.asarray(schedule(step - 1))),
                        'validation_accuracy': accuracy(logits, state.variables(), dataset, 'validation'),
                    }
                )
                files.write_jsonl(metrics_file, history)
                measured = []
                meter.pause()
            if step % (config.checkpoint_epochs * steps_per_epoch) == 0 or step == steps:
                checkpoints.save(state)
    images_per_second = meter.steps_per_second * batch_size
    return Trained(model, state.variables(), preprocessing, steps, len(train_indices), images_per_second)


def _initial_variables(
    config: ml_collections.ConfigDict, model: nn.Module, preprocessing: Preprocessing, key: Array
) -> dict:
    """Random ones, the backbone's replaced by the pretrained weights if the config names some."""
    blank = jnp.zeros((1, preprocessing.size, preprocessing.size, 3))
    variables = jax.jit(model.init)(key, blank)
    if config.weights:
        pretrained, _ = backbones.load_weights(config.backbone, config.weights, image_size=preprocessing.size)
        for collection, tree in pretrained.items():
            variables[collection]['backbone'] = tree
    return variables


class Meter:
    """Steps per second between laps; the time before the first lap (compilation) and of pauses does not count."""

    def __init__(self):
        self._steps, self._seconds = 0, 0.0
        self._last: tuple[int, float] | None = None
        self._paused = False

    def lap(self, step: int) -> None:
        """All steps up to this one are done."""
        now = time.perf_counter()
        if self._last and not self._paused:
            self._steps += step - self._last[0]
            self._seconds += now - self._last[1]
        self._last, self._paused = (step, now), False

    def pause(self) -> None:
        """What happens until the next lap is not only training."""
        self._paused = True

    @property
    def steps_per_second(self) -> float:
        """0 before the second lap."""
        return self._steps / self._seconds if self._seconds else 0.0


def logits_of(model: nn.Module, preprocessing: Preprocessing, batch_size: int = 256) -> Inference:
    """Logits of a classifier in inference mode."""

    def apply(variables: Any, images: Array) -> Array:
        return cast(Array, model.apply(variables, images, train=False))

    return Inference(apply, preprocessing, batch_size)


def accuracy(logits: Inference, variables: dict, dataset: Dataset, split: str) -> float:
    """Share of a split's examples whose largest logit is their label's."""
    indices = dataset.splits[split]
    predictions = logits(variables, dataset.images, indices).argmax(-1)
    return float((predictions == dataset.labels[indices]).mean())
