"""Folders as people have them: other names of splits, noise, links; understood, or refused with both readings."""

import os

import pytest
from PIL import Image

from backbones import UserError
from experiments.data import folder_tree


@pytest.fixture
def grow(tmp_path):
    """Make folders with ``count`` images each."""

    def grown(*folders: str, count: int = 2):
        for name in folders:
            (tmp_path / name).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                Image.new('RGB', (2, 2), (number, 0, 0)).save(tmp_path / name / f'{number}.png')
        return tmp_path

    return grown


def _refused(path):
    raise PermissionError(13, 'Permission denied', str(path))


def splits(tree) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for file in tree.files:
        found.setdefault(file.split, set()).add(file.label)
    return found


class TestLayout:
    @pytest.mark.parametrize('names', [
        ('train', 'val', 'test'), ('Train', 'Valid', 'Test'), ('Training', 'dev', 'TESTING'),
        ('TRAIN', 'validation', 'test'), ('seg_train', 'seg_val', 'seg_test'), ('training_set', 'dev_set', 'test_set'),
    ])  # fmt: skip
    def test_usual_names_of_splits(self, grow, names):
        tree = folder_tree.read(grow(*(f'{split}/{label}' for split in names for label in 'ab')))
        assert splits(tree) == {'train': {'a', 'b'}, 'validation': {'a', 'b'}, 'test': {'a', 'b'}}
        assert tree.classes == ('a', 'b')

    def test_a_split_unpacked_into_its_own_name(self, grow):
        root = grow('seg_train/seg_train/a', 'seg_train/seg_train/b', 'seg_test/seg_test/a', 'seg_pred')
        tree = folder_tree.read(root)
        assert splits(tree) == {'train': {'a', 'b'}, 'test': {'a'}}
        assert tree.left_out == {'folder that is no split': ('seg_pred/',)}

    def test_a_flat_test_folder_has_no_labels(self, grow):
        tree = folder_tree.read(grow('train/a', 'train/b', 'test'))
        assert splits(tree) == {'train': {'a', 'b'}}
        assert tree.left_out == {'image in no class folder of test/': ('test/0.png', 'test/1.png')}
        assert tree.guessed == ('test/ has no class folders, so its images have no labels and are not used (2)',)

    def test_a_class_called_train(self, grow):
        tree = folder_tree.read(grow('bus', 'car', 'train'))
        assert splits(tree) == {'': {'bus', 'car', 'train'}}
        assert tree.guessed == ('train/: a class, not a split, as it has no class folders',)

    @pytest.mark.parametrize(('folders', 'readings'), [
        (('cats', 'dogs', 'test'), ('layout=classes', 'exclude=test')),
        (('train', 'test'), ('no labels', 'layout=classes')),
        (('train/a', 'train/b', 'bus'), ('layout=splits', 'layout=classes')),
        (('train/a', 'train/b', 'eval/a', 'eval/b'), ('eval/ is left out', 'layout=classes')),
    ])  # fmt: skip
    def test_two_readings_are_both_named(self, grow, folders, readings):
        with pytest.raises(UserError, match='can be understood in two ways') as raised:
            folder_tree.read(grow(*folders))
        for each in readings:
            assert each in str(raised.value)

    def test_the_key_decides(self, grow):
        root = grow('train/a', 'train/b', 'bus')
        assert splits(folder_tree.read(root, 'splits')) == {'train': {'a', 'b'}}
        assert folder_tree.read(root, 'splits').left_out == {'folder that is no split': ('bus/',)}
        assert splits(folder_tree.read(root, 'classes')) == {'': {'train', 'bus'}}
        assert splits(folder_tree.read(root, exclude=['bus'])) == {'train': {'a', 'b'}}
        with pytest.raises(UserError, match=r"unknown layout 'split'.*'splits'"):
            folder_tree.read(root, 'split')

    def test_two_folders_for_one_split(self, grow):
        with pytest.raises(UserError, match=r'both train/ and training/ .* name the train split'):
            folder_tree.read(grow('train/a', 'train/b', 'training/a', 'training/b'))

    def test_splits_without_training_images(self, grow):
        with pytest.raises(UserError, match='no folder of training images'):
            folder_tree.read(grow('val/a', 'val/b', 'test/a', 'test/b'))
        with pytest.raises(UserError, match=r'no folder .* is named train.*there are a/ and b/'):
            folder_tree.read(grow('flat/a', 'flat/b') / 'flat', 'splits')

    def test_an_archive_in_a_folder_of_its_own(self, grow):
        root = grow('flowers/a', 'flowers/b')
        with pytest.raises(UserError, match=f'the data set seems to be folder:{root}/flowers'):
            folder_tree.read(root)

    def test_an_archive_in_several_folders(self, grow):
        root = grow('archive/data/train/a', 'archive/data/train/b', 'archive/data/test/a', 'archive/data/test/b')
        with pytest.raises(UserError, match=f'the data set seems to be folder:{root}/archive/data'):
            folder_tree.read(root)

    def test_a_split_without_images_is_said(self, grow):
        root = grow('train/a', 'train/b')
        (root / 'test' / 'a').mkdir(parents=True)
        assert 'test/ has no images, so it is no split' in folder_tree.read(root).guessed

    def test_folders_of_the_same_names_in_every_class_are_said(self, grow):
        tree = folder_tree.read(grow('a/train', 'a/test', 'b/train', 'b/test'))
        assert tree.guessed == ('every class has test/ and train/, whose images all belong to the class',)
        assert folder_tree.read(grow('a/train', 'a/test', 'b/train', 'b/test', 'c')).guessed == ()

    def test_more_folders_beside_two_splits_are_named(self, grow):
        tree = folder_tree.read(grow('train/a', 'train/b', 'test/a', 'test/b', 'previews'))
        assert splits(tree) == {'train': {'a', 'b'}, 'test': {'a', 'b'}}
        assert tree.left_out == {'folder that is no split': ('previews/',)}

    def test_a_class_without_training_images(self, grow):
        message = "the class 'dogs' is in a test or validation folder of .*no training images; did you mean 'dog'"
        with pytest.raises(UserError, match=message):
            folder_tree.read(grow('train/cat', 'train/dog', 'test/cat', 'test/dogs'))


