"""Data sets by name: embedded, TFDS directories, folders of images."""

import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backbones import UserError
from experiments.data import folder, loading, tfds


def write_images(root: Path, layout: dict[str, int], size=(20, 16), suffix='png', mode='RGB', seed=0) -> None:
    generator = np.random.default_rng(seed)
    for name, count in layout.items():
        directory = root / name
        directory.mkdir(parents=True, exist_ok=True)
        for index in range(count):
            pixels = generator.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(directory / f'{index:03d}.{suffix}')


@pytest.mark.parametrize(
    ('name', 'shape', 'per_class'), [('mnist5k', (5000, 28, 28, 1), 500), ('digits', (1797, 8, 8, 1), None)]
)
def test_embedded_data_are_complete_and_split(name, shape, per_class):
    dataset = loading.load(name)
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
    assert loading.load('mnist5k').splits['test'][:6].tolist() == [5, 8, 14, 15, 18, 20]
    assert loading.load('digits').splits['test'][:6].tolist() == [5, 8, 14, 18, 20, 22]


def test_unknown_name_offers_the_nearest():
    with pytest.raises(UserError, match=r"unknown data set 'mnist5'.*'mnist5k'"):
        loading.load('mnist5')
    with pytest.raises(UserError, match='tfds:NAME'):
        loading.load('tfds')


