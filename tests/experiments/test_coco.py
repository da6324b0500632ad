"""Data sets in the layout of COCO: boxes, and masks that are painted from polygons and run lengths."""

import numpy as np
import pytest
from dense_files import box_of, labels_of, mask_of, split_names, write_image, write_json
from pycocotools import mask as coco_mask

from backbones import UserError
from experiments.data import account, loading, record
from experiments.data.dense import painting

CATEGORIES = [{'id': 7, 'name': 'dog'}, {'id': 3, 'name': 'cat'}, {'id': 90, 'name': 'emu'}]
SIZE = {'width': 40, 'height': 30}


def annotation(number: int, image: int, category: int = 3, bbox=(10, 5, 20, 10), **more) -> dict:
    common = {'id': number, 'image_id': image, 'category_id': category, 'bbox': list(bbox), 'iscrowd': 0}
    return {**common, 'segmentation': [[10, 5, 30, 5, 30, 15, 10, 15]], **more}


def document(names, annotations, first=0, categories=CATEGORIES) -> dict:
    """Images with ids from ``first``."""
    images = [{'id': first + place, 'file_name': name, **SIZE} for place, name in enumerate(names)]
    return {'images': images, 'annotations': annotations, 'categories': categories}


@pytest.fixture
def root(tmp_path):
    """Two splits; images of training have ids from 0, and of validation from 100."""
    for split, first, count in (('train2017', 0, 6), ('val2017', 100, 2)):
        names = [f'{number:03d}.png' for number in range(count)]
        for name in names:
            write_image(tmp_path / split / name)
        boxes = [annotation(1 + place, first + place) for place in range(count)]
        write_json(tmp_path / 'annotations' / f'instances_{split}.json', document(names, boxes, first))
    return tmp_path


def rewrite(root, annotations, names=('000.png', '001.png', '002.png', '003.png', '004.png', '005.png'), **more):
    write_json(root / 'annotations' / 'instances_train2017.json', document(names, annotations, **more))


def load(root, truth='boxes', **values):
    return loading.load(f'coco:{root}', truth=truth, **values)


