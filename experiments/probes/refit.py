"""The selected head, fitted again on the training and the validation examples.

VTAB selects hyper-parameters on 200 of 1,000 examples and then trains on all of them (Zhai et al. 2019, section 3.3).
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from experiments.probes.common import Outcome, ProbeData, Subset

# Of each hyper-parameter, the config values that leave no other choice.
_FIXED: Mapping[str, Callable[[Any], dict[str, Any]]] = {
    'C': lambda c: {'smallest_c': c, 'largest_c': c, 'values_of_c': 1},
    'penalty': lambda penalty: {'smallest_penalty': penalty, 'largest_penalty': penalty, 'penalties': 1},
    'neighbours': lambda count: {'neighbours': (count,)},
    'learning_rate': lambda rate: {'learning_rates': (rate,)},
    'weight_decay': lambda decay: {'weight_decays': (decay,)},
}


def refit(
    run: Callable[..., list[Outcome]],
    data: ProbeData,
    subsets: Sequence[Subset],
    outcomes: Sequence[Outcome],
    config: ml_collections.ConfigDict,
    report: Callable[[str], None],
) -> list[Outcome]:
    """The outcomes with the predictions of heads that were fitted on training and validation examples.

    Args:
        run: fits the heads of a regime.
        outcomes: what it selected on validation for each subset; their validation scores stay.
        config: of the regime.
        report: called with a short progress text.
    """
    again = []
    fitted: dict[tuple, Outcome] = {}
    for subset, outcome in zip(subsets, outcomes, strict=True):
        both = dataclasses.replace(subset, rows=np.union1d(subset.rows, data.validation))
        # Without a seed that changes anything, all labels give one head.
        seed = subset.seed if outcome.depends_on_seed else None
        key = (*outcome.selected.items(), both.rows.tobytes(), seed)
        if key not in fitted:
            fixed = config.copy_and_resolve_references()
            for name, value in outcome.selected.items():
                fixed.update(_FIXED[name](value))
            (fitted[key],) = run(dataclasses.replace(data, retrieves=False), [both], fixed, report)
        again.append(dataclasses.replace(outcome, predictions=fitted[key].predictions, apply=fitted[key].apply))
    return again
