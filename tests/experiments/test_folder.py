"""Folders of images as data sets: what people have is read as it is meant, or refused, and never changes in silence."""

import numpy as np
import pytest
from PIL import Image
from test_loading import write_images

from backbones import UserError
from experiments.data import account, loading, model_input
from experiments.data.decoding import DecodedImages
from experiments.data.model_input import input_preprocessing


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
