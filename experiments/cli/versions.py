"""The software and hardware that results may depend on."""

import importlib.metadata
import platform

import jax

_PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'numpy')


def versions() -> dict[str, str]:
    """Releases of Python and of the packages, and the devices, for every row of the results."""
    return {
        'python': platform.python_version(),
        **{package: importlib.metadata.version(package) for package in _PACKAGES},
        'device': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
    }
