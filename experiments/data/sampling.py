"""The examples of each step: a pure function of seed and step, so that a resumed run sees the same ones."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int

from backbones.errors import UserError, unknown

Groups = Sequence[Int[np.ndarray, ' members']]
Order = Callable[[np.random.Generator, Int[np.ndarray, ' subset'], Groups, int], Int[np.ndarray, ' length']]


def _shuffle(
    generator: np.random.Generator, indices: Int[np.ndarray, ' subset'], groups: Groups, length: int
) -> Int[np.ndarray, ' length']:
    """A permutation; examples that do not fill a batch are left out of this epoch."""
    return generator.permutation(indices)[:length]


def _balanced(
    generator: np.random.Generator, indices: Int[np.ndarray, ' subset'], groups: Groups, length: int
) -> Int[np.ndarray, ' length']:
    """Cycle through all classes in random order; each class cycles through a permutation of its examples."""
    rounds = -(-length // len(groups))
    classes = generator.permuted(np.tile(np.arange(len(groups)), (rounds, 1)), axis=1).ravel()[:length]
    places = np.split(np.argsort(classes, kind='stable'), np.cumsum(np.bincount(classes, minlength=len(groups)))[:-1])
    order = np.empty(length, indices.dtype)
    for members, slots in zip(groups, places, strict=True):
        order[slots] = np.resize(generator.permutation(members), len(slots))
    return order


SAMPLERS: dict[str, Order] = {'shuffle': _shuffle, 'balanced': _balanced}


def check_seed(seed: int) -> None:
    """Refuse a number that cannot seed the generators of the order and of the labels.

    Raises:
        UserError: it is negative, or 2**63 or more.
    """
    if not 0 <= seed < 2**63:
        raise UserError(f'a seed must be a whole number between 0 and {2**63 - 1}, not {seed}')


class Sampler:
    """Random access to the examples of every step.

    ``'shuffle'`` takes every example once per epoch. ``'balanced'`` takes every class equally often (up to one example
    per epoch): an example of a rare class repeats only after all others of its class were taken in that epoch.

    Args:
        kind: a name in ``SAMPLERS``.
        seed: see ``check_seed``.
        indices: the examples to sample from.
        labels: labels of all examples of the data set.
        batch_size: examples per step.

    Attributes:
        steps_per_epoch: ``len(indices) // batch_size``, for all kinds.

    Raises:
        UserError: unknown kind, no such seed, or a batch size that is not positive or larger than the number of
            examples.
    """

    def __init__(
        self,
        kind: str,
        seed: int,
        indices: Int[np.ndarray, ' subset'],
        labels: Int[np.ndarray, ' examples'],
        batch_size: int,
    ):
        if kind not in SAMPLERS:
            raise unknown('sampler', kind, SAMPLERS)
        check_seed(seed)
        if not 0 < batch_size <= len(indices):
            raise UserError(
                f'batch_size must lie between 1 and the number of examples, {len(indices)}, not {batch_size}'
            )
        self.batch_size = batch_size
        self.steps_per_epoch = len(indices) // batch_size
        self._order, self._seed, self._indices = SAMPLERS[kind], seed, indices
        own = labels[indices]
        self._groups = [indices[own == label] for label in np.unique(own)]
        # Replaced as a whole, never modified, so threads need no lock (which could not be sent to another process).
        # It holds two epochs because threads that read ahead cross from one to the next.
        self._cache: tuple[tuple[int, Int[np.ndarray, ' length']], ...] = ()

    def epoch(self, epoch: int) -> Int[np.ndarray, ' length']:
        """The examples of an epoch's batches, in order."""
        cache = self._cache
        for cached, order in cache:
            if cached == epoch:
                return order
        generator = np.random.Generator(np.random.Philox(key=[self._seed, epoch]))
        order = self._order(generator, self._indices, self._groups, self.steps_per_epoch * self.batch_size)
        self._cache = ((epoch, order), *cache[:1])
        return order

    def batch(self, step: int) -> Int[np.ndarray, ' batch_size']:
        """The examples of a step, counted from 0; safe to call from several threads."""
        epoch, position = divmod(step, self.steps_per_epoch)
        return self.epoch(epoch)[position * self.batch_size :][: self.batch_size]


def _equal_weights(labels: Int[np.ndarray, ' subset'], classes: int) -> Float[np.ndarray, ' classes']:
    return np.ones(classes, np.float32)


def _balanced_weights(labels: Int[np.ndarray, ' subset'], classes: int) -> Float[np.ndarray, ' classes']:
    from sklearn.utils.class_weight import compute_class_weight  # imported late: it takes a second

    missing = np.setdiff1d(np.arange(classes), labels)
    if len(missing):
        raise UserError(
            f'balanced class weights need an example of every class, and class {missing[0]} has none; '
            "expected more training examples, or class weights 'none'"
        )
    return compute_class_weight('balanced', classes=np.arange(classes), y=labels).astype(np.float32)


CLASS_WEIGHTS: dict[str, Callable[[Int[np.ndarray, ' subset'], int], Float[np.ndarray, ' classes']]] = {
    'none': _equal_weights,
    'balanced': _balanced_weights,
}


def class_weights(
    kind: str, labels: Int[np.ndarray, ' examples'], indices: Int[np.ndarray, ' subset'], classes: int
) -> Float[np.ndarray, ' classes']:
    """The weight of each class in the loss.

    Args:
        kind: ``'none'`` (all 1) or ``'balanced'`` (``n / (classes · count)``: every class has the same total).
        labels: labels of all examples of the data set.
        indices: the training examples; only these are counted.
        classes: number of classes.

    Returns:
        ``float32[classes]``.

    Raises:
        UserError: unknown kind, or a class without a training example.
    """
    if kind not in CLASS_WEIGHTS:
        raise unknown('kind of class weights', kind, CLASS_WEIGHTS)
    return CLASS_WEIGHTS[kind](labels[indices], classes)
