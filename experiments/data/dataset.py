"""The common form of data sets, and deterministic, stratified, disjoint splits."""

import dataclasses
import decimal
import functools
import hashlib
from collections.abc import Mapping
from typing import Protocol

import numpy as np
from jaxtyping import Int, UInt8

from backbones.errors import UserError
from experiments.data.sampling import check_seed

VALIDATION_SHARE = 0.1
TEST_SHARE = 0.2


class Images(Protocol):
    """Pixels read by index: an array in memory, or files that are decoded on access."""

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102

    def __getitem__(
        self, indices: Int[np.ndarray, ' count'], /
    ) -> UInt8[np.ndarray, 'count height width channels']: ...


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images, their targets and their splits.

    Attributes:
        name: as given by the user, such as ``tfds:cifar10``.
        images: ``uint8[examples, height, width, 1 or 3]``, indexed by an array of indices.
        targets: what the task predicts; for classification ``int32[examples]``, from 0 to ``len(classes) - 1``.
        ids: one stable name per example, independent of the order of reading.
        classes: one name per class.
        splits: ``'train'``, ``'validation'`` and ``'test'`` → sorted indices; disjoint, together all examples.
        provenance: one sentence on the origin of the examples and splits; it is written into every result.
        skipped: ``(name, reason)`` of every file or record that could not be read.
        groups: ``int32[examples]``, from 0: stratify label fractions by these instead of the targets.
    """

    name: str
    images: Images
    targets: Int[np.ndarray, ' examples']
    ids: tuple[str, ...]
    classes: tuple[str, ...]
    splits: Mapping[str, np.ndarray]
    provenance: str
    skipped: tuple[tuple[str, str], ...] = ()
    groups: Int[np.ndarray, ' examples'] | None = None

    def __post_init__(self):
        if len(self.classes) < 2:
            raise UserError(
                f'data set {self.name!r} has {len(self.classes)} class ({", ".join(self.classes) or "none"}); '
                'classification needs at least 2'
            )
        for split, indices in self.splits.items():
            if len(indices) == 0:
                raise UserError(
                    f'the {split} split of {self.name!r} is empty: {len(self.targets)} examples are too few to '
                    'split; add images'
                )

    def fraction(self, fraction: float, seed: int) -> Int[np.ndarray, ' chosen']:
        """A random share of the training split, stratified by the groups if there are any, else by the classes.

        Raises:
            UserError: see ``stratified_fraction``.
        """
        if self.groups is None:
            return stratified_fraction(self.targets, self.splits['train'], fraction, seed, len(self.classes))
        return stratified_fraction(self.groups, self.splits['train'], fraction, seed, int(self.groups.max()) + 1)

    def fingerprint(self) -> str:
        """A hash of the content and the splits of the data set.

        Nothing is decoded for it: it covers the pixels of images in memory, and the encoded bytes of images that are
        decoded on access.
        """
        return self._fingerprint

    def earlier_fingerprint(self) -> str:
        """``fingerprint`` as earlier versions computed it: without the content of images that are decoded on access."""
        return self._hashed(b'')

    def content_digest(self) -> str:
        """SHA-256 of the images alone, in their order, whatever their names, labels and splits."""
        return self._content_digest

    @functools.cached_property
    def _content_digest(self) -> str:
        content = getattr(self.images, 'content', None)
        if content is not None:
            return content
        digest = hashlib.sha256(repr(tuple(self.images.shape)).encode())
        if isinstance(self.images, np.ndarray):
            digest.update(np.ascontiguousarray(self.images).data)
            return digest.hexdigest()
        for index in range(len(self.targets)):
            try:
                digest.update(self.images[np.array([index])].tobytes())
            except Exception as error:  # decoders raise all kinds of errors on damaged records
                digest.update(type(error).__name__.encode())
        return digest.hexdigest()

    def without(self, unreadable: Mapping[int, str]) -> 'Dataset':
        """Remove unreadable examples from all splits; indices stay the same.

        Args:
            unreadable: index → reason; added to ``skipped``, and counted in the provenance.

        Raises:
            UserError: a split is left without examples.
        """
        if not unreadable:
            return self
        gone = np.array(sorted(unreadable))
        return dataclasses.replace(
            self,
            splits={name: indices[~np.isin(indices, gone)] for name, indices in self.splits.items()},
            provenance=f'{self.provenance}; {len(gone)} unreadable examples left out',
            skipped=(*self.skipped, *((self.ids[index], reason) for index, reason in sorted(unreadable.items()))),
        )

    @functools.cached_property
    def _fingerprint(self) -> str:
        content = getattr(self.images, 'content', None)
        return self._hashed(b'' if content is None else content.encode())

    def _hashed(self, content: bytes) -> str:
        """A hash of ids, targets, splits, and pixels in memory or ``content``."""
        digest = hashlib.sha256()
        digest.update('\n'.join(self.ids).encode())
        digest.update(self.targets.astype(np.int32).tobytes())
        digest.update(repr((self.images.shape, self.classes)).encode())
        if isinstance(self.images, np.ndarray):
            digest.update(self.images.tobytes())
        else:
            digest.update(content)
        for split in sorted(self.splits):
            digest.update(split.encode())
            digest.update(bytes(self.splits[split].astype(np.int64)))
        return digest.hexdigest()[:16]


def hash_order(ids: tuple[str, ...], seed: int) -> Int[np.ndarray, ' examples']:
    """Indices ordered by a hash of seed and id, so that adding or removing an example hardly changes the order."""
    keys = [hashlib.sha256(f'{seed}:{example}'.encode()).digest() for example in ids]
    return np.array(sorted(range(len(ids)), key=keys.__getitem__), np.int64)


def stratified_shares(
    labels: Int[np.ndarray, ' examples'], ids: tuple[str, ...], shares: Mapping[str, float], rest: str, seed: int
) -> dict[str, Int[np.ndarray, ' subset']]:
    """Distribute the examples of every class over shares, in the order of their hash.

    Args:
        shares: name → share of each class, rounded to whole examples; at least one example of every class remains.
        rest: name of the remainder.
        seed: part of the hash.
    """
    order = hash_order(ids, seed)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in (*shares, rest)}
    for label in np.unique(labels):
        members = order[labels[order] == label]
        start = 0
        for name, share in shares.items():
            count = min(round(share * len(members)), len(members) - start - 1)
            parts[name].append(members[start : start + count])
            start += count
        parts[rest].append(members[start:])
    return {name: np.sort(np.concatenate([order[:0], *arrays])) for name, arrays in parts.items()}


def split_by_hash(
    labels: Int[np.ndarray, ' examples'], ids: tuple[str, ...], seed: int = 0
) -> tuple[dict[str, Int[np.ndarray, ' subset']], str]:
    """Splits for data without an official test split, and the sentence that describes them."""
    shares = {'test': TEST_SHARE, 'validation': VALIDATION_SHARE}
    how = f'split by a hash of the example id, stratified: {TEST_SHARE:.0%} test, {VALIDATION_SHARE:.0%} validation'
    return stratified_shares(labels, ids, shares, 'train', seed), how


def split_off_validation(
    labels: Int[np.ndarray, ' examples'], ids: tuple[str, ...], test: np.ndarray, seed: int = 0
) -> tuple[dict[str, Int[np.ndarray, ' subset']], str]:
    """Splits for data with an official test split: validation is taken from the training examples.

    Args:
        test: ``bool[examples]``, true for examples of the official test split.
    """
    training = np.flatnonzero(~test)
    parts = stratified_shares(
        labels[training], tuple(ids[index] for index in training), {'validation': VALIDATION_SHARE}, 'train', seed
    )
    splits = {name: training[indices] for name, indices in parts.items()}
    how = f'official test split; validation is {VALIDATION_SHARE:.0%} of the training split by a hash of the id'
    return {**splits, 'test': np.flatnonzero(test)}, how


def official_splits(
    labels: Int[np.ndarray, ' examples'], ids: tuple[str, ...], names: np.ndarray, seed: int = 0
) -> tuple[dict[str, Int[np.ndarray, ' subset']], str]:
    """The official splits, completed where one is missing.

    A validation split without a test split serves as the test split, as is usual for data whose test labels are not
    published; the validation split is then taken from the training examples.

    Args:
        names: ``str[examples]``: the split of each example, ``'train'``, ``'validation'`` or ``'test'``.
    """
    present = set(names.tolist())
    if present == {'train', 'validation', 'test'}:
        return {name: np.flatnonzero(names == name) for name in sorted(present)}, 'official splits'
    if present == {'train'}:
        return split_by_hash(labels, ids, seed)
    return split_off_validation(labels, ids, names != 'train', seed)


def stratified_fraction(
    labels: Int[np.ndarray, ' examples'], indices: Int[np.ndarray, ' subset'], fraction: float, seed: int, classes: int
) -> Int[np.ndarray, ' chosen']:
    """A random, class-stratified share of ``indices``; the shares of one seed are nested.

    Raises:
        UserError: a class is left without a training example, or no such fraction or seed.
    """
    check_seed(seed)
    if not 0 < fraction <= 1:
        raise UserError(f'a label fraction must lie in (0, 1], not {fraction}')
    generator = np.random.Generator(np.random.Philox(key=seed))
    shuffled = generator.permutation(indices)
    chosen, empty = [], []
    for label in range(classes):
        members = shuffled[labels[shuffled] == label]
        count = round(fraction * len(members))
        if count == 0:
            empty.append((label, len(members)))
        chosen.append(members[:count])
    if empty:
        label, available = min(empty, key=lambda each: each[1])
        if available:
            # Exactly half an example would be rounded down to none, so the next number of two digits is taken.
            digits = decimal.Context(prec=2, rounding=decimal.ROUND_DOWN)
            smallest = digits.next_plus(digits.divide(decimal.Decimal('0.5'), available))
            needed = (
                f'the smallest that works is {smallest} (--config.fractions of an ablation, fraction of a training)'
            )
        else:
            needed = 'the class has none at all'
        raise UserError(
            f'label fraction {fraction} leaves {len(empty)} of {classes} classes without a training example '
            f'(class {label} has {available}); {needed}'
        )
    return np.sort(np.concatenate(chosen))
