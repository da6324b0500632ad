"""Which parameters train, by the name of a regime; ``trained_parameters`` finds them in a model.

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
from typing import TYPE_CHECKING

from backbones.errors import UserError, unknown

if TYPE_CHECKING:  # it imports JAX, which listing the keys of a config does not need
    from backbones.depth import Kind

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
    kind: 'Kind' = 'stage'
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
