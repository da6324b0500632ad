"""Data sets by name: embedded ones and TFDS directories; folders of images are in test_folder.py."""

import functools
import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from dense_files import write_image, write_json, write_mask, write_voc
from PIL import Image

from backbones import UserError
from experiments.data import account, likely_kinds, loading, tfds


def write_images(root: Path, layout: dict[str, int], size=(20, 16), suffix='png', mode='RGB', seed=0) -> None:
    generator = np.random.default_rng(seed)
    for name, count in layout.items():
        directory = root / name
        directory.mkdir(parents=True, exist_ok=True)
        for index in range(count):
            pixels = generator.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(directory / f'{index:03d}.{suffix}')


# Read once for those that only look at them.
embedded = functools.cache(loading.load)


@pytest.mark.parametrize(
    ('name', 'shape', 'per_class'), [('mnist5k', (5000, 28, 28, 1), 500), ('digits', (1797, 8, 8, 1), None)]
)
def test_embedded_data_are_complete_and_split(name, shape, per_class):
    dataset = embedded(name)
    assert dataset.images.shape == shape
    assert dataset.images.dtype == np.uint8
    assert dataset.images.max() == 255
    assert dataset.targets.dtype == np.int32
    assert len(set(dataset.ids)) == shape[0]
    if per_class:
        assert np.bincount(dataset.targets).tolist() == [per_class] * 10
    assert sorted(np.concatenate(list(dataset.splits.values()))) == list(range(shape[0]))
    assert 'hash' in dataset.provenance


def test_embedded_splits_never_change():
    """A changed split would silently change every published number."""
    assert embedded('mnist5k').splits['test'][:6].tolist() == [5, 8, 14, 15, 18, 20]
    assert embedded('digits').splits['test'][:6].tolist() == [5, 8, 14, 18, 20, 22]


@pytest.mark.parametrize('values', [{'group': 'x'}, {'exclude': 'x'}, {'layout': 'splits'}, {'drop_duplicates': True}])
@pytest.mark.parametrize('name', ['digits', 'tfds:mnist'])
def test_values_for_folders_are_never_ignored(name, values):
    """Who sets a group believes that patients are kept apart."""
    (key,) = values
    with pytest.raises(
        UserError, match=f'config key {key!r} is .*only for folder:PATH.*, and the data set is {name!r}'
    ):
        loading.load(name, **values)


def test_unknown_name_offers_the_nearest():
    with pytest.raises(UserError, match=r"unknown data set 'mnist5'.*'mnist5k'"):
        loading.load('mnist5')
    with pytest.raises(UserError, match='tfds:NAME'):
        loading.load('tfds')


def test_no_name():
    with pytest.raises(UserError, match="unknown data set ''; valid choices: coco:PATH"):
        loading.load('')


def test_a_folder_without_its_kind(tmp_path):
    with pytest.raises(UserError, match=f"a folder of images is named 'folder:{tmp_path}'"):
        loading.load(str(tmp_path))


@pytest.mark.parametrize(
    ('inside', 'kind'),
    [
        ('JPEGImages/a.jpg', 'voc'),
        ('annotations/a.json', 'coco'),
        ('train/_annotations.coco.json', 'coco'),
        ('data.yaml', 'yolo'),
        ('labels/train/a.txt', 'yolo'),
        ('train/images/a.jpg train/masks/a.png', 'masks'),
        ('train/a.jpg trainannot/a.png', 'masks'),
        ('train/masks/a.jpg train/none/b.jpg', 'folder'),
    ],
)
def test_a_folder_of_a_dense_task_without_its_kind(tmp_path, inside, kind):
    for file in inside.split():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    with pytest.raises(UserError, match=f"is named '{kind}:{tmp_path}'"):
        loading.load(str(tmp_path))


@pytest.fixture(scope='module')
def layouts(tmp_path_factory):
    """A small folder of each kind; nothing but what tells the kinds apart is in order."""
    root, empty = tmp_path_factory.mktemp('layouts'), np.zeros((30, 40))
    write_voc(root / 'voc', {'a': [], 'b': []})
    for name in ('a', 'b'):
        for place in ('coco/train2017', 'yolo/images/train', 'masks/train/images', 'masks/val/images'):
            write_image(root / place / f'{name}.jpg')
        for place in ('masks/train/masks', 'masks/val/masks'):
            write_mask(root / place / f'{name}.png', empty)
        (root / 'yolo/labels/train').mkdir(parents=True, exist_ok=True)
        (root / 'yolo/labels/train' / f'{name}.txt').write_text('0 0.5 0.5 0.1 0.1')
    write_json(root / 'coco/annotations/instances_train2017.json', {'images': [], 'annotations': [], 'categories': []})
    (root / 'yolo/data.yaml').write_text('train: images/train')
    return root


