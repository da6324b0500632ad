"""Data sets in the layout of Pascal VOC: boxes and masks are read as meant, and what makes no sense is named."""

import numpy as np
import pytest
from dense_files import box_of, labels_of, mask_of, split_names, voc_xml, write_image, write_mask, write_voc
from PIL import Image

from backbones import UserError
from experiments.cli import display
from experiments.data import account, loading, record
from experiments.data.dense import voc

CAT, DOG = ('cat', 11, 6, 30, 25), ('dog', 1, 1, 40, 30)
NAMES = ['a', 'b', 'c', 'd', 'e', 'f']
LISTS = {'train': NAMES[:3], 'val': NAMES[3:5], 'test': NAMES[5:]}


def load(root, **values):
    return loading.load(f'voc:{root}', truth='boxes', **values)


@pytest.fixture
def root(tmp_path):
    write_voc(tmp_path, {name: [CAT, DOG] for name in NAMES}, LISTS)
    return tmp_path


class TestBoxes:
    def test_pixels_count_from_one_and_corners_are_inside(self, root):
        dataset = load(root)
        assert box_of(dataset, 'JPEGImages/a.png') == [[10, 5, 30, 25], [0, 0, 40, 30]]
        assert labels_of(dataset, 'JPEGImages/a.png') == ['cat', 'dog']
        assert dataset.truth.area[0].tolist() == [400, 1200]
        assert dataset.truth.sizes.tolist() == [[30, 40]] * 6
        assert dataset.images.shape == (6, 30, 40, 3)
        assert dataset.stored_size is None

    def test_pixels_that_count_from_zero_are_recognised(self, tmp_path):
        write_voc(tmp_path, {name: [('cat', 0, 0, 20, 10), ('cat', 5, 6, 40, 30)] for name in NAMES}, LISTS)
        dataset = load(tmp_path)
        assert box_of(dataset, 'JPEGImages/a.png') == [[0, 0, 20, 10], [5, 6, 40, 30]]
        assert any('pixels count from 0' in text for text in dataset.account.guessed)

    def test_official_classes_keep_their_order(self, root):
        dataset = load(root)
        assert dataset.classes == voc.CLASSES
        assert 'the classes are those of Pascal VOC, in its order' in dataset.account.guessed
        assert '18 of 20 classes missing from the training split' in ' '.join(dataset.account.noticed)

    def test_other_classes_are_sorted(self, root):
        (root / 'Annotations' / 'f.xml').write_text(voc_xml([('zebra', 3, 3, 9, 9), ('ant', 3, 3, 9, 9)]))
        dataset = load(root)
        assert dataset.classes == ('ant', 'cat', 'dog', 'zebra')
        assert (
            '2 of 4 classes missing from the training split (ant, zebra), but not from the others: ant, zebra'
            in dataset.account.noticed
        )

    def test_lists_are_the_splits(self, root):
        dataset = load(root)
        assert split_names(dataset) == {
            'train': {'JPEGImages/a.png', 'JPEGImages/b.png', 'JPEGImages/c.png'},
            'validation': {'JPEGImages/d.png', 'JPEGImages/e.png'},
            'test': {'JPEGImages/f.png'},
        }
        assert dataset.provenance.endswith('; official splits')

    def test_without_a_test_list_the_validation_list_serves_as_one(self, root):
        (root / 'ImageSets' / 'Main' / 'test.txt').unlink()
        dataset = load(root)
        assert split_names(dataset)['test'] == {'JPEGImages/d.png', 'JPEGImages/e.png'}
        assert 'there is no test split, so the validation folder serves as one' in dataset.account.guessed
        assert dataset.account.left_out['image in no list'] == ('JPEGImages/f.png',)

    def test_a_list_without_any_annotation_is_not_used(self, root):
        (root / 'Annotations' / 'f.xml').unlink()
        dataset = load(root)
        assert dataset.account.left_out['image of the test split, which has no annotations'] == ('f',)
        assert 'JPEGImages/f.png' not in dataset.ids

    def test_an_image_of_two_lists_is_only_evaluated(self, root):
        (root / 'ImageSets' / 'Main' / 'train.txt').write_text('a\nb\nc\nf\n')
        dataset = load(root)
        assert split_names(dataset)['test'] == {'JPEGImages/f.png'}
        assert 'JPEGImages/f.png' not in split_names(dataset)['train']
        assert dataset.account.left_out['image listed more than once'] == ('JPEGImages/f.png (train)',)

    def test_without_lists_folders_are_splits(self, tmp_path):
        write_voc(tmp_path, {name: [CAT] for name in ('train/a', 'train/b', 'train/c', 'val/d', 'test/e')})
        assert split_names(load(tmp_path))['validation'] == {'JPEGImages/val/d.png'}

    def test_without_lists_and_folders_a_hash_splits(self, tmp_path):
        write_voc(tmp_path, {f'{number:03d}': [CAT] for number in range(20)})
        dataset = load(tmp_path)
        assert [len(dataset.splits[split]) for split in ('train', 'validation', 'test')] == [14, 2, 4]

    def test_images_without_objects_are_kept(self, root, capsys):
        (root / 'Annotations' / 'a.xml').write_text(voc_xml([]))
        dataset = load(root)
        assert box_of(dataset, 'JPEGImages/a.png') == []
        assert account.as_json(dataset)['images_without_objects'] == {'train': 1, 'validation': 0, 'test': 0}
        account.show(dataset)
        assert 'images without objects' in capsys.readouterr().err

    def test_difficult_objects_are_marked(self, root):
        (root / 'Annotations' / 'a.xml').write_text(voc_xml([CAT, (*DOG, 1)]))
        dataset = load(root)
        assert dataset.truth.difficult[dataset.ids.index('JPEGImages/a.png')].tolist() == [False, True]
        assert dataset.truth.difficult.sum() == 1
        assert '1 objects are marked as difficult; COCO' in ' '.join(dataset.account.noticed)

    def test_the_name_in_the_annotation_finds_an_image_of_another_name(self, root):
        (root / 'JPEGImages' / 'a.png').rename(root / 'JPEGImages' / 'photo.png')
        (root / 'Annotations' / 'a.xml').write_text(voc_xml([CAT], filename='photo.jpg'))
        assert box_of(load(root), 'JPEGImages/photo.png') == [[10, 5, 30, 25]]


