"""Tasks, one file each; only they know what a target is. To add a task, add a file and a row here."""

from backbones.errors import unknown
from experiments.tasks.classification import Classification
from experiments.tasks.task import Task

TABLE: dict[str, type[Classification]] = {'classification': Classification}

__all__ = ['TABLE', 'Task', 'find']


def find(name: str) -> type[Classification]:
    """A task by name.

    Raises:
        UserError: there is no such task; the nearest one is suggested.
    """
    if name not in TABLE:
        raise unknown('task', name, TABLE)
    return TABLE[name]