class TestBoxes:
    def test_classes_in_the_order_of_their_ids(self, root):
        rewrite(root, [annotation(1, 0, 90, (1, 2, 3, 4)), annotation(2, 0, 7, (10, 5, 20.5, 10))])
        dataset = load(root)
        assert dataset.classes == ('cat', 'dog', 'emu')
        assert labels_of(dataset, 'train2017/000.png') == ['emu', 'dog']
        assert box_of(dataset, 'train2017/000.png') == [[1, 2, 4, 6], [10, 5, 30.5, 15]]
        assert box_of(dataset, 'train2017/001.png') == []

    def test_the_validation_split_serves_as_the_test(self, root):
        dataset = load(root)
        assert split_names(dataset)['test'] == {'val2017/000.png', 'val2017/001.png'}
        assert [len(dataset.splits[split]) for split in ('train', 'validation')] == [5, 1]
        assert 'there is no test split, so the validation folder serves as one' in dataset.account.guessed

    def test_crowds_and_areas_are_kept(self, root):
        rewrite(root, [annotation(1, 0, area=55.5), annotation(2, 0, iscrowd=1, area=0)])
        dataset = load(root)
        index = dataset.ids.index('train2017/000.png')
        assert dataset.truth.crowd[index].tolist() == [False, True]
        assert dataset.truth.area[index].tolist() == [55.5, 200]

    def test_roboflow_keeps_annotations_among_the_images(self, tmp_path):
        for split in ('train', 'valid', 'test'):
            names = [f'{split}{number}.jpg' for number in range(2)]
            for name in names:
                write_image(tmp_path / split / name)
            write_json(tmp_path / split / '_annotations.coco.json', document(names, [annotation(0, 0)]))
        dataset = load(tmp_path)
        assert split_names(dataset)['validation'] == {'valid/valid0.jpg', 'valid/valid1.jpg'}
        assert box_of(dataset, 'valid/valid0.jpg') == [[10, 5, 30, 15]]

    @pytest.mark.parametrize('truth', ['boxes', 'masks'])
    def test_a_category_that_only_stands_for_others(self, tmp_path, truth):
        categories = [
            {'id': 0, 'name': 'cells', 'supercategory': 'none'},
            {'id': 1, 'name': 'red', 'supercategory': 'cells'},
            {'id': 2, 'name': 'cells', 'supercategory': 'cells'},
            {'id': 3, 'name': 'odd', 'supercategory': 'odd'},  # of itself alone
        ]
        for split, label in (('train', 1), ('valid', 2)):
            names = [f'{split}{number}.jpg' for number in range(3)]
            for name in names:
                write_image(tmp_path / split / name)
            found = document(names, [annotation(0, 0, label)], categories=categories)
            write_json(tmp_path / split / '_annotations.coco.json', found)
        dataset = load(tmp_path, truth)
        assert dataset.classes[truth == 'masks' :] == ('red', 'cells', 'odd')
        told = "the category 'cells' has no object and is the supercategory of others, so it is no class"
        assert told in dataset.account.guessed
        # With an object it is a class like any other.
        found = document(names, [annotation(0, 0, 0)], categories=categories)
        write_json(tmp_path / 'valid' / '_annotations.coco.json', found)
        dataset = load(tmp_path, truth)
        assert dataset.classes[truth == 'masks' :] == ('cells (0)', 'red', 'cells (2)', 'odd')

    def test_one_file_without_a_split_is_split_by_a_hash(self, tmp_path):
        names = [f'{number:03d}.png' for number in range(20)]
        for name in names:
            write_image(tmp_path / 'images' / name)
        write_json(tmp_path / 'annotations.json', document(names, [annotation(1, 0)]))
        dataset = load(tmp_path)
        assert len(dataset.splits['test']) == 4
        assert dataset.ids[0] == 'images/000.png'

    @pytest.mark.parametrize('truth', ['boxes', 'masks'])
    def test_a_file_is_all_of_the_data_and_is_split(self, root, truth):
        other = load(root, truth)
        file = root / 'annotations' / 'instances_val2017.json'
        names = [f'{number:03d}.png' for number in range(20)]
        for name in names:
            write_image(root / 'val2017' / name)
        write_json(file, document(names, [annotation(1 + number, number) for number in range(20)]))
        dataset = loading.load(f'coco:{file}', truth=truth)
        assert dataset.ids == tuple(f'val2017/{name}' for name in names) and dataset.classes == other.classes
        assert len(dataset.splits['test']) == 4 and sum(map(len, dataset.splits.values())) == 20
        before = loading.stamp(f'coco:{file}')
        assert before == loading.stamp(f'coco:{root}')
        write_image(root / 'val2017' / '000.png', (40, 31))
        assert loading.stamp(f'coco:{file}') not in (before, None)
        with pytest.raises(UserError, match='is the folder of images itself'):
            loading.check_place(root, f'coco:{file}')
        with pytest.raises(UserError, match=r'000\.png. is no JSON file; expected an annotation file, or a folder'):
            load(root / 'val2017' / '000.png', truth)

    def test_a_file_among_its_images(self, tmp_path):
        names = [f'{number:03d}.png' for number in range(20)]
        for name in names:
            write_image(tmp_path / 'valid' / name)
        write_json(tmp_path / 'valid' / '_annotations.coco.json', document(names, [annotation(1, 0)]))
        dataset = load(tmp_path / 'valid' / '_annotations.coco.json')
        assert dataset.ids == tuple(names) and len(dataset.splits['test']) == 4

    def test_a_box_is_taken_from_polygons_where_there_is_none(self, root):
        outline = [[1, 2, 9, 2, 9, 20], [5, 5, 12, 5, 12, 6]]
        rewrite(root, [{'id': 1, 'image_id': 0, 'category_id': 3, 'segmentation': outline}])
        assert box_of(load(root), 'train2017/000.png') == [[1, 2, 12, 20]]

    def test_annotations_of_other_kinds_are_named(self, root):
        write_json(root / 'annotations' / 'captions_train2017.json', {'images': [], 'annotations': []})
        dataset = load(root)
        assert dataset.account.left_out['file that annotates no objects'] == ('annotations/captions_train2017.json',)

    def test_images_that_no_file_lists(self, root):
        write_image(root / 'train2017' / 'more.png')
        assert load(root).account.left_out['image in no annotation file'] == ('train2017/more.png',)


