"""A training run with its data and devices: everything that ``loop.run`` needs to take steps."""

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import ml_collections
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from backbones import lora
from backbones.errors import UserError, listed, unknown
from backbones.text.tokenising import Tokenising
from experiments import tasks
from experiments.cli import display
from experiments.data import calibration_examples, loading, pipeline, sampling, texts
from experiments.data.dataset import Dataset
from experiments.data.model_input import input_kind
from experiments.data.random_augment import random_augment
from experiments.features.calibration import calibrate_statistics
from experiments.planning import memory as memories
from experiments.planning import step_memory
from experiments.planning.memory import Memory
from experiments.results.axes import RANDOM
from experiments.training import config as configuration
from experiments.training import evaluation, mesh, monitor, optimizers, starting_weights, state
from experiments.training.monitor import Monitor
from experiments.training.programs import Programs, programs
from experiments.training.state import TrainState


def check_without_data(config: ml_collections.ConfigDict, devices: Sequence[jax.Device] | None = None) -> None:
    """Check everything about a training that needs neither its data nor its weights; nothing is computed.

    Args:
        config: see ``config.KEYS``.
        devices: all by default.

    Raises:
        UserError: a config value is invalid or does not fit the devices, a package is missing, or the backbone has no
            parameters for the regime or takes no input of this size.
    """
    configuration.check(config)
    tasks.check_inputs(config.task, config.backbone)
    loading.check_name(
        config.dataset,
        tasks.find(config.task).truth,
        inputs=input_kind(config.backbone),
        reader=f'the backbone {config.backbone}',
    )
    for kind, name, known in (
        ('sampler', config.sampler, sampling.SAMPLERS),
        ('kind of class weights', config.class_weights, sampling.CLASS_WEIGHTS),
    ):
        if name not in known:
            raise unknown(kind, name, known)
    monitor.check_packages(config)
    device_mesh = mesh.make(config.mesh.data, config.mesh.fsdp, devices)
    mesh.check_batch(config.batch_size, device_mesh.devices, config.accumulation)
    preprocessing = tasks.input_preprocessing(config.task, config.backbone, config.weights, config)
    # The number of classes and the stored size only matter where the head and the pixels are.
    task = tasks.find(config.task).create(config, 2, preprocessing)
    shape = (1,) if isinstance(preprocessing, Tokenising) else (1, 1, 3)
    Programs(task, configuration.compiled_values(config), shape, config.batch_size, device_mesh)


def load_pretrained(config: ml_collections.ConfigDict) -> dict | None:
    """The variables of the backbone that a training starts from; ``None`` if the config names no weights.

    Raises:
        UserError: the weights cannot be read, or do not fit.
    """
    if config.weights in ('', RANDOM):
        return None
    size = tasks.input_preprocessing(config.task, config.backbone, config.weights, config).size
    return starting_weights.load(config.backbone, config.weights, size, config.image_size > 0, config.strict_weights)


