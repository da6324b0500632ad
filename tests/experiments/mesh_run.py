"""A training or a frozen pass on a given mesh, as JSON on standard output; run by test_meshes.py.

    python mesh_run.py ACTION SETTINGS

ACTION is a function of this file, SETTINGS a JSON object: its arguments, and ``devices`` (emulated ones of this
process), ``process_id``, ``num_processes`` and ``port``.
"""

import dataclasses
import hashlib
import json
import os
import re
import signal
import sys
import tempfile
import time
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np

STEPS = 20
SPLITS = {'train': 256, 'validation': 64, 'test': 1003, 'three': 3, 'few more': 258}


def make_session(backbone: str, fsdp: int, directory: str = tempfile.gettempdir()):
    from tiny import make_dataset

    from experiments.training.config import default_config
    from experiments.training.session import Session

    # A value within rounding of a ReLU's kink decides otherwise on another mesh, and on some processors one does within
    # twenty steps. Without the kink there is rounding alone.
    nn.relu = nn.silu
    dataset = make_dataset(examples=sum(SPLITS.values()), size=16, channels=3)
    # A quadrant takes longer than twenty steps to learn, a colour does not; pale ones stay hard to tell.
    generator = np.random.default_rng(1)
    colours = np.array([[160, 0, 0], [0, 160, 0], [0, 0, 160], [0, 0, 0]])
    tints = colours[dataset.targets] * generator.random((len(dataset.targets), 1))
    images = generator.integers(0, 90, dataset.images.shape) + tints[:, None, None, :]
    dataset = dataclasses.replace(dataset, images=images.astype(np.uint8))
    ends = np.cumsum(list(SPLITS.values()))
    splits = {name: np.arange(end - count, end) for (name, count), end in zip(SPLITS.items(), ends, strict=True)}
    dataset = dataclasses.replace(dataset, splits=splits)
    config = default_config()
    config.backbone = backbone
    config.image_size = 16
    config.batch_size = 32
    config.epochs = STEPS / 8
    config.warmup_epochs = 0.25
    # Adam divides by gradients that are near zero, and so makes a step out of what is only rounding; after twenty steps
    # of it the losses of two meshes differ by 1e-3 in float32, by 1e-8 in float64. So does a high rate with BatchNorm.
    config.optimizer = 'sgd'
    config.learning_rate = {'vit_micro': 0.05, 'resnet_micro': 0.006}[backbone]
    config.flip = False
    config.mesh.fsdp = fsdp
    config.mixup = 0.2
    config.clip_norm = 1.0
    config.threads = 1
    return Session(config, dataset, Path(directory))


def train(backbone: str, fsdp: int = 1, checkpoints: str = '') -> dict:
    """Twenty steps, exact evaluations, and a checkpoint if there is a directory for it."""
    session = make_session(backbone, fsdp)
    state, learning_rate = session.initial_state(), session.learning_rate(0, 0)
    params = jax.tree.leaves((state.trainable, state.frozen))
    result = {
        'devices': jax.device_count(),
        'bytes_per_device': sum(leaf.addressable_shards[0].data.nbytes for leaf in params),
        'bytes': sum(leaf.nbytes for leaf in params),
    }
    train_step = session.programs.train_step(0)
    losses = []
    for host in session.batches(0, STEPS):
        state, metrics = train_step(state, session.device_put(host), learning_rate(host.step))
        losses.append(float(metrics['loss']))
    result['losses'] = losses
    for split in ('test', 'three', 'few more'):
        evaluation = session.evaluate(state.variables(), split)
        assert (evaluation.indices == session.dataset.splits[split]).all()
        result[split] = {
            'correct': round(evaluation.metrics['accuracy'] * evaluation.count),
            'count': evaluation.count,
            'loss': evaluation.metrics['loss'] * evaluation.count,
            'predictions': evaluation.predictions['logits'].argmax(-1).tolist(),
        }
    if checkpoints:
        from experiments.training.checkpoints import Checkpoints

        with Checkpoints(Path(checkpoints)) as saving:
            saving.save(STEPS, state, {})
        result['digests'] = digests(session, state)
    return result


