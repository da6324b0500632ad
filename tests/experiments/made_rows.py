"""Rows of results that were never computed."""

from pathlib import Path

import numpy as np

from experiments.results import rows, scores
from experiments.results.axes import Cell, Variant
from experiments.results.rows import Row


def make_row(backbone='b', seed=0, score=0.5, fraction=1.0, **changes) -> Row:
    values = {
        'cell': Cell('digits', Variant(backbone, ''), 'linear', fraction, seed),
        'task': 'classification',
        'primary': 'accuracy',
        'config': {'image_size': 0, 'fit': 'crop', 'linear': {'steps': 3}},
        'validation': {'accuracy': 0.5},
        'test': {'accuracy': score, 'loss': 1.5},
        'selected': {'learning_rate': 0.1},
        'at_edge': (),
        'choices': 12,
        'depends_on_seed': True,
        'costs': {
            'parameters': 1000, 'trainable_parameters': 10, 'flops_per_image': 2e6,
            'flops_counted_in': 'traced program', 'images_per_second': 100.0,
        },
        'data': {
            'provenance': 'made up', 'fingerprint': 'abcdef0123', 'train_examples': 70, 'validation_examples': 10,
            'test_examples': 40, 'skipped': 0,
        },
        'versions': {'python': '3'},
        'predictions': f'predictions/{backbone}{fraction}{seed}.npz',
    }  # fmt: skip
    return Row(**{**values, **changes})


def write(workdir, *made: Row, ids=None) -> Path:
    """A work directory whose scores agree with its rows."""
    ids = ids or [f'{index:02d}' for index in range(40)]
    for row in made:
        logits = np.zeros((len(ids), 3), np.float32)
        logits[np.arange(len(ids)), (np.arange(len(ids)) >= row.score * len(ids)).astype(int)] = 1
        scores.write(workdir / row.predictions, ids, np.zeros(len(ids), np.int32), {'logits': logits})
    rows.write(workdir, made)
    return workdir