class TestWhatMakesNoSense:
    @pytest.mark.parametrize(
        ('bad', 'reason', 'name'),
        [
            (annotation(9, 0, bbox=(50, 5, 4, 4)), 'object, outside its image', 'train2017/000.png #2'),
            (annotation(9, 0, bbox=(5, 5, 0, 4)), 'object, without area', 'train2017/000.png #2'),
            (
                annotation(9, 0, bbox=(5, 5, -3, 4)),
                'object, inverted: its right or bottom comes before its left or top',
                'train2017/000.png #2',
            ),
            (annotation(9, 0, bbox=(float('nan'), 5, 3, 4)), 'object, not finite', 'train2017/000.png #2'),
            (annotation(9, 0, bbox=(5, 5, 3)), 'object, it has no box of four numbers', 'train2017/000.png #2'),
            (annotation(9, 0, 4), 'object, its class is unknown, category 4', 'train2017/000.png #2'),
            (
                annotation(9, 77),
                'object of an image that is not listed',
                'annotations/instances_train2017.json annotation 9',
            ),
        ],
    )
    def test_is_named_and_left_out(self, root, bad, reason, name):
        rewrite(root, [annotation(1, 0), bad])
        dataset = load(root, bad_boxes_limit=0.3)
        assert dataset.account.left_out[reason] == (name,)
        assert box_of(dataset, 'train2017/000.png') == [[10, 5, 30, 15]]
        with pytest.raises(UserError, match=r'1 of 4 objects of .* make no sense: .*config key bad_boxes_limit'):
            load(root)

    def test_corners_in_place_of_width_and_height(self, root):
        """Only those of boxes at the right and below reach out by as much, and all of them look like corners."""
        corners = [(2, 2, 8, 9), (25, 20, 38, 29), (22, 3, 39, 12), (5, 18, 12, 28), (1, 1, 4, 4), (3, 5, 9, 9)]
        rewrite(root, [annotation(1 + number, number, bbox=box) for number, box in enumerate(corners)])
        found = document(['000.png', '001.png'], [annotation(1, 101, bbox=(21, 16, 38, 28))], 100)
        write_json(root / 'annotations' / 'instances_val2017.json', found)
        told = (
            r'4 of 7 objects of .*: 4 object, more than half of it outside its image \(train2017/001\.png #1\); do '
            'their boxes hold left, top, right, bottom instead of width and height. at most 0.05 .*bad_boxes_limit'
        )
        with pytest.raises(UserError, match=told):
            load(root)
        assert len(load(root, bad_boxes_limit=0.6).account.left_out) == 1

    @pytest.mark.parametrize(
        ('box', 'kept'),
        [
            ((37, 0, 7, 10), [37, 0, 40, 10]),  # a thin box that slipped over the edge by four pixels
            ((37, 0, 8, 10), None),
            ((38, -2, 1, 4), [38, 0, 39, 2]),  # just half
            ((-4, -4, 10, 10), [0, 0, 6, 6]),
            ((-15, 2, 31, 10), [0, 2, 16, 12]),  # far out, but less than half of it
            ((-16, 2, 31, 10), None),
        ],
    )
    def test_boxes_that_reach_out_by_more_than_a_slip(self, root, box, kept):
        rewrite(root, [annotation(1, 0, bbox=box), *(annotation(2 + number, 1 + number) for number in range(5))])
        if kept:
            assert box_of(load(root), 'train2017/000.png') == [kept]
            return
        with pytest.raises(UserError, match='more than half of it outside') as caught:
            load(root)
        assert 'boxes hold' not in str(caught.value)  # the others would be no corners
        dataset = load(root, bad_boxes_limit=0.2)
        reason = 'object, more than half of it outside its image'
        assert dataset.account.left_out[reason] == ('train2017/000.png #1',)

    def test_an_image_that_is_not_there(self, root):
        (root / 'train2017' / '003.png').unlink()
        assert 'train2017/003.png' not in load(root).ids
        with pytest.raises(UserError, match=r'1 of 8 images .*train2017/003\.png: No such file'):
            load(root, bad_files_limit=0)

    def test_ids_that_occur_twice(self, root):
        rewrite(root, [annotation(1, 0), annotation(1, 1), annotation(2, 2), annotation(2, 2)])
        dataset = load(root)
        assert len(box_of(dataset, 'train2017/002.png')) == 1
        assert box_of(dataset, 'train2017/001.png')
        assert any(text.startswith('2 annotations have the id of another one') for text in dataset.account.noticed)

    def test_two_images_of_one_id(self, root):
        found = document(['000.png', '001.png'], [])
        found['images'][1]['id'] = 0
        write_json(root / 'annotations' / 'instances_train2017.json', found)
        with pytest.raises(UserError, match=r"both '000\.png' and '001\.png' have the id 0"):
            load(root)

    def test_categories_that_differ(self, root):
        rewrite(root, [annotation(1, 0)], categories=[{'id': 3, 'name': 'lion'}])
        with pytest.raises(UserError, match=r"category 3 is 'lion' in .*train2017\.json, and 'cat' in .*val2017\.json"):
            load(root)

    def test_names_that_occur_twice_are_told_apart(self, root):
        for split in ('train2017', 'val2017'):
            categories = [{'id': 3, 'name': 'cat'}, {'id': 5, 'name': 'cat'}]
            found = document(['000.png', '001.png'], [annotation(1, 0)], categories=categories)
            write_json(root / 'annotations' / f'instances_{split}.json', found)
        assert load(root).classes == ('cat (3)', 'cat (5)')

    @pytest.mark.parametrize('text', ['', '[1', '\x00'])
    def test_a_damaged_file(self, root, text):
        (root / 'annotations' / 'instances_train2017.json').write_text(text)
        with pytest.raises(UserError, match=r"instances_train2017\.json' cannot be read"):
            load(root)

    def test_an_entry_without_a_name(self, root):
        write_json(
            root / 'annotations' / 'instances_train2017.json',
            {'images': [{'id': 1}], 'annotations': [], 'categories': CATEGORIES},
        )
        with pytest.raises(UserError, match=r"instances_train2017\.json: entry 0 of images has no 'file_name'"):
            load(root)

    @pytest.mark.parametrize(
        ('entry', 'told'),
        [
            (5, "entry 0 of annotations has no 'id'"),
            (annotation(1, 0) | {'category_id': [1]}, r"entry 0 of annotations has \[1\] as 'category_id'"),
            (annotation(1, 0) | {'image_id': None}, "entry 0 of annotations has no 'image_id'"),
        ],
    )
    def test_an_entry_that_is_no_annotation(self, root, entry, told):
        rewrite(root, [entry])
        with pytest.raises(UserError, match=told):
            load(root)

    def test_a_crowd_may_be_written_as_text(self, root):
        rewrite(root, [annotation(1, 0, iscrowd='1'), annotation(2, 0, iscrowd='0')])
        assert load(root).truth.crowd[0].tolist() == [True, False]

    def test_no_image_can_be_used(self, root):
        for file in root.glob('*/*.png'):
            file.write_bytes(b'')
        with pytest.raises(UserError, match=r'8 of 8 images .* cannot be used \(val2017/000\.png: empty file; '):
            load(root)

    def test_a_file_of_no_split(self, root):
        write_json(root / 'annotations' / 'instances_mine.json', document([], []))
        with pytest.raises(UserError, match=r'does not tell which split .*config\.exclude=.annotations/instances_mine'):
            load(root)
        assert len(load(root, exclude='annotations/instances_mine.json').ids) == 8

    def test_two_files_of_one_split(self, root):
        write_json(root / 'annotations' / 'instances_train2014.json', document([], []))
        with pytest.raises(UserError, match=r'train2014\.json and .*train2017\.json in .* are of the train split'):
            load(root)

    def test_another_layout(self, tmp_path):
        write_image(tmp_path / 'train' / 'a.png')
        with pytest.raises(UserError, match=r'there are no annotation files in .*, but train; expected annotations/'):
            load(tmp_path)

    def test_an_orientation_tag_that_the_size_contradicts(self, root):
        """The size is that of the file's pixels, so the box is too, and the tag is not applied."""
        write_image(root / 'train2017' / '000.png', orientation=6)
        dataset = load(root)
        assert dataset.truth.sizes[dataset.ids.index('train2017/000.png')].tolist() == [30, 40]


