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
from experiments.data import account, loading, model_input, tfds
from experiments.data.decoding import DecodedImages
from experiments.data.model_input import input_preprocessing


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


@pytest.mark.parametrize('values', [{'group': 'x'}, {'exclude': 'x'}, {'layout': 'splits'}, {'drop_duplicates': True}])
@pytest.mark.parametrize('name', ['digits', 'tfds:mnist'])
def test_values_for_folders_are_never_ignored(name, values):
    """Who sets a group believes that patients are kept apart."""
    (key,) = values
    with pytest.raises(UserError, match=f'config key {key!r} is .*only for folder:PATH, and the data set is {name!r}'):
        loading.load(name, **values)


def test_unknown_name_offers_the_nearest():
    with pytest.raises(UserError, match=r"unknown data set 'mnist5'.*'mnist5k'"):
        loading.load('mnist5')
    with pytest.raises(UserError, match='tfds:NAME'):
        loading.load('tfds')


def test_a_folder_without_its_kind(tmp_path):
    with pytest.raises(UserError, match=f"a folder of images is named 'folder:{tmp_path}'"):
        loading.load(str(tmp_path))


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
        assert '3 unreadable files skipped' in dataset.provenance
        account.show(dataset)
        shown = capsys.readouterr().err
        assert 'unreadable, empty file: 1 (a/000.jpg)' in shown
        assert 'unreadable, not an image of a known kind: 1 (b/002.jpg)' in shown

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
        with pytest.raises(UserError, match=r"'dogs' is in .*did you mean 'dog'"):
            loading.load(f'folder:{tmp_path}')

    def test_hidden_files_and_other_files_are_left_alone(self, tmp_path):
        write_images(tmp_path, {'a': 10, 'b': 10})
        (tmp_path / 'a' / '._000.png').write_bytes(b'metadata of another system')
        (tmp_path / 'a' / 'notes.txt').write_text('no image')
        dataset = loading.load(f'folder:{tmp_path}', bad_files_limit=0)
        assert len(dataset.targets) == 20
        assert dataset.account.left_out == {
            'hidden or of the system': ('a/._000.png',),
            'not an image (.txt)': ('a/notes.txt',),
        }


