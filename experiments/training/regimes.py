"""Which parameters train: freezing rules from a regime's name, and learning-rate factors from depth.

====================  ==============================================================================================
``linear``            the head only (classification)
``frozen``            neck and head (dense tasks)
``partial:K``         the last K stages, everything after them, and the head
``partial:Kblocks``   the last K blocks, everything after them, and the head
``lpft``              ``linear``, then ``finetune`` (Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features")
``finetune``          everything
``bitfit``            every bias, and the head (Ben Zaken et al. 2022, "BitFit")
``lora:RANK``         low-rank adapters (``backbones.lora``), and the head; ``lora`` is ``lora:8``
``scratch``           everything, from random weights
====================  ==============================================================================================

The neck and the head always train, and so do the auxiliary heads of a backbone that has any.
"""

import dataclasses
import re
from collections.abc import Mapping

from flax.traverse_util import flatten_dict, unflatten_dict

from backbones import freezing, lora
from backbones.depth import Kind, Order, units
from backbones.errors import UserError, unknown

NAMES = ('linear', 'frozen', 'partial', 'lpft', 'finetune', 'bitfit', 'lora', 'scratch')
DEFAULT_RANK = 8
# Config keys that not all regimes read, and those that do: only what trains has a learning rate.
READERS: Mapping[str, tuple[str, ...]] = {
    'lora_alpha': ('lora',),
    'probe_epochs': ('lpft',),
    'probe_learning_rate': ('lpft',),
    'layer_decay': ('partial', 'lpft', 'finetune', 'bitfit', 'lora', 'scratch'),
}


@dataclasses.dataclass(frozen=True)
class Phase:
    """A part of a training run in which the same parameters train.

    Attributes:
        name: a regime of one phase.
        last: number of units that ``partial`` trains.
        kind: the unit that ``partial`` counts.
        rank: rank of the adapters of ``lora``; 0 for all other regimes.
    """

    name: str
    last: int = 0
    kind: Kind = 'stage'
    rank: int = 0


@dataclasses.dataclass(frozen=True)
class Regime:
    """How a model is trained.

    Attributes:
        name: its name, with the default filled in.
        phases: in order; one for every regime but ``lpft``.
        pretrained: whether it starts from pretrained weights.
    """

    name: str
    phases: tuple[Phase, ...]
    pretrained: bool = True


def parse(text: str) -> Regime:
    """Parse a name such as ``'finetune'``, ``'partial:2'``, ``'partial:3blocks'`` or ``'lora:16'``.

    Raises:
        UserError: there is no such regime, it takes no number, or its number is missing or not positive.
    """
    name, colon, argument = text.partition(':')
    if name not in NAMES:
        raise unknown('regime', text, NAMES)
    if name == 'partial':
        count, kind = (argument.removesuffix('blocks'), 'block') if argument.endswith('blocks') else (argument, 'stage')
        return Regime(text, (Phase(name, _positive(text, count, "'partial:2' or 'partial:3blocks'"), kind),))
    if name == 'lora':
        rank = _positive(text, argument, "'lora:8'") if colon else DEFAULT_RANK
        return Regime(f'lora:{rank}', (Phase(name, rank=rank),))
    if colon:
        raise UserError(f'the regime {name!r} takes no number: write {name!r} instead of {text!r}')
    if name == 'lpft':
        return Regime(name, (Phase('linear'), Phase('finetune')))
    return Regime(name, (Phase(name),), pretrained=name != 'scratch')


def _positive(text: str, number: str, example: str) -> int:
    if not re.fullmatch('0*[1-9][0-9]*', number):
        raise UserError(f'the regime {text!r} needs a positive whole number after its colon, such as {example}')
    return int(number)


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