class TestMasks:
    @pytest.mark.parametrize(('count', 'fits'), [(254, True), (255, False)])
    def test_more_categories_than_a_mask_can_hold(self, root, count, fits):
        """With the background 255 classes, from 0 to 254: 255 is what counts for nothing."""
        categories = [{'id': number, 'name': f'class {number}'} for number in range(1, count + 1)]
        for split, first in (('train2017', 0), ('val2017', 100)):
            names = [f'{number:03d}.png' for number in range(6 if first == 0 else 2)]
            objects = [annotation(1 + place, first + place, count) for place in range(len(names))]
            file = root / 'annotations' / f'instances_{split}.json'
            write_json(file, document(names, objects, first, categories=categories))
        if fits:
            dataset = load(root, 'masks')
            assert len(dataset.classes) == 255
            assert dataset.images[0, 10, 20, 3] == 254
        else:
            with pytest.raises(UserError, match='has 256 classes, with the background; masks hold at most 255'):
                load(root, 'masks')
            assert len(load(root).classes) == 255

    def polygon(self, left, top, right, bottom):
        return [[left, top, right, top, right, bottom, left, bottom]]

    def test_smaller_objects_lie_on_top(self, root):
        large, small = self.polygon(5, 5, 35, 25), self.polygon(10, 10, 20, 20)
        rewrite(root, [annotation(1, 0, 7, segmentation=small), annotation(2, 0, 3, segmentation=large)])
        dataset = load(root, 'masks')
        assert dataset.classes == ('background', 'cat', 'dog', 'emu')
        mask = mask_of(dataset, 'train2017/000.png')
        assert np.bincount(mask.ravel()).tolist() == [600, 500, 100]
        assert (mask[10:20, 10:20] == 2).all()
        assert mask[0, 0] == 0
        assert dataset.truth.pixels[dataset.ids.index('train2017/000.png')].tolist() == [600, 500, 100, 0, 0]

    @pytest.mark.filterwarnings('ignore:__array__ implementation')  # pycocotools with numpy 2
    @pytest.mark.parametrize('compressed', [True, False])
    def test_run_lengths(self, root, compressed):
        expected = np.zeros((30, 40), np.uint8, order='F')
        expected[3:12, 7:19] = 1
        if compressed:
            runs = coco_mask.encode(expected)
            runs['counts'] = runs['counts'].decode()
        else:
            flat = expected.ravel('F').astype(int)
            ends = np.flatnonzero(np.diff(flat)) + 1
            runs = {'size': [30, 40], 'counts': np.diff([0, *ends, flat.size]).tolist()}
        rewrite(root, [annotation(1, 0, segmentation=runs)])
        np.testing.assert_array_equal(mask_of(load(root, 'masks'), 'train2017/000.png'), expected)

    def test_crowds_are_ignored_below_other_objects(self, root):
        crowd, single = self.polygon(5, 5, 15, 15), self.polygon(0, 0, 40, 10)
        rewrite(root, [annotation(1, 0, segmentation=crowd, iscrowd=1), annotation(2, 0, segmentation=single)])
        mask = mask_of(load(root, 'masks'), 'train2017/000.png')
        assert (mask[10:15, 5:15] == 255).all()
        assert (mask[5:10, 5:15] == 1).all()

    @pytest.mark.parametrize(
        ('segmentation', 'told'),
        [
            (None, 'it has no segmentation'),
            ([], 'it has no segmentation'),
            ([[1, 2, 3, 4]], 'a polygon of it has not three corners or more'),
            ([[1, 2, 3, 4, float('nan'), 6]], 'a polygon of it is not finite'),
            ([[1, 2, 3, 4, 1e9, 6]], 'a polygon of it reaches far out of its image'),
            ({'size': [30, 40], 'counts': [1, 2]}, 'its run lengths do not add up to the pixels of its image'),
            ({'size': [3, 4], 'counts': [12]}, r'its run lengths are for [3, 4], not for [30, 40]'),
            ({'size': [30, 40], 'counts': 7}, 'its run lengths are neither numbers nor text'),
            ({'size': [30, 40], 'counts': [1200]}, 'its segmentation is empty'),
        ],
    )
    def test_outlines_that_make_no_sense(self, root, segmentation, told):
        good = annotation(1, 0, segmentation=self.polygon(5, 5, 35, 25))
        rewrite(root, [good, annotation(2, 1, segmentation=segmentation)])
        (root / 'annotations' / 'instances_val2017.json').unlink()
        dataset = load(root, 'masks', bad_boxes_limit=0.5)
        assert dataset.account.left_out[f'object, {told}'] == ('train2017/001.png annotation 2',)
        with pytest.raises(UserError, match=r'1 of 2 objects of .* make no sense'):
            load(root, 'masks')

    def test_damaged_run_lengths(self, root):
        damaged = {'size': [30, 40], 'counts': 'not run lengths at all'}
        rewrite(root, [annotation(1, 0, segmentation=damaged)])
        (root / 'annotations' / 'instances_val2017.json').unlink()
        with pytest.raises(UserError, match='its run lengths are damaged'):
            load(root, 'masks')

    def test_mixed_sizes_are_letterboxed_with_their_masks(self, root):
        """Pixels around the image are ignored, and the mask lies on its object."""
        rewrite(root, [annotation(1, 0, segmentation=self.polygon(0, 0, 40, 30))])
        write_json(
            root / 'annotations' / 'instances_val2017.json',
            {
                'images': [{'id': 0, 'file_name': '000.png', 'width': 10, 'height': 20}],
                'annotations': [annotation(1, 0, segmentation=self.polygon(0, 0, 10, 10))],
                'categories': CATEGORIES,
            },
        )
        write_image(root / 'val2017' / '000.png', (10, 20))
        dataset = load(root, 'masks', stored_size=40)
        assert dataset.images.shape[1:] == (40, 40, 4)
        mask = mask_of(dataset, 'val2017/000.png')
        assert (mask[:, :10] == 255).all()
        assert (mask[:, 30:] == 255).all()
        assert (mask[:20, 10:30] == 1).all()
        assert (mask[20:, 10:30] == 0).all()

    def test_a_changed_outline_is_noticed(self, root, tmp_path_factory):
        workdir = tmp_path_factory.mktemp('run')
        for split, first in (('train2017', 0), ('val2017', 100)):
            found = document(['000.png', '001.png'], [annotation(1, first, segmentation=[[1, 1, 9, 1, 9, 9]])], first)
            write_json(root / 'annotations' / f'instances_{split}.json', found)
        record.write(workdir, load(root, 'masks'))
        rewrite(root, [annotation(1, 0, segmentation=[[1, 1, 9, 1, 9, 19]])], ['000.png', '001.png'])
        with pytest.raises(UserError, match=r'1 image with another annotation \(train2017/000\.png\)'):
            record.check(workdir, load(root, 'masks'))

    def test_the_account_says_the_share_of_each_class(self, root, capsys):
        for split, first in (('train2017', 0), ('val2017', 100)):
            found = document(
                ['000.png', '001.png'], [annotation(1, first, segmentation=self.polygon(0, 0, 20, 30))], first
            )
            write_json(root / 'annotations' / f'instances_{split}.json', found)
        dataset = load(root, 'masks')
        assert account.as_json(dataset)['pixel_shares']['test'] == [0.75, 0.25, 0, 0]
        account.show(dataset)
        assert '75.0%' in capsys.readouterr().err


