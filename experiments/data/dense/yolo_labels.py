"""One label file of YOLO: the objects of an image.

Source of the format: ultralytics ``data/utils.py``, ``verify_image_label``.
"""

from collections.abc import Mapping

from experiments.data.dense.annotations import AnnotatedObject


def parse(
    text: str, names: Mapping[int, str], keypoints: bool = False
) -> tuple[tuple[AnnotatedObject, ...], list[int]]:
    """Read a label file.

    Args:
        text: its content.
        names: number of a class → its name.
        keypoints: whether lines have keypoints after the box.

    Returns:
        The objects, with boxes in shares of the width and height; and the lines, from 1, that repeat an earlier one
        and are left out.
    """
    objects, twice = [], []
    seen: set[tuple[str, ...]] = set()
    for number, line in enumerate(text.splitlines(), 1):
        fields = tuple(line.split())
        if not fields:
            continue
        if fields in seen:
            twice.append(number)
            continue
        seen.add(fields)
        objects.append(_object(fields, names, keypoints))
    return tuple(objects), twice


def _object(fields: tuple[str, ...], names: Mapping[int, str], keypoints: bool) -> AnnotatedObject:
    try:
        values = [float(field) for field in fields]
        number = int(values[0])
    except (ValueError, OverflowError):
        return AnnotatedObject('', problem='its line holds something that is no number')
    label = names.get(number) if number == values[0] else None
    if label is None:
        return AnnotatedObject('', problem=f'its class is unknown, {fields[0]}')
    numbers = values[1:]
    if len(numbers) == 4 or (keypoints and len(numbers) > 4):
        x, y, width, height = numbers[:4]
        return AnnotatedObject(label, (x - width / 2, y - height / 2, x + width / 2, y + height / 2))
    if len(numbers) >= 6 and len(numbers) % 2 == 0:
        xs, ys = numbers[::2], numbers[1::2]
        return AnnotatedObject(label, (min(xs), min(ys), max(xs), max(ys)))
    return AnnotatedObject(
        label, problem=f'its line has {len(fields)} numbers; expected 5 (class and box), or class and corners'
    )
