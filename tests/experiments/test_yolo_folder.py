"""Data sets in the layout of YOLO: a YAML file, images, and one text file with normalised boxes for each."""

import pytest
from dense_files import box_of, labels_of, split_names, write_image

from backbones import UserError
from experiments.data import loading, record

YAML = 'path: .\ntrain: images/train\nval: images/val\nnames:\n  0: no\n  1: bus\n'


def write_labels(root, split, name, text):
    file = root / 'labels' / split / f'{name}.txt'
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.fixture
def root(tmp_path):
    for split, names in (('train', 'abcdef'), ('val', 'gh')):
        for name in names:
            write_image(tmp_path / 'images' / split / f'{name}.png')
            write_labels(tmp_path, split, name, '1 0.5 0.5 0.5 0.4\n')
    (tmp_path / 'data.yaml').write_text(YAML)
    return tmp_path


def load(root, **values):
    return loading.load(f'yolo:{root}', truth='boxes', **values)


def test_boxes_are_shares_of_the_image(root):
    write_labels(root, 'train', 'a', '0 0.25 0.5 0.5 0.2\n\n1 0.5 0.5 1 1\n')
    dataset = load(root)
    assert dataset.classes == ('no', 'bus')
    assert box_of(dataset, 'images/train/a.png') == [[0, 12, 20, 18], [0, 0, 40, 30]]
    assert labels_of(dataset, 'images/train/a.png') == ['no', 'bus']
    assert split_names(dataset)['test'] == {'images/val/g.png', 'images/val/h.png'}
    assert 'there is no test split, so the validation folder serves as one' in dataset.account.guessed


def test_polygons_become_boxes(root):
    write_labels(root, 'train', 'a', '1 0.25 0.5 0.75 0.5 0.5 1\n')
    assert box_of(load(root), 'images/train/a.png') == [[10, 15, 30, 30]]


def test_keypoints_are_left_out(root):
    (root / 'data.yaml').write_text(YAML + 'kpt_shape: [1, 3]\n')
    write_labels(root, 'train', 'a', '1 0.5 0.5 0.5 0.4 0.1 0.1 2\n')
    assert box_of(load(root), 'images/train/a.png') == [[10, 9, 30, 21]]


def test_images_without_a_label_file_have_no_objects(root):
    (root / 'labels' / 'train' / 'a.txt').unlink()
    write_labels(root, 'train', 'b', '')
    dataset = load(root)
    assert box_of(dataset, 'images/train/a.png') == box_of(dataset, 'images/train/b.png') == []
    assert '1 image without a label file, so without objects (images/train/a.png)' in dataset.account.noticed


def test_lines_that_occur_twice_count_once(root):
    write_labels(root, 'train', 'a', '1 0.5 0.5 0.5 0.4\n1 0.5 0.5 0.5 0.4\n')
    dataset = load(root)
    assert len(box_of(dataset, 'images/train/a.png')) == 1
    assert dataset.account.left_out['label given twice'] == ('images/train/a.png line 2',)


@pytest.mark.parametrize(
    ('line', 'told'),
    [
        ('2 0.5 0.5 0.5 0.4', 'object, its class is unknown, 2'),
        ('bus 0.5 0.5 0.5 0.4', 'object, its line holds something that is no number'),
        ('1 0.5 0.5 0.5', 'object, its line has 4 numbers; expected 5 (class and box), or class and corners'),
        ('1 320 240 20 20', 'object, outside its image'),
        ('1 nan 0.5 0.5 0.4', 'object, not finite'),
        ('1 0.5 0.5 -0.5 0.4', 'object, inverted: its right or bottom comes before its left or top'),
        ('1 0.5 0.5 0 0.4', 'object, without area'),
    ],
)
def test_what_makes_no_sense_is_named(root, line, told):
    write_labels(root, 'train', 'a', f'1 0.5 0.5 0.5 0.4\n{line}\n')
    dataset = load(root, bad_boxes_limit=0.2)
    assert dataset.account.left_out[told] == ('images/train/a.png #2',)
    with pytest.raises(UserError, match=r'1 of 9 objects of .* make no sense'):
        load(root)


def test_pixels_in_place_of_shares_are_refused(root):
    for name in 'abcdef':
        write_labels(root, 'train', name, '1 20 15 10 10\n')
    with pytest.raises(UserError, match=r'6 of 8 objects of .* make no sense: 6 object, outside its image'):
        load(root)


def test_the_orientation_tag_counts(root):
    """OpenCV, with which YOLO's images are read and shown, turns them."""
    write_image(root / 'images' / 'train' / 'a.png', orientation=6)
    dataset = load(root)
    index = dataset.ids.index('images/train/a.png')
    assert dataset.truth.sizes[index].tolist() == [40, 30]


