"""The seam between a task and everything that runs it."""

import dataclasses
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import make_dataset

from backbones import UserError
from backbones.preprocessing import Preprocessing
from experiments import tasks
from experiments.tasks import classification
from experiments.training import config as configuration
from experiments.training import programs
from experiments.training.session import Session

PREPROCESSING = Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3, size=8)
TASK = classification.Classification(4, PREPROCESSING)


def make_session(directory: Path, **changes) -> Session:
    config = configuration.default_config()
    config.update({'backbone': 'vit_micro', 'image_size': 16, 'batch_size': 16, **changes})
    return Session(config, make_dataset(), directory)


def test_a_batch_is_what_the_task_says_it_is(tmp_path):
    session = make_session(tmp_path)
    reading = session.batches(0, 1)
    host = next(reading)
    reading.close()
    spec = session.programs.task.batch_spec(session.dataset.images.shape[1:])
    read = {name: (array.shape, array.dtype) for name, array in host.arrays.items()}
    assert read == {name: ((16, *leaf.shape), leaf.dtype) for name, leaf in spec.items()}
    assert jax.eval_shape(lambda: session.device_put(host)).keys() == session.programs.abstract_batch().keys()


@pytest.fixture
def unbuilt(monkeypatch) -> Iterator[None]:
    """Programs that are not there yet are not built either, only told apart."""
    monkeypatch.setattr(programs, 'Programs', lambda *_: object())
    programs.programs.cache_clear()
    yield
    programs.programs.cache_clear()


def test_a_sweep_compiles_once(tmp_path, unbuilt):
    """Rates, seeds, lengths and what is written do not enter a program; what does makes another one."""
    first = make_session(tmp_path)
    for changes in ({'learning_rate': 0.1}, {'seed': 3}, {'epochs': 7.0}, {'warmup_epochs': 0.0}, {'log_steps': 1}):
        assert make_session(tmp_path, **changes).programs is first.programs, changes
    for changes in ({'weight_decay': 0.1}, {'mixup': 0.2}, {'label_smoothing': 0.1}, {'accumulation': 2}):
        assert make_session(tmp_path, **changes).programs is not first.programs, changes


def test_every_key_of_the_config_stands_in_the_table_once():
    """Code reads no key that the table lacks, and the table has none that no code reads."""
    sources = [path.read_text() for path in Path('experiments').rglob('*.py') if path.name != 'config.py']
    text = '\n'.join(sources)
    for key, row in configuration.KEYS.items():
        name = key.rsplit('.', maxsplit=1)[-1]
        assert re.search(rf"(\.|options\['|config\[')\b{name}\b", text), key
        assert row.meaning, key
    assert len(configuration.compiled_values(configuration.default_config())) == sum(
        row.compiled for row in configuration.KEYS.values()
    )


def test_a_misspelled_task_is_one_line_in_every_command(tmp_path):
    from experiments.ablation import cells
    from experiments.ablation.engine import Engine
    from experiments.planning import ahead_of_time
    from experiments.training import mesh

    ablation = cells.default_config()
    ablation.training.task = 'clasification'
    with pytest.raises(UserError, match="unknown task 'clasification'; did you mean 'classification'"):
        Engine(ablation, tmp_path, lambda name: make_dataset())
    with pytest.raises(UserError, match="unknown task 'clasification'; did you mean 'classification'"):
        ahead_of_time.planned(ablation.training, 4, (16, 16, 3), 8, mesh.make())


def test_a_task_that_does_not_exist(tmp_path):
    with pytest.raises(UserError, match="unknown task 'clasification'; did you mean 'classification'"):
        make_session(tmp_path, task='clasification')
    assert all(task.name == name for name, task in tasks.TABLE.items())


@pytest.mark.parametrize('task', tasks.TABLE.values())
def test_the_keys_of_a_task_are_keys_of_a_training(task):
    assert set(task.model_keys) <= set(task.keys) <= set(configuration.KEYS)
    assert len(set(task.keys)) == len(task.keys)
    assert task.heads == () or 'head' in task.model_keys


def test_one_class_is_too_few():
    with pytest.raises(UserError, match='classification needs at least 2 classes, but the data set has 1'):
        classification.Classification.create(configuration.default_config(), 1, PREPROCESSING)


def test_an_evaluated_example_has_no_smoothed_or_mixed_target():
    """The loss of evaluation is that of the labels, whatever training does to them."""
    generator = np.random.default_rng(0)
    batch = {
        'image': generator.integers(0, 256, (6, 8, 8, 3), np.uint8),
        'target': np.arange(6, dtype=np.int32) % 4,
        'weight': np.ones(6, np.float32),
    }
    task = dataclasses.replace(TASK, label_smoothing=0.2, mixup=0.5, class_weights=(1.0, 2.0, 3.0, 4.0))
    logits = jnp.asarray(generator.normal(size=(6, 4)), jnp.float32)
    evaluated = task.prepare(None, batch, train=False)
    losses, metrics = jax.jit(task.loss)(logits, evaluated, {})
    np.testing.assert_allclose(
        losses, optax.softmax_cross_entropy_with_integer_labels(logits, batch['target']), rtol=1e-6
    )
    assert evaluated['weight'].tolist() == [1] * 6
    np.testing.assert_array_equal(metrics['accuracy'], logits.argmax(-1) == batch['target'])
    trained = jax.jit(partial(task.prepare, train=True))(jax.random.key(0), batch)
    assert trained['weight'].tolist() == [1, 2, 3, 4, 1, 2]
    assert trained['valid'].tolist() == [1] * 6
    assert (np.asarray(trained['distribution']) > 0).all()


def test_the_score_is_that_of_scikit_learn():
    from sklearn.metrics import accuracy_score

    generator = np.random.default_rng(1)
    targets, logits = generator.integers(0, 4, 101), generator.normal(size=(101, 4))
    predictions = {name: np.asarray(value) for name, value in TASK.predict(jnp.asarray(logits), {}).items()}
    assert TASK.score(predictions, targets) == {'accuracy': accuracy_score(targets, logits.argmax(-1))}
