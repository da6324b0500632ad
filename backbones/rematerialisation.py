"""Gradient checkpointing: blocks keep only their inputs, and are run again when their gradient is needed.

Source: Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost".
"""

import re

import flax.linen as nn

from backbones.errors import UserError
from backbones.layers.attention import Dense
from backbones.layers.convolution import Conv

# For ``jax.jit(…, compiler_options=…)`` around a checkpointed step. XLA's CPU compiler drops the barriers that keep the
# second run after the forward pass. With its default order of operations, checkpointing then saves no memory at all;
# with this one it does for transformers, but still not for convolutional networks.
COMPILER_OPTIONS = {'xla_cpu_scheduler_type': 'CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED'}

# The children of stages: the blocks, and whatever else a stage has beside them.
BLOCKS = r'(backbone/)?stage\d+/[^/]+'


def checkpointed(pattern: str = BLOCKS):
    """A context in which every module whose path matches runs under ``nn.remat``.

    Wrap the training ``apply`` in it; nothing else changes: loss, gradients, statistics and random bits are those of
    the same call outside. It acts while the function is traced::

        with rematerialisation.checkpointed():
            logits, updates = model.apply(variables, images, train=True, mutable=['batch_stats'])

    It may be entered together with ``freezing.inference_where_frozen`` and ``lora.applied``, in any order. A matching
    module inside another one that matches is checkpointed again inside it. A single convolution or dense layer is
    never checkpointed: its gradient needs its input and nothing more.

    Args:
        pattern: a regular expression that must match a whole path such as ``backbone/stage3/block2``.

    Raises:
        UserError: the pattern is not a valid regular expression.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(f'the checkpointing pattern {pattern!r} is not a valid regular expression: {error}') from None
    running: set[tuple[str, ...]] = set()

    def interceptor(call, args, kwargs, context):
        module = context.module
        if (
            context.method_name != '__call__'
            or module.path in running
            or module.is_initializing()
            or isinstance(module, Dense | Conv)
            or not compiled.fullmatch('/'.join(module.path))
        ):
            return call(*args, **kwargs)

        # The lifted module is called through its class, which passes the interceptors once more; ``running`` ends that.
        def run(lifted, *args):
            running.add(module.path)
            try:
                return type(lifted).__call__(lifted, *args, **kwargs)
            finally:
                running.discard(module.path)

        return nn.remat(run)(module, *args)

    return nn.intercept_methods(interceptor)
