"""TFDS data sets with boxes or masks, prepared as TFDS prepares them and read without TensorFlow."""

import dataclasses
import hashlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backbones import UserError
from experiments.data import loading, record
from experiments.data.truth import IGNORE, Boxes, Masks

CLASSES = ['aeroplane', 'bicycle', 'bird']


def encoded(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, 'PNG')
    return stream.getvalue()


def write(root: Path, name: str, features: dict[str, Any], splits: dict[str, list[dict[str, Any]]]) -> None:
    """Metadata and array_record files of serialised examples, with the features of TFDS.

    Args:
        root: the directory of one version.
        name: of the data set.
        features: as a builder declares them.
        splits: name → examples, each a value or array by the flat name of its feature; ``None``: a damaged record.
    """
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.proto import tf_example_pb2

    root.mkdir(parents=True)
    tfds.features.FeaturesDict(features).save_config(str(root))
    for split, examples in splits.items():
        writer = ArrayRecordWriter(str(root / f'{name}-{split}.array_record-00000-of-00001'), 'group_size:1')
        for values in examples:
            example = tf_example_pb2.Example()
            for key, value in values.items():
                feature, array = example.features.feature[key], np.asarray(value)
                if isinstance(value, bytes):
                    feature.bytes_list.value.append(value)
                elif array.dtype.kind == 'f':
                    feature.float_list.value.extend(array.ravel().tolist())
                else:
                    feature.int64_list.value.extend(array.ravel().astype(int).tolist())
            writer.write(example.SerializeToString())
        writer.close()
    info = {
        'name': name,
        'version': root.name,
        'fileFormat': 'array_record',
        'splits': [
            {
                'name': split,
                'numBytes': '1',
                'shardLengths': [str(len(examples))],
                'filepathTemplate': '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}',
            }
            for split, examples in splits.items()
        ],
    }
    if root.parent.name != name:
        info['configName'] = root.parent.name
    (root / 'dataset_info.json').write_text(json.dumps(info))


