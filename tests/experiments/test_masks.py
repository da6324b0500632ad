"""Folders of images and masks: layouts, what values and colours mean, and masks that do not fit."""

import pickle
import struct
import zlib

import numpy as np
import pytest
from dense_files import mask_of, split_names, write_image, write_mask
from PIL import Image

from backbones import UserError
from experiments.data import account, loading, record

VALUES = np.zeros((30, 40), np.uint8)
VALUES[:, 10:] = 1
VALUES[:, 20:] = 2
VALUES[0] = 255


def write(root, images, masks, count=4, values=VALUES, mode='L'):
    for number in range(count):
        write_image(root / images / f'{number}.jpg')
        write_mask(root / masks / f'{number}.png', values, mode)


def grey_png(values, bits) -> bytes:
    """A grey PNG of few bits, which Pillow cannot write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))

    height, width = values.shape
    digits = (values[..., None] >> np.arange(bits)[::-1]) & 1
    rows = np.packbits(digits.reshape(height, -1), axis=1)
    lines = b''.join(b'\0' + row.tobytes() for row in rows)
    header = struct.pack('>IIBBBBB', width, height, bits, 0, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(lines)) + chunk(b'IEND', b'')


def load(root, **values):
    return loading.load(f'masks:{root}', truth='masks', **values)


@pytest.fixture
def root(tmp_path):
    write(tmp_path, 'train/images', 'train/masks', 6)
    write(tmp_path, 'val/images', 'val/masks', 2)
    return tmp_path


class TestLayouts:
    @pytest.mark.parametrize(
        ('places', 'name'),
        [
            ({'train': ('train/images', 'train/masks'), 'val': ('val/images', 'val/masks')}, 'val/images/0.jpg'),
            ({'train': ('train', 'trainannot'), 'val': ('val', 'valannot')}, 'val/0.jpg'),
            (
                {
                    'train': ('images/training', 'annotations/training'),
                    'val': ('images/validation', 'annotations/validation'),
                },
                'images/validation/0.jpg',
            ),
            ({'train': ('imagesTr', 'labelsTr'), 'val': ('imagesTs', 'labelsTs')}, 'imagesTs/0.jpg'),
            (
                {
                    'train': ('Train/JPEGImages', 'Train/SegmentationClass'),
                    'val': ('Test/JPEGImages', 'Test/SegmentationClass'),
                },
                'Test/JPEGImages/0.jpg',
            ),
        ],
    )
    def test_with_splits(self, tmp_path, places, name):
        for split, (images, masks) in places.items():
            write(tmp_path, images, masks, 6 if split == 'train' else 2)
        dataset = load(tmp_path)
        assert len(dataset.splits['test']) == 2
        assert name in split_names(dataset)['test']
        np.testing.assert_array_equal(mask_of(dataset, name), VALUES)

    def test_without_splits(self, tmp_path):
        write(tmp_path, 'images', 'labels', 20)
        dataset = load(tmp_path)
        assert [len(dataset.splits[split]) for split in ('train', 'validation', 'test')] == [14, 2, 4]

    @pytest.mark.parametrize('ending', ['_mask', '_L', '_gt'])
    def test_names_of_masks_with_an_ending(self, root, ending):
        for mask in [*root.glob('*/masks/*.png')]:
            mask.rename(mask.with_name(f'{mask.stem}{ending}.png'))
        assert len(load(root).ids) == 8

    def test_another_layout(self, tmp_path):
        write_image(tmp_path / 'photos' / 'a.png')
        with pytest.raises(UserError, match=r'no folders of images and masks in .*, but photos/; expected PATH/train'):
            load(tmp_path)

    def test_two_folders_of_one_split(self, root):
        write(root, 'training/images', 'training/masks')
        with pytest.raises(UserError, match=r'training/images/.* are train; leave one out with --config\.exclude'):
            load(root)
        assert len(load(root, exclude='training').ids) == 8

    def test_no_images_for_training(self, root):
        (root / 'train').rename(root / 'other')
        with pytest.raises(UserError, match='has no images for training that can be used; there are validation'):
            load(root)


class TestValues:
    def test_grey_values_are_the_classes(self, root):
        dataset = load(root)
        assert dataset.classes == ('class 0', 'class 1', 'class 2')
        assert dataset.images.shape == (8, 30, 40, 4)
        np.testing.assert_array_equal(mask_of(dataset, 'train/images/0.jpg'), VALUES)
        np.testing.assert_array_equal(
            dataset.images[0, ..., :3], np.asarray(Image.open(root / 'train' / 'images' / '0.jpg'))
        )
        assert dataset.truth.pixels.tolist() == [[290, 290, 580, 40]] * 8

    def test_palette_indices_are_the_classes(self, tmp_path):
        write(tmp_path, 'images', 'masks', 6, mode='P')
        np.testing.assert_array_equal(mask_of(load(tmp_path), 'images/0.jpg'), VALUES)

    def test_another_ignored_value(self, root):
        dataset = load(root, ignore_label=2)
        assert dataset.classes == ('class 0', 'class 1')
        assert np.unique(mask_of(dataset, 'train/images/0.jpg')).tolist() == [0, 1, 255]

    def test_an_ignored_value_before_others_moves_them(self, root):
        dataset = load(root, ignore_label=0, class_names='a,b')
        assert dataset.classes == ('a', 'b')
        assert mask_of(dataset, 'train/images/0.jpg')[5, [0, 15, 30]].tolist() == [255, 0, 1]
        assert 'class_names names the values of masks without the ignored 0' in dataset.account.guessed

    @pytest.mark.parametrize(
        ('file', 'text'),
        [
            ('classes.txt', 'sky\nroad\ncar\n'),
            ('classes.json', '["sky", "road", "car"]'),
            ('classes.json', '{"0": "sky", "1": "road", "2": "car"}'),
            ('classes.json', '{"sky": 0, "road": 1, "car": 2}'),
        ],
    )
    def test_names_from_a_file(self, root, file, text):
        (root / file).write_text(text)
        dataset = load(root)
        assert dataset.classes == ('sky', 'road', 'car')
        assert f'the classes of masks are those of {file}' in dataset.account.guessed

    def test_values_with_gaps_that_a_file_names(self, root):
        (root / 'classes.json').write_text('{"0": "sky", "2": "car", "1": "road", "33": "bus"}')
        dataset = load(root)
        assert dataset.classes == ('sky', 'road', 'car', 'bus')
        assert '1 of 4 classes missing from the training split (bus)' in dataset.account.noticed

    def test_the_users_names_come_first(self, root):
        (root / 'classes.txt').write_text('x\ny\nz\n')
        assert load(root, class_names='sky, road, car').classes == ('sky', 'road', 'car')

    def test_a_value_that_is_no_class(self, root):
        write_mask(root / 'train' / 'masks' / '3.png', np.full((30, 40), 9))
        dataset = load(root, class_names='a,b,c')
        told = 'image, its mask holds the value 9, which is no class'
        assert dataset.account.left_out[told] == ('train/images/3.jpg',)
        with pytest.raises(UserError, match=r'1 of 8 images .*train/images/3\.jpg: its mask holds the value 9'):
            load(root, class_names='a,b,c', bad_files_limit=0)

    def test_masks_of_nothing_but_black_and_white(self, tmp_path):
        write(tmp_path, 'images', 'masks', values=np.where(VALUES == 1, 255, 0))
        with pytest.raises(UserError, match=r"nothing but 0 and 255.*classes\.txt: 'background 0,0,0' and"):
            load(tmp_path)
        (tmp_path / 'classes.txt').write_text('background 0,0,0\nobject 255,255,255\n')
        dataset = load(tmp_path)
        assert dataset.classes == ('background', 'object')
        np.testing.assert_array_equal(mask_of(dataset, 'images/0.jpg'), VALUES == 1)

    def test_masks_of_16_bits_with_small_values(self, root):
        Image.fromarray(VALUES.astype(np.uint16)).save(root / 'train' / 'masks' / '0.png')
        np.testing.assert_array_equal(mask_of(load(root), 'train/images/0.jpg'), VALUES)

    @pytest.mark.parametrize('bits', [1, 2, 4])
    def test_grey_masks_of_few_bits(self, root, bits):
        """Pillow spreads their values over 0 to 255."""
        values = np.minimum(VALUES, 2**bits - 1)
        (root / 'train' / 'masks' / '0.png').write_bytes(grey_png(values, bits))
        np.testing.assert_array_equal(mask_of(load(root), 'train/images/0.jpg'), values)

    def test_too_many_classes(self, root):
        Image.fromarray(np.full((30, 40), 700, np.uint16)).save(root / 'train' / 'masks' / '0.png')
        with pytest.raises(UserError, match='at most 255 are possible'):
            load(root)

    @pytest.mark.parametrize('value', [-2, 256])
    def test_an_ignored_value_that_no_mask_can_hold(self, root, value):
        with pytest.raises(UserError, match=f"config key 'ignore_label' is a value of 8 bits.*not {value}"):
            load(root, ignore_label=value)


class TestColours:
    COLOURS = np.array([[128, 64, 128], [0, 0, 0], [200, 200, 200]])

    @pytest.fixture
    def root(self, tmp_path):
        write(tmp_path, 'images', 'masks', 6, self.COLOURS[np.minimum(VALUES, 2)])
        return tmp_path

    def test_without_a_table_they_are_refused(self, root):
        message = r"the mask of 'images/0\.jpg' is an RGB image \(the colour .*name them in .*/classes\.txt"
        with pytest.raises(UserError, match=message):
            load(root)

    @pytest.mark.parametrize(
        ('file', 'text'),
        [
            ('classes.txt', 'road 128 64 128\nvoid 0 0 0\npole 200 200 200\n'),
            ('classes.csv', 'name,r,g,b\nroad,128,64,128\nvoid,0,0,0\npole,200,200,200\n'),
            ('labelmap.txt', '# label:color:parts:actions\nroad:128,64,128::\nvoid:0,0,0::\npole:200,200,200::\n'),
            ('label_colors.txt', '128 64 128\troad\n0 0 0\tvoid\n200 200 200\tpole\n'),
        ],
    )
    def test_a_table_of_colours(self, root, file, text):
        (root / file).write_text(text)
        dataset = load(root)
        assert dataset.classes == ('road', 'void', 'pole')
        np.testing.assert_array_equal(mask_of(dataset, 'images/0.jpg'), np.minimum(VALUES, 2))

    def test_a_colour_of_the_table_may_be_ignored(self, root):
        (root / 'classes.txt').write_text('road 128 64 128\nvoid 0 0 0\npole 200 200 200\n')
        dataset = load(root, ignore_label=1)
        assert dataset.classes == ('road', 'pole')
        expected = np.array([0, 255, 1])[np.minimum(VALUES, 2)]
        np.testing.assert_array_equal(mask_of(dataset, 'images/0.jpg'), expected)

    def test_a_colour_that_is_no_class(self, root):
        (root / 'classes.txt').write_text('road 128 64 128\nvoid 0 0 0\n')
        with pytest.raises(UserError, match='its mask holds the colour 200,200,200, which is no class'):
            load(root, bad_files_limit=0)

    @pytest.mark.parametrize(
        ('text', 'told'),
        [
            ('road 1 2 3\nroad 4 5 6\n', "the name 'road' is given twice"),
            ('road 1 2 3\ncar 1 2 3\n', r'the colour \(1, 2, 3\) is given twice'),
            ('road 1 2 3\ncar\n', "the line 'car' has no colour, and others have"),
        ],
    )
    def test_a_table_that_contradicts_itself(self, root, text, told):
        (root / 'classes.txt').write_text(text)
        with pytest.raises(UserError, match=told):
            load(root)

    def test_grey_masks_that_are_saved_in_colour(self, tmp_path):
        write(tmp_path, 'images', 'masks', 6, np.repeat(VALUES[..., None], 3, -1))
        np.testing.assert_array_equal(mask_of(load(tmp_path), 'images/0.jpg'), VALUES)


class TestMasksThatDoNotFit:
    @pytest.mark.parametrize(
        ('spoil', 'told'),
        [
            (lambda file: file.unlink(), r'it has no mask in train/masks/'),
            (lambda file: file.write_bytes(b''), 'its mask cannot be read: empty file'),
            (lambda file: file.write_bytes(b'x'), 'its mask cannot be read: not an image of a known kind'),
            (lambda file: write_mask(file, np.zeros((20, 40))), 'its mask has 40x20 pixels, it has 40x30'),
            (lambda file: Image.fromarray(VALUES).save(file, 'JPEG'), 'its mask cannot be read: a JPEG file'),
        ],
    )
    def test_are_named_and_their_images_left_out(self, root, spoil, told):
        spoil(root / 'train' / 'masks' / '2.png')
        dataset = load(root)
        assert len(dataset.ids) == 7
        assert any(told in kind for kind in dataset.account.left_out)
        with pytest.raises(UserError, match=rf'1 of 8 images .*train/images/2\.jpg: {told}'):
            load(root, bad_files_limit=0)

    def test_masks_without_images(self, root):
        write_mask(root / 'train' / 'masks' / 'z.png', VALUES)
        assert load(root).account.left_out['mask without an image'] == ('train/masks/z.png',)

    @pytest.mark.parametrize(('shape', 'turned'), [((30, 40), False), ((40, 30), True)])
    def test_the_size_of_the_mask_says_whether_the_orientation_tag_counts(self, root, shape, turned):
        write_image(root / 'train' / 'images' / '2.jpg', orientation=6)
        write_mask(root / 'train' / 'masks' / '2.png', np.zeros(shape))
        dataset = load(root, stored_size=40)
        words = '1 image turned upright' if turned else '1 image not turned'
        assert any(text.startswith(words) for text in dataset.account.noticed)
        assert (dataset.stored_size is None) != turned


class TestChanges:
    @pytest.mark.parametrize('limit', [1, 2 << 30], ids=['on demand', 'in memory'])
    def test_a_changed_mask_is_noticed(self, root, tmp_path_factory, monkeypatch, limit):
        monkeypatch.setattr('experiments.data.decoding.MEMORY_LIMIT', limit)
        workdir, before = tmp_path_factory.mktemp('run'), load(root)
        record.write(workdir, before, loading.stamp(f'masks:{root}'))
        assert record.check(workdir, load(root)) == []
        write_mask(root / 'train' / 'masks' / '2.png', np.minimum(VALUES, 1))
        after = load(root)
        assert after.content_digest() != before.content_digest()
        assert not record.is_unchanged(workdir, before.name, loading.stamp(before.name))
        with pytest.raises(UserError, match=r'1 image with another annotation \(train/images/2\.jpg\)'):
            record.check(workdir, after)

    def test_another_ignored_value_is_another_data_set(self, root, monkeypatch):
        monkeypatch.setattr('experiments.data.decoding.MEMORY_LIMIT', 1)
        assert load(root).fingerprint() != load(root, ignore_label=2).fingerprint()

    def test_a_mask_that_changes_while_it_is_used(self, root, monkeypatch):
        monkeypatch.setattr('experiments.data.decoding.MEMORY_LIMIT', 1)
        dataset = load(root)
        index = np.array([dataset.ids.index('train/images/2.jpg')])
        assert dataset.images[index].shape == (1, 30, 40, 4)
        write_mask(root / 'train' / 'masks' / '2.png', np.zeros((30, 40)))
        with pytest.raises(UserError, match=r"masks/2\.png' has changed since the data set was loaded"):
            dataset.images[index]


def test_images_on_demand_can_be_sent_to_another_process(root, monkeypatch):
    monkeypatch.setattr('experiments.data.decoding.MEMORY_LIMIT', 1)
    dataset = load(root, stored_size=20)
    sent = pickle.loads(pickle.dumps(dataset.images))
    np.testing.assert_array_equal(sent[np.arange(8)], dataset.images[np.arange(8)])


def test_masks_are_stored_with_their_nearest_pixels(root):
    dataset = load(root, stored_size=20)
    assert dataset.images.shape == (8, 15, 20, 4)
    mask = mask_of(dataset, 'train/images/0.jpg')
    assert mask[5].tolist() == [0] * 5 + [1] * 5 + [2] * 10
    assert dataset.account.stored == 'at 20x15 (bicubic; masks: nearest)'


def test_the_account(root, capsys):
    write_mask(root / 'val' / 'masks' / '0.png', np.full((30, 40), 2))
    dataset = load(root, class_names='a,b,c')
    found = account.as_json(dataset)
    assert found['images'] == {'train': 5, 'validation': 1, 'test': 2}
    np.testing.assert_allclose(found['pixel_shares']['train'], [0.25, 0.25, 0.5])
    np.testing.assert_allclose(found['ignored_pixels']['train'], 1 / 30)
    account.show(dataset)
    assert '25.0%' in capsys.readouterr().err


def test_values_of_masks_are_refused_elsewhere(tmp_path):
    with pytest.raises(UserError, match="config key 'class_names' is 'a,b', but it is only for masks:PATH"):
        loading.load(f'voc:{tmp_path}', truth='masks', class_names='a,b')


@pytest.mark.parametrize('folder', ['images', 'masks'])
def test_two_files_of_one_name_are_no_pair(root, folder):
    place = root / 'train' / folder
    (place / '0.bmp').write_bytes(b'')
    with pytest.raises(UserError, match=rf"'train/{folder}/0.bmp' and .* have the same name.*exclude='train/{folder}"):
        load(root)
    assert 'train/images/0.jpg' in load(root, exclude='*.bmp').ids


def test_names_of_nothing(root):
    with pytest.raises(UserError, match="config key 'class_names' is 'a,,b'"):
        load(root, class_names='a,,b')


def test_truth_values_are_no_values_of_masks(root):
    (root / 'classes.json').write_text('{"sky": false, "road": true}')
    with pytest.raises(UserError, match='expected a list of names'):
        load(root)
