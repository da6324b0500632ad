"""The end of a run that was asked to stop, or of which a part has failed."""

from backbones.errors import UserError

# EX_TEMPFAIL of sysexits.h: a temporary failure, to be retried.
EXIT_STATUS = 75
# Of an ablation of which some cells failed.
CELLS_FAILED = 3
# What a shell reports of a command that Ctrl-C has ended.
INTERRUPTED = 130
# And of one that SIGTERM has ended.
TERMINATED = 143


class Preempted(BaseException):
    """The process was asked to stop, and its state is saved.

    Like ``KeyboardInterrupt`` it is no ``Exception``: it is raised wherever the program happens to be, so also where
    any error of a decoder means an unreadable image.

    Args:
        step: number of finished steps in the checkpoint; ``None`` if there was nothing to save.
        interrupted: whether it was asked by Ctrl-C, not by SIGTERM.
        of: which of several trainings the step is of.

    Attributes:
        status: the exit status.
    """

    def __init__(self, step: int | None = None, interrupted: bool = False, of: str = ''):
        saved = '' if step is None else f'step {step:,}{of and f" of {of}"} is saved, and '
        super().__init__(f'{"interrupted" if interrupted else "asked to stop"}: {saved}the same command continues')
        self.status = INTERRUPTED if interrupted else EXIT_STATUS


class CellsFailed(UserError):
    """Some cells of an ablation failed, and the others are finished."""

    status = CELLS_FAILED