class TestOddFolders:
    """What people have: nothing of it changes a number in silence."""

    @pytest.mark.parametrize(
        ('dtype', 'low', 'high', 'grey_range', 'rule'),
        [
            (np.uint16, 0, 4096, (0, 4095), 'largest value is 4095: 12 bits'),
            (np.uint16, 0, 60001, (0, 65535), 'largest value is 60000: 16 bits'),
            (np.int32, -1000, 3001, (-1000, 3000), 'smallest and largest value, -1000 and 3000'),
            (np.float32, 0, 1, (0, 1), 'from 0 to 1 become 0 to 255'),
        ],
    )
    def test_deep_grey_images_have_one_scale_per_data_set(self, tmp_path, dtype, low, high, grey_range, rule):
        ramp = np.linspace(low, high - (dtype != np.float32), 64).astype(dtype).reshape(8, 8)
        for label, share in (('a', 1), ('b', 2)):  # a scale of its own would make both alike
            (tmp_path / label).mkdir()
            for number in range(5):
                Image.fromarray(
                    (ramp // share if share > 1 and dtype != np.float32 else ramp / share).astype(dtype)
                ).save(tmp_path / label / f'{number}.tif')
        dataset = loading.load(f'folder:{tmp_path}')
        assert dataset.reading.grey_range == grey_range
        assert rule in dataset.account.rules[0]
        assert len(np.unique(dataset.images[0])) > 30
        assert int(dataset.images[0].max()) > 1.7 * int(dataset.images[5].max()) or low < 0

    def test_eight_and_sixteen_bits_in_one_folder(self, tmp_path):
        write_images(tmp_path, {'a': 5}, size=(8, 8), mode='L')
        (tmp_path / 'b').mkdir()
        for number in range(5):
            Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(tmp_path / 'b' / f'{number}.png')
        dataset = loading.load(f'folder:{tmp_path}')
        assert dataset.account.kinds == {'8-bit grey': 5, '16-bit grey': 5}
        assert dataset.images[5].max() == round(40000 * 255 / 65535)

    def test_whole_and_floating_point_numbers_have_no_common_scale(self, tmp_path):
        for label, dtype in (('a', np.uint16), ('b', np.float32)):
            (tmp_path / label).mkdir()
            for number in range(5):
                Image.fromarray(np.full((8, 8), number, dtype)).save(tmp_path / label / f'{number}.tif')
        with pytest.raises(UserError, match=r'whole numbers \(a/0\.tif\) and of floating-point numbers \(b/0\.tif\)'):
            loading.load(f'folder:{tmp_path}')

    def test_shapes_that_only_alpha_shows(self, tmp_path):
        for label, place in (('a', slice(0, 4)), ('b', slice(4, 8))):
            (tmp_path / label).mkdir()
            pixels = np.zeros((8, 8, 4), np.uint8)
            pixels[place, :, 3] = 255
            for number in range(5):
                Image.fromarray(pixels).save(tmp_path / label / f'{number}.png')
        dataset = loading.load(f'folder:{tmp_path}', background='#00ff00')
        assert dataset.images[0][0, 0].tolist() == [0, 0, 0]
        assert dataset.images[0][7, 0].tolist() == [0, 255, 0]
        assert '10 images with transparency: put on #00ff00' in dataset.account.rules[0]
        with pytest.raises(UserError, match=r"unknown background 'wite'; expected a colour .*did you mean 'white'"):
            loading.load(f'folder:{tmp_path}', background='wite')

    def test_a_class_never_vanishes(self, tmp_path):
        write_images(tmp_path, {'a': 5, 'b': 5})
        (tmp_path / 'c').mkdir()
        with pytest.raises(UserError, match=r"the class 'c' .* no image that can be read \(c/ is empty\).*exclude='c'"):
            loading.load(f'folder:{tmp_path}')
        (tmp_path / 'c' / 'IMG_1.HEIC').write_bytes(b'\0\0\0\x18ftypheic' + b'x' * 99)
        (tmp_path / 'c' / 'notes.txt').write_text('x')
        with pytest.raises(
            UserError, match=r'1 cannot be read: a HEIC image: pip install .*; not an image \(\.txt\): 1'
        ):
            loading.load(f'folder:{tmp_path}')
        assert loading.load(f'folder:{tmp_path}', exclude='c').classes == ('a', 'b')

    def test_stored_size_bounds_images_of_one_size(self, tmp_path):
        write_images(tmp_path, {'a': 5, 'b': 5}, size=(80, 60))
        dataset = loading.load(f'folder:{tmp_path}', stored_size=32)
        assert dataset.images.shape == (10, 32, 32, 3)
        assert dataset.stored_size == (32, 32)
        assert loading.load(f'folder:{tmp_path}', stored_size=80).images.shape == (10, 60, 80, 3)
        said = model_input.in_words(input_preprocessing('resnet_micro', '', 48), dataset)
        assert said == '48x48 (crop, bilinear), enlarged from what is stored; --config.stored_size=48 keeps more'
        assert model_input.in_words(input_preprocessing('resnet_micro', '', 32), dataset) == '32x32 (crop, bilinear)'

    def test_turned_photographs_are_upright_before_sizes_are_compared(self, tmp_path):
        write_images(tmp_path, {'a': 5, 'b': 5}, size=(20, 16))
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.new('RGB', (16, 20)).save(tmp_path / 'a' / '000.png', exif=exif)
        assert loading.load(f'folder:{tmp_path}').images.shape == (10, 16, 20, 3)

    def test_duplicates_across_splits_are_said_and_dropped_on_request(self, tmp_path):
        write_images(tmp_path, {f'{split}/{name}': 6 for split in ('train', 'val', 'test') for name in 'ab'}, seed=1)
        for source, target in (
            ('train/a/000', 'test/a/x'), ('train/a/001', 'val/a/x'),
            ('val/b/000', 'test/b/y'), ('train/b/002', 'val/a/z'),
        ):  # fmt: skip
            (tmp_path / f'{target}.png').write_bytes((tmp_path / f'{source}.png').read_bytes())
        dataset = loading.load(f'folder:{tmp_path}')
        noticed = '\n'.join(dataset.account.noticed)
        assert (
            '1 image of the train split also in the test split, byte for byte (train/a/000.png = test/a/x.png)'
            in noticed
        )
        assert '2 images of the train split also in the validation split' in noticed
        assert '--config.drop_duplicates=True' in noticed
        assert "1 image in several classes (train/b/002.png in 'a' and 'b')" in noticed
        assert {name: len(part) for name, part in dataset.splits.items()} == {'train': 12, 'validation': 14, 'test': 14}
        dropped = loading.load(f'folder:{tmp_path}', drop_duplicates=True)
        assert {name: len(part) for name, part in dropped.splits.items()} == {'train': 9, 'validation': 13, 'test': 14}
        assert dropped.fingerprint() != dataset.fingerprint()

    def test_groups_stay_together(self, tmp_path):
        for label, patients in (('a', range(12)), ('b', range(12, 24))):
            (tmp_path / label).mkdir()
            for patient in patients:
                for number in range(3):
                    Image.new('RGB', (4, 4), (patient, number, 0)).save(
                        tmp_path / label / f'patient-{patient}_{number}.png'
                    )
        dataset = loading.load(f'folder:{tmp_path}', group=r'(patient-\d+)')
        owners = {
            split: {dataset.ids[index].split('/')[1].split('_')[0] for index in indices}
            for split, indices in dataset.splits.items()
        }
        assert sum(map(len, owners.values())) == 24
        assert all(owners.values())
        assert 'by a hash of the group (24 groups)' in dataset.provenance
        with pytest.raises(UserError, match=r"finds nothing in 36 of 72 paths, such as 'a/patient-0_0\.png'"):
            loading.load(f'folder:{tmp_path}', group=r'^b/(patient-\d+)')
        with pytest.raises(UserError, match="'group' is not a regular expression"):
            loading.load(f'folder:{tmp_path}', group='(')

    def test_groups_in_two_official_splits_are_refused(self, tmp_path):
        write_images(tmp_path, {f'{split}/{name}': 4 for split in ('train', 'test') for name in 'ab'})
        with pytest.raises(UserError, match=r"4 groups .* in two splits, such as '000' in (train|validation) and test"):
            loading.load(f'folder:{tmp_path}', group=r'(\d+)\.png')

    def test_too_few_groups_are_not_blamed_on_the_images(self, tmp_path):
        write_images(tmp_path, {'cat': 10, 'dog': 10}, size=(4, 4))
        with pytest.raises(UserError, match=r"'\(cat\|dog\)' .* finds 2 groups in 20 images, too few for the"):
            loading.load(f'folder:{tmp_path}', group='(cat|dog)')

    def test_a_split_of_duplicates_only(self, tmp_path):
        for split in ('train', 'test'):
            write_images(tmp_path, {f'{split}/{name}': 4 for name in 'ab'}, size=(4, 4))
        with pytest.raises(UserError, match=r'all images of the (train|validation) split are also in the'):
            loading.load(f'folder:{tmp_path}', drop_duplicates=True)

    def test_values_that_are_no_numbers_are_noticed(self, tmp_path):
        for label in 'ab':
            (tmp_path / label).mkdir()
            for number in range(4):
                pixels = np.full((4, 4), number / 4, np.float32)
                pixels[0, 0] = np.nan if number == 3 else 1
                Image.fromarray(pixels).save(tmp_path / label / f'{number}.tif')
        noticed = loading.load(f'folder:{tmp_path}').account.noticed
        assert any(each.startswith('2 images with values that are NaN') for each in noticed)

    @pytest.mark.parametrize(
        ('happens', 'message'),
        [
            (lambda file: file.unlink(), r"a/000\.png' can no longer be read \(No such file"),
            (lambda file: file.write_bytes(b'other'), r"a/000\.png' has changed since the data set was loaded"),
        ],
    )
    def test_files_that_change_while_they_are_read(self, tmp_path, monkeypatch, happens, message):
        write_images(tmp_path, {'a': 4, 'b': 4}, size=(4, 4))
        read = DecodedImages.in_memory_if_small

        def later(images, *words):
            happens(tmp_path / 'a' / '000.png')
            return read(images, *words)

        monkeypatch.setattr(DecodedImages, 'in_memory_if_small', later)
        with pytest.raises(UserError, match=message):
            loading.load(f'folder:{tmp_path}')

    def test_few_images_per_class_are_enough(self, tmp_path):
        write_images(tmp_path, {f'c{number}': 5 for number in range(6)}, size=(4, 4))
        counts = account.counts(loading.load(f'folder:{tmp_path}'))
        assert counts == {'train': [3] * 6, 'validation': [1] * 6, 'test': [1] * 6}

    def test_one_and_two_images_per_class_say_what_is_missing(self, tmp_path):
        write_images(tmp_path, {'a': 2, 'b': 2}, size=(4, 4))
        with pytest.raises(UserError, match=r'the validation split .* a class needs three images'):
            loading.load(f'folder:{tmp_path}')

    def test_several_frames_and_single_colours_are_noticed(self, tmp_path):
        write_images(tmp_path, {'a': 5, 'b': 5}, size=(4, 4))
        frames = [Image.new('RGB', (4, 4), (each, 0, 0)) for each in (10, 20)]
        frames[0].save(tmp_path / 'a' / 'two.tif', save_all=True, append_images=frames[1:])
        noticed = loading.load(f'folder:{tmp_path}').account.noticed
        assert '1 image with several frames or pages, of which the first is read (such as a/two.tif)' in noticed
        assert '1 image of a single colour (such as a/two.tif)' in noticed

    def test_a_file_in_place_of_a_folder(self, tmp_path):
        (tmp_path / 'x.zip').write_bytes(b'')
        with pytest.raises(UserError, match='is a file; expected a folder'):
            loading.load(f'folder:{tmp_path}/x.zip')

    def test_the_work_directory_is_not_the_folder(self, tmp_path):
        with pytest.raises(UserError, match='is the folder of images itself; choose another --workdir'):
            loading.check_place(tmp_path, f'folder:{tmp_path}/')
        loading.check_place(tmp_path / 'runs', f'folder:{tmp_path}')

    def test_the_account_of_many_classes_is_short(self, tmp_path, capsys):
        write_images(tmp_path, {f'[c]{number:03d}': 3 for number in range(40)}, size=(2, 2))
        dataset = loading.load(f'folder:{tmp_path}')
        capsys.readouterr()
        account.show(dataset, ['resnet_micro: 32x32'])
        shown = capsys.readouterr().err
        assert '[c]009' in shown
        assert '[c]010' not in shown
        assert '30 more' in shown
        assert '40 classes' in shown
        assert 'resnet_micro: 32x32' in shown


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
