"""Compiler flags for this machine, set before JAX computes for the first time."""

import importlib.metadata
import os

# The convolution fusion of this release's CPU compiler halves the speed of convolutions in training and inference
# (measured: ResNet forward and backward 1.9 times faster without it). Flags change between releases, and an unknown
# one aborts the process, so this one is set only for the releases it was measured on.
_CPU_FLAGS = {'0.10': '--xla_cpu_experimental_ynn_fusion_type=-individual_convolution'}


def configure() -> None:
    """Choose compiler flags by the jaxlib release; flags set by the user take precedence."""
    release = '.'.join(importlib.metadata.version('jaxlib').split('.')[:2])
    flag = _CPU_FLAGS.get(release)
    flags = os.environ.get('XLA_FLAGS', '')
    if flag and flag.split('=')[0] not in flags:
        os.environ['XLA_FLAGS'] = f'{flags} {flag}'.strip()