class TestFiles:
    def test_noise_at_any_depth(self, grow):
        root = grow('a', 'b', 'a/@eaDir', 'a/.ipynb_checkpoints', '__MACOSX/a', 'b/__MACOSX')
        (root / 'a' / '._0.png').write_bytes(b'x')
        (root / 'b' / 'Thumbs.db').write_bytes(b'x')
        tree = folder_tree.read(root)
        assert [file.name for file in tree.files] == ['a/0.png', 'a/1.png', 'b/0.png', 'b/1.png']
        assert set(tree.left_out['hidden or of the system']) == {
            '__MACOSX/', 'a/._0.png', 'a/.ipynb_checkpoints/', 'a/@eaDir/', 'b/Thumbs.db', 'b/__MACOSX/',
        }  # fmt: skip

    def test_files_are_known_by_their_content_where_no_suffix_tells(self, grow):
        root = grow('a', 'b')
        (root / 'a' / '0.png').rename(root / 'a' / '0')
        (root / 'a' / '1.png').rename(root / 'a' / 'scan.0001')
        (root / 'b' / 'README').write_text('no image')
        (root / 'b' / 'notes.txt').write_text('no image')
        tree = folder_tree.read(root)
        assert [file.name for file in tree.files] == ['a/0', 'a/scan.0001', 'b/0.png', 'b/1.png']
        assert tree.left_out == {'not an image (.txt)': ('b/notes.txt',), 'not an image (no suffix)': ('b/README',)}

    def test_kinds_that_are_not_read_have_a_reason(self, grow):
        root = grow('a', 'b')
        (root / 'a' / 'x.dcm').write_bytes(b'\0' * 128 + b'DICM' + b'x' * 99)
        (root / 'a' / 'x.HEIC').write_bytes(b'\0\0\0\x18ftypheic' + b'x' * 99)
        (root / 'a' / 'x.NEF').write_bytes(b'II*\0')
        (root / 'a' / 'x.svs').write_bytes(b'slide')
        problems = {file.name: file.problem for file in folder_tree.read(root).files if file.problem}
        assert 'DICOM' in problems['a/x.dcm']
        assert 'HEIC' in problems['a/x.HEIC']
        assert 'raw file' in problems['a/x.NEF']
        assert 'convert' in problems['a/x.svs']

    def test_links_are_followed_once(self, grow, tmp_path_factory):
        root, other = grow('a', 'b'), tmp_path_factory.mktemp('elsewhere')
        Image.new('RGB', (2, 2)).save(other / 'far.png')
        (root / 'a' / 'linked').symlink_to(other)
        (root / 'a' / 'loop').symlink_to(root / 'a')
        (root / 'b' / 'up').symlink_to(root)
        (root / 'b' / 'dead.png').symlink_to(root / 'nowhere.png')
        (root / 'c').symlink_to(other)
        tree = folder_tree.read(root)
        names = [file.name for file in tree.files]
        assert 'a/linked/far.png' in names
        assert 'c/far.png' in names
        assert len(names) < 20
        assert {file.name: file.problem for file in tree.files if file.problem}['b/dead.png'] == 'a broken link'
        assert 'a/loop/' in tree.left_out['link back to its own folder']

    def test_a_pipe_is_never_opened(self, grow):
        root = grow('a', 'b')
        os.mkfifo(root / 'a' / 'pipe.png')
        os.mkfifo(root / 'a' / 'pipe')
        assert folder_tree.read(root).left_out == {'not a regular file': ('a/pipe', 'a/pipe.png')}

    def test_a_folder_that_cannot_be_listed_is_an_error(self, grow, monkeypatch):
        root, scan = grow('a', 'b'), os.scandir

        def refuse(path):
            if str(path).endswith('/b'):
                raise PermissionError(13, 'Permission denied', str(path))
            return scan(path)

        monkeypatch.setattr(os, 'scandir', refuse)
        with pytest.raises(UserError, match=r"/b' cannot be listed \(Permission denied\).*--config.exclude"):
            folder_tree.read(root)

    def test_a_closed_folder_is_named(self, grow, monkeypatch):
        root = grow('a', 'b', 'a/closed')
        monkeypatch.setattr(folder_tree.Path, 'is_file', _refused)
        with pytest.raises(PermissionError):
            (root / 'a').is_file()
        assert not folder_tree.is_own_output(root / 'a' / 'closed')

    def test_names_of_any_bytes(self, grow):
        root = grow('a', '[red]b[')
        (root / 'a' / '0.png').rename(os.fsdecode(os.fsencode(root / 'a') + b'/caf\xe9\n.png'))
        tree = folder_tree.read(root)
        assert tree.files[0].name == '[red]b[/0.png'
        assert tree.files[3].name == r'a/caf\xe9\n.png'
        assert tree.files[3].name.encode('utf-8')

    def test_one_name_in_two_normal_forms(self, grow):
        tree = folder_tree.read(grow('train/caf\u00e9', 'train/b', 'test/cafe\u0301', 'test/b'))
        assert tree.classes == ('b', 'caf\u00e9')
        assert splits(tree)['test'] == {'b', 'caf\u00e9'}

    def test_own_output_is_left_out(self, grow):
        root = grow('a', 'b', 'runs/x', 'a/y')
        for place in ('runs/x', 'a/y'):
            (root / place / 'config.json').write_text('{"backbone": "resnet_micro", "dataset": "folder:x"}')
        tree = folder_tree.read(root)
        assert tree.classes == ('a', 'b')
        assert set(tree.left_out['output of this program']) == {'runs/', 'runs/x/', 'a/y/'}
        (root / 'c').mkdir()
        (root / 'c' / 'config.json').write_text('{"unrelated": 1}')
        assert folder_tree.read(root).classes == ('a', 'b', 'c')  # an empty class, which is refused when it is loaded