class TestYaml:
    def test_the_file_itself(self, root):
        (root / 'data.yaml').rename(root / 'mine.yaml')
        assert load(root / 'mine.yaml').classes == load(root).classes == ('no', 'bus')

    @pytest.mark.parametrize('names', ['[a, b]', '\n  0: a\n  1: b'])
    def test_names(self, root, names):
        (root / 'data.yaml').write_text(f'train: images/train\nval: images/val\nnames: {names}\n')
        assert load(root).classes == ('a', 'b')

    def test_numbers_with_gaps(self, root):
        (root / 'data.yaml').write_text('train: images/train\nval: images/val\nnames: {9: z, 1: bus}\n')
        write_labels(root, 'train', 'a', '9 0.5 0.5 0.5 0.4\n')
        dataset = load(root)
        assert dataset.classes == ('bus', 'z')
        assert labels_of(dataset, 'images/train/a.png') == ['z']

    def test_a_number_of_classes_in_place_of_names(self, root):
        (root / 'data.yaml').write_text('train: images/train\nval: images/val\nnc: 2\n')
        assert load(root).classes == ('class 0', 'class 1')

    def test_lists_of_images_and_of_folders(self, root):
        (root / 'train.txt').write_text('./images/train/a.png\nimages/train/b.png\n')
        write_image(root / 'more' / 'images' / 'z.png')
        (root / 'data.yaml').write_text('train: [train.txt, more/images]\nval: images/val\nnames: [no, bus]\n')
        dataset = load(root)
        assert set(dataset.ids) == {
            'images/train/a.png', 'images/train/b.png', 'more/images/z.png', 'images/val/g.png', 'images/val/h.png',
        }  # fmt: skip
        assert box_of(dataset, 'images/train/b.png') == [[10, 9, 30, 21]]

    def test_paths_as_roboflow_writes_them(self, root):
        (root / 'data.yaml').write_text('train: ../images/train\nval: ../images/val\nnames: [no, bus]\n')
        dataset = load(root)
        assert len(dataset.ids) == 8
        assert "'../images/train' in data.yaml is not there, so 'images/train' is meant" in dataset.account.guessed

    def test_a_path_that_is_not_there(self, root):
        (root / 'data.yaml').write_text(YAML.replace('path: .', 'path: ../datasets/mine'))
        assert "'../datasets/mine', the path in data.yaml, is not there" in load(root).account.guessed[0]

    @pytest.mark.parametrize(
        ('text', 'told'),
        [
            ('', 'names no images for training'),
            ('a: [', 'cannot be read'),
            ('names: [a]', 'names no images for training: it needs the key train, and has names'),
            ('train: images/train\nval: images/none\nnames: [a]', "names 'images/none' for val, but .* is not there"),
            ('train: images/train', 'does not name the classes'),
            ('train: images/train\nnames: [a, a]', "names the class 'a' twice"),
        ],
    )
    def test_what_describes_no_data_set(self, root, text, told):
        (root / 'data.yaml').write_text(text)
        with pytest.raises(UserError, match=told):
            load(root)

    def test_no_file(self, tmp_path):
        with pytest.raises(UserError, match=r'there is no data\.yaml in'):
            load(tmp_path)

    def test_no_labels_anywhere(self, root):
        (root / 'labels').rename(root / 'annotations')
        with pytest.raises(UserError, match=r"none of the 8 images .*expected in '.*/labels/train/a\.txt'"):
            load(root)


def test_changed_labels_are_noticed(root, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('run')
    before = loading.stamp(f'yolo:{root}')
    assert before is not None
    record.write(workdir, load(root), before)
    write_labels(root, 'train', 'a', '0 0.5 0.5 0.5 0.4\n')
    assert loading.stamp(f'yolo:{root}') != before
    with pytest.raises(UserError, match=r'1 image with another annotation \(images/train/a\.png\)'):
        record.check(workdir, load(root))


def test_images_outside_the_folder_of_the_file_are_stamped(root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp('yaml') / 'data.yaml'
    elsewhere.write_text(YAML.replace('path: .', f'path: {root}'))
    before = loading.stamp(f'yolo:{elsewhere}')
    assert before is not None
    write_labels(root, 'val', 'g', '0 0.5 0.5 0.5 0.3\n')
    assert loading.stamp(f'yolo:{elsewhere}') not in (None, before)


def test_a_mark_of_the_byte_order_is_no_part_of_the_labels(root):
    (root / 'labels' / 'train' / 'a.txt').write_text('0 0.5 0.5 0.5 0.5\n', encoding='utf-8-sig')
    assert labels_of(load(root), 'images/train/a.png') == ['no']


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'\xff\xfe\0binary', 'train.txt.*, which data.yaml names, is no text file that lists images'),
        (b'x' * 5000, 'no images for training that can be used'),
    ],
)
def test_a_list_that_is_none(root, content, message):
    (root / 'train.txt').write_bytes(content)
    (root / 'data.yaml').write_text(YAML.replace('images/train', 'train.txt'))
    with pytest.raises(UserError, match=message):
        load(root)


@pytest.mark.parametrize('names', ['[]', '[[no], bus]', '{-1: no, 1: bus}', '{0: {a: b}, 1: bus}'])
def test_names_that_are_none(root, names):
    (root / 'data.yaml').write_text(f'train: images/train\nval: images/val\nnames: {names}\n')
    with pytest.raises(UserError, match='does not name the classes'):
        load(root)


def test_training_images_that_are_the_validation_images_too(root):
    (root / 'data.yaml').write_text(YAML.replace('images/val', 'images/train'))
    with pytest.raises(UserError, match=r'6 of train are listed in another split too.*such as images/train/a\.png'):
        load(root)