def test_more_classes_than_masks_can_tell_apart(root):
    categories = [{'id': number, 'name': f'class {number}'} for number in range(255)]
    rewrite(root, [annotation(1, 0)], categories=categories)
    write_json(root / 'annotations' / 'instances_val2017.json', document([], [], categories=categories))
    with pytest.raises(UserError, match='256 classes, with the background; masks hold at most 255'):
        load(root, 'masks')
    rewrite(root, [annotation(1, 0)], categories=categories[:254])
    write_json(root / 'annotations' / 'instances_val2017.json', document([], [], categories=categories[:254]))
    assert len(load(root, 'masks').classes) == 255


@pytest.mark.parametrize('truth', ['boxes', 'masks'])
def test_annotations_without_any_object(root, truth):
    rewrite(root, [])
    write_json(root / 'annotations' / 'instances_val2017.json', document(['000.png', '001.png'], [], 100))
    with pytest.raises(UserError, match='there are no objects in the annotations'):
        load(root, truth)


@pytest.mark.parametrize(
    ('counts', 'told'),
    [
        ('xxx', 'are damaged'),  # pycocotools decodes it to whatever the memory held
        ('', 'are damaged'),
        ('0', 'do not add up to the pixels of its image'),
        ('ZZZZ', 'are damaged'),
        ('o' * 20, 'are damaged'),
        ('\u00e4', 'are damaged'),
        (coco_mask.encode(np.asfortranarray(np.eye(30, 40, dtype=np.uint8)))['counts'].decode(), ''),
    ],
)
def test_compressed_run_lengths_must_add_up(root, counts, told):
    right = not told
    outline = {'size': [30, 40], 'counts': counts}
    rewrite(root, [annotation(1, 0), annotation(2, 1, segmentation=outline)])
    dataset = load(root, 'masks', bad_boxes_limit=0.5)
    found = [reason for reason in dataset.account.left_out if reason.startswith('object, its run lengths')]
    assert found == ([] if right else [f'object, its run lengths {told}'])
    expected = np.eye(30, 40, dtype=np.uint8) if right else np.zeros((30, 40), np.uint8)
    np.testing.assert_array_equal(mask_of(dataset, 'train2017/001.png'), expected)