@pytest.mark.parametrize(
    ('pattern', 'kept'),
    [
        ('thumbs', ['a/0.png', 'a/1.png', 'b/0.png', 'b/1.png']),
        ('a/thumbs/', ['a/0.png', 'a/1.png', 'b/0.png', 'b/1.png', 'b/thumbs/0.png', 'b/thumbs/1.png']),
        ('*/thumbs', ['a/0.png', 'a/1.png', 'b/0.png', 'b/1.png']),
        ('1.*', ['a/0.png', 'a/thumbs/0.png', 'b/0.png', 'b/thumbs/0.png']),
    ],
)
def test_patterns_of_what_is_left_out(grow, pattern, kept):
    root = grow('a', 'b', 'a/thumbs', 'b/thumbs')
    assert [file.name for file in folder_tree.read(root, exclude=[pattern]).files] == kept
    with pytest.raises(UserError, match="the pattern 'thumb' of config key exclude matches nothing"):
        folder_tree.read(root, exclude=[pattern, 'thumb'])


def test_the_stamp_ignores_what_is_left_out_and_gives_up_where_it_cannot_look(grow, monkeypatch):
    root, scan = grow('a', 'b', 'private'), os.scandir
    before = folder_tree.stamp(root, ['private'])
    (root / 'private' / '0.png').unlink()
    assert folder_tree.stamp(root, ['private']) == before != folder_tree.stamp(root)

    def refuse(path):
        if str(path).endswith('private'):
            raise PermissionError(13, 'Permission denied', str(path))
        return scan(path)

    monkeypatch.setattr(os, 'scandir', refuse)
    assert folder_tree.stamp(root, ['private']) == before
    assert folder_tree.stamp(root) is None


def test_the_stamp_changes_with_names_sizes_and_times(grow):
    root = grow('a', 'b')
    before = folder_tree.stamp(root)
    assert folder_tree.stamp(root) == before
    (root / 'runs').mkdir()
    (root / 'runs' / 'config.json').write_text('{"backbones": [], "datasets": []}')
    assert folder_tree.stamp(root) == before
    os.utime(root / 'a' / '0.png', ns=(1, 1))
    touched = folder_tree.stamp(root)
    (root / 'b' / '1.png').rename(root / 'b' / '2.png')
    assert len({before, touched, folder_tree.stamp(root)}) == 3