class TestWhatMakesNoSense:
    @pytest.mark.parametrize(
        ('bad', 'told'),
        [
            (('cat', 50, 5, 60, 9), 'object, outside its image'),
            (('cat', 9, 5, 9, 20), 'object, without area'),
            (('cat', 20, 5, 9, 20), 'object, inverted: its right or bottom comes before its left or top'),
            (('cat', 'nan', 5, 9, 20), 'object, not finite'),
            (('cat', 'x', 5, 9, 20), 'object, not finite'),
            (('', 4, 5, 9, 20), 'object, it has no name'),
        ],
    )
    def test_is_named_and_left_out(self, root, bad, told):
        (root / 'Annotations' / 'b.xml').write_text(voc_xml([CAT, bad]))
        dataset = load(root, bad_boxes_limit=0.1)
        assert dataset.account.left_out[told] == ('JPEGImages/b.png #2',)
        assert box_of(dataset, 'JPEGImages/b.png') == [[10, 5, 30, 25]]
        with pytest.raises(UserError, match=rf'1 of 12 objects .*{told[8:20]}.*at most 0\.05 .*bad_boxes_limit'):
            load(root)

    def test_boxes_are_clipped_to_the_image(self, root):
        (root / 'Annotations' / 'b.xml').write_text(voc_xml([('cat', -4, 3, 44, 20)]))
        dataset = load(root)
        assert box_of(dataset, 'JPEGImages/b.png') == [[0, 2, 40, 20]]
        assert '1 box clipped to the image, by up to 5 pixels (JPEGImages/b.png #1)' in dataset.account.noticed

    def test_an_image_of_another_size_than_its_annotation_says(self, root):
        (root / 'Annotations' / 'b.xml').write_text(voc_xml([CAT], size=(80, 60)))
        dataset = load(root)
        told = 'image, its annotation says 80x60 pixels, it has 40x30'
        assert dataset.account.left_out[told] == ('JPEGImages/b.png',)
        with pytest.raises(UserError, match=r'1 of 6 images .*JPEGImages/b\.png: its annotation says 80x60.*at most 0'):
            load(root, bad_files_limit=0)

    @pytest.mark.parametrize('size', [None, (0, 0)])
    def test_an_annotation_without_a_size_is_believed(self, root, size):
        (root / 'Annotations' / 'b.xml').write_text(voc_xml([CAT], size=size))
        assert box_of(load(root), 'JPEGImages/b.png') == [[10, 5, 30, 25]]

    @pytest.mark.parametrize(
        ('spoil', 'told'),
        [
            (lambda root: (root / 'JPEGImages/b.png').unlink(), r'JPEGImages/b\.jpg: there is no such image'),
            (lambda root: (root / 'JPEGImages/b.png').write_bytes(b'x'), r'JPEGImages/b\.png: not an image'),
            (lambda root: (root / 'Annotations/b.xml').unlink(), r'b\.png: it has no annotation in Annotations/'),
            (lambda root: (root / 'Annotations/b.xml').write_text('<a>'), r'b\.png: its annotation cannot be read'),
        ],
    )
    def test_images_that_cannot_be_used(self, root, spoil, told):
        spoil(root)
        dataset = load(root)
        assert len(dataset.ids) == 5
        assert '1 image left out' in dataset.provenance
        with pytest.raises(UserError, match=told):
            load(root, bad_files_limit=0)

    def test_no_objects_at_all(self, tmp_path):
        write_voc(tmp_path, {name: [] for name in NAMES}, LISTS)
        with pytest.raises(UserError, match='there are no objects in the annotations'):
            load(tmp_path)


