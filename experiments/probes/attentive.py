"""Attentive probe: a head that learns where to look, on the unpooled features of CNNs and ViTs alike.

What a backbone's pooled features lack may still be in its map: pooled linear probes favour pretraining whose objective
acts on the pooled features. The head is efficient probing (``attention_pooling``) on ``float[examples, positions,
channels]``: a ViT's patches after its last normalisation, without class token and registers (the default of the
reference), or the map of a CNN's last stage. In place of the batch normalisation before the reference's classifier, the
channels are standardised over the training subset, unless the config asks for another normalisation. Trained by AdamW
with a cosine schedule; learning rate and weight decay are selected on validation, from the same sweep for every
backbone.

Training, reading and memory: ``attentive_training``.
"""

import itertools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import Float, Int

from backbones.cost import forward_flops
from backbones.errors import UserError
from experiments.probes import attention_pooling, attentive_training
from experiments.probes.attention_pooling import AttentionHead
from experiments.probes.attentive_training import Scaling, Source, Sweep
from experiments.probes.common import Outcome, ProbeData, Subset, at_edge, select


def workload(
    subsets: int, shape: tuple[int, ...], evaluated: int, num_classes: int, config: ml_collections.ConfigDict
) -> tuple[int, float]:
    """``(heads, FLOPs)`` of the sweeps of some subsets.

    Args:
        subsets: their number.
        shape: positions and channels.
        evaluated: number of validation examples.
        num_classes: number of classes.
        config: see ``sweeps.attentive``.
    """
    heads = subsets * len(config.learning_rates) * len(config.weight_decays)
    head = attention_pooling.initial(0, config.queries, shape[-1], num_classes)
    example, label = jax.ShapeDtypeStruct((1, *shape), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.int32)
    forward = forward_flops(attention_pooling.logits, head, example)
    both = forward_flops(jax.grad(attention_pooling.loss), head, example, label)
    return heads, heads * (float(both) * config.steps * config.batch_size + forward * evaluated)


def run(
    data: ProbeData, subsets: Sequence[Subset], config: ml_collections.ConfigDict, report: Callable[[str], None]
) -> list[Outcome]:
    """One outcome per subset: the head with the best validation score, applied to the test examples.

    Args:
        data: its features are ``float32[examples, positions, channels]``, an array or anything that has a shape and
            reads rows by index, such as ``StoredFeatures``.
        config: see ``sweeps.attentive``.
        report: called with a short progress text.

    Raises:
        UserError: a value out of range, features without positions, or every head of a sweep diverges.
    """
    check(config)
    if len(data.features.shape) != 3:
        raise UserError(
            f'the attentive probe takes features of positions, [examples, positions, channels], not of shape '
            f'{tuple(data.features.shape)}'
        )
    source = Source(data.features)
    statistics = attentive_training.standardisations(data.features, subsets, data.normalisation, data.padded)
    outcomes = []
    for subset, scaling in zip(subsets, statistics, strict=True):
        report(f'attentive heads on {len(subset.rows):,}')
        outcomes.append(_selected(data, source, subset, scaling, config))
    return outcomes


def _selected(
    data: ProbeData,
    source: Source,
    subset: Subset,
    scaling: Scaling,
    config: ml_collections.ConfigDict,
) -> Outcome:
    grids = {'learning_rate': tuple(config.learning_rates), 'weight_decay': tuple(config.weight_decays)}
    choices = list(itertools.product(*grids.values()))
    channels, labels = data.features.shape[-1], data.labels[data.validation]
    start = attention_pooling.initial(subset.seed, config.queries, channels, data.num_classes)
    heads, validated, scores, losses = [], [], [], []
    for chunk in attentive_training.chunks(choices, start, source, config.batch_size):
        sweep = Sweep(start, chunk, config.steps, config.batch_size, data.normalisation, data.padded)
        trained = attentive_training.train(sweep, source, data.labels, subset, scaling)
        heads += [AttentionHead(*(leaf[index : index + 1] for leaf in trained)) for index in range(len(chunk))]
        for logits in attentive_training.score(
            trained, source, data.validation, scaling, data.normalisation, data.padded
        ):
            loss = _mean_loss(logits, labels)
            validated.append(logits)
            losses.append(loss)
            scores.append(data.score(logits, labels) if math.isfinite(loss) else -math.inf)
    if not math.isfinite(min(losses)):
        raise UserError(
            f'every head of the attentive probe diverges on {len(subset.rows):,} examples (seed {subset.seed}); try '
            f'learning rates below {min(config.learning_rates):g} (--config.attentive.learning_rates)'
        )
    best = select(scores, losses)
    selected = dict(zip(grids, choices[best], strict=True))
    (logits,) = attentive_training.score(heads[best], source, data.test, scaling, data.normalisation, data.padded)

    def apply(
        features: Float[np.ndarray, 'examples positions channels'], head: AttentionHead = heads[best]
    ) -> Float[np.ndarray, 'examples classes']:
        return attentive_training.score(
            head, Source(features), np.arange(features.shape[0]), scaling, data.normalisation, data.padded
        )[0]

    return Outcome(
        selected=selected,
        validation_score=scores[best],
        predictions={'logits': logits},
        validation_predictions={'logits': validated[best]},
        trainable_parameters=attention_pooling.parameters(config.queries, channels, data.num_classes),
        # There is nothing below no decay.
        at_edge=at_edge(selected, grids, {'weight_decay': (0.0,)}),
        choices=len(choices),
        apply=apply,
    )


def _mean_loss(logits: Float[np.ndarray, 'examples classes'], labels: Int[np.ndarray, ' examples']) -> float:
    """The mean cross-entropy; infinite where any score is not finite."""
    if not np.isfinite(logits).all():
        return math.inf
    own = np.take_along_axis(logits, labels[:, None], 1)[:, 0]
    return float((np.logaddexp.reduce(logits, axis=-1) - own).mean())


def check(config: ml_collections.ConfigDict) -> None:
    """Check the values of the keys of ``sweeps.attentive``.

    Raises:
        UserError: one is out of range.
    """
    for key in ('queries', 'steps', 'batch_size'):
        if config[key] < 1:
            raise UserError(f'config key attentive.{key} is {config[key]}; expected at least 1')
    for key in ('learning_rates', 'weight_decays'):
        if not len(config[key]) or min(config[key]) < 0:
            raise UserError(
                f'config key attentive.{key} is {tuple(config[key])}; expected one or more numbers of at least 0'
            )
