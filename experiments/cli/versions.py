"""Versions that a run's numbers may depend on besides its config."""

import importlib.metadata
import platform

import jax

_PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'numpy')


def versions() -> dict[str, str]:
    """Versions of Python and the packages, and the devices, as recorded in every result row."""
    return {
        'python': platform.python_version(),
        **{package: importlib.metadata.version(package) for package in _PACKAGES},
        'device': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
    }
