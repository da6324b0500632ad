"""The model of a training run and its compiled programs: everything that depends on neither the data nor the seed.

``experiments.plan`` compiles the same steps for devices that are not present.
"""

import functools
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict
from jaxtyping import Array, Key

from backbones import depth, freezing, inputs, lora, rematerialisation
from backbones.model import Model
from experiments.planning import program_costs
from experiments.tasks import Task
from experiments.training import mesh, optimizers, regimes, trained_parameters
from experiments.training.mesh import DeviceMesh
from experiments.training.state import TrainState, create_state
from experiments.training.step import Recipe, make_evaluation_step, make_train_step

_KEPT = 24


@functools.lru_cache(_KEPT)
def programs(
    task: Task,
    compiled: tuple[tuple[str, Any], ...],
    stored_shape: tuple[int, ...],
    batch_size: int,
    device_mesh: DeviceMesh,
) -> 'Programs':
    """The programs of a run; calls with equal arguments share them, such as the seeds and rates of a sweep."""
    return Programs(task, compiled, stored_shape, batch_size, device_mesh)


class Programs:
    """A model, what trains in each phase of its regime, and the jitted steps.

    Args:
        task: the task.
        compiled: ``config.compiled_values``.
        stored_shape: ``(height, width, channels)`` of the stored images, or ``(length,)`` of the tokens of texts.
        batch_size: examples per step on all devices.
        device_mesh: the devices.

    Attributes:
        warned: phases of whose memory the user was told.

    Raises:
        UserError: the backbone or optimizer is unknown, the backbone has no parameters for the regime, or the batch
            cannot be shared evenly.
    """

    def __init__(
        self,
        task: Task,
        compiled: tuple[tuple[str, Any], ...],
        stored_shape: tuple[int, ...],
        batch_size: int,
        device_mesh: DeviceMesh,
    ):
        self.task, self.options = task, dict(compiled)
        self.stored_shape, self.batch_size, self.device_mesh = stored_shape, batch_size, device_mesh
        mesh.check_batch(batch_size, device_mesh.devices, self.options['accumulation'])
        self.regime = regimes.parse(self.options['regime'])
        self.model: Model = task.model(self.options['backbone'], self.options)
        self._rank = self.regime.phases[0].rank
        self.adapter_scale = lora.scale(self._rank, self.options['lora_alpha'] or None) if self._rank else 1.0
        self.init = jax.jit(self._init)
        self.abstract_variables = jax.eval_shape(self._init, jax.random.key(0))
        params = self.abstract_variables['params']
        order = depth.execution_order(self.model, self.abstract_variables, self._images_shape)
        self.rules = tuple(trained_parameters.rules(phase, params, order) for phase in self.regime.phases)
        self.masks = tuple(freezing.mask(params, rules) for rules in self.rules)
        self._optimizers = tuple(self._optimizer(phase) for phase in range(len(self.masks)))
        decay = self.options['layer_decay']
        self._scales = trained_parameters.layer_scales(params, order, decay) if decay != 1 else None
        self._train_steps: dict[int, jax.stages.Wrapped] = {}
        self._compiled: dict[int, jax.stages.Compiled] = {}
        self.warned: set[int] = set()

    @property
    def input_size(self) -> tuple[int, ...]:
        """Height and width of the model's input in pixels, or the tokens that texts are padded to."""
        return self.stored_shape if len(self.stored_shape) == 1 else self.task.preprocessing.size

    @property
    def _images_shape(self) -> tuple[int, ...]:
        return inputs.spec(self.task.preprocessing.size).shape

    def _init(self, key: Key[Array, '']) -> dict:
        """Random variables, with adapters if the regime has them."""
        init_key, adapter_key = jax.random.split(key)
        variables = {'batch_stats': {}, **self.model.init(init_key, inputs.blank(self.task.preprocessing.size))}
        if self._rank:
            targets = lora.targets(self.model, variables, self._images_shape)
            variables['params'] = lora.add(variables['params'], targets, self._rank, adapter_key)
        return variables

    def _optimizer(self, phase: int) -> optax.GradientTransformation:
        """The optimizer of a phase; leaves that the previous phase trained keep their optimizer state."""
        before = flatten_dict(self.masks[phase - 1]) if phase else {}
        kept = frozenset(path for path, trains in before.items() if trains)
        options = self.options
        return optimizers.make_optimizer(options['optimizer'], options['weight_decay'], options['clip_norm'], kept)

    def state(self, phase: int, variables: dict, key: Key[Array, '']) -> TrainState:
        """The state before the first step of a phase."""
        averaged = bool(self.options['ema_decay'])
        return create_state(variables, self.masks[phase], self._optimizers[phase], key, averaged)

    def abstract_state(self, phase: int) -> TrainState:
        """Shapes, types and shardings of the state in a phase."""
        key = jax.eval_shape(lambda: jax.random.key(0))
        shapes = jax.eval_shape(functools.partial(self.state, phase), self.abstract_variables, key)
        return jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            shapes,
            self.device_mesh.layout(shapes),
        )

    def abstract_batch(self, batch_size: int | None = None) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes, types and shardings of a batch; of the training's size by default."""
        size = batch_size or self.batch_size
        return {
            name: jax.ShapeDtypeStruct((size, *leaf.shape), leaf.dtype, sharding=self.device_mesh.batch)
            for name, leaf in self.task.batch_spec(self.stored_shape).items()
        }

    def train_step(self, phase: int) -> jax.stages.Wrapped:
        """The jitted ``train_step(state, batch, learning_rate)`` of a phase; it donates the state."""
        if phase not in self._train_steps:
            self._train_steps[phase] = self._jitted_train_step(phase)
        return self._train_steps[phase]

    def lowered(self, phase: int) -> jax.stages.Lowered:
        """The training step of a phase, lowered for the shapes of its arguments."""
        return self._traced(phase).lower()

    def compiled_train_step(
        self, phase: int, compile_it: Callable[[jax.stages.Lowered], jax.stages.Compiled] = jax.stages.Lowered.compile
    ) -> jax.stages.Compiled:
        """``train_step``, compiled for the shapes of its arguments, which are the only ones that it takes.

        Args:
            phase: number of the phase.
            compile_it: compiles it where that has not happened yet.
        """
        if phase not in self._compiled:
            self._compiled[phase] = compile_it(self.lowered(phase))
        return self._compiled[phase]

    def trace(self, evaluation_batches: Iterable[int] = ()) -> None:
        """Trace the training step of every phase, and the evaluation step, as far as that has not happened yet.

        Args:
            evaluation_batches: examples per call of the evaluation step.

        Raises:
            UserError: the model, the input or the batch do not suit each other.
        """
        for phase in range(len(self.masks)):
            self._traced(phase)
        variables = self.abstract_state(len(self.masks) - 1).variables()
        for size in evaluation_batches:
            self.evaluation_step.trace(variables, self.abstract_batch(size))

    def computed_bytes(self) -> int:
        """A rough measure of the memory of the training step, to compare it with others: the bytes that it computes."""
        return max(program_costs.computed_bytes(self._traced(phase).jaxpr.jaxpr) for phase in range(len(self.masks)))

    def _traced(self, phase: int) -> jax.stages.Traced:
        """The training step of a phase, traced for the shapes of its arguments; JAX keeps what it has traced."""
        rate = jax.ShapeDtypeStruct((), jnp.float32, sharding=self.device_mesh.replicated)
        return self.train_step(phase).trace(self.abstract_state(phase), self.abstract_batch(), rate)

    def _jitted_train_step(self, phase: int) -> jax.stages.Wrapped:
        options = self.options
        step = make_train_step(
            self.model,
            self.task,
            self.masks[phase],
            self._optimizers[phase],
            Recipe(
                accumulation=options['accumulation'],
                ema_decay=options['ema_decay'],
                adapter_scale=self.adapter_scale,
                gradient_checkpointing=options['gradient_checkpointing'],
                # XLA's CPU compiler runs a convolution inside a loop on one thread.
                unrolled=self.device_mesh.platform == 'cpu',
            ),
            self._scales,
            self.device_mesh,
        )
        layout, replicated = self.device_mesh.layout(self.abstract_state(phase)), self.device_mesh.replicated
        return jax.jit(
            step,
            donate_argnums=0,
            in_shardings=(layout, self.device_mesh.batch, replicated),
            out_shardings=(layout, replicated),
            compiler_options=rematerialisation.COMPILER_OPTIONS if options['gradient_checkpointing'] else None,
        )

    @cached_property
    def evaluation_step(self) -> jax.stages.Wrapped:
        """The jitted evaluation step; every process gets all outputs."""
        step = make_evaluation_step(self.model, self.task, self.adapter_scale, self.device_mesh)
        return jax.jit(step, out_shardings=self.device_mesh.replicated)
