"""Tasks, one file each; only they know what a target is. To add a task, add a file and a row here."""

import ml_collections

from backbones.errors import UserError, unknown
from backbones.inputs import AnyPreprocessing
from experiments.data import model_input
from experiments.tasks.classification import Classification
from experiments.tasks.detection import Detection
from experiments.tasks.segmentation import Segmentation
from experiments.tasks.task import Task

TABLE: dict[str, type[Task]] = {
    'classification': Classification,
    'segmentation': Segmentation,
    'detection': Detection,
}

__all__ = ['TABLE', 'Task', 'check_inputs', 'find', 'head_name', 'input_preprocessing']


def find(name: str) -> type[Task]:
    """A task by name.

    Raises:
        UserError: there is no such task; the nearest one is suggested.
    """
    if name not in TABLE:
        raise unknown('task', name, TABLE)
    return TABLE[name]


def head_name(task: type[Task], name: str) -> str:
    """The head that a config names: the task's usual one for ``''``, and none where there is no choice."""
    return name or next(iter(task.heads), '')


def check_inputs(task: str, backbone: str) -> None:
    """Check that a backbone, or a baseline, reads what a task is about.

    Raises:
        UserError: no such task, or a dense one for what reads texts.
    """
    if model_input.reads_texts(backbone) and find(task).truth != 'class':
        raise UserError(
            f'{backbone} reads texts, and the task {task} is about places in images; set the config key task to '
            "'classification', or choose a backbone of images"
        )


def input_preprocessing(task: str, backbone: str, weights: str, config: ml_collections.ConfigDict) -> AnyPreprocessing:
    """The preprocessing of a model's input.

    Where images move together with their targets, they are resized bilinearly by the augmentation, and so they are
    where there is none, whatever the weights' own interpolation: otherwise training and evaluation would differ, and
    more for those families whose weights want another one.

    Args:
        task: its name.
        backbone: a registered name.
        weights: as ``data.model_input.input_preprocessing`` takes them.
        config: of a training or an ablation, with ``image_size``, ``image_height``, ``fit`` and ``text_length``.

    Raises:
        UserError: see there; or a backbone that reads texts, for a dense task.
    """
    size, fit = model_input.input_size(config), find(task).fit
    check_inputs(task, backbone)
    found = model_input.input_preprocessing(backbone, weights, size, fit or config.fit, config.text_length)
    return found if fit is None else found.replace(interpolation='bilinear')
