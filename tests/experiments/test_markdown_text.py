"""Texts in Markdown: what a renderer would take for markup is seen as it is."""

import html
import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.results import aggregates, failures, markdown_text, tables
from experiments.results.axes import Cell, Variant
from tests.experiments.made_rows import make_row, write


@pytest.mark.parametrize(
    ('text', 'written'),
    [
        ('triangle & <co>', r'triangle & \<co>'),
        ('resnet_micro · bundled:resnet_micro', 'resnet_micro · bundled:resnet_micro'),
        ('_a_ __b__ c_', r'\_a\_ \_\_b\_\_ c\_'),
        ('p < 0.001', 'p < 0.001'),
        ('&lt; &#60; & ;', r'\&lt; \&#60; & ;'),
        ('a|b', r'a\|b'),
        (r'a\|b \d', r'a\\\|b \d'),
        ('**x** `y` $z$ ~/d', r'\*\*x\*\* \`y\` \$z\$ \~/d'),
        ('digits [abc123] [a](b)', r'digits [abc123] [a]\(b)'),
        ('two\nlines', 'two lines'),
        ('a\udcffb', r'a\xffb'),
    ],
)
def test_markup_is_escaped_and_nothing_else(text, written):
    assert markdown_text.escaped(text) == written
    assert markdown_text.escaped(markdown_text.escaped(text)) == written


@given(st.text(string.ascii_letters + string.punctuation + ' '))
def test_it_is_read_back_as_it_was(text):
    """By the rule of CommonMark: a backslash before punctuation stands for that character."""
    written = markdown_text.escaped(text)
    escape = re.compile(rf'\\([{re.escape(string.punctuation)}])')
    assert escape.sub(r'\1', written) == text
    assert html.unescape(re.sub(r'\\&', '', written)) == re.sub(r'\\&', '', written)
    assert not re.search(r'(?<!\\)(\\\\)*<[A-Za-z/!?]', written)
    assert not re.search(r'(?<!\\)(\\\\)*\|', written)


def test_a_table_of_results(tmp_path):
    cell = Cell('folder:<b>x</b>', Variant('a_net', 'w|v'), 'linear', 1.0, 0)
    test = {'accuracy': 0.5, 'recall/triangle & <co>': 0.25, 'recall/other': 0.75}
    write(tmp_path, make_row(cell=cell, test=test))
    (entry,) = aggregates.load(tmp_path)
    text = tables.markdown(tables.view([entry], entry.dataset))
    assert text.startswith('### folder:\\<b>x\\</b>\n')
    assert r'triangle & \<co>' in text and ' <co>' not in text
    assert r'| a_net | w\|v |' in text
    told = failures.markdown([failures.Failure(cell, 'no <memory> for `x`')])
    assert told.splitlines()[-1].endswith(r'| no \<memory> for \`x\` |')
