"""The record of a data set: a run goes on only with what it was begun with, or is told what differs."""

import dataclasses
import json
import os

import numpy as np
import pytest
from PIL import Image

from backbones import UserError
from experiments.data import loading, record


@pytest.fixture
def root(tmp_path):
    generator = np.random.default_rng(0)
    for label in ('cat', 'dog', 'emu'):
        (tmp_path / 'images' / label).mkdir(parents=True)
        for number in range(10):
            pixels = generator.integers(0, 255, (4, 4, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / 'images' / label / f'{number}.png')
    return tmp_path / 'images'


def load(root):
    return loading.load(f'folder:{root}')


@pytest.fixture
def workdir(root, tmp_path):
    record.write(tmp_path / 'run', load(root), loading.stamp(f'folder:{root}'))
    return tmp_path / 'run'


def test_the_same_data_have_no_differences(root, workdir):
    os.utime(root / 'cat' / '0.png', (1, 1))  # copied to another place
    assert record.check(workdir, load(root)) == []


def test_without_a_record_there_is_nothing_to_compare(root, tmp_path):
    assert record.check(tmp_path / 'new', load(root)) == []


def test_what_is_kept(root, workdir):
    document = json.loads(record.file_of(workdir, f'folder:{root}').read_text())
    assert document['classes'] == ['cat', 'dog', 'emu']
    assert document['examples'] == {'train': [7, 7, 7], 'validation': [1, 1, 1], 'test': [2, 2, 2]}
    assert document['reading'] == {'grey_range': None, 'background': [255, 255, 255]}
    assert document['sizes'] == 'all 4x4'
    kept = record.read(workdir, f'folder:{root}')
    assert kept.examples['dog/3.png'].label == 'dog'
    assert len(kept.examples) == 30


@pytest.mark.parametrize(
    ('change', 'told', 'labels_differ'),
    [
        (lambda root: (root / 'cat').rename(root / 'felix'), "the class 'cat' is called 'felix' now", True),
        (lambda root: (root / 'cat' / '3.png').unlink(), r'1 image removed \(cat/3\.png\)', False),
        (lambda root: Image.new('RGB', (4, 4)).save(root / 'cat' / 'x.png'), r'1 image added \(cat/x', False),
        (
            lambda root: Image.new('RGB', (4, 4)).save(root / 'emu' / '3.png'),
            r'1 image replaced under the same name \(emu/3\.png\)',
            False,
        ),
        (
            lambda root: (root / 'cat' / '3.png').write_bytes(b'x'),
            r'was begun: 1 image no longer readable \(cat',
            False,
        ),
        (lambda root: (root / 'cat' / '3.png').rename(root / 'cat' / 'y.png'), '1 image moved or renamed', False),
        (lambda root: (root / 'cat' / '3.png').rename(root / 'dog' / 'y.png'), '1 image moved or renamed', False),
    ],
    ids=['class renamed', 'removed', 'added', 'replaced', 'spoilt', 'renamed', 'relabelled'],
)
def test_what_differs_is_named(root, workdir, change, told, labels_differ):
    change(root)
    with pytest.raises(UserError, match=told) as raised:
        record.check(workdir, load(root))
    assert ('--accept_changed_data' in str(raised.value)) is not labels_differ
    if labels_differ:
        with pytest.raises(UserError, match='labels would mean other classes'):
            record.check(workdir, load(root), accepted=True)
        return
    differences = record.check(workdir, load(root), accepted=True)
    assert len(differences) >= 1
    record.write(workdir, load(root), changes=differences)
    assert record.check(workdir, load(root)) == []
    document = json.loads(record.file_of(workdir, f'folder:{root}').read_text())
    assert document['changes'][0]['changes'] == differences


def test_a_new_class_is_named(root, workdir):
    (root / 'yak').mkdir()
    for number in range(4):
        Image.new('RGB', (4, 4), (number, 0, 0)).save(root / 'yak' / f'{number}.png')
    with pytest.raises(UserError, match="the class 'yak' is new"):
        record.check(workdir, load(root), accepted=True)


def test_another_way_to_store_is_named(root, workdir):
    with pytest.raises(UserError, match='images were stored at their own size, and now as squares of 2x2'):
        record.check(workdir, loading.load(f'folder:{root}', stored_size=2))


def test_another_background_is_named(root, tmp_path):
    Image.new('RGBA', (4, 4)).save(root / 'cat' / 'clear.png')
    record.write(tmp_path, load(root))
    with pytest.raises(
        UserError, match=r'the background of transparent images: \(255, 255, 255\) then, \(0, 0, 0\) now'
    ):
        record.check(tmp_path, loading.load(f'folder:{root}', background='black'))


def test_unchanged_files_need_not_be_read(root, workdir):
    name = f'folder:{root}'
    assert record.is_unchanged(workdir, name, loading.stamp(name))
    (root / 'cat' / '3.png').unlink()
    assert not record.is_unchanged(workdir, name, loading.stamp(name))
    assert not record.is_unchanged(workdir, name, None)
    assert not record.is_unchanged(workdir / 'nowhere', name, loading.stamp(name))


def test_a_damaged_record_never_passes_for_none(root, workdir):
    name = f'folder:{root}'
    file = record.file_of(workdir, name)
    examples = file.with_suffix('.examples.csv.gz')
    whole = examples.read_bytes()
    for damaged in (b'noise', b'', whole[:-9], whole[:40] + bytes([whole[40] ^ 255]) + whole[41:]):
        examples.write_bytes(damaged)
        with pytest.raises(UserError, match=r'the record of the data in .* is damaged .*put the file back'):
            record.check(workdir, load(root))
    file.write_text('[]')
    with pytest.raises(UserError, match='is damaged'):
        record.read(workdir, name)
    assert not record.is_unchanged(workdir, name, 'x')
    file.unlink()
    assert record.check(workdir, load(root)) == []


def test_another_pillow_is_named(root, workdir, monkeypatch):
    """Decoders change the last bits of pixels."""
    dataset = dataclasses.replace(load(root))
    monkeypatch.setattr('PIL.__version__', '99.0')
    changed = dataclasses.replace(dataset, images=dataset.images ^ 1)
    with pytest.raises(UserError, match=r'Pillow \d[\d.]* read them then, and 99\.0 now'):
        record.check(workdir, changed)


def test_data_sets_without_files(tmp_path):
    dataset = loading.load('digits')
    record.write(tmp_path, dataset, loading.stamp('digits'))
    assert record.check(tmp_path, dataset) == []
    assert record.is_unchanged(tmp_path, 'digits', loading.stamp('digits'))
