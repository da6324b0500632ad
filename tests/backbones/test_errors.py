"""The parts that error messages are made of."""

import pytest

from backbones.errors import listed


@pytest.mark.parametrize(
    ('count', 'options', 'expected'),
    [
        (0, {}, ''),
        (1, {}, '0'),
        (3, {}, '0, 1, 2'),
        (4, {}, '0, 1, 2 and 1 more'),
        (5, {'most': 1}, '0 and 4 more'),
        (1237, {}, '0, 1, 2 and 1,234 more'),
        (5, {'separator': '; '}, '0; 1; 2; and 2 more'),
    ],
)
def test_the_first_names_and_how_many_more(count, options, expected):
    assert listed(map(str, range(count)), **options) == expected