def train_dense(task: str, backbone: str, head: str = '', fsdp: int = 1) -> dict:
    """Twelve steps of a dense task on images with and without objects, and an exact evaluation."""
    from tiny_dense import dense_config, make_dense

    from experiments.training.session import Session

    nn.relu = nn.silu  # as in ``make_session``
    config = dense_config(task, backbone, 'finetune', epochs=6.0, flip=False, optimizer='sgd', clip_norm=1.0)
    config.learning_rate = 0.01
    config.head = head
    if task == 'detection':
        config.score_threshold = 1e-3  # so little is learned that no score is above the usual one
    config.mesh.fsdp = fsdp
    dataset = make_dense(task, splits=(16, 8, 13))
    session = Session(config, dataset, Path(tempfile.gettempdir()))
    state, learning_rate = session.initial_state(), session.learning_rate(0, 0)
    losses = []
    for host in session.batches(0, 12):
        state, metrics = session.train_step(0)(state, session.device_put(host), learning_rate(host.step))
        losses.append(float(metrics['loss']))
    evaluation = session.evaluate(state.variables(), 'test')
    return {
        'devices': jax.device_count(),
        'losses': losses,
        'metrics': evaluation.metrics,
        'indices': evaluation.indices.tolist(),
        'predictions': {
            name: values.tolist()
            for name, values in evaluation.predictions.items()
            if name in ('confusion', 'labels', 'found')
        },
    }


def train_texts(fsdp: int = 1) -> dict:
    """Twelve steps on texts, and an evaluation whose last batch is not full."""
    from tiny_texts import make_texts, training_config

    from experiments.training.session import Session

    config = training_config(optimizer='sgd', learning_rate=0.1, clip_norm=1.0, epochs=4.0)
    config.mesh.fsdp = fsdp
    session = Session(config, make_texts(longest=30), Path(tempfile.gettempdir()))
    state, learning_rate = session.initial_state(), session.learning_rate(0, 0)
    losses = []
    for host in session.batches(0, 12):
        state, metrics = session.train_step(0)(state, session.device_put(host), learning_rate(host.step))
        losses.append(float(metrics['loss']))
    logits = session.evaluate(state.variables(), 'test').predictions['logits']
    return {'devices': jax.device_count(), 'losses': losses, 'predictions': logits.argmax(-1).tolist()}


def restore(backbone: str, fsdp: int = 1, checkpoints: str = '') -> dict:
    """What the checkpoint of ``train`` holds."""
    from experiments.training.checkpoints import Checkpoints

    session = make_session(backbone, fsdp)
    with Checkpoints(Path(checkpoints)) as saved:
        restored = saved.restore_latest(lambda metadata: session.programs.abstract_state(0))
    assert restored is not None
    wanted = jax.tree.leaves(session.programs.device_mesh.layout(restored.state))
    for leaf, sharding in zip(jax.tree.leaves(restored.state), wanted, strict=True):
        assert leaf.sharding.is_equivalent_to(sharding, leaf.ndim)
    return {'digests': digests(session, restored.state)}


def fit(directory: str, asked_in_evaluation: bool = False) -> dict:
    """A whole training. If it is asked to stop, then the last process is, while it evaluates for the first time."""
    from experiments.cli.exit_status import Preempted
    from experiments.training import evaluation, loop

    evaluation._BATCH_SIZE = 8
    session = make_session('vit_micro', fsdp=2, directory=directory)
    evaluate, batches = session.programs.evaluation_step, []

    def slowly(variables, batch):
        batches.append(batch['target'].shape[0])
        if len(batches) == 2 and jax.process_index() == jax.process_count() - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.5)  # the other processes hear of it meanwhile
        return evaluate(variables, batch)

    if asked_in_evaluation:
        session.programs.evaluation_step = slowly
    try:
        trained = loop.run(session, tables=False)
    except Preempted as stopped:
        return {'stopped': str(stopped), 'batches': batches}
    return {'variables': [hashlib.sha256(leaf.tobytes()).hexdigest() for leaf in jax.tree.leaves(trained.variables)]}