def scene(seed: int, width: int, height: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def voc_example(
    seed: int, corners: list[tuple[int, int, int, int]], width: int = 40, height: int = 30
) -> dict[str, Any]:
    """An image with objects whose corners are VOC's: the first and the last pixel, counted from 1."""
    left, top, right, bottom = np.array(corners, np.float64).reshape(-1, 4).T
    count = len(corners)
    return {
        'image': encoded(scene(seed, width, height)),
        'image/filename': b'x.jpg',
        'objects/bbox': np.stack([top / height, left / width, bottom / height, right / width], -1).astype(np.float32),
        'objects/label': np.arange(count) % 3,
        'objects/is_difficult': np.arange(count) == 1,
        'objects/is_truncated': np.zeros(count, bool),
        'objects/pose': np.zeros(count, int),
        'labels': np.arange(count) % 3,
        'labels_no_difficult': np.arange(count) % 3,
    }


def write_voc(directory: Path, year: str, splits: dict[str, list[dict[str, Any]]]) -> None:
    import tensorflow_datasets as tfds

    labels = tfds.features.ClassLabel(names=CLASSES)
    objects = {
        'label': labels,
        'bbox': tfds.features.BBoxFeature(),
        'pose': tfds.features.ClassLabel(names=['left', 'right']),
        'is_truncated': np.bool_,
        'is_difficult': np.bool_,
    }
    features = {
        'image': tfds.features.Image(),
        'image/filename': tfds.features.Text(),
        'objects': tfds.features.Sequence(objects),
        'labels': tfds.features.Sequence(labels),
        'labels_no_difficult': tfds.features.Sequence(labels),
    }
    write(directory / 'voc' / year / '5.0.0', 'voc', features, splits)


SPLITS = {
    'train': [voc_example(0, [(1, 1, 10, 30), (5, 6, 40, 20)]), voc_example(1, []), voc_example(2, [(3, 4, 3, 4)])],
    'validation': [voc_example(3, [(2, 2, 9, 9)], 20, 44)],
    'test': [voc_example(4, [(1, 2, 3, 4), (5, 6, 7, 8), (9, 10, 11, 12)]), voc_example(5, [(1, 1, 40, 30)])],
}


def test_the_boxes_of_voc(tmp_path):
    write_voc(tmp_path, '2007', SPLITS)
    dataset = loading.load('tfds:voc/2007', tmp_path, truth='boxes', stored_size=64)
    assert 'tensorflow' not in sys.modules
    # TFDS knows this data set, and the names of its twenty classes.
    assert dataset.classes[:3] == tuple(CLASSES)
    assert len(dataset.classes) == 20
    assert dataset.images.shape == (6, 64, 64, 3)
    assert dataset.stored_size == (64, 64)
    assert {name: part.tolist() for name, part in dataset.splits.items()} == {
        'test': [4, 5],
        'train': [0, 1, 2],
        'validation': [3],
    }
    truth = dataset.truth
    assert isinstance(truth, Boxes)
    # Pixels 1 to 10 lie between the edges 0 and 10.
    np.testing.assert_array_equal(truth.boxes[0], [[0, 0, 10, 30], [4, 5, 40, 20], [0] * 4])
    np.testing.assert_array_equal(truth.boxes[2, 0], [2, 3, 3, 4])
    assert truth.classes.tolist()[:3] == [[0, 1, -1], [-1] * 3, [0, -1, -1]]
    assert truth.difficult[:2].tolist() == [[False, True, False], [False] * 3]
    assert not truth.crowd.any()
    np.testing.assert_array_equal(truth.area[0], [300, 540, 0])
    assert truth.sizes.tolist() == [[30, 40]] * 3 + [[44, 20]] + [[30, 40]] * 2
    # 40x30 becomes 64x48 with 8 rows of grey above.
    np.testing.assert_allclose(truth.stored(dataset.stored_size)[0, 0], [0, 8, 16, 56])
    assert (dataset.images[0][:8] == 114).all()
    assert len(dataset.fraction(0.7, 0)) == 2


def test_images_of_one_size_have_no_border(tmp_path):
    write_voc(tmp_path, '2007', {'train': SPLITS['train'], 'validation': SPLITS['test'], 'test': SPLITS['test']})
    small = loading.load('tfds:voc/2007', tmp_path, truth='boxes')
    assert small.stored_size is None
    np.testing.assert_array_equal(small.images[0], scene(0, 40, 30))
    dataset = loading.load('tfds:voc/2007', tmp_path, truth='boxes', stored_size=20)
    assert dataset.stored_size == (15, 20)
    assert dataset.images.shape == (7, 15, 20, 3)
    np.testing.assert_allclose(dataset.truth.stored(dataset.stored_size)[0, 0], [0, 0, 5, 15])


def test_a_split_without_annotations_is_left_out(tmp_path):
    """The test annotations of VOC 2012 are not published; its validation split is the test split."""
    blind = [voc_example(seed, []) for seed in (6, 7)]
    many = [voc_example(seed, [(1, 1, 10, 30)]) for seed in range(10, 22)]
    write_voc(tmp_path, '2012', {'train': many, 'validation': SPLITS['test'], 'test': blind})
    dataset = loading.load('tfds:voc/2012', tmp_path, truth='boxes')
    assert [len(dataset.splits[name]) for name in ('train', 'validation', 'test')] == [11, 1, 2]
    assert [dataset.ids[index] for index in dataset.splits['test']] == ['validation/0000000', 'validation/0000001']
    assert dataset.account.left_out == {
        'image of the test split, which has no annotations': ('test/0000000', 'test/0000001')
    }


def test_what_cannot_be_read_or_makes_no_sense_is_named(tmp_path):
    broken = {**voc_example(0, [(1, 1, 5, 5)]), 'image': b'no image'}
    inverted = voc_example(0, [(9, 9, 5, 5), (1, 1, 5, 5)])
    write_voc(tmp_path, '2007', {**SPLITS, 'train': [broken, inverted, *SPLITS['train']]})
    dataset = loading.load('tfds:voc/2007', tmp_path, truth='boxes', bad_boxes_limit=0.2)
    assert dict(dataset.skipped).keys() == {'train/0000000'}
    assert dataset.truth.classes[0].tolist() == [1, -1, -1]
    assert dataset.account.left_out['object, inverted: its right or bottom comes before its left or top'] == (
        'train/0000001 #1',
    )
    with pytest.raises(UserError, match='1 of 8 records of tfds:voc/2007'):
        loading.load('tfds:voc/2007', tmp_path, truth='boxes', bad_files_limit=0)
    with pytest.raises(UserError, match=r"1 of 10 objects of 'tfds:voc/2007' make no sense: .*bad_boxes_limit"):
        loading.load('tfds:voc/2007', tmp_path, truth='boxes')


def test_corners_out_of_the_image_are_clipped_and_said(tmp_path):
    """Some annotations count from 0 where VOC counts from 1."""
    write_voc(tmp_path, '2007', {**SPLITS, 'train': [voc_example(0, [(0, 5, 10, 30)]), *SPLITS['train']]})
    dataset = loading.load('tfds:voc/2007', tmp_path, truth='boxes')
    assert dataset.truth.boxes[0, 0].tolist() == [0, 4, 10, 30]
    assert '1 box clipped to the image, by up to 1 pixels (train/0000000 #1)' in dataset.account.noticed


def test_no_object_makes_sense(tmp_path):
    inverted = [voc_example(seed, [(9, 9, 5, 5)]) for seed in range(4)]
    write_voc(tmp_path, '2007', {'train': inverted, 'test': inverted})
    with pytest.raises(UserError, match="all objects of 'tfds:voc/2007' are left out"):
        loading.load('tfds:voc/2007', tmp_path, truth='boxes', bad_boxes_limit=1.0)


def test_another_annotation_of_the_same_image_is_noticed(tmp_path):
    workdir = tmp_path / 'runs'
    for place, corners in (('before', (1, 1, 10, 30)), ('after', (1, 1, 10, 29))):
        write_voc(tmp_path / place, '2007', {**SPLITS, 'train': [voc_example(9, [corners]), *SPLITS['train']]})
    before, after = (loading.load('tfds:voc/2007', tmp_path / place, truth='boxes') for place in ('before', 'after'))
    record.write(workdir, before)
    assert record.differences_from(workdir, after) == ['1 image with another annotation (train/0000000)']
    # A record of an earlier version has no annotations to compare with.
    record.write(workdir, dataclasses.replace(before, annotation_digests=None))
    (told,) = record.differences_from(workdir, after)
    assert told.startswith('the pixels differ')


def write_pets(directory: Path, splits: dict[str, list[dict[str, Any]]]) -> None:
    import tensorflow_datasets as tfds

    features = {
        'image': tfds.features.Image(encoding_format='jpeg'),
        'label': tfds.features.ClassLabel(names=['Abyssinian', 'beagle']),
        'species': tfds.features.ClassLabel(names=['Cat', 'Dog']),
        'file_name': tfds.features.Text(),
        'segmentation_mask': tfds.features.Image(shape=(None, None, 1), use_colormap=True),
        'head_bbox': tfds.features.BBoxFeature(),
    }
    write(directory / 'oxford_iiit_pet' / '4.0.0', 'oxford_iiit_pet', features, splits)


def pet(seed: int, width: int = 40, height: int = 30, trimap: np.ndarray | None = None) -> dict[str, Any]:
    if trimap is None:
        trimap = np.random.default_rng(seed).integers(1, 4, (height, width), dtype=np.uint8)
    return {
        'image': encoded(scene(seed, width, height)),
        'label': seed % 2,
        'species': seed % 2,
        'file_name': b'x.jpg',
        'segmentation_mask': encoded(trimap),
        'head_bbox': np.zeros(4, np.float32),
    }


class TestPets:
    def test_the_trimap(self, tmp_path):
        write_pets(tmp_path, {'train': [pet(seed) for seed in range(8)], 'test': [pet(8, 20, 44)]})
        dataset = loading.load('tfds:oxford_iiit_pet', tmp_path, truth='masks', stored_size=80)
        assert isinstance(dataset.truth, Masks)
        assert dataset.classes == ('background', 'pet')
        assert dataset.images.shape == (9, 80, 80, 4)
        assert [len(dataset.splits[name]) for name in ('train', 'validation', 'test')] == [7, 1, 1]
        trimap = np.random.default_rng(0).integers(1, 4, (30, 40), dtype=np.uint8)
        # 40x30 becomes 80x60 with ten rows around it, which are ignored.
        mask = dataset.images[0][..., 3]
        np.testing.assert_array_equal(mask[10:70:2, ::2], np.array([9, 1, 0, IGNORE])[trimap])
        assert (mask[:10] == IGNORE).all()
        assert (dataset.images[0][:10, :, :3] == 114).all()

    def test_pixels_are_counted(self, tmp_path):
        """Those of the original masks, in the records as in memory."""
        trimap = np.full((30, 40), 2, np.uint8)
        trimap[:10], trimap[10:12] = 1, 3
        train = [pet(0, trimap=trimap), *map(pet, range(1, 8))]
        write_pets(tmp_path, {'train': train, 'test': [pet(8, 20, 44)]})
        dataset = loading.load('tfds:oxford_iiit_pet', tmp_path, truth='masks', stored_size=16)
        assert dataset.truth.pixels[0].tolist() == [18 * 40, 10 * 40, 2 * 40]
        assert dataset.truth.pixels.sum(1).tolist() == [30 * 40] * 8 + [44 * 20]
        assert len(set(dataset.annotation_digests)) == 9
        assert dataset.annotation_digests[0] == hashlib.sha256(encoded(trimap)).hexdigest()

    def test_masks_that_do_not_fit(self, tmp_path):
        wrong = [pet(0, trimap=np.ones((40, 30), np.uint8)), pet(1, trimap=np.full((30, 40), 7, np.uint8))]
        write_pets(tmp_path, {'train': [*wrong, *map(pet, range(2, 8))], 'test': [pet(8)]})
        dataset = loading.load('tfds:oxford_iiit_pet', tmp_path, truth='masks')
        assert dict(dataset.skipped) == {
            'train/0000000': 'its mask is 30x40, its image 40x30',
            'train/0000001': 'its mask holds 7, which is no class',
        }
        assert dataset.images.shape == (7, 30, 40, 4)

    def test_classification_is_of_the_breed(self, tmp_path):
        write_pets(tmp_path, {'train': [pet(seed) for seed in range(8)], 'test': [pet(8), pet(9)]})
        dataset = loading.load('tfds:oxford_iiit_pet', tmp_path, stored_size=16)
        # TFDS knows this data set, and the names of its 37 breeds.
        assert dataset.classes[:2] == ('Abyssinian', 'american_bulldog')
        assert dataset.truth is None
        assert dataset.targets.tolist() == [0, 1] * 5

    def test_no_boxes(self, tmp_path):
        write_pets(tmp_path, {'train': [pet(0)], 'test': [pet(8)]})
        with pytest.raises(UserError, match='tfds:oxford_iiit_pet is no data set for detection: it has no feature obj'):
            loading.load('tfds:oxford_iiit_pet', tmp_path, truth='boxes')


def test_no_masks(tmp_path):
    write_voc(tmp_path, '2007', SPLITS)
    with pytest.raises(UserError, match=r'tfds:voc/2007 is no data set for segmentation; .*oxford_iiit_pet is known'):
        loading.load('tfds:voc/2007', tmp_path, truth='masks')


def test_crowds_and_areas_of_coco(tmp_path):
    """Boxes of other data sets are edges already; crowds and the areas of masks are kept."""
    import tensorflow_datasets as tfds

    objects = {
        'area': np.int64,
        'bbox': tfds.features.BBoxFeature(),
        'is_crowd': np.bool_,
        'label': tfds.features.ClassLabel(names=CLASSES),
    }
    features = {'image': tfds.features.Image(), 'objects': tfds.features.Sequence(objects)}
    example = {
        'image': encoded(scene(0, 40, 30)),
        'objects/area': [77, 5],
        'objects/bbox': np.array([[0, 0, 0.5, 0.25], [0.1, 0.5, 0.3, 1]], np.float32),
        'objects/is_crowd': [False, True],
        'objects/label': [2, 0],
    }
    write(tmp_path / 'blobs' / '1.0.0', 'blobs', features, {'train': [example] * 4, 'test': [example]})
    dataset = loading.load('tfds:blobs', tmp_path, truth='boxes')
    assert dataset.classes == tuple(CLASSES)
    np.testing.assert_array_equal(dataset.truth.boxes[0], [[0, 0, 10, 15], [20, 3, 40, 9]])
    assert dataset.truth.crowd[0].tolist() == [False, True]
    assert dataset.truth.area[0].tolist() == [77, 5]
    assert not dataset.truth.difficult.any()