@pytest.mark.parametrize('seed', range(20))
def test_all_compressed_run_lengths_of_masks_add_up(seed):
    generator = np.random.default_rng(seed)
    shape = tuple(generator.integers(1, 200, 2).tolist())
    mask = np.asfortranarray(generator.random(shape) < generator.choice([0.01, 0.5, 0.99]), np.uint8)
    mask[0, 0] = 1
    encoded = coco_mask.encode(mask)
    for counts in (encoded['counts'], encoded['counts'].decode()):
        found = painting.outline({'size': list(shape), 'counts': counts}, shape, 1)
        assert (found.counts, found.area) == (encoded['counts'], mask.sum())


def test_numbers_that_no_float_holds(root):
    rewrite(
        root,
        [
            annotation(1, 0, area=1e300),
            annotation(2, 1, bbox=(10**400, 5, 3, 4)),
            annotation(3, 2, segmentation=[[10**400] * 6]),
        ],
    )
    dataset = load(root, bad_boxes_limit=0.5)
    assert dataset.truth.area[dataset.ids.index('train2017/000.png')].tolist() == [200]  # that of the box
    assert dataset.account.left_out['object, it has no box of four numbers'] == ('train2017/001.png #1',)
    reason = 'object, a polygon of it is not finite'
    assert reason in load(root, 'masks', bad_boxes_limit=0.5).account.left_out


