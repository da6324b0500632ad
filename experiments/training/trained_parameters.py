"""Freezing rules from the phase of a regime, and learning-rate factors from depth."""

import re

from flax.traverse_util import flatten_dict, unflatten_dict

from backbones import freezing, lora
from backbones.depth import Order, units
from backbones.errors import UserError
from experiments.training.regimes import Phase


def rules(phase: Phase, params: dict, order: Order) -> tuple[freezing.Rule, ...]:
    """Freezing rules of a phase, for ``freezing.mask`` and ``freezing.table``.

    Args:
        phase: a phase of a regime.
        params: parameters of a classifier, or their shapes; with adapters in the phase ``lora``.
        order: the same model's ``depth.execution_order``.

    Raises:
        UserError: ``partial`` counts more stages or blocks than the backbone has.
        ValueError: the parameters have no adapters in the phase ``lora``.
    """
    if phase.name in ('finetune', 'scratch'):
        return freezing.TRAIN_EVERYTHING
    leaves = flatten_dict(params, sep='/')
    groups = units(params, order, phase.kind)
    *_, output, head = groups
    trained = [path for path in head.paths if path.startswith('backbone/')]
    leading: list[freezing.Rule] = []
    if phase.name == 'partial':
        counted = groups[1:-2]
        if phase.last > len(counted):
            raise UserError(
                f'a regime trains the last {phase.last} {phase.kind}s, but the backbone has {len(counted)} with '
                f"parameters; the most is 'partial:{len(counted)}{'blocks' if phase.kind == 'block' else ''}'"
            )
        trained += [path for unit in (*counted[-phase.last :], output) for path in unit.paths]
    elif phase.name == 'bitfit':
        leading = [('backbone/(.*/)?bias', 'trainable')]
    elif phase.name == 'lora':
        if not any(path.endswith(lora.LEAVES) for path in leaves):
            raise ValueError('the parameters have no adapters: call lora.add before making the rules of regime lora')
        leading = [('backbone/.*/lora_[ab]', 'trainable')]
    if trained:
        leading.append((_pattern(trained, leaves), 'trainable'))
    # Where everything of the backbone trains, nothing is left to freeze.
    return (*leading, *((*rule[:2], 'optional') for rule in freezing.FREEZE_BACKBONE))


def _pattern(trained: list[str], leaves: dict) -> str:
    """A pattern that matches exactly these backbone parameters, by the largest modules that hold nothing else."""
    frozen = leaves.keys() - set(trained)
    mixed = {'/'.join(parts[:depth]) for parts in (path.split('/') for path in frozen) for depth in range(len(parts))}
    whole: dict[str, None] = {}
    for path in trained:
        parts = path.split('/')
        prefixes = ('/'.join(parts[:depth]) for depth in range(2, len(parts) + 1))
        whole[next(prefix for prefix in prefixes if prefix not in mixed)] = None
    modules = [re.escape(prefix.removeprefix('backbone/')) for prefix in whole]

    rest = '/.*' if whole.keys().isdisjoint(leaves) else '(/.*)?'
    return f'backbone/({"|".join(modules)}){rest}' if len(modules) > 1 else f'backbone/{modules[0]}{rest}'


def layer_scales(params: dict, order: Order, decay: float) -> dict:
    """Layer-wise learning-rate decay: a learning-rate factor for each parameter, smaller for shallower ones.

    With n blocks, everything before the first has ``decay ** (n + 1)``, block i (from 1) has ``decay ** (n + 1 - i)``,
    and everything after the last, including the head, has 1. For a vision transformer these are MAE's factors.

    Source: Clark et al. 2020, "ELECTRA"; Bao et al. 2022, "BEiT"; facebookresearch/mae ``util/lr_decay.py``.

    Args:
        params: parameters of a classifier, or their shapes.
        order: the same model's ``depth.execution_order``.
        decay: factor from one block to the previous one; 1 leaves all rates unchanged.

    Returns:
        A tree of Python floats, structured like ``params``.

    Raises:
        UserError: the decay is not in (0, 1].
    """
    if not 0 < decay <= 1:
        raise UserError(f'the layer-wise learning-rate decay must be above 0 and at most 1, not {decay}')
    *layers, output, head = units(params, order, 'block')
    scales = {path: 1.0 for unit in (output, head) for path in unit.paths}
    for below, unit in enumerate(reversed(layers), start=1):
        scales.update(dict.fromkeys(unit.paths, decay**below))
    return unflatten_dict({path: scales[path] for path in flatten_dict(params, sep='/')}, sep='/')