class TestImages:
    @pytest.mark.parametrize(
        ('orientation', 'said', 'turned'),
        [
            (6, (40, 30), False),  # the annotation is of the pixels as the file has them
            (6, (30, 40), True),
            (6, None, False),  # VOC's tools know nothing of the tag
            (3, (40, 30), False),
        ],
    )
    def test_the_annotation_says_whether_the_orientation_tag_counts(self, root, orientation, said, turned):
        write_image(root / 'JPEGImages' / 'b.png', orientation=orientation)
        (root / 'Annotations' / 'b.xml').write_text(voc_xml([('cat', 1, 1, 20, 30)], size=said))
        dataset = load(root)
        index = dataset.ids.index('JPEGImages/b.png')
        assert dataset.truth.sizes[index].tolist() == ([40, 30] if turned else [30, 40])
        words = 'turned upright' if turned else 'not turned'
        assert any(text.startswith(f'1 image {words} by the orientation tag') for text in dataset.account.noticed)
        if not turned:
            plain = np.asarray(Image.open(root / 'JPEGImages' / 'b.png'))
            np.testing.assert_array_equal(dataset.images[np.array([index])][0], plain)

    def test_mixed_sizes_become_squares_and_boxes_lie_on_their_objects(self, tmp_path):
        """The brightest pixels of each image are in its box, wherever the letterbox puts it."""
        write_voc(tmp_path, {name: [] for name in NAMES}, LISTS)
        sizes = {'a': (80, 40), 'b': (40, 80), 'c': (16, 16), 'e': (33, 57), 'f': (64, 64)}
        write_image(tmp_path / 'JPEGImages' / 'd.png', (1, 1))
        (tmp_path / 'Annotations' / 'd.xml').write_text(voc_xml([], (1, 1)))
        for name, size in sizes.items():
            box = (size[0] // 4, size[1] // 2, size[0] // 4 + max(size[0] // 2, 1), size[1])
            pixels = np.zeros((size[1], size[0]), np.uint8)
            pixels[box[1] : box[3], box[0] : box[2]] = 255
            Image.fromarray(pixels).save(tmp_path / 'JPEGImages' / f'{name}.png')
            xml = voc_xml([('cat', box[0] + 1, box[1] + 1, box[2], box[3])], size)
            (tmp_path / 'Annotations' / f'{name}.xml').write_text(xml)
        dataset = load(tmp_path, stored_size=64)
        assert dataset.images.shape == (6, 64, 64, 3)
        assert dataset.stored_size == (64, 64)
        assert dataset.truth.stored((64, 64))[3].tolist() == [[0, 0, 0, 0]]
        for name in sizes:
            index = dataset.ids.index(f'JPEGImages/{name}.png')
            image, boxes = dataset.images[index], dataset.truth.stored((64, 64))[index]
            rows, columns = np.nonzero(image[..., 0] > 200)
            found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_allclose(boxes[0], found, atol=2)

    def test_images_of_one_large_size_keep_their_aspect(self, root):
        dataset = load(root, stored_size=20)
        assert dataset.images.shape == (6, 15, 20, 3)
        np.testing.assert_allclose(dataset.truth.stored(dataset.stored_size)[0, 0], [5, 2.5, 15, 12.5])
        assert dataset.account.stored == 'at 20x15 (bicubic)'

    def test_deep_grey_images_share_a_scale(self, root):
        values = np.full((30, 40), 4095, np.uint16)
        Image.fromarray(values).save(root / 'JPEGImages' / 'a.png')
        dataset = load(root)
        assert dataset.images[dataset.ids.index('JPEGImages/a.png')].min() == 255
        assert dataset.reading.grey_range == (0, 4095)

    def test_images_that_are_decoded_on_demand(self, root, monkeypatch):
        kept = load(root, stored_size=20)
        monkeypatch.setattr('experiments.data.decoding.MEMORY_LIMIT', 1)
        lazy = load(root, stored_size=20)
        np.testing.assert_array_equal(lazy.images[np.arange(6)], kept.images)


class TestLayout:
    def test_the_folder_above(self, tmp_path):
        write_voc(tmp_path / 'VOCdevkit' / 'VOC2012', {'a': [CAT]})
        inner = tmp_path / 'VOCdevkit' / 'VOC2012'
        with pytest.raises(UserError, match=f'there is no JPEGImages/ .*the data set seems to be voc:{inner}'):
            load(tmp_path)

    def test_something_else(self, tmp_path):
        (tmp_path / 'images').mkdir()
        with pytest.raises(UserError, match=r'there is no JPEGImages/ in .*, but images; expected a folder with'):
            load(tmp_path)

    def test_a_wrong_path_offers_its_neighbour(self, root):
        with pytest.raises(UserError, match=f'did you mean {root.name!r}'):
            load(f'{root}x')

    def test_two_images_of_one_name(self, root):
        write_image(root / 'JPEGImages' / 'more' / 'a.jpg')
        with pytest.raises(UserError, match='have the same name'):
            load(root)

    def test_excluded_images(self, root):
        dataset = load(root, exclude='a.png')
        assert 'JPEGImages/a.png' not in dataset.ids
        assert dataset.account.left_out['excluded'] == ('JPEGImages/a.png',)
        with pytest.raises(UserError, match="the pattern 'zzz' of config key exclude matches nothing"):
            load(root, exclude='zzz')

    def test_groups_stay_together(self, tmp_path):
        write_voc(tmp_path, {f'p{number // 4}_{number}': [CAT] for number in range(40)})
        dataset = load(tmp_path, group=r'p\d+_')
        groups = [{name.split('_')[0] for name in names} for names in split_names(dataset).values()]
        assert sum(map(len, groups)) == 10

    def test_squashed_images_are_refused(self, root):
        with pytest.raises(UserError, match=r"config key 'fit' is 'squash', but images of .* keep their aspect ratio"):
            load(root, fit='squash')

    def test_not_for_classification(self, root):
        with pytest.raises(UserError, match='has boxes and masks, but the task needs a class for each image; choose'):
            loading.load(f'voc:{root}')


class TestChanges:
    def test_a_changed_annotation_is_noticed(self, root, tmp_path_factory):
        workdir = tmp_path_factory.mktemp('run')
        before = loading.stamp(f'voc:{root}')
        record.write(workdir, load(root), before)
        assert record.check(workdir, load(root)) == []
        (root / 'Annotations' / 'b.xml').write_text(voc_xml([CAT]))
        assert loading.stamp(f'voc:{root}') != before
        with pytest.raises(UserError, match=r'1 image with another annotation \(JPEGImages/b\.png\)'):
            record.check(workdir, load(root))

    def test_a_changed_image_is_noticed(self, root, tmp_path_factory):
        workdir = tmp_path_factory.mktemp('run')
        record.write(workdir, load(root))
        write_image(root / 'JPEGImages' / 'b.png', seed=1)
        with pytest.raises(UserError, match=r'1 image replaced under the same name \(JPEGImages/b\.png\)'):
            record.check(workdir, load(root))

    def test_a_work_directory_is_not_the_data(self, root):
        with pytest.raises(UserError, match='choose another --workdir'):
            loading.check_place(root, f'voc:{root}')


class TestMasks:
    @pytest.fixture
    def root(self, tmp_path):
        for name in NAMES:
            write_image(tmp_path / 'JPEGImages' / f'{name}.jpg')
            values = np.zeros((30, 40))
            values[5:20, 10:30] = 8
            values[4, 10:30] = 255
            write_mask(tmp_path / 'SegmentationClass' / f'{name}.png', values, 'P')
        lists = tmp_path / 'ImageSets' / 'Segmentation'
        lists.mkdir(parents=True)
        for split, names in LISTS.items():
            (lists / f'{split}.txt').write_text('\n'.join(names))
        return tmp_path

    def load(self, root, **values):
        return loading.load(f'voc:{root}', truth='masks', **values)

    def test_the_index_of_the_palette_is_the_class(self, root):
        dataset = self.load(root)
        assert dataset.classes == ('background', *voc.CLASSES)
        assert dataset.images.shape == (6, 30, 40, 4)
        mask = mask_of(dataset, 'JPEGImages/a.jpg')
        assert np.unique(mask).tolist() == [0, 8, 255]
        assert (mask[5:20, 10:30] == 8).all()
        assert split_names(dataset)['test'] == {'JPEGImages/f.jpg'}

    def test_official_colours(self, root):
        """The colours of cat and of the border, as the devkit paints them."""
        pixels = np.zeros((30, 40, 3))
        pixels[5:20, 10:30] = 64, 0, 0
        pixels[4, 10:30] = 224, 224, 192
        write_mask(root / 'SegmentationClass' / 'b.png', pixels)
        dataset = self.load(root)
        np.testing.assert_array_equal(mask_of(dataset, 'JPEGImages/b.jpg'), mask_of(dataset, 'JPEGImages/a.jpg'))

    def test_a_value_that_is_no_class(self, root):
        write_mask(root / 'SegmentationClass' / 'b.png', np.full((30, 40), 77))
        dataset = self.load(root)
        assert dataset.account.left_out['image, its mask holds the value 77, which is no class'] == (
            'JPEGImages/b.jpg',
        )
        with pytest.raises(UserError, match='its mask holds the value 77, which is no class'):
            self.load(root, bad_files_limit=0)

    def test_names_and_colours_of_a_label_map(self, root):
        (root / 'labelmap.txt').write_text('# label:color_rgb:parts:actions\nroad:128,64,128::\nsky:0,0,255::\n')
        for name in NAMES:
            pixels = np.full((30, 40, 3), (128, 64, 128))
            pixels[:10] = 0, 0, 255
            write_mask(root / 'SegmentationClass' / f'{name}.png', pixels)
        dataset = self.load(root)
        assert dataset.classes == ('road', 'sky')
        assert (mask_of(dataset, 'JPEGImages/a.jpg')[:10] == 1).all()
        assert (mask_of(dataset, 'JPEGImages/a.jpg')[10:] == 0).all()

    def test_an_image_without_a_mask(self, root):
        (root / 'SegmentationClass' / 'b.png').unlink()
        with pytest.raises(UserError, match=r'JPEGImages/b\.jpg: it has no mask in SegmentationClass/'):
            self.load(root, bad_files_limit=0)


def test_the_account_shows_the_classes_that_occur(tmp_path):
    write_voc(tmp_path, {f'{number:03d}': [('tvmonitor', 2, 2, 20, 20), ('sheep', 5, 5, 9, 9)] for number in range(9)})
    dataset = loading.load(f'voc:{tmp_path}', truth='boxes')
    assert len(dataset.classes) == 20
    with display.console.capture() as captured:
        account.show(dataset)
    shown = [line.split()[1] for line in captured.get().splitlines() if line.startswith('│')]
    assert 'tvmonitor' in shown
    assert 'sheep' in shown
    assert shown.index('aeroplane') < shown.index('sheep') < shown.index('tvmonitor') < shown.index('10')
