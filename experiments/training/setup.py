"""From a config to the compiled step of each phase: everything about a training that needs no data.

``experiments.plan`` compiles the same steps for devices that are not there.
"""

import dataclasses
import functools
from collections.abc import Callable
from functools import cached_property

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from flax.traverse_util import flatten_dict
from jaxtyping import Array, Key

import backbones
from backbones import depth, freezing, lora, rematerialisation
from backbones.errors import UserError
from backbones.preprocessing import Preprocessing
from experiments.data.model_input import input_preprocessing
from experiments.training import config as configuration
from experiments.training import mesh, optimizers, regimes
from experiments.training.augmentation import augment
from experiments.training.mesh import DeviceMesh
from experiments.training.step import Recipe, TrainState, create_state, make_evaluation_step, make_train_step

# What a compiled program does not depend on.
_NOT_COMPILED = (
    'seed', 'dataset', 'fraction', 'stored_size', 'sampler', 'threads', 'processes', 'prefetch', 'bad_files_limit',
    'early_stopping_epochs', 'non_finite', 'evaluate_epochs', 'log_steps', 'tensorboard', 'wandb_project',
    'checkpoint_epochs', 'keep_checkpoints', 'keep_best',
)  # fmt: skip
_KEPT_PROGRAMS = 24


@dataclasses.dataclass(frozen=True, eq=False)
class Setup:
    """A training without its data.

    Those that differ in nothing that is compiled share their programs, such as the seeds of an ablation.

    Attributes:
        config: see ``config.default_config``.
        classes: number of classes.
        stored_shape: ``(height, width, channels)`` of the stored images.
        batch_size: examples per step on all devices.
        steps_per_epoch: number of steps.
        device_mesh: the devices.
        class_weights: what each class counts in the loss; empty: all the same.
    """

    config: ml_collections.ConfigDict
    classes: int
    stored_shape: tuple[int, int, int]
    batch_size: int
    steps_per_epoch: int
    device_mesh: DeviceMesh
    class_weights: tuple[float, ...] = ()

    def __post_init__(self):
        configuration.check(self.config)
        regime, weights = self.regime, self.config.weights
        if regime.pretrained and not weights:
            raise UserError(
                f'the regime {self.config.regime!r} starts from pretrained weights and config key weights is empty; '
                f"name a source, or take the regime 'scratch'"
            )
        if not regime.pretrained and weights:
            raise UserError(
                f'the regime {self.config.regime!r} starts from random weights, but config key weights is {weights!r}; '
                f"leave it empty, or take the regime 'finetune'"
            )
        mesh.check_batch(self.batch_size, self.device_mesh.devices, self.config.accumulation)

    def check(self) -> None:
        """Find what does not fit without computing anything.

        Raises:
            UserError: an unknown backbone, source of weights or optimizer, or a regime that the backbone has no
                parameters for.
        """
        for phase in range(len(self.regime.phases)):
            self.optimizer(phase)
            self.rules(phase)

    @cached_property
    def regime(self) -> regimes.Regime:
        """What trains, phase by phase."""
        return regimes.parse(self.config.regime)

    @cached_property
    def model(self) -> nn.Module:
        """The classifier."""
        dtype = jnp.dtype(self.config.dtype)
        return backbones.create_classifier(self.config.backbone, self.classes, dtype=dtype, dropout=self.config.dropout)

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """What the model's input needs."""
        config = self.config
        return input_preprocessing(config.backbone, config.weights, config.image_size, config.fit)

    @property
    def _rank(self) -> int:
        """Of the adapters; 0 if there are none."""
        return self.regime.phases[0].rank

    @property
    def adapter_scale(self) -> float:
        """Factor of low-rank adapters."""
        return lora.scale(self._rank, self.config.lora_alpha or None) if self._rank else 1.0

    @property
    def _images_shape(self) -> tuple[int, int, int, int]:
        return (1, *self.preprocessing.size, 3)

    @cached_property
    def _order(self) -> depth.Order:
        return depth.execution_order(self.model, self.abstract_variables, self._images_shape)

    def _init(self, key: Key[Array, '']) -> dict:
        """Random variables, with adapters if the regime has them."""
        init_key, adapter_key = jax.random.split(key)
        variables = {'batch_stats': {}, **self.model.init(init_key, jnp.zeros(self._images_shape))}
        if self._rank:
            targets = lora.targets(self.model, variables, self._images_shape)
            variables['params'] = lora.add(variables['params'], targets, self._rank, adapter_key)
        return variables

    def _initialiser(self) -> jax.stages.Wrapped:
        return jax.jit(self._init)

    @cached_property
    def abstract_variables(self) -> dict:
        """Shapes and types of parameters and statistics."""
        return jax.eval_shape(self._init, jax.random.key(0))

    # --- Phases. ------------------------------------------------------------------------------------------------------

    def phase_steps(self, phase: int) -> int:
        """How many steps a phase takes, unless it is stopped early."""
        epochs = self.config.epochs if phase == len(self.regime.phases) - 1 else self.config.probe_epochs
        return max(1, -int(-epochs * self.steps_per_epoch // 1))

    @property
    def steps(self) -> int:
        """Of all phases."""
        return sum(self.phase_steps(phase) for phase in range(len(self.regime.phases)))

    def rules(self, phase: int) -> tuple[freezing.Rule, ...]:
        """The freezing rules of a phase."""
        return regimes.rules(self.regime.phases[phase], self.abstract_variables['params'], self._order)

    def mask(self, phase: int) -> dict:
        """Which parameters train in a phase."""
        return freezing.mask(self.abstract_variables['params'], self.rules(phase))

    def schedule(self, phase: int, first: int) -> optax.Schedule:
        """Learning rate of every step of a phase that begins at step ``first``."""
        last = phase == len(self.regime.phases) - 1
        rate = self.config.learning_rate if last else self.config.probe_learning_rate
        warmup = round(self.config.warmup_epochs * self.steps_per_epoch)
        return optimizers.make_schedule(rate, warmup, self.phase_steps(phase), first)

    def optimizer(self, phase: int) -> optax.GradientTransformation:
        """The optimizer of a phase; what the phase before trained goes on with its state."""
        kept = frozenset(path for path, trains in flatten_dict(self.mask(phase - 1)).items() if trains) if phase else ()
        return optimizers.make_optimizer(
            self.config.optimizer, self.config.weight_decay, self.config.clip_norm, frozenset(kept)
        )

    # --- States. ------------------------------------------------------------------------------------------------------

    def initial_variables(self) -> dict:
        """Random ones from the seed, the backbone's replaced by the pretrained weights if the config names some."""
        variables = _jitted(self, Setup._initialiser)(jax.random.key(self.config.seed))
        if self.config.weights:
            size = self.preprocessing.size
            pretrained, _ = backbones.load_weights(self.config.backbone, self.config.weights, image_size=size)
            if self._rank:
                # Their kernels, beside the adapters that were made for them.
                adapters = flatten_dict(variables['params']['backbone'])
                own = {path: leaf for path, leaf in adapters.items() if path[-1] in lora.LEAVES}
                pretrained['params'] = freezing.unflatten_dict({**flatten_dict(pretrained['params']), **own})
            for collection, tree in pretrained.items():
                variables[collection]['backbone'] = tree
        return variables

    def initial_state(self) -> TrainState:
        """The state before the first step, laid over the devices."""
        key = jax.random.key(self.config.seed ^ 0x5EED)
        return self.device_mesh.device_put(self._state(self.initial_variables(), 0, key))

    def _state(self, variables: dict, phase: int, key: Key[Array, '']) -> TrainState:
        averaged = bool(self.config.ema_decay)
        return create_state(variables, self.mask(phase), self.optimizer(phase), key, averaged)

    def abstract_state(self, phase: int) -> TrainState:
        """Shapes, types and layout of the state in a phase."""
        key = jax.eval_shape(lambda: jax.random.key(0))
        shapes = jax.eval_shape(lambda variables, key: self._state(variables, phase, key), self.abstract_variables, key)
        return jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            shapes,
            self.device_mesh.layout(shapes),
        )

    def next_state(self, state: TrainState, phase: int) -> tuple[TrainState, str]:
        """The state at the beginning of a phase, from that at the end of the phase before; and what became of it."""
        variables = {'params': freezing.join(state.trainable, state.frozen), 'batch_stats': state.batch_stats}
        fresh = self._state(variables, phase, state.key)
        optimizer_state, kept = optimizers.carry_over(state.optimizer_state, fresh.optimizer_state)
        average = fresh.average
        if state.average:
            leaves = {**flatten_dict(fresh.average), **flatten_dict(state.average)}
            average = freezing.unflatten_dict(leaves)
        new = len(jax.tree.leaves(fresh.trainable)) - len(jax.tree.leaves(state.trainable))
        fresh = dataclasses.replace(fresh, step=state.step, optimizer_state=optimizer_state, average=average)
        told = (
            f'carried over: parameters, statistics, step, random key, data position, {kept} arrays of the optimizer'
            f'{" and the average" if state.average else ""} of what trained before; '
            f'new: optimizer state{" and average" if state.average else ""} of {new} arrays that were frozen; '
            'reset: the learning-rate schedule'
        )
        return self.device_mesh.reshard(fresh), told

    def plain_variables(self, state: TrainState) -> dict:
        """Parameters and statistics in full on the host, averaged if there is an average, adapters merged."""
        variables = self.device_mesh.to_host(state.variables())
        merged = lora.merge(variables['params'], self.adapter_scale)
        return {**variables, 'params': jax.tree.map(np.asarray, merged)}

    # --- Programs. ----------------------------------------------------------------------------------------------------

    def _prepare(self, key: Key[Array, ''], images: Array) -> Array:
        config, size = self.config, max(self.preprocessing.size)
        return self.preprocessing(augment(key, images, config.flip, config.shift, config.crop_scale, size))

    def abstract_batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes, types and layout of a batch."""
        shapes = {'image': (self.stored_shape, jnp.uint8), 'label': ((), jnp.int32), 'weight': ((), jnp.float32)}
        return {
            name: jax.ShapeDtypeStruct((self.batch_size, *shape), dtype, sharding=self.device_mesh.batch)
            for name, (shape, dtype) in shapes.items()
        }

    def train_step(self, phase: int, first: int = 0) -> jax.stages.Wrapped:
        """The jitted step of a phase that begins at step ``first``; it takes over the state's memory."""
        return _jitted(self, Setup._train_step, phase, first)

    def evaluation_step(self) -> jax.stages.Wrapped:
        """The jitted evaluation of a batch; every process gets all of the outputs."""
        return _jitted(self, Setup._evaluation_step)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Setup) and self._signature == other._signature

    def __hash__(self) -> int:
        return hash(self._signature)

    @cached_property
    def _signature(self) -> str:
        config = {name: value for name, value in self.config.to_dict().items() if name not in _NOT_COMPILED}
        facts = (self.classes, self.stored_shape, self.batch_size, self.steps_per_epoch, self.class_weights)
        return repr((sorted(config.items()), facts, self.device_mesh.mesh.devices.tolist()))

    def _train_step(self, phase: int, first: int) -> jax.stages.Wrapped:
        config, params = self.config, self.abstract_variables['params']
        step = make_train_step(
            self.model,
            self.mask(phase),
            self.optimizer(phase),
            self._prepare,
            self.schedule(phase, first),
            Recipe(
                label_smoothing=config.label_smoothing,
                class_weights=self.class_weights,
                mixup=config.mixup,
                cutmix=config.cutmix,
                accumulation=config.accumulation,
                ema_decay=config.ema_decay,
                adapter_scale=self.adapter_scale,
                gradient_checkpointing=config.gradient_checkpointing,
                # XLA's CPU compiler runs a convolution inside a loop on one thread.
                unrolled=self.device_mesh.platform == 'cpu',
            ),
            regimes.layer_scales(params, self._order, config.layer_decay) if config.layer_decay != 1 else None,
            self.device_mesh,
        )
        layout = self.device_mesh.layout(self.abstract_state(phase))
        return jax.jit(
            step,
            donate_argnums=0,
            in_shardings=(layout, self.device_mesh.batch),
            out_shardings=(layout, self.device_mesh.replicated),
            compiler_options=rematerialisation.COMPILER_OPTIONS if config.gradient_checkpointing else None,
        )

    def _evaluation_step(self) -> jax.stages.Wrapped:
        step = make_evaluation_step(self.model, self.preprocessing, self.adapter_scale, self.device_mesh)
        return jax.jit(step, out_shardings=self.device_mesh.replicated)


# Setups are equal where their programs are.
@functools.lru_cache(_KEPT_PROGRAMS)
def _jitted(setup: Setup, program: Callable[..., jax.stages.Wrapped], *arguments: int) -> jax.stages.Wrapped:
    return program(setup, *arguments)