class Session:
    """A training run with its data, executed by ``loop.run``.

    Args:
        config: see ``config.KEYS``.
        dataset: the data to train on.
        directory: for checkpoints and metrics.
        devices: all by default.
        pretrained: what ``load_pretrained`` gave; otherwise the weights are loaded when they are needed.
        keys: what precedes the keys of this config on the command line, for messages.

    Attributes:
        indices: indices of the training examples.
        steps_per_epoch: number of steps per epoch.
        programs: the model and its compiled steps.

    Raises:
        UserError: a config value does not fit.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        dataset: Dataset,
        directory: Path,
        devices: Sequence[jax.Device] | None = None,
        pretrained: dict | None = None,
        keys: str = 'config.',
    ):
        configuration.check(config)
        preprocessing = tasks.input_preprocessing(config.task, config.backbone, config.weights, config)
        self.config, self.dataset, self.directory = config, dataset, directory
        # What is read of it: images, or the tokens of its texts.
        self._read = texts.encoded(dataset, preprocessing) if isinstance(preprocessing, Tokenising) else dataset
        self._pretrained, self._keys = pretrained, keys
        device_mesh = mesh.make(config.mesh.data, config.mesh.fsdp, devices)
        self.indices = dataset.labelled(config.fraction, config.shots, config.seed)
        self.batch_size = self._batch_size(device_mesh.devices)
        self.sampler = sampling.Sampler(config.sampler, config.seed, self.indices, dataset.targets, self.batch_size)
        self.steps_per_epoch = self.sampler.steps_per_epoch
        task = tasks.find(config.task).create(config, len(dataset.classes), preprocessing, dataset, self.indices)
        compiled = configuration.compiled_values(config)
        self.programs = programs(task, compiled, tuple(self._read.images.shape[1:]), self.batch_size, device_mesh)
        self._rows = device_mesh.rows(self.batch_size)
        self.is_main_process = jax.process_index() == 0
        # Phases whose step has been compared with the memory.
        self._fitting: set[int] = set()

    def _batch_size(self, devices: int) -> int:
        """The config's batch size; with fewer examples, as many of them as can be shared evenly, mixed and joined."""
        config, examples = self.config, len(self.indices)
        unit, why = devices * config.accumulation, 'one per device and micro-batch'
        mixing = [name for name in ('mixup', 'cutmix') if config[name]]
        if mixing and unit % 2:
            unit, why = 2 * unit, f'a pair per device and micro-batch for {" and ".join(mixing)}'
        if config.mosaic:
            unit, why = math.lcm(unit, 4), f'four images in one for the mosaic, and {why}'
            if config.batch_size % 4:
                raise UserError(
                    f"config key 'mosaic' joins four images and needs a batch_size divisible by 4, not "
                    f'{config.batch_size}; use {-(-config.batch_size // unit) * unit}'
                )
        if examples >= config.batch_size:
            if mixing and config.batch_size % 2:
                raise UserError(
                    f'config key {mixing[0]!r} mixes pairs and needs an even batch_size, not {config.batch_size}; '
                    f'use {-(-config.batch_size // unit) * unit}'
                )
            return config.batch_size
        if examples < unit:
            raise UserError(f'{examples} training examples are too few for batches of {unit}: {why}')
        return examples // unit * unit

    def trace(self) -> None:
        """Trace the steps of all phases and the evaluation, which finds what cannot run with these data.

        Raises:
            UserError: the model, the input or the batch do not suit each other.
        """
        splits = (self.dataset.splits[name] for name in ('validation', 'test'))
        self.programs.trace(evaluation.batch_size(len(indices), self.programs) for indices in splits)

    def train_step(self, phase: int, memory: Memory | None = None) -> jax.stages.Compiled:
        """The compiled step of a phase, which is compiled once, and compared with the memory that there is.

        Args:
            phase: number of the phase.
            memory: that of one device; by default, what is found.

        Raises:
            UserError: it takes more memory than there is; the keys that mend it are named.
        """
        if phase not in self._fitting:
            config, device_mesh = self.config, self.programs.device_mesh
            shape = step_memory.Shape(
                batch_size=self.batch_size,
                devices=device_mesh.devices,
                accumulation=config.accumulation,
                divides=self.batch_size == config.batch_size,
                pairs=bool(config.mixup or config.cutmix),
                checkpointed=config.gradient_checkpointing,
                platform=device_mesh.platform,
                inputs=texts.inputs_of(self.dataset),
            )
            memory = memory or memories.of(list(device_mesh.mesh.devices.flat))
            found = self.programs.compiled_train_step(
                phase, lambda lowered: step_memory.compiled(lowered, shape, memory, self._keys)
            )
            warning = step_memory.check(found, shape, memory, self._keys)
            # The trainings of a sweep share their step, and say so once.
            if warning and self.is_main_process and phase not in self.programs.warned:
                display.console.print(warning, style='yellow', soft_wrap=True, markup=False)
                self.programs.warned.add(phase)
            self._fitting.add(phase)
        return self.programs.compiled_train_step(phase)

    @property
    def keeps_best(self) -> bool:
        """Whether the result is the best epoch, not the last one."""
        return self.config.keep_best or self.config.early_stopping_epochs > 0

    # --- Phases. ------------------------------------------------------------------------------------------------------

    @property
    def phase_names(self) -> list[str]:
        """The regime's phase names; a single phase takes the regime's full name, numbers included."""
        regime = self.programs.regime
        return [phase.name for phase in regime.phases] if len(regime.phases) > 1 else [regime.name]

    def phase_steps(self, phase: int) -> int:
        """Number of steps that a phase takes unless early stopping ends it."""
        epochs = self.config.epochs if self.is_last(phase) else self.config.probe_epochs
        return max(1, -int(-epochs * self.steps_per_epoch // 1))

    def is_last(self, phase: int) -> bool:
        """Whether a phase is the last one."""
        return phase == len(self.programs.regime.phases) - 1

    def learning_rate(self, phase: int, first: int) -> Callable[[int], np.float32]:
        """A function from step to learning rate, for a phase that begins at step ``first``."""
        highest = self.config.learning_rate if self.is_last(phase) else self.config.probe_learning_rate
        warmup = round(self.config.warmup_epochs * self.steps_per_epoch)
        schedule = jax.jit(optimizers.make_schedule(highest, warmup, self.phase_steps(phase), first))
        return lambda step: np.float32(schedule(np.int32(step)))

    # --- Data. --------------------------------------------------------------------------------------------------------

    def batches(self, first: int, end: int) -> pipeline.Batches:
        """This process's rows of the batches for steps ``first`` to ``end``."""
        config = self.config
        transform = None
        if config.rand_augment_layers:
            transform = functools.partial(
                random_augment, layers=config.rand_augment_layers, magnitude=config.rand_augment_magnitude
            )
        return pipeline.training_batches(
            self._read,
            self.sampler,
            first,
            end,
            rows=self._rows,
            transform=transform,
            seed=config.seed,
            threads=config.threads,
            processes=config.processes,
            prefetch=config.prefetch,
            bad_files_limit=config.bad_files_limit,
        )

    def device_put(self, host: pipeline.HostBatch) -> dict:
        """Put a batch on the devices."""
        return self.programs.device_mesh.batch_arrays(host.arrays, self._rows, self.batch_size)

    def evaluate(
        self,
        variables: dict,
        split: str,
        monitor: Monitor | None = None,
        stops: Callable[[], bool] = lambda: False,
        dataset: Dataset | None = None,
    ) -> evaluation.Evaluation:
        """Evaluate a split with variables that are on the devices (``TrainState.variables``).

        Args:
            dataset: one whose images have the same size; the session's own if ``None``.

        Raises:
            GivenUp: see ``evaluation.evaluate``.
        """
        dataset = dataset or self._read
        arguments = (self.programs, variables, dataset, split, self.config)
        if monitor is None:
            return evaluation.evaluate(*arguments, stops=stops)
        bar = monitor.bar(split, len(dataset.splits[split]), brief=True)
        try:
            return evaluation.evaluate(*arguments, lambda count: monitor.advance(bar, by=count), stops)
        finally:
            monitor.done(bar)

    # --- States. ------------------------------------------------------------------------------------------------------

    def initial_state(self) -> TrainState:
        """The state before the first step, sharded over the mesh."""
        key = jax.random.key(self.config.seed ^ 0x5EED)
        return self.programs.device_mesh.device_put(self.programs.state(0, self._initial_variables(), key))

    def _initial_variables(self) -> dict:
        """Random variables from the seed; pretrained weights replace the backbone's if the config names any."""
        config = self.config
        variables = self.programs.init(jax.random.key(config.seed))
        if config.weights == RANDOM:
            variables = self._calibrated(variables)
        elif config.weights:
            loaded = self._pretrained or load_pretrained(config)
            assert loaded is not None, 'the config names weights'
            # They would stay in memory for as long as the training runs.
            self._pretrained = None
            for collection, tree in loaded.items():
                # What the file does not hold keeps its initial values: adapters, and what a lenient reading left out.
                made = flatten_dict(variables[collection]['backbone'])
                variables[collection]['backbone'] = unflatten_dict({**made, **flatten_dict(tree)})
            self._load_parts(variables)
        return variables

    def _load_parts(self, variables: dict) -> None:
        """Replace what the config takes of the weights beside the backbone."""
        config, model = self.config, self.programs.model
        neck = ('neck',) if model.neck is not None else ()
        wanted = {'backbone': (), 'neck': neck, 'all': (*neck, 'head')}[config.weights_parts]
        if wanted:
            size = self.programs.task.preprocessing.size
            loaded = starting_weights.load_parts(
                config.backbone, config.weights, size, model, wanted, config.strict_weights
            )
            for collection, tree in loaded.items():
                made = flatten_dict(variables[collection])
                variables[collection] = unflatten_dict({**made, **flatten_dict(tree)})
        if neck:
            taken, left = ('backbone', *wanted), [part for part in (*neck, 'head') if part not in wanted]
            starting_weights.tell(
                f'{config.weights}: {listed(taken)}'
                + (f'; random: {listed(left)} (--{self._keys}weights_parts)' if left else '')
            )

    def _calibrated(self, variables: dict) -> dict:
        """Variables whose backbone has statistics of training images, which it could not gather while it is frozen."""
        if 'backbone' not in variables['batch_stats']:
            return variables
        chosen = calibration_examples.examples(self.dataset, self.config.seed, self.config.calibration_images)
        images = calibration_examples.images(self.dataset, chosen, self.config.bad_files_limit)[..., :3]
        backbone = {collection: tree['backbone'] for collection, tree in variables.items()}
        module, preprocessing = self.programs.model.backbone, self.programs.task.preprocessing
        calibrate = jax.jit(lambda backbone, images: calibrate_statistics(module, backbone, preprocessing(images)))
        changed = jax.tree.map(np.asarray, calibrate(backbone, images)['batch_stats'])
        return {**variables, 'batch_stats': {**variables['batch_stats'], 'backbone': changed}}

    def next_phase_state(self, last: TrainState, phase: int) -> tuple[TrainState, str]:
        """The state at the beginning of a phase, sharded over the mesh, and a summary of what was carried over."""
        fresh, told = state.next_phase(last, functools.partial(self.programs.state, phase))
        return self.programs.device_mesh.reshard(fresh), told

    def host_variables(self, last: TrainState) -> dict:
        """Unsharded parameters and statistics on the host, averaged if there is an average, with adapters merged."""
        variables = self.programs.device_mesh.to_host(last.variables())
        merged = lora.merge(variables['params'], self.programs.adapter_scale)
        return {**variables, 'params': jax.tree.map(np.asarray, merged)}
