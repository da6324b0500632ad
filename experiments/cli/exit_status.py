"""How a run ends that was asked to stop."""

# EX_TEMPFAIL of sysexits.h: a temporary failure, start me again.
EXIT_STATUS = 75


class Preempted(Exception):
    """The process was asked to stop, and what is worth keeping is saved.

    Args:
        step: number of finished steps in the checkpoint that was made for it; ``None`` if there was nothing to save.
    """

    def __init__(self, step: int | None = None):
        saved = '' if step is None else f'step {step:,} is saved, '
        super().__init__(f'asked to stop: {saved}the same command continues')
