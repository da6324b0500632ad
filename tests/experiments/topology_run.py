"""Twenty steps and an exact evaluation on a given mesh, as JSON on standard output; run by test_topologies.py.

    python topology_run.py BACKBONE DEVICES FSDP [PROCESS_ID NUM_PROCESSES PORT]

DEVICES are emulated ones of this process.
"""

import dataclasses
import json
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np

STEPS = 20
TESTED = 1003


def main(backbone: str, devices: int, fsdp: int, process_id: int = 0, num_processes: int = 1, port: int = 0) -> dict:
    jax.config.update('jax_num_cpu_devices', devices)
    if num_processes > 1:
        jax.distributed.initialize(f'localhost:{port}', num_processes, process_id)
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    from tiny import make_dataset

    from experiments.training.config import default_config
    from experiments.training.session import Session

    dataset = make_dataset(examples=320 + TESTED, size=16, channels=3)
    everything = np.arange(len(dataset.labels))
    splits = {'train': everything[:256], 'validation': everything[256:320], 'test': everything[320:]}
    dataset = dataclasses.replace(dataset, splits=splits)
    config = default_config()
    config.backbone = backbone
    config.image_size = 16
    config.batch_size = 32
    config.epochs = STEPS / 8
    config.mesh.fsdp = fsdp
    config.mixup = 0.2
    config.clip_norm = 1.0
    session = Session(config, dataset, Path(tempfile.gettempdir()))
    state = session.setup.initial_state()
    bytes_per_device = sum(
        leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves((state.trainable, state.frozen))
    )
    total = sum(leaf.nbytes for leaf in jax.tree.leaves((state.trainable, state.frozen)))
    train_step = session.setup.train_step(0)
    losses = []
    for host in session.batches(0, STEPS):
        state, metrics = train_step(state, session.place(host))
        losses.append(float(metrics['loss']))
    evaluation = session.evaluate(state.variables(), 'test')
    assert (evaluation.indices == splits['test']).all()
    return {
        'devices': jax.device_count(),
        'losses': losses,
        'correct': evaluation.correct,
        'count': evaluation.count,
        'loss': evaluation.loss,
        'predictions': evaluation.logits.argmax(-1).tolist(),
        'bytes_per_device': bytes_per_device,
        'bytes': total,
    }


if __name__ == '__main__':
    name, *numbers = sys.argv[1:]
    print(json.dumps(main(name, *map(int, numbers))))
