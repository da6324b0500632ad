"""One training and one frozen pass on every mesh: the same numbers, and what each device holds and exchanges."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command_runs import COMPILED_QUICKLY, free_port

import backbones
from experiments.features.store import Store
from experiments.training.mesh import AXES, DeviceMesh

SCRIPT = Path(__file__).with_name('mesh_run.py')
SPLITS = ('test', 'three', 'few more')


def start(action: str, **settings) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), action, json.dumps(settings)],
        env={**os.environ, 'JAX_PLATFORMS': 'cpu', **COMPILED_QUICKLY},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def outcome(process: subprocess.Popen) -> dict:
    try:
        output, error = process.communicate(timeout=500)
    finally:
        process.kill()
    assert process.returncode == 0, error
    return json.loads(output.splitlines()[-1])


def run(action: str, **settings) -> dict:
    return outcome(start(action, **settings))


def run_processes(action: str, count: int, **settings) -> list[dict]:
    port = free_port()
    processes = [
        start(action, port=port, num_processes=count, process_id=number, **settings) for number in range(count)
    ]
    try:
        return [outcome(process) for process in processes]
    finally:
        for process in processes:
            process.kill()


@pytest.fixture(scope='session')
def alone():
    """What one device computes, by backbone."""
    known: dict[str, dict] = {}

    def of(backbone: str) -> dict:
        if backbone not in known:
            known[backbone] = run('train', backbone=backbone)
            losses = known[backbone]['losses']
            counts = np.bincount(known[backbone]['test']['predictions'], minlength=4)
            print(f'losses {losses}, predictions {counts}, {known[backbone]["test"]["correct"]} correct')
            # Otherwise equal losses and predictions would mean nothing.
            assert np.mean(losses[-4:]) < 0.9 * np.mean(losses[:2])
            assert sorted(counts)[1] > 50
            assert 0.35 < known[backbone]['test']['correct'] / 1003 < 0.99
        return known[backbone]

    return of


def assert_same(got: dict, want: dict) -> None:
    difference = np.abs(np.subtract(got['losses'], want['losses'])).max()
    print(f'{got["devices"]} devices: largest difference of a loss {difference:.2g}')
    assert difference <= 1e-5
    for split, count in zip(SPLITS, (1003, 3, 258), strict=True):
        assert got[split]['count'] == count
        for name in ('count', 'correct', 'predictions'):
            assert got[split][name] == want[split][name], (split, name)
        assert abs(got[split]['loss'] - want[split]['loss']) <= 1e-5 * count


# The segmenter below has BatchNorm in every run of CI.
CHEAPEST = ('vit_micro', 2, 2)
OTHERS = [
    (backbone, devices, fsdp)
    for backbone in ('vit_micro', 'resnet_micro')
    for devices, fsdp in ((2, 1), (4, 1), (8, 1), (2, 2), (4, 2), (4, 4), (8, 8))
    if (backbone, devices, fsdp) != CHEAPEST
]


@pytest.mark.parametrize(
    ('backbone', 'devices', 'fsdp'),
    [pytest.param(*CHEAPEST, marks=pytest.mark.slow)]
    + [pytest.param(*case, marks=pytest.mark.exhaustive) for case in OTHERS],
)
def test_any_mesh_computes_the_same(alone, backbone, devices, fsdp):
    got, want = run('train', backbone=backbone, devices=devices, fsdp=fsdp), alone(backbone)
    assert got['devices'] == devices
    assert_same(got, want)
    assert got['bytes'] == want['bytes']
    print(f'bytes per device times {fsdp}, of all: {got["bytes_per_device"] * fsdp / got["bytes"]:.3f}')
    # Arrays that are too small to be cut weigh more in small models, see below for those of usual size.
    assert got['bytes_per_device'] <= {1: 1.0, 2: 1.1, 4: 1.2, 8: 1.5}[fsdp] * got['bytes'] / fsdp


@pytest.mark.parametrize(
    ('task', 'backbone'),
    [
        pytest.param('segmentation', 'resnet_micro', marks=pytest.mark.exhaustive),
        pytest.param('segmentation', 'vit_micro', marks=pytest.mark.exhaustive),
        pytest.param('detection', 'resnet_micro', marks=pytest.mark.exhaustive),
        pytest.param('detection', 'vit_micro', marks=pytest.mark.exhaustive),
    ],
)
def test_dense_tasks_compute_the_same_on_any_mesh(task, backbone):
    """Objects are counted over the whole batch, wherever its images are."""
    want = run('train_dense', task=task, backbone=backbone)
    assert want['losses'][-1] < 0.97 * want['losses'][0]
    for devices, fsdp in ((2, 1), (4, 2)):
        got = run('train_dense', task=task, backbone=backbone, devices=devices, fsdp=fsdp)
        assert got['devices'] == devices
        difference = np.abs(np.subtract(got['losses'], want['losses'])).max()
        print(f'{task} {backbone} on {devices} devices: largest difference of a loss {difference:.2g}')
        assert difference <= 1e-5
        assert got['indices'] == want['indices']
        for name, value in want['metrics'].items():
            assert abs(got['metrics'][name] - value) <= 1e-3, name


@pytest.mark.parametrize(
    ('backbone', 'fsdp'),
    [pytest.param('vit_micro', 2, marks=pytest.mark.slow)]
    + [
        pytest.param(*case, marks=pytest.mark.exhaustive)
        for case in (('vit_micro', 1), ('vit_micro', 4), ('resnet_micro', 1), ('resnet_micro', 2), ('resnet_micro', 4))
    ],
)
def test_two_processes_compute_the_same(alone, backbone, fsdp):
    """Of 258 examples the last batch holds two, and the second process none of them."""
    for got in run_processes('train', 2, backbone=backbone, devices=2, fsdp=fsdp):
        assert got['devices'] == 4
        assert_same(got, alone(backbone))


@pytest.mark.parametrize(
    ('task', 'backbone', 'head'),
    [
        # Its anchors find something after so few steps.
        pytest.param('detection', 'vit_micro', 'retinanet', marks=pytest.mark.exhaustive),
        # Its losses are divided by the objects of the whole batch, also of those images that the other process has.
        pytest.param('detection', 'vit_micro', 'fcos', marks=pytest.mark.exhaustive),
        # What it trains on is drawn at random, and is the same on every mesh.
        pytest.param('detection', 'vit_micro', 'faster_rcnn', marks=pytest.mark.exhaustive),
        pytest.param('segmentation', 'resnet_micro', 'fcn', marks=pytest.mark.exhaustive),
    ],
)
def test_two_processes_compute_the_same_dense_task(task, backbone, head):
    """Of 13 examples the last batch holds five: one process has four of them, the other has one."""
    want = run('train_dense', task=task, backbone=backbone, head=head)
    assert len(want['indices']) == 13
    primary = want['metrics']['mIoU' if task == 'segmentation' else 'AP']
    print(f'{task} {head}: primary metric {primary:.4f}, losses {want["losses"]}')
    # Otherwise equal metrics would mean nothing; the boxes of an untrained FCOS are points.
    assert primary > 0 or head == 'fcos'
    assert np.any(want['predictions']['confusion' if task == 'segmentation' else 'found'])
    for got in run_processes('train_dense', 2, task=task, backbone=backbone, head=head):
        assert got['devices'] == 2
        difference = np.abs(np.subtract(got['losses'], want['losses'])).max()
        print(f'largest difference of a loss {difference:.2g}')
        assert difference <= 1e-5
        assert got['indices'] == want['indices']
        assert got['predictions'] == want['predictions']
        assert abs(got['metrics'].pop('loss') - want['metrics']['loss']) <= 1e-5
        assert got['metrics'] == {name: value for name, value in want['metrics'].items() if name != 'loss'}


@pytest.mark.slow
def test_two_processes_share_a_frozen_pass(tmp_path):
    """Each reads its rows, process 0 writes, both have everything; and what is wrong ends both."""
    both = run_processes('extract', 2, devices=2, directory=str(tmp_path / 'both'), damaged=[5, 93])
    one = run('extract', directory=str(tmp_path / 'one'), damaged=[5, 93])
    assert both[0]['sha256'] == both[1]['sha256']
    assert both[0]['taps'] == both[1]['taps']
    assert [each['devices'] for each in (*both, one)] == [4, 4, 1]
    for each in (*both, one):
        assert each['unreadable'] == [5, 93]
        assert each['done'] == 2 * 160
        together, alone = each['taps']
        assert together == alone
        assert "2 examples of 'tiny' cannot be read (0005: " in each['refused']
        # A process knows the reason of those that it read itself.
        assert 'image file is truncated' in each['refused']
    values = [np.load(tmp_path / name / 'values.npy') for name in ('both', 'one')]
    np.testing.assert_allclose(*values, rtol=1e-4, atol=1e-5)
    assert len(Store(tmp_path / 'both' / 'store').entries()) == 3


@pytest.mark.exhaustive
def test_two_processes_give_the_same_evaluation_up(tmp_path):
    """One of them is asked to stop while both validate: saved at that step, evaluated by those who resume."""
    whole, cut = tmp_path / 'whole', tmp_path / 'cut'
    wanted = run_processes('fit', 2, devices=2, directory=str(whole))
    stopped, other = run_processes('fit', 2, devices=2, directory=str(cut), asked_in_evaluation=True)
    assert 'step 8 is saved' in stopped['stopped']
    assert stopped == other
    assert 2 <= len(stopped['batches']) < 8  # of 64 examples
    assert run_processes('fit', 2, devices=2, directory=str(cut)) == wanted
    assert (cut / 'metrics.jsonl').read_bytes() == (whole / 'metrics.jsonl').read_bytes()


@pytest.mark.parametrize(
    ('devices', 'fsdp'),
    [pytest.param(*each, marks=pytest.mark.slow) for each in ((1, 1), (8, 8))]
    + [pytest.param(*each, marks=pytest.mark.exhaustive) for each in ((8, 1), (4, 2))],
)
def test_states_move_between_meshes(tmp_path_factory, devices, fsdp):
    directory = tmp_path_factory.getbasetemp() / 'moving'
    saved = directory.with_suffix('.json')
    if not saved.exists():
        written = run('train', backbone='resnet_micro', devices=4, fsdp=2, checkpoints=str(directory))
        saved.write_text(json.dumps(written['digests']))
    digests = run('restore', backbone='resnet_micro', devices=devices, fsdp=fsdp, checkpoints=str(directory))['digests']
    wanted = json.loads(saved.read_text())
    assert len(wanted) > 100
    assert digests == wanted


@pytest.mark.parametrize(
    'pieces', [pytest.param(2, marks=pytest.mark.exhaustive), 4, pytest.param(8, marks=pytest.mark.exhaustive)]
)
@pytest.mark.parametrize('backbone', ['resnet50', 'vit_small_patch16'])
def test_each_device_holds_its_share(backbone, pieces):
    images = jnp.zeros((1, 224, 224, 3))
    params = jax.eval_shape(backbones.create_classifier(backbone, 1000).init, jax.random.key(0), images)['params']
    layout = DeviceMesh(jax.sharding.AbstractMesh((1, pieces), AXES)).layout(params)  # type: ignore[arg-type]
    leaves, shardings = jax.tree.leaves(params), jax.tree.leaves(layout)
    held = sum(
        4 * int(np.prod(sharding.shard_shape(leaf.shape))) for leaf, sharding in zip(leaves, shardings, strict=True)
    )
    total = sum(4 * leaf.size for leaf in leaves)
    print(f'{backbone} in {pieces} pieces: {held * pieces / total:.4f} of a fair share')
    assert total / pieces <= held <= 1.1 * total / pieces


@pytest.mark.parametrize(
    'backbone',
    [
        pytest.param('resnet50', marks=pytest.mark.exhaustive),
        pytest.param('vit_small_patch16', marks=pytest.mark.slow),
    ],
)
def test_a_linear_step_costs_a_forward_pass_and_exchanges_the_head(backbone):
    costs = run('linear_costs', backbone=backbone, size=64, devices=8)
    print(costs)
    assert 0.9 * costs['forward_flops'] <= costs['flops'] <= 1.03 * costs['forward_flops']
    assert 0.9 * costs['trainable_bytes'] <= costs['reduced_bytes'] <= 1.05 * costs['trainable_bytes']
