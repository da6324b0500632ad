"""The images of annotations: each is decoded once, with its mask, and compared with what its annotation says."""

from collections.abc import Mapping
from typing import NamedTuple

from backbones import images
from backbones.errors import UserError, listed
from backbones.images import Inspection
from experiments.data import image_files
from experiments.data.dense.annotations import AnnotatedImage, Annotations
from experiments.data.dense.folder_files import Files
from experiments.data.dense.mask_source import InspectedMask
from experiments.data.image_files import Checked
from experiments.data.options import ReadingOptions

# An image that several splits list stays in the first of these, so that nothing evaluated was trained on.
_ORDER = ('test', 'validation', 'train', '')
_TWICE = 'image listed more than once'


class KeptImage(NamedTuple):
    """An image that is used.

    Attributes:
        image: with its annotation.
        checked: what decoding it showed.
        turned: whether its orientation tag is applied.
        mask: its mask, in segmentation.
    """

    image: AnnotatedImage
    checked: Checked
    turned: bool
    mask: InspectedMask | None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        inspection = self.checked.inspection
        width, height = inspection.size if self.turned else inspection.size_as_stored
        return height, width


class KeptImages(NamedTuple):
    """The images that are used.

    Attributes:
        images: in the order of the examples.
        bad: name → why an image cannot be used.
        total: number of both together.
        left_out: for the account.
    """

    images: tuple[KeptImage, ...]
    bad: Mapping[str, str]
    total: int
    left_out: Mapping[str, tuple[str, ...]]

    def bad_by_reason(self) -> dict[str, tuple[str, ...]]:
        """Names of the images that cannot be used, by reason."""
        found: dict[str, list[str]] = {}
        for name, why in self.bad.items():
            found.setdefault(f'image, {why}', []).append(name)
        return {why: tuple(names) for why, names in found.items()}

    def without(self, bad: Mapping[str, str]) -> 'KeptImages':
        """All but some, which cannot be used either."""
        kept = tuple(each for each in self.images if each.image.name not in bad)
        return self._replace(images=kept, bad={**self.bad, **bad})

    def check(self, name: str, limit: int) -> None:
        """Refuse a data set of which too little can be used.

        Raises:
            UserError: more than ``limit`` images cannot be used, or none for training can.
        """
        if len(self.bad) > limit or not self.images:
            shown = listed((f'{image}: {why}' for image, why in self.bad.items()), 5, '; ')
            why = f'at most {limit:,} are left out (config key bad_files_limit)' if self.images else 'no other is left'
            raise UserError(f'{len(self.bad):,} of {self.total:,} images of {name!r} cannot be used ({shown}); {why}')
        splits = {each.image.split for each in self.images}
        if '' not in splits and 'train' not in splits:
            moved = [each for each in self.left_out.get(_TWICE, ()) if each.endswith('(train)')]
            why = moved and (
                f'; {len(moved):,} of train are listed in another split too, which keeps them, as nothing evaluated '
                f'may be trained on (such as {moved[0].removesuffix(" (train)")}); take them out of one of the two'
            )
            raise UserError(
                f'{name!r} has no images for training that can be used; there are {", ".join(sorted(splits)) or "none"}'
                f'{why or ""}'
            )


def check_images(name: str, files: Files, annotations: Annotations, options: ReadingOptions) -> KeptImages:
    """Decode every image and mask once.

    Args:
        name: of the data set.
        files: its files.
        annotations: its images.
        options: ``bad_files_limit``.

    Raises:
        UserError: see ``KeptImages.check``; or a pattern of config key exclude matches nothing.
    """
    images.ignore_warnings_of_pillow()
    used = [each for each in annotations.images if files.is_used(each.path)]
    files.check_patterns()
    if not used:
        raise UserError(f'there are no images in {name!r}; its annotations list {len(annotations.images):,}')
    by_name: dict[str, AnnotatedImage] = {}
    for image in sorted(used, key=lambda each: _ORDER.index(each.split)):
        by_name.setdefault(image.name, image)
    twice = tuple(f'{each.name} ({each.split})' for each in used if by_name[each.name] is not each)
    found, bad = image_files.check_all(by_name, lambda image: _check(image, annotations.upright))
    kept = KeptImages(
        tuple(found[each.name] for each in used if each is by_name[each.name] and each.name in found),
        bad,
        len(by_name),
        {_TWICE: twice} if twice else {},
    )
    kept.check(name, options.bad_files_limit)
    return kept


def _check(image: AnnotatedImage, upright: bool) -> KeptImage | str:
    """What reading an image and its mask finds, or why they cannot be used."""
    checked = image_files.check(image.path, image.problem)
    if isinstance(checked, str):
        return checked
    inspection, mask = checked.inspection, None
    if image.size is not None and is_turned(inspection, image.size, upright) is None:
        return _of_another_size('its annotation says', image.size, inspection)  # before a mask of any size is painted
    if image.mask is not None:
        try:
            mask = image.mask.inspect()
        except Exception as error:  # decoders raise all kinds of errors on damaged files
            told = str(error) if isinstance(error, UserError) else images.why_unreadable(b'?', error)
            return f'its mask cannot be read: {told}'
    said = mask.shape if mask else image.size
    turned = is_turned(inspection, said, upright)
    if turned is None:
        return _of_another_size('its mask has', said or (0, 0), inspection)
    return KeptImage(image, checked, turned, mask)


def _of_another_size(who: str, said: tuple[int, int], inspection: Inspection) -> str:
    width, height = inspection.size_as_stored
    return f'{who} {said[1]}x{said[0]} pixels, it has {width}x{height}'


def is_turned(inspection: Inspection, said: tuple[int, int] | None, upright: bool) -> bool | None:
    """Whether an image must be turned as its orientation tag says for its annotation to lie on it.

    Args:
        inspection: of the image.
        said: height and width that the annotation says, if it does.
        upright: the answer where this does not tell: the tag turns it by half, or it is a square.

    Returns:
        ``None`` if the annotation contradicts the image in both ways.
    """
    fits = {
        True: said is None or said[::-1] == inspection.size,
        False: said is None or said[::-1] == inspection.size_as_stored,
    }
    if not any(fits.values()):
        return None
    if not inspection.is_turned:
        return False
    return upright if fits[upright] else not upright