def test_a_category_that_is_given_twice(root):
    rewrite(root, [annotation(1, 0)], categories=[{'id': 3, 'name': 'cat'}, {'id': 3, 'name': 'cow'}])
    with pytest.raises(UserError, match=r"instances_train2017\.json: both 'cat' and 'cow' have the id 3"):
        load(root)


def test_a_file_for_training_that_is_none_is_named(root):
    write_json(root / 'annotations' / 'instances_train2017.json', {'images': []})
    with pytest.raises(UserError, match=r'for training; annotations/instances_train2017\.json should hold'):
        load(root)


def test_a_name_that_no_file_can_have(root):
    long = 'a' * 300 + '.png'
    rewrite(root, [annotation(1, 0), annotation(2, 6)], names=[*(f'00{number}.png' for number in range(6)), long])
    assert load(root).account.left_out['image, File name too long'] == (f'train2017/{long}',)


def test_a_size_that_no_image_has_is_not_painted(root):
    huge = {'id': 0, 'file_name': '000.png', 'width': 40, 'height': 10**9}
    others = document([f'00{number}.png' for number in range(1, 6)], [annotation(1, 1)], 1)
    write_json(root / 'annotations' / 'instances_train2017.json', {**others, 'images': [huge, *others['images']]})
    reason = 'image, its annotation says 40x1000000000 pixels, it has 40x30'
    assert load(root, 'masks').account.left_out[reason] == ('train2017/000.png',)
