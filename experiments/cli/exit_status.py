"""The exit status of a run that was asked to stop."""

# EX_TEMPFAIL of sysexits.h: a temporary failure; start again.
EXIT_STATUS = 75


class Preempted(Exception):
    """The process was asked to stop and has saved what is worth keeping.

    Args:
        step: number of finished steps in the checkpoint made for this; ``None`` if there was nothing to save.
    """

    def __init__(self, step: int | None = None):
        saved = '' if step is None else f'step {step:,} is saved, and '
        super().__init__(f'asked to stop: {saved}the same command continues')