def extract(directory: str, damaged: list[int]) -> dict:
    """Features twice, the second time from the store; then with fewer bad files allowed than there are."""
    from tiny import lazy, make_config, make_dataset

    from backbones.errors import UserError
    from experiments.features import extractor
    from experiments.features.frozen_backbone import FrozenBackbone
    from experiments.features.store import Store

    extractor._SHARD_EXAMPLES = 32
    backbone = FrozenBackbone('resnet_micro', 'random')
    dataset, config, place = lazy(make_dataset(), damaged), make_config(image_size=8, batch_size=16), Path(directory)
    done: list[int] = []
    for _ in range(2):
        pass_over = extractor.Extractor(config, Store(place / 'store'), place / 'work')
        extracted, _ = pass_over(backbone, dataset, done.append)
    if jax.process_index() == 0:
        np.save(place / 'values.npy', extracted.values)
    result = {
        'devices': jax.device_count(),
        'sha256': hashlib.sha256(extracted.values.tobytes()).hexdigest(),
        'unreadable': sorted(extracted.unreadable),
        'done': sum(done),
    }
    # At two taps from one pass, and at each alone.
    taps = ('stage1', 'grid')
    pass_over.hold(backbone, dataset, taps)
    alone = extractor.Extractor(config, Store(place / 'alone'), place / 'work')
    result['taps'] = [
        [
            hashlib.sha256(each.at(tap)(backbone, dataset, lambda count: None)[0].values.tobytes()).hexdigest()
            for tap in taps
        ]
        for each in (pass_over, alone)
    ]
    config.bad_files_limit = len(damaged) - 1
    try:
        extractor.Extractor(config, Store(place / 'another'), place / 'work')(backbone, dataset, done.append)
    except UserError as error:
        result['refused'] = str(error)
    return result


def extract_texts(directory: str) -> dict:
    """Features of texts of several lengths at two taps, in the order of the data set."""
    from tiny_texts import NAME, ablation_config, make_texts

    from experiments.features import extractor
    from experiments.features.frozen_backbone import FrozenBackbone
    from experiments.features.store import Store

    extractor._SHARD_EXAMPLES = 16
    place, backbone = Path(directory), FrozenBackbone(NAME, 'random', 0)
    pass_over = extractor.Extractor(ablation_config(), Store(place / 'store'), place)
    for tap in ('pooled', 'grid'):
        np.save(place / f'{tap}.npy', pass_over.at(tap)(backbone, make_texts(45), lambda count: None)[0].values)
    return {'devices': jax.device_count()}


def digests(session, state) -> dict[str, str]:
    """Path → hash of the bytes of each array of a state."""
    state = dataclasses.replace(state, key=jax.random.key_data(state.key))
    leaves = jax.tree_util.tree_leaves_with_path(session.programs.device_mesh.to_host(state))
    return {jax.tree_util.keystr(path): hashlib.sha256(leaf.tobytes()).hexdigest() for path, leaf in leaves}


def linear_costs(backbone: str, size: int) -> dict:
    """What the compiled step of the linear regime takes on each device, and the forward pass it is built on."""
    from experiments.planning import ahead_of_time
    from experiments.training import mesh
    from experiments.training.config import default_config

    config = default_config()
    config.backbone = backbone
    config.image_size = size
    config.regime, config.weights = 'linear', f'bundled:{backbone}'
    config.flip = False
    programs = ahead_of_time.planned(config, 10, (size, size, 3), 8 * 4, mesh.make())
    state, batch = programs.abstract_state(0), programs.abstract_batch()
    step = programs.lowered(0).compile()

    def forward(variables, images):
        return programs.model.apply(variables, programs.task.preprocessing(images), train=False)

    inference = jax.jit(forward).lower(state.variables(), batch['image']).compile()
    trainable = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state.trainable))
    return {
        'flops': step.cost_analysis()['flops'],
        'forward_flops': inference.cost_analysis()['flops'],
        'reduced_bytes': reduced_bytes(step.as_text()),
        'trainable_bytes': trainable,
    }


def reduced_bytes(text: str) -> int:
    """Size of the results of all all-reduces of a compiled program."""
    total = 0
    for line in text.splitlines():
        found = re.search(r' = (.*?) all-reduce(-start)?\(', line)
        for name, shape in re.findall(r'([a-z]+\d+|pred)\[([\d,]*)\]', found[1] if found else ''):
            itemsize = 1 if name == 'pred' else int(re.sub(r'\D', '', name)) // 8
            total += itemsize * int(np.prod([int(length) for length in shape.split(',') if length] or [1]))
    return total


def main(action: str, settings: str) -> dict:
    arguments = json.loads(settings)
    jax.config.update('jax_num_cpu_devices', arguments.pop('devices', 1))
    processes = [arguments.pop(name, None) for name in ('port', 'num_processes', 'process_id')]
    if processes[0]:
        jax.distributed.initialize(f'localhost:{processes[0]}', *processes[1:])
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    actions = {
        'train': train,
        'train_dense': train_dense,
        'train_texts': train_texts,
        'restore': restore,
        'fit': fit,
        'extract': extract,
        'extract_texts': extract_texts,
        'linear_costs': linear_costs,
    }
    return actions[action](**arguments)


if __name__ == '__main__':
    print(json.dumps(main(*sys.argv[1:])))
