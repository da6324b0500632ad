"""A typed config in which any value may be given several times."""

from typing import Any

import ml_collections


class AxisConfig(ml_collections.ConfigDict):
    """A ``ConfigDict`` in which a key of one value also takes a tuple of such values: an axis.

    The values of an axis have the type that a single value has; as for a ``ConfigDict``, a number may be given for one
    with a fraction. A key whose single value is a tuple takes tuples as ever, so a tuple of tuples is an axis there.
    """

    def __init__(self, *arguments: Any, **keywords: Any):
        # What an attribute of a ConfigDict would be is one of its keys.
        object.__setattr__(self, '_single', {})
        super().__init__(*arguments, **keywords)

    def single(self, key: str) -> Any:
        """A value of the type that one value of a key has: the present one, or one of an axis."""
        value = self._single.get(key, self[key])
        is_axis = isinstance(value, tuple) and value and all(isinstance(each, tuple) for each in value)
        return value[0] if is_axis else value

    def __setitem__(self, key: str, value: Any) -> None:
        """Set one value, or several.

        Raises:
            TypeError: a value has another type than the key.
        """
        present = self._fields.get(key)
        if present is None or isinstance(present, ml_collections.ConfigDict):
            super().__setitem__(key, value)
            return
        single = self._single.get(key, present)
        if isinstance(value, tuple | list) and not isinstance(single, tuple | list):
            self._single[key] = single
            self._fields[key] = tuple(_cast(key, single, each) for each in value)
        elif key in self._single:
            self._fields[key] = _cast(key, single, value)
        else:
            super().__setitem__(key, value)

    def copy_and_resolve_references(self, visit_map: dict | None = None) -> 'AxisConfig':
        """A copy that knows the types of single values."""
        copied = super().copy_and_resolve_references(visit_map)
        copied._single.update(self._single)
        return copied


def _cast(key: str, single: Any, value: Any) -> Any:
    """A value in the type of another, as a ``ConfigDict`` converts it."""
    typed = ml_collections.ConfigDict({key: single})
    typed[key] = value
    return typed[key]
