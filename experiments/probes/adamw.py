"""Linear heads by stochastic gradient descent: every head of a sweep in one compiled program.

Not the default of ``linear``: how close it gets to the minimum in a fixed number of steps depends on the features.
Multinomial logistic regression by AdamW with a cosine schedule on standardised features, from zero. The heads of all
learning rates × weight decays × subsets (seeds × fractions) train together under ``vmap``; the features are gathered
once per subset and step and shared by its learning rates and decays.
"""

import functools
import itertools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from experiments.planning import memory
from experiments.planning.program_costs import memory_of
from experiments.probes.common import Outcome, ProbeData, Subset, at_edge, select, standardisation

# Of all memory, not of what is free now, so that the same machine trains the same heads together.
_SHARE_OF_MEMORY = 0.25


def batch_orders(subset: Subset, steps: int, batch_size: int) -> Int[np.ndarray, 'steps batch_size']:
    """Rows of every batch, in a new order every epoch: a pure function of the subset's seed."""
    generator = np.random.Generator(np.random.Philox(key=[subset.seed, 1]))
    epochs = -(-steps * batch_size // len(subset.rows))
    order = np.concatenate([generator.permutation(subset.rows) for _ in range(epochs)])
    return order[: steps * batch_size].reshape(steps, batch_size)


@functools.partial(jax.jit, static_argnames=('num_classes',))
def train_heads(
    features: Float[Array, 'examples channels'],
    labels: Int[Array, ' examples'],
    orders: Int[Array, 'subsets steps batch_size'],
    means: Float[Array, 'subsets channels'],
    factors: Float[Array, 'subsets channels'],
    learning_rates: Float[Array, ' heads'],
    weight_decays: Float[Array, ' heads'],
    validation: Int[Array, ' validation'],
    num_classes: int,
) -> tuple[dict[str, Array], Float[Array, 'subsets heads validation classes'], Float[Array, 'subsets heads']]:
    """Train ``subsets × heads`` linear classifiers.

    Returns:
        The heads' parameters (leading axes subsets and heads), and their validation logits and losses.
    """
    steps = orders.shape[1]
    schedule = optax.cosine_decay_schedule(1.0, steps)

    def loss_of(head: dict[str, Array], x: Array, y: Array) -> tuple[Array, Array]:
        logits = x @ head['kernel'] + head['bias']
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), logits

    def for_subset(order: Array, mean: Array, factor: Array):
        def for_head(learning_rate: Array, weight_decay: Array):
            optimizer = optax.adamw(
                lambda step: learning_rate * schedule(step),
                weight_decay=weight_decay,
                mask={'kernel': True, 'bias': False},
            )
            head = {'kernel': jnp.zeros((features.shape[1], num_classes)), 'bias': jnp.zeros(num_classes)}

            def step(carry, rows: Array):
                head, state = carry
                x = (features[rows] - mean) * factor
                gradients, _ = jax.grad(loss_of, has_aux=True)(head, x, labels[rows])
                updates, state = optimizer.update(gradients, state, head)
                return (optax.apply_updates(head, updates), state), None

            (head, _), _ = jax.lax.scan(step, (head, optimizer.init(head)), order)
            x, y = (features[validation] - mean) * factor, labels[validation]
            loss, logits = loss_of(head, x, y)
            return head, logits, loss

        return jax.vmap(for_head)(learning_rates, weight_decays)

    return jax.vmap(for_subset)(orders, means, factors)


def subsets_at_once(data: ProbeData, subsets: int, choices: int, steps: int, batch_size: int, limit: float) -> int:
    """How many subsets' heads train in one program: as many as its memory, as the compiler reports it, allows.

    Args:
        subsets: how many there are.
        choices: heads of a subset.
        limit: bytes that the program may take; one subset is trained whatever it takes.
    """
    (examples, channels), validation = data.features.shape, len(data.validation)
    value = jax.ShapeDtypeStruct

    def program(count: int) -> jax.stages.Compiled:
        per_channel, per_choice = value((count, channels), np.float32), value((choices,), np.float32)
        return train_heads.lower(
            value((examples, channels), np.float32), value((examples,), np.int32),
            value((count, steps, batch_size), np.int32), per_channel, per_channel, per_choice, per_choice,
            value((validation,), np.int32), data.num_classes,
        ).compile()  # fmt: skip

    while subsets > 1:
        found = memory_of(program(subsets))
        if found is None or found.peak <= limit:
            break
        # The features are there once, everything else for each subset.
        shared = data.features.nbytes
        share = max(0.0, limit - shared) / (found.peak - shared)
        subsets = max(1, min(subsets - 1, int(subsets * share)))
    return subsets


def _logits(
    mean: Float[np.ndarray, ' channels'],
    factor: Float[np.ndarray, ' channels'],
    kernel: Float[Array, 'channels classes'],
    bias: Float[Array, ' classes'],
    features: Float[np.ndarray, 'examples channels'],
) -> Float[np.ndarray, 'examples classes']:
    return np.asarray(((jnp.asarray(features) - mean) * factor) @ kernel + bias)


def run(
    data: ProbeData, subsets: Sequence[Subset], config: ml_collections.ConfigDict, report: Callable[[str], None]
) -> list[Outcome]:
    """One outcome per subset: the head with the best validation score, applied to the test examples.

    Args:
        config: that of ``linear``: learning rates and weight decays of the sweep, steps and batch size.
        report: called with a short progress text.
    """
    features, labels = jnp.asarray(data.features), jnp.asarray(data.labels)
    grids = {'learning_rate': config.learning_rates, 'weight_decay': config.weight_decays}
    choices = list(itertools.product(*grids.values()))
    rates, decays = (jnp.asarray(values, jnp.float32) for values in zip(*choices, strict=True))
    channels = features.shape[1]
    # A device that does not say how much memory it has gets all of them.
    limit = _SHARE_OF_MEMORY * memory.of(jax.local_devices()[:1]).total or float('inf')
    at_once = subsets_at_once(data, len(subsets), len(choices), config.steps, config.batch_size, limit)
    outcomes = []
    for start in range(0, len(subsets), at_once):
        chunk = subsets[start : start + at_once]
        report(f'{len(chunk) * len(choices)} linear heads')
        statistics = [standardisation(data.features, subset.rows, data.normalisation) for subset in chunk]
        means, factors = (np.stack(values) for values in zip(*statistics, strict=True))
        orders = np.stack([batch_orders(subset, config.steps, config.batch_size) for subset in chunk])
        heads, logits, losses = train_heads(
            features, labels, orders, means, factors, rates, decays, jnp.asarray(data.validation), data.num_classes
        )
        logits, losses = np.asarray(logits), np.asarray(losses)
        for index in range(len(chunk)):
            validated = [data.score(each, data.labels[data.validation]) for each in logits[index]]
            best = select(validated, losses[index].tolist())
            head = functools.partial(
                _logits, means[index], factors[index], heads['kernel'][index, best], heads['bias'][index, best]
            )
            selected = dict(zip(grids, choices[best], strict=True))
            outcomes.append(
                Outcome(
                    selected=selected,
                    validation_score=validated[best],
                    predictions={'logits': head(data.features[data.test])},
                    validation_predictions={'logits': logits[index, best]},
                    trainable_parameters=(channels + 1) * data.num_classes,
                    at_edge=at_edge(selected, grids),
                    choices=len(choices),
                    apply=head,
                )
            )
    return outcomes