READ_FOR = {
    'folder': 'class',
    'voc': 'boxes',
    'coco': 'boxes',
    'yolo': 'boxes',
    'masks': 'masks',
}


@pytest.mark.parametrize('there', ['voc', 'coco', 'yolo', 'masks'])
@pytest.mark.parametrize('kind', READ_FOR)
def test_a_folder_under_another_kind_is_named(layouts, there, kind):
    truth = READ_FOR[kind]
    if kind == there:
        assert likely_kinds.recognise(layouts / there)[0].kind == kind
        return
    with pytest.raises(UserError) as refused:
        loading.load(f'{kind}:{layouts / there}', truth=truth)
    assert f"which is named '{there}:{layouts / there}'" in str(refused.value)
    assert ('(config key task)' in str(refused.value)) == (truth not in loading.TRUTHS[there])


@pytest.mark.parametrize(
    ('name', 'there', 'inputs'), [('mnist5k', 'images', 'texts'), ('docstrings', 'texts', 'images')]
)
def test_a_data_set_of_other_inputs(name, there, inputs):
    with pytest.raises(UserError) as refused:
        loading.check_name(name, inputs=inputs, reader='the backbone tiny')
    told, _, choices = str(refused.value).partition('; ')
    assert told == f"'{name}' has {there}, but the backbone tiny reads {inputs}"
    assert choices.startswith(f'choose a data set of {inputs} (')
    others = {'images': 'folder:PATH', 'texts': 'docstrings'}
    assert others[inputs] in choices
    assert others[there] not in choices
    with pytest.raises(UserError, match=f'has {there}'):
        loading.load(name, inputs=inputs)


def test_data_sets_that_fit_are_named_as_they_are_written():
    with pytest.raises(
        UserError, match=r'a data set with boxes \(shapes, tfds:NAME, voc:PATH, coco:PATH, yolo:PATH\)$'
    ):
        loading.check_name('digits', 'boxes')


@pytest.mark.parametrize(
    ('name', 'told'),
    [
        ('x' * 300, "unknown data set 'x{300}'; valid choices: "),
        ('~nobody-here/x', "unknown data set '~nobody-here/x'; valid choices: "),
        *((f'{kind}:{"x" * 300}', '^.x{300}. cannot be read: File name too long$') for kind in loading.PATHS),
        *((f'{kind}:~nobody-here/x', "no home directory '~nobody-here'; say ./~nobody") for kind in loading.PATHS),
    ],
)
def test_paths_that_lead_nowhere(name, told):
    kind = name.partition(':')[0]
    with pytest.raises(UserError, match=told):
        loading.load(
            name, truth=loading.TRUTHS.get(kind, ('class',))[0], inputs=loading.INPUTS.get(kind, ('images',))[0]
        )
    if kind in loading.PATHS:
        with pytest.raises(UserError, match=told):
            loading.check_place(Path('run'), name)


def test_the_tables_of_names_agree():
    assert loading.INPUTS.keys() == loading.TRUTHS.keys() == {*loading.EMBEDDED, *loading.PATHS, 'tfds'}


@pytest.mark.parametrize(('kind', 'part'), [('voc', 'JPEGImages'), ('coco', 'annotations'), ('yolo', 'images')])
def test_a_part_of_a_data_set_leads_to_the_whole(layouts, kind, part):
    with pytest.raises(UserError) as refused:
        loading.load(f'{kind}:{layouts / kind / part}', truth='boxes')
    assert str(refused.value).endswith(f"which is named '{kind}:{layouts / kind}'")


def test_a_folder_of_classes_that_is_none(layouts):
    told = r'task needs boxes; choose another config key task, or a data set with boxes .*; .* which is named .coco:'
    with pytest.raises(UserError, match=told):
        loading.check_name(f'folder:{layouts / "coco"}', 'boxes')
    with pytest.raises(
        UserError, match=r'the model needs boxes; name a data set with boxes .* which is named'
    ) as refused:
        loading.check_name(f'folder:{layouts / "coco"}', 'boxes', of_model=True)
    assert 'config key' not in str(refused.value)


