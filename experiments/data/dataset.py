"""The common form of data sets."""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from jaxtyping import Int, UInt8

from backbones.errors import UserError
from backbones.images import ImageReading
from experiments.data.account import Account
from experiments.data.coco_ids import CocoIds
from experiments.data.splits import hash_order, shots_of_classes, stratified_fraction
from experiments.data.texts import inputs_of
from experiments.data.truth import Boxes, Targets, Truth

if TYPE_CHECKING:  # it imports JAX, which commands that only read results do not need
    from experiments.data.corruptions import Corruption


class Images(Protocol):
    """Pixels read by index: an array in memory, or files that are decoded on access."""

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102

    def __getitem__(
        self, indices: Int[np.ndarray, ' count'], /
    ) -> UInt8[np.ndarray, 'count height width channels']: ...


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images or texts, their targets and their splits.

    Attributes:
        name: as given by the user, such as ``tfds:cifar10``.
        images: ``uint8[examples, height, width, 1 or 3]``, indexed by an array of indices; 4 channels with masks. Or
            ``texts.Texts``, and of these their tokens, ``int32[examples, length]``, where a backbone reads them.
        targets: class of each example, ``int32[examples]``, from 0 to ``len(classes) - 1``; zeros beside a ``truth``.
        ids: one stable name per example, independent of the order of reading.
        classes: one name per class.
        splits: ``'train'``, ``'validation'`` and ``'test'`` → sorted indices; disjoint.
        provenance: one sentence on the origin of the examples and splits; it is written into every result.
        skipped: ``(name, reason)`` of every file or record that could not be read.
        groups: ``int32[examples]``, from 0: stratify label fractions by these instead of the targets.
        account: what was met while reading it.
        stored_size: height and width that images were brought to; ``None`` where they keep their own.
        reading: how their files become 8-bit RGB.
        digests: SHA-256 of the file of each example, or of its text; ``None`` where there are neither.
        file_sizes: bytes of the file of each example; ``None`` where there are no files.
        files: the file of each example, ``None`` for one that is not turned upright as a viewer turns it; ``None``
            where there are no files.
        truth: what a dense task predicts; ``None`` for classification.
        annotation_digests: a hash of what the truth of each example was read from; ``None`` where there is none.
        coco_ids: what COCO's annotation files call images and categories; ``None`` for other data sets.
        corruption: what is done to its images on the device before anything else sees them.
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
    account: Account | None = None
    stored_size: tuple[int, int] | None = None
    reading: ImageReading = dataclasses.field(default_factory=ImageReading)
    digests: tuple[str, ...] | None = None
    file_sizes: tuple[int, ...] | None = None
    files: tuple[Path | None, ...] | None = None
    truth: Truth | None = None
    annotation_digests: tuple[str, ...] | None = None
    coco_ids: CocoIds | None = None
    corruption: 'Corruption | None' = None

    def __post_init__(self):
        if len(self.classes) < 2 and self.truth is None:
            raise UserError(
                f'data set {self.name!r} has {len(self.classes)} class ({", ".join(self.classes) or "none"}); '
                'classification needs at least 2'
            )

    def check_splits(self) -> None:
        """Check that there is something to train, to select and to test on.

        Raises:
            UserError: a split is empty.
        """
        for split, indices in self.splits.items():
            if len(indices) == 0:
                # Copies of a text stay together.
                inputs = 'different texts' if inputs_of(self) == 'texts' else 'images'
                raise UserError(
                    f'the {split} split of {self.name!r} is empty: {len(self.targets)} examples of '
                    f'{len(self.classes)} classes are too few to split; a class needs three {inputs} for one in each '
                    'split (with a test split of your own, two for training)'
                )

    def fraction(self, fraction: float, seed: int) -> Int[np.ndarray, ' chosen']:
        """A random share of the training split, stratified by the groups if there are any, else by the classes.

        Raises:
            UserError: see ``stratified_fraction``.
        """
        labels, names = self.strata()
        return stratified_fraction(labels, self.splits['train'], fraction, seed, len(names))

    def labelled(self, fraction: float, shots: int, seed: int) -> Int[np.ndarray, ' chosen']:
        """The training examples whose labels are used: as many shots of every class, or for 0 a share of all.

        Raises:
            UserError: see ``stratified_fraction`` and ``shots_of_classes``; or shots for a dense task, whose images
                have no single class.
        """
        if not shots:
            return self.fraction(fraction, seed)
        if self.truth is not None:
            raise UserError(f'shots are images per class, and an image of {self.name!r} has no single class')
        return shots_of_classes(self.targets, self.splits['train'], shots, seed, len(self.classes))

    def with_validation(self, count: int) -> 'Dataset':
        """Leave so many validation examples, the same for every seed; all of them for 0, or where there are fewer."""
        rows = self.splits['validation']
        if not 0 < count < len(rows):
            return self
        kept = np.sort(rows[hash_order(tuple(self.ids[index] for index in rows), 0)[:count]])
        return dataclasses.replace(self, splits={**self.splits, 'validation': kept})

    def strata(self) -> tuple[Int[np.ndarray, ' examples'], Sequence[str]]:
        """The number of each example, from 0, by which label fractions are stratified, and a name for each number."""
        labels = self.targets if self.groups is None else self.groups
        if self.groups is None and self.truth is None:
            return labels, self.classes
        return labels, tuple(map(str, range(int(labels.max()) + 1)))

    def targets_of(self, indices: Int[np.ndarray, ' subset']) -> Targets:
        """What metrics compare the predictions for some examples with: their classes, or their boxes."""
        return self.truth.of(indices) if isinstance(self.truth, Boxes) else self.targets[indices]

    def arrays_of(self, indices: Int[np.ndarray, ' subset']) -> dict[str, np.ndarray]:
        """What a batch holds of some examples besides their images."""
        return {name: array[indices] for name, array in self._arrays.items()}

    @functools.cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        boxes = self.truth.arrays(self.stored_size) if isinstance(self.truth, Boxes) else {}
        return {'target': self.targets, **boxes}

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
        remaining = dataclasses.replace(
            self,
            splits={name: indices[~np.isin(indices, gone)] for name, indices in self.splits.items()},
            provenance=f'{self.provenance}; {len(gone)} unreadable examples left out',
            skipped=(*self.skipped, *((self.ids[index], reason) for index, reason in sorted(unreadable.items()))),
        )
        remaining.check_splits()
        return remaining

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
        if isinstance(self.truth, Boxes):
            # By name, so that a field that is added to ``Boxes`` changes no fingerprint.
            for name in ('boxes', 'classes', 'crowd', 'difficult', 'area', 'sizes'):
                digest.update(np.ascontiguousarray(getattr(self.truth, name)).data)
        for split in sorted(self.splits):
            digest.update(split.encode())
            digest.update(bytes(self.splits[split].astype(np.int64)))
        return digest.hexdigest()[:16]
