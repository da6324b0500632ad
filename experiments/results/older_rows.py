"""Conversion of older rows to schema 2.

Schema 1 (rows without a schema number) supported only classification. It kept flat hyper-parameters and no grids of
the training runs; what it omitted is in ``config.json`` of the work directory, which then belonged to one config.
Before schema 2, ``experiments.train`` wrote ``result.json`` and no rows.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.results.axes import PIXELS, RANDOM
from experiments.results.scores import ScoreKind

_HEADS = ('linear', 'ridge', 'knn')  # the regimes on stored features in schema 1


def from_schema_1(row: Mapping[str, Any], workdir_config: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a row of schema 1 to schema 2.

    Args:
        row: the row.
        workdir_config: ``config.json`` of its work directory.
    """
    cell, metrics = row['cell'], row['metrics']
    regime, selected = cell['regime'], metrics['selected']
    values = dict(row['config'])
    config = {'image_size': values.pop('image_size'), 'calibration_images': values.pop('calibration_images')}
    # A key that its version did not have is absent here too: the reader knows the default.
    config |= {key: workdir_config[key] for key in ('fit', 'stored_size', 'batch_size') if key in workdir_config}
    if regime in _HEADS:
        config[regime] = values
    else:
        set_by_cell = {key: cell[key] for key in ('dataset', 'backbone', 'regime', 'fraction', 'seed')}
        weights = '' if cell['weights'] == RANDOM else cell['weights']
        config['training'] = {**values, **set_by_cell, **selected, 'weights': weights}
        config['training_learning_rates'] = workdir_config.get('training_learning_rates', [])
    data = dict(row['data'])
    data['skipped'] = data.pop('skipped_files')
    return {
        'task': 'classification',
        'primary': 'accuracy',
        'cell': cell,
        'metrics': {
            'validation': {'accuracy': metrics['validation_accuracy']},
            'test': {'accuracy': metrics['test_accuracy']},
        },
        'selected': selected,
        'at_edge': at_edge(regime, config, selected),
        'choices': choices(regime, config, data['train_examples']),
        'depends_on_seed': regime not in ('ridge', 'knn') or cell['fraction'] < 1 or cell['weights'] == RANDOM,
        'costs': {**row['costs'], 'flops_counted_in': 'compiled program'},
        'data': data,
        'predictions': row['predictions'],
        'config': config,
        'versions': row['versions'],
    }


def from_result(result: Mapping[str, Any]) -> dict[str, Any]:
    """Convert ``result.json`` of a training run to a row of schema 2.

    It did not contain the validation metrics, the number of training examples, the costs or the versions.
    """
    config = result['config']
    return {
        'task': 'classification',
        'primary': 'accuracy',
        'cell': {
            'backbone': config['backbone'],
            'weights': config['weights'] or RANDOM,
            **{key: config[key] for key in ('dataset', 'regime', 'fraction', 'seed')},
        },
        'metrics': {
            'validation': {},
            'test': {'accuracy': result['test_accuracy'], 'loss': result['test_loss']},
        },
        'selected': {},
        'at_edge': [],
        'choices': None,
        'depends_on_seed': True,
        'costs': {
            # Its ``parameters`` are those of the backbone and the head.
            'parameters': None,
            'trainable_parameters': result['trainable_parameters'],
            'flops_per_image': None,
            'flops_counted_in': None,
            'images_per_second': None,
        },
        'data': {
            **result['data'],
            'train_examples': None,
            'validation_examples': None,
            'test_examples': result['test_examples'],
            'skipped': None,
        },
        'predictions': 'predictions/test.npz',
        'config': config,
        'versions': {},
    }


def with_input_size(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The costs of a row of schema 2, with the size of the model's input where an earlier version left it out.

    Its config knows it unless ``image_size`` is 0, which means the size of the weights' preprocessing.
    """
    side = row['config'].get('image_size')
    if 'input' in row['costs'] or not side or row['cell']['backbone'] == PIXELS:
        return row['costs']
    return {**row['costs'], 'input': [side, side]}


def score_kind(regime: str) -> ScoreKind:
    """What the kept scores of a regime are, which versions before did not say."""
    kinds: dict[str, ScoreKind] = {'knn': 'probabilities', 'ridge': 'values'}
    return kinds.get(regime, 'logits')


def at_edge(regime: str, config: Mapping[str, Any], selected: Mapping[str, Any]) -> list[str]:
    """The selected hyper-parameters that lie at an edge of their grid."""
    values = config.get(regime, {})
    grids: dict[str, Sequence[float]] = {}
    if regime == 'linear':
        grids = {'learning_rate': values['learning_rates'], 'weight_decay': values['weight_decays']}
    elif regime == 'ridge':
        edges = values['smallest_penalty'], values['largest_penalty']
        # The grid is geometric, so its ends equal these up to rounding.
        return [name for name, value in selected.items() if any(abs(value / edge - 1) < 1e-6 for edge in edges)]
    elif regime == 'knn':
        # Fewer than one neighbour is impossible, and counts above the number of examples were not tried.
        return [name for name, value in selected.items() if value > 1 and value == max(values['neighbours'])]
    else:
        grids = {'learning_rate': config['training_learning_rates']}
    return [name for name, grid in grids.items() if is_edge(selected[name], grid)]


def is_edge(value: float, grid: Sequence[float]) -> bool:
    """Whether a value is the smallest or largest of a grid; a grid of one value offers no choice, hence no edge."""
    return len(set(grid)) > 1 and value in (min(grid), max(grid))


def choices(regime: str, config: Mapping[str, Any], examples: int) -> int:
    """Number of settings that validation chose among.

    Args:
        examples: number of training examples; no larger number of neighbours is tried.
    """
    values = config.get(regime, {})
    if regime == 'linear':
        return len(values['learning_rates']) * len(values['weight_decays'])
    if regime == 'ridge':
        return values['penalties']
    if regime == 'knn':
        return sum(count <= examples for count in values['neighbours']) or 1
    return len(config['training_learning_rates'])