@pytest.mark.parametrize('kind', ['voc', 'coco'])
def test_an_empty_folder_is_called_so(tmp_path, kind):
    with pytest.raises(UserError, match=r'is an empty folder; expected '):
        loading.load(f'{kind}:{tmp_path}', truth='boxes')


def test_what_is_wrong_with_a_folder_of_the_right_kind_is_no_matter_of_its_kind(layouts):
    with pytest.raises(UserError) as refused:
        loading.load(f'yolo:{layouts / "yolo"}', truth='boxes')
    assert 'looks like' not in str(refused.value)


class TestTfds:
    def test_not_prepared_says_what_to_run(self, tmp_path, monkeypatch):
        monkeypatch.setattr(tfds, 'tensorflow_is_installed', lambda: False)
        message = r'tfds:mnist is not prepared .*tfds build mnist --file_format=array_record'
        with pytest.raises(UserError, match=message):
            loading.load('tfds:mnist', tmp_path)

    def test_unknown_name_offers_the_nearest(self, tmp_path):
        with pytest.raises(UserError, match=r"unknown TFDS data set 'cifer10'.*'cifar10'"):
            loading.load('tfds:cifer10', tmp_path)

    def test_failed_preparation_is_one_line(self, tmp_path, monkeypatch):
        monkeypatch.setattr(tfds, 'tensorflow_is_installed', lambda: True)
        monkeypatch.setattr(tfds, '_PREPARE', 'raise SystemExit("no connection")')
        with pytest.raises(UserError, match='preparing tfds:mnist failed: no connection'):
            loading.load('tfds:mnist', tmp_path)

    def test_prepared_directory_is_read_without_tensorflow(self, tmp_path):
        write_array_record_dataset(tmp_path)
        dataset = loading.load('tfds:blobs', tmp_path, stored_size=12)
        assert dataset.classes == ('round', 'square')
        assert dataset.images.shape == (24, 8, 8, 3)
        assert {name: len(indices) for name, indices in dataset.splits.items()} == {
            'train': 18,
            'validation': 2,
            'test': 4,
        }
        assert dataset.targets.tolist() == [index % 2 for index in range(20)] + [index % 2 for index in range(4)]
        assert dataset.images[np.array([5])][0, 0, 0].tolist() == [5, 5, 5]
        assert 'tensorflow' not in sys.modules

    def test_deep_images_are_refused_instead_of_cut(self, tmp_path):
        write_array_record_dataset(tmp_path, dtype='uint16')
        with pytest.raises(UserError, match='tfds:blobs has images of uint16; only 8 bits are read'):
            loading.load('tfds:blobs', tmp_path)

    def test_transparent_images_are_put_on_the_background(self, tmp_path):
        write_array_record_dataset(tmp_path, channels=4)
        dataset = loading.load('tfds:blobs', tmp_path, background='black')
        assert dataset.images.shape == (24, 8, 8, 3)
        assert dataset.images[0].max() == 0
        white = loading.load('tfds:blobs', tmp_path)
        assert white.images[1][0, 0].tolist() == [254, 254, 254]  # one part in 255 of nearly black on white

    @pytest.mark.parametrize('broken', [b'', b'no image at all', None], ids=['empty', 'no image', 'no record'])
    def test_bad_records_are_named_counted_and_skipped(self, tmp_path, capsys, broken):
        write_array_record_dataset(tmp_path, {('train', 3): broken, ('test', 1): broken})
        dataset = loading.load('tfds:blobs', tmp_path)
        assert dict(dataset.skipped).keys() == {'train/0000003', 'test/0000001'}
        assert all(why for _, why in dataset.skipped)
        assert dataset.images.shape == (22, 8, 8, 3)
        assert [int(image[0, 0, 0]) for image in dataset.images[:5]] == [0, 1, 2, 4, 5]
        assert dataset.targets[:5].tolist() == [0, 1, 0, 0, 1]
        assert dataset.ids[2:4] == ('train/0000002', 'train/0000004')
        assert np.sort(np.concatenate(list(dataset.splits.values()))).tolist() == list(range(22))
        assert len(dataset.splits['test']) == 3
        account.show(dataset)
        assert 'train/0000003' in capsys.readouterr().err
        assert '2 unreadable records skipped' in dataset.provenance

    def test_too_many_bad_records_are_an_error(self, tmp_path):
        write_array_record_dataset(tmp_path, {('train', 3): b'', ('train', 7): b'x'})
        with pytest.raises(UserError, match=r'2 of 24 records of tfds:blobs .*train/0000003: .*at most 1'):
            loading.load('tfds:blobs', tmp_path, bad_files_limit=1)

    @pytest.mark.skipif('TFDS_DATA_DIR' not in os.environ, reason='TFDS_DATA_DIR names no prepared data sets')
    def test_cifar10(self):
        directory = tfds.default_directory()
        if not (directory / 'cifar10').is_dir():
            pytest.skip('CIFAR-10 is not prepared in TFDS_DATA_DIR')
        dataset = loading.load('tfds:cifar10')
        assert dataset.images.shape == (60000, 32, 32, 3)
        assert len(dataset.splits['test']) == 10000
        assert np.bincount(dataset.targets[dataset.splits['train']]).tolist() == [4500] * 10


