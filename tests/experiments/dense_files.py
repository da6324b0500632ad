"""Images with boxes and masks in the layouts of several tools, made from seeds."""

import json
from pathlib import Path

import numpy as np
from PIL import Image


def write_image(path: Path, size=(40, 30), seed=0, orientation: int | None = None, mode='RGB') -> None:
    """An image of noise; ``size``: width and height as the file has them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng([seed, *path.name.encode()]).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.fromarray(pixels).convert(mode).save(path, exif=exif)


def write_mask(path: Path, values: np.ndarray, mode='L') -> None:
    """A grey mask, one with a palette (``'P'``), or one of colours, ``uint8[h, w, 3]``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values.astype(np.uint8))
    if mode == 'P':
        image.putpalette(np.random.default_rng(0).integers(0, 255, 768).astype(np.uint8).tobytes())
    image.save(path)


def voc_xml(objects, size=(40, 30), filename='') -> str:
    """``objects``: name, left, top, right, bottom and, if it is difficult, 1."""
    text = ''.join(
        f'<object><name>{name}</name><difficult>{(*more, 0)[0]}</difficult><bndbox><xmin>{left}</xmin>'
        f'<ymin>{top}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>'
        for name, left, top, right, bottom, *more in objects
    )
    stated = f'<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>' if size else ''
    return f'<annotation><filename>{filename}</filename>{stated}{text}</annotation>'


def write_voc(
    root: Path, annotations: dict[str, list], lists: dict[str, list[str]] | None = None, size=(40, 30)
) -> None:
    """Name → objects (see ``voc_xml``) of each image, and the names in each file of ``ImageSets/Main``."""
    for name, objects in annotations.items():
        write_image(root / 'JPEGImages' / f'{name}.png', size)
        file = root / 'Annotations' / f'{Path(name).name}.xml'
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(voc_xml(objects, size))
    for split, names in (lists or {}).items():
        file = root / 'ImageSets' / 'Main' / f'{split}.txt'
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text('\n'.join(names) + '\n')


def write_json(path: Path, document: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


def box_of(dataset, name: str) -> list[list[float]]:
    """The boxes of an image, in original pixels."""
    index = dataset.ids.index(name)
    return dataset.truth.boxes[index][dataset.truth.classes[index] >= 0].tolist()


def labels_of(dataset, name: str) -> list[str]:
    """The names of the classes of an image's boxes."""
    found = dataset.truth.classes[dataset.ids.index(name)]
    return [dataset.classes[label] for label in found if label >= 0]


def mask_of(dataset, name: str) -> np.ndarray:
    """The mask of an image, as it is stored."""
    return dataset.images[np.array([dataset.ids.index(name)])][0, ..., 3]


def split_names(dataset) -> dict[str, set[str]]:
    """Split → ids."""
    return {split: {dataset.ids[index] for index in indices} for split, indices in dataset.splits.items()}