class TestFolder:
    def test_classes_split_by_hash(self, tmp_path):
        write_images(tmp_path, {'cat': 20, 'dog': 30})
        dataset = loading.load(f'folder:{tmp_path}')
        assert dataset.classes == ('cat', 'dog')
        assert dataset.images.shape == (50, 16, 20, 3)
        assert dataset.ids[0] == 'cat/000.png'
        assert {name: len(indices) for name, indices in dataset.splits.items()} == {
            'train': 35,
            'validation': 5,
            'test': 10,
        }
        pixels = np.asarray(Image.open(tmp_path / 'dog' / '003.png'))
        np.testing.assert_array_equal(dataset.images[np.array([23])][0], pixels)

    def test_a_new_image_moves_no_other_to_another_split_of_its_class(self, tmp_path):
        write_images(tmp_path, {'cat': 40, 'dog': 40})
        before = loading.load(f'folder:{tmp_path}')
        test_before = {before.ids[index] for index in before.splits['test']}
        write_images(tmp_path / 'extra', {'x': 1})
        (tmp_path / 'extra' / 'x' / '000.png').rename(tmp_path / 'cat' / 'new.png')
        (tmp_path / 'extra' / 'x').rmdir()
        (tmp_path / 'extra').rmdir()
        after = loading.load(f'folder:{tmp_path}')
        test_after = {after.ids[index] for index in after.splits['test']}
        assert len(test_before - test_after) <= 1

    def test_train_and_test_folders_keep_their_split(self, tmp_path):
        write_images(tmp_path, {'train/cat': 20, 'train/dog': 20, 'test/cat': 3, 'test/dog': 4})
        dataset = loading.load(f'folder:{tmp_path}')
        assert {dataset.ids[index].split('/')[0] for index in dataset.splits['test']} == {'test'}
        assert len(dataset.splits['test']) == 7
        assert len(dataset.splits['validation']) == 4

    def test_all_three_folders(self, tmp_path):
        write_images(tmp_path, {f'{split}/{name}': 3 for split in ('train', 'val', 'test') for name in 'ab'})
        dataset = loading.load(f'folder:{tmp_path}')
        assert {name: len(indices) for name, indices in dataset.splits.items()} == dict.fromkeys(
            ('train', 'validation', 'test'), 6
        )
        assert 'official splits' in dataset.provenance

    def test_mixed_sizes_and_modes_become_squares(self, tmp_path):
        write_images(tmp_path, {'a': 10}, size=(30, 20))
        write_images(tmp_path, {'b': 10}, size=(25, 40), suffix='jpg', mode='L')
        dataset = loading.load(f'folder:{tmp_path}', stored_size=24)
        assert dataset.images.shape == (20, 24, 24, 3)

    def test_orientation_tag_of_cameras_is_applied(self, tmp_path):
        write_images(tmp_path, {'a': 10, 'b': 10}, size=(16, 16))
        pixels = np.zeros((16, 16, 3), np.uint8)
        pixels[:4] = 255
        exif = Image.Exif()
        exif[0x0112] = 3  # upside down
        Image.fromarray(pixels).save(tmp_path / 'a' / '000.png', exif=exif)
        dataset = loading.load(f'folder:{tmp_path}', stored_size=16)
        turned = dataset.images[np.array([dataset.ids.index('a/000.png')])][0]
        assert turned[:4].max() == 0
        assert turned[-4:].min() == 255

    def test_large_folders_are_decoded_on_demand(self, tmp_path, monkeypatch):
        write_images(tmp_path, {'a': 10, 'b': 10})
        kept = loading.load(f'folder:{tmp_path}')
        monkeypatch.setattr('experiments.data.decoding.MEMORY_LIMIT', 1)
        lazy = loading.load(f'folder:{tmp_path}')
        assert not isinstance(lazy.images, np.ndarray)
        indices = np.array([3, 17, 3])
        np.testing.assert_array_equal(lazy.images[indices], kept.images[indices])

    def test_bad_files_are_named_counted_and_skipped(self, tmp_path, capsys):
        write_images(tmp_path, {'a': 10, 'b': 10}, suffix='jpg')
        (tmp_path / 'a' / '000.jpg').write_bytes(b'')
        whole = (tmp_path / 'b' / '001.jpg').read_bytes()
        (tmp_path / 'b' / '001.jpg').write_bytes(whole[: len(whole) // 2])
        (tmp_path / 'b' / '002.jpg').write_bytes(b'no image at all')
        dataset = loading.load(f'folder:{tmp_path}')
        assert dict(dataset.skipped).keys() == {'a/000.jpg', 'b/001.jpg', 'b/002.jpg'}
        assert dict(dataset.skipped)['a/000.jpg'] == 'empty file'
        assert len(dataset.targets) == 17
        assert '3 of 20 files' in capsys.readouterr().err
        assert '3 unreadable files skipped' in dataset.provenance

    def test_too_many_bad_files_are_an_error(self, tmp_path):
        write_images(tmp_path, {'a': 10, 'b': 10})
        for index in range(3):
            (tmp_path / 'a' / f'{index:03d}.png').write_bytes(b'')
        with pytest.raises(UserError, match=r'3 of 20 files .*a/000\.png: empty file.*at most 2'):
            loading.load(f'folder:{tmp_path}', bad_files_limit=2)

    def test_missing_folder_offers_its_neighbour(self, tmp_path):
        (tmp_path / 'flowers').mkdir()
        with pytest.raises(UserError, match="'flower'; did you mean 'flowers'"):
            loading.load(f'folder:{tmp_path}/flower')
        with pytest.raises(UserError, match='there is no folder'):
            loading.load(f'folder:{tmp_path}/no/such')

    def test_empty_folder(self, tmp_path):
        with pytest.raises(UserError, match='there are no images in'):
            loading.load(f'folder:{tmp_path}')

    def test_one_class(self, tmp_path):
        write_images(tmp_path, {'only': 10})
        with pytest.raises(UserError, match=r'has 1 class \(only\)'):
            loading.load(f'folder:{tmp_path}')

    def test_test_class_without_training_images(self, tmp_path):
        write_images(tmp_path, {'train/cat': 10, 'train/dog': 10, 'test/cat': 2, 'test/dogs': 2})
        with pytest.raises(UserError, match="'dogs'; did you mean 'dog'"):
            loading.load(f'folder:{tmp_path}')

    def test_hidden_files_and_other_files_are_left_alone(self, tmp_path):
        write_images(tmp_path, {'a': 10, 'b': 10})
        (tmp_path / 'a' / '._000.png').write_bytes(b'metadata of another system')
        (tmp_path / 'a' / 'notes.txt').write_text('no image')
        assert len(folder.load(str(tmp_path), 16, 0).targets) == 20


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
        assert '2 of 24 records of tfds:blobs cannot be read' in capsys.readouterr().err
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


def write_array_record_dataset(directory: Path, broken: dict[tuple[str, int], bytes | None] | None = None) -> None:
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
            Image.fromarray(np.full((8, 8, 3), index, np.uint8)).save(stream, 'PNG')
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
    image = {'dtype': 'uint8', 'shape': {'dimensions': ['8', '8', '3']}, 'encodingFormat': 'png'}
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
    with pytest.raises(UserError, match=f'stored_size must be a positive number of pixels, not {size}'):
        loading.load(name, stored_size=size)