def write_array_record_dataset(
    directory: Path, broken: dict[tuple[str, int], bytes | None] | None = None, dtype: str = 'uint8', channels: int = 3
) -> None:
    """A data set in the layout that TFDS prepares: metadata, and array_record files of serialised examples.

    ``broken``: the bytes that stand for some images; ``None``: the whole record is noise.
    """
    broken = broken or {}
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.proto import tf_example_pb2

    root = directory / 'blobs' / '1.0.0'
    root.mkdir(parents=True)
    counts = {'train': 20, 'test': 4}
    for split, count in counts.items():
        writer = ArrayRecordWriter(str(root / f'blobs-{split}.array_record-00000-of-00001'), 'group_size:1')
        for index in range(count):
            stream = io.BytesIO()
            Image.fromarray(np.full((8, 8, channels), index, np.uint8)).save(stream, 'PNG')
            example = tf_example_pb2.Example()
            pixels = broken.get((split, index), stream.getvalue())
            if pixels is None:
                writer.write(b'\xff no message of protocol buffers')
                continue
            example.features.feature['image'].bytes_list.value.append(pixels)
            example.features.feature['label'].int64_list.value.append(index % 2)
            writer.write(example.SerializeToString())
        writer.close()
    module = 'tensorflow_datasets.core.features'
    image = {'dtype': dtype, 'shape': {'dimensions': ['8', '8', str(channels)]}, 'encodingFormat': 'png'}
    features = {
        'image': {'pythonClassName': f'{module}.image_feature.Image', 'image': image},
        'label': {'pythonClassName': f'{module}.class_label_feature.ClassLabel', 'classLabel': {'numClasses': '2'}},
    }
    (root / 'features.json').write_text(
        json.dumps({'pythonClassName': f'{module}.features_dict.FeaturesDict', 'featuresDict': {'features': features}})
    )
    (root / 'label.labels.txt').write_text('round\nsquare\n')
    info = {
        'name': 'blobs',
        'version': '1.0.0',
        'fileFormat': 'array_record',
        'supervisedKeys': {'tuple': {'items': [{'featureKey': 'image'}, {'featureKey': 'label'}]}},
        'splits': [
            {
                'name': split,
                'numBytes': '1',
                'shardLengths': [str(count)],
                'filepathTemplate': '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}',
            }
            for split, count in counts.items()
        ],
    }
    (root / 'dataset_info.json').write_text(json.dumps(info))


@pytest.mark.parametrize('name', ['folder:/nowhere', 'tfds:nothing', 'digits'])
@pytest.mark.parametrize('size', [0, -3])
def test_images_of_no_size(name, size):
    with pytest.raises(UserError, match=f"'stored_size' must be positive, not {size}"):
        loading.load(name, stored_size=size)


def test_a_work_directory_is_not_the_folder_of_the_data(tmp_path):
    (tmp_path / 'data.yaml').write_text('')
    for name in (f'coco:{tmp_path}', f'yolo:{tmp_path}', f'yolo:{tmp_path}/data.yaml'):
        with pytest.raises(UserError, match='is the folder of images itself'):
            loading.check_place(tmp_path, name)
        loading.check_place(tmp_path / 'runs', name)
