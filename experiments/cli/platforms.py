"""What to say where JAX cannot use the platform that it was told to use."""

import os
import re
import sys


def unusable(error: BaseException) -> str | None:
    """One line for an error of JAX about a platform; ``None`` for any other error.

    Args:
        error: has just been raised.
    """
    wanted = os.environ.get('JAX_PLATFORMS', '')
    if isinstance(error, RuntimeError) and str(error).startswith('Unable to initialize backend'):
        reason = re.sub(r' \((set|you may need to) .*', '', ' '.join(str(error).split())).rstrip('.')
    elif isinstance(error, AssertionError) and _raised_in(error) == 'jax._src.xla_bridge':
        reason = 'no such device'  # JAX asserts that one of the platforms has devices
    else:
        return None
    if not wanted:
        return f'JAX finds no device to compute on ({reason}); JAX_PLATFORMS=cpu computes on the processor'
    return (
        f'JAX_PLATFORMS is {wanted!r}, which cannot be used here ({reason}); this machine has {_present()}: set '
        'JAX_PLATFORMS to one of these, or unset it'
    )


def _raised_in(error: BaseException) -> str | None:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return None if trace is None else trace.tb_frame.f_globals.get('__name__')


def _present() -> str:
    jax = sys.modules['jax']  # it has raised the error; commands that need no devices do not import it
    jax.config.update('jax_platforms', None)
    try:
        return ', '.join(sorted({device.platform for device in jax.devices()}))
    except RuntimeError:
        return 'cpu'
