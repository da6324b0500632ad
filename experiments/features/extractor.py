"""Features of frozen backbones for an ablation: from the store, or from one pass that is then stored."""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import jax
import ml_collections
import numpy as np
from jaxtyping import Float, Int

from backbones.preprocessing import Preprocessing
from experiments.cli import atomic_files
from experiments.data import unreadable
from experiments.data.dataset import Dataset
from experiments.data.model_input import input_preprocessing, input_size
from experiments.features import collective_store, frozen_pass, identity
from experiments.features.addresses import address
from experiments.features.entry_files import Bounds, Shard, StoredFeatures
from experiments.features.frozen_backbone import FrozenBackbone
from experiments.features.frozen_pass import FrozenPass
from experiments.features.network import Network, data_document, make_network
from experiments.features.pixels import pixels_pass
from experiments.features.store import Store
from experiments.features.throughput import Throughputs, measure
from experiments.results.axes import PIXELS, RANDOM
from experiments.training import mesh

# A shard is the most that an interruption can lose; it is held in memory until it is written.
_SHARD_EXAMPLES = 2048
_SHARD_BYTES = 64 << 20

Advance = Callable[[int], None]


@dataclasses.dataclass(frozen=True)
class Costs:
    """The costs of a backbone's forward pass.

    Attributes:
        parameters: number of parameters of the backbone.
        images_per_second: speed as measured by ``throughput.PROCEDURE``; ``None``: unknown.
        input_size: height and width of its input in pixels.
        weight_bytes: bytes of its parameters and statistics.
        peak_memory_bytes: memory of its forward pass on each device, see ``throughput.PROCEDURE``; ``None``: unknown.
    """

    parameters: int = 0
    images_per_second: float | None = None
    input_size: tuple[int, int] | None = None
    weight_bytes: int = 0
    peak_memory_bytes: int | None = None


@dataclasses.dataclass(frozen=True)
class Extracted:
    """Features of a data set.

    Attributes:
        values: one row per example of the data set; zero where it could not be read. An array, or ``StoredFeatures``,
            which read the rows that are asked for.
        dataset: the data set for the heads; no split contains unreadable examples, and its provenance says so.
        unreadable: index → reason.
    """

    values: Float[np.ndarray, 'examples *rest']
    dataset: Dataset
    unreadable: Mapping[int, str]

    def readable(self, rows: Int[np.ndarray, ' rows']) -> Int[np.ndarray, ' readable']:
        """The examples among ``rows`` that could be read."""
        return rows[~np.isin(rows, list(self.unreadable))] if self.unreadable else rows


class Extractor:
    """Features by backbone and data set; a program is compiled once per backbone, input size and tap.

    Args:
        config: the config of the ablation.
        store: the feature store; with several processes, all must see it, and process 0 writes.
        workdir: where measured speeds are kept.
        device_mesh: all devices of all processes by default.
        dtype: type in which backbones compute.
        in_memory: whether extracted features are an array; otherwise they stay on disk, memory-mapped.
        throughputs: where speeds are found and measured; those of several extractors measure a network once.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        store: Store,
        workdir: Path,
        device_mesh: mesh.DeviceMesh | None = None,
        dtype: str = 'float32',
        in_memory: bool = True,
        throughputs: Throughputs | None = None,
    ):
        self._config = config
        self._store = store
        self._throughputs = throughputs or Throughputs(workdir, store)
        self._mesh = device_mesh or mesh.make()
        self._dtype = dtype
        self._in_memory = in_memory
        # Every device takes the same share of a batch.
        self._batch_size = -(-config.batch_size // self._mesh.devices) * self._mesh.devices
        self._networks: dict[tuple[str, Preprocessing], Network] = {}
        # Digests of the pretrained weights that were loaded, so that stored features are found without loading them.
        self._digests: dict[FrozenBackbone, str] = {}
        # The last ones, which the data sets of one backbone share.
        self._last_weights: _Weights | None = None

    def check(self, backbone: FrozenBackbone) -> None:
        """Check that a backbone can be built and has the tap, and that its pretrained weights fit, by loading them.

        Raises:
            UserError: it cannot, it has not, or they do not.
        """
        if backbone.name != PIXELS:
            network = self._network(backbone)
            if backbone.weights != RANDOM and backbone not in self._digests:
                self._digests[backbone] = identity.variables_digest(self._load(network, backbone))

    def is_stored(self, backbone: FrozenBackbone, dataset: Dataset) -> bool:
        """Whether features are in the store, as far as that is known without computing anything."""
        if not isinstance(dataset.images, np.ndarray) and getattr(dataset.images, 'content', None) is None:
            return False  # all images would be decoded to know them
        if backbone.name == PIXELS:
            document = pixels_pass(tuple(dataset.images.shape[1:]), self._batch_size, self._mesh)[2]
        else:
            network = self._network(backbone)
            noted = _Weights(self, network, backbone, dataset).noted_digest()
            if noted is None:
                return False
            document = {**network.document, 'weights': noted}
        return self._store.holds({**document, 'data': data_document(dataset)})

    def __call__(self, backbone: FrozenBackbone, dataset: Dataset, advance: Advance) -> tuple[Extracted, Costs]:
        """Get the features of every readable example, and the costs of a forward pass.

        Args:
            advance: called with the number of examples that were finished.

        Raises:
            UserError: the weights do not fit, the backbone has no such tap, too many examples cannot be read, or the
                store cannot be written; finished shards are kept.
        """
        stored, costs = self.stored(backbone, dataset, advance)
        values = stored.array() if self._in_memory else cast(np.ndarray, stored)
        return Extracted(values, dataset.without(stored.unreadable), stored.unreadable), costs

    def stored(
        self,
        backbone: FrozenBackbone,
        dataset: Dataset,
        advance: Advance = lambda count: None,
        calibrated_on: Dataset | None = None,
    ) -> tuple[StoredFeatures, Costs]:
        """Do the same as a call, but leave the features on disk, memory-mapped.

        Args:
            calibrated_on: the data set whose training images give the statistics of random weights; ``dataset`` if
                ``None``.

        Raises:
            UserError: see ``__call__``.
        """
        if backbone.name == PIXELS:
            stored, costs = self._pixels(backbone, dataset, advance), Costs(input_size=self._pixels_size(dataset))
        else:
            network = self._network(backbone)
            weights = self._weights(network, backbone, calibrated_on or dataset)
            stored = self._features(network, weights, backbone, dataset, advance)
            costs = self._costs(network, weights)
        bad = [(dataset.ids[index], reason) for index, reason in sorted(stored.unreadable.items())]
        unreadable.report(bad, f'examples of {dataset.name!r}', self._config.bad_files_limit)
        return stored, costs

    def _network(self, backbone: FrozenBackbone) -> Network:
        config = self._config
        preprocessing = input_preprocessing(backbone.name, backbone.weights, input_size(config), config.fit)
        key = (backbone.name, preprocessing)
        if key not in self._networks:
            self._networks[key] = make_network(
                *key, config.tap, self._dtype, self._batch_size, self._mesh, config.runtime
            )
        return self._networks[key]

    def _weights(self, network: Network, backbone: FrozenBackbone, dataset: Dataset) -> '_Weights':
        last = self._last_weights
        if last is None or not last.are(network, backbone, dataset):
            self._last_weights = last = _Weights(self, network, backbone, dataset)
        return last

    def _load(self, network: Network, backbone: FrozenBackbone) -> dict:
        """The pretrained variables of a backbone, read as the config asks."""
        return network.load(backbone.weights, self._config.image_size > 0, self._config.strict_weights)

    def _costs(self, network: Network, weights: '_Weights') -> Costs:
        # One figure per network whatever the tap, under the address that earlier versions gave the usual one.
        document = {'tap': 'pooled', **{key: network.document[key] for key in ('backbone', 'computation')}}
        size = network.preprocessing.size
        measured = self._throughputs.get(
            {**document, 'input': list(size)},
            network.name,
            lambda: measure(network.frozen, weights.on_devices(), size),
        )
        return Costs(
            network.parameters,
            measured.images_per_second,
            size,
            network.weight_bytes,
            measured.peak_memory_bytes,
        )

    def _pixels(self, backbone: FrozenBackbone, dataset: Dataset, advance: Advance) -> StoredFeatures:
        frozen, shades, document, shape = pixels_pass(tuple(dataset.images.shape[1:]), self._batch_size, self._mesh)
        document = {**document, 'data': data_document(dataset)}
        return self._fetch(document, backbone, frozen, lambda: shades, shape, dataset, advance)

    def _pixels_size(self, dataset: Dataset) -> tuple[int, int]:
        """Height and width of the pixels that are features."""
        height, width, _ = dataset.images.shape[1:]
        document = pixels_pass(tuple(dataset.images.shape[1:]), self._batch_size, self._mesh)[2]
        return tuple(document['preprocessing']['size']) if document['preprocessing'] else (height, width)

    def _features(
        self, network: Network, weights: '_Weights', backbone: FrozenBackbone, dataset: Dataset, advance: Advance
    ) -> StoredFeatures:
        document = {**network.document, 'data': data_document(dataset)}
        bounds = self._bounds(len(dataset.targets), network.features_shape)
        noted = collective_store.of_main_process(weights.noted_digest())
        if noted is not None:
            found = collective_store.find(self._store, {**document, 'weights': noted}, bounds)
            if found is not None:
                advance(len(dataset.targets))
                return found
        document['weights'] = weights.digest()
        return self._fetch(
            document, backbone, network.frozen, weights.on_devices, network.features_shape, dataset, advance
        )

    def _fetch(
        self,
        document: dict,
        backbone: FrozenBackbone,
        frozen: FrozenPass,
        variables: Callable[[], Any],
        shape: tuple[int, ...],
        dataset: Dataset,
        advance: Advance,
    ) -> StoredFeatures:
        bounds = self._bounds(len(dataset.targets), shape)

        def compute(missing: Sequence[int]) -> Iterator[Shard]:
            return self._shards(
                frozen, variables(), dataset, [(number, *bounds[number]) for number in missing], advance
            )

        def announce(found: Sequence[int]) -> None:
            for number in found:
                advance(bounds[number][1] - bounds[number][0])

        about = {
            'backbone': backbone.label,
            'data': dataset.name if dataset.corruption is None else f'{dataset.name} {dataset.corruption.label}',
            'tap': document.get('tap', PIXELS),
            'examples': f'{len(dataset.targets):,}',
        }
        return collective_store.fetch(self._store, document, about, bounds, compute, announce)

    def _bounds(self, examples: int, shape: tuple[int, ...]) -> Bounds:
        """Bounds of the shards, each of whole batches."""
        fitting = min(_SHARD_EXAMPLES, _SHARD_BYTES // max(4 * int(np.prod(shape)), 1))
        step = max(fitting // self._batch_size, 1) * self._batch_size
        return [(start, min(start + step, examples)) for start in range(0, examples, step)]

    def _shards(
        self,
        frozen: FrozenPass,
        variables: Any,
        dataset: Dataset,
        parts: Sequence[tuple[int, int, int]],
        advance: Advance,
    ) -> Iterator[Shard]:
        """Run one pass over all examples of some shards, so that reading ahead continues from one shard to the next."""
        indices = np.concatenate([np.arange(start, stop) for _, start, stop in parts])
        bad: dict[int, str] = {}
        with contextlib.closing(frozen.run(variables, dataset, indices)) as batches:
            for number, start, stop in parts:
                values, done = [], 0
                for batch in batches:
                    values.append(batch.values)
                    bad.update(batch.unreadable)
                    frozen_pass.check_limit(dataset, bad, self._config.bad_files_limit)
                    advance(len(batch.indices))
                    done += len(batch.indices)
                    if done == stop - start:
                        break
                own = {index: reason for index, reason in bad.items() if start <= index < stop}
                yield Shard(number, np.concatenate(values), own)


class _Weights:
    """The variables of a backbone, loaded or initialised when needed."""

    def __init__(self, extractor: Extractor, network: Network, backbone: FrozenBackbone, dataset: Dataset):
        self._config, self._mesh, self._load = extractor._config, extractor._mesh, extractor._load
        self._store, self._digests = extractor._store, extractor._digests
        self._network, self._backbone, self._dataset = network, backbone, dataset
        self._variables: dict | None = None
        self._on_devices: Any = None

    def are(self, network: Network, backbone: FrozenBackbone, dataset: Dataset) -> bool:
        """Whether they are those of a backbone, calibrated on a data set if they are random."""
        return network is self._network and backbone == self._backbone and dataset is self._dataset

    def noted_digest(self) -> str | None:
        """The noted digest of variables that were loaded, or of random ones from the same recipe."""
        if self._backbone.weights != RANDOM:
            return self._digests.get(self._backbone)
        try:
            return str(json.loads(self._note().read_text())['variables'])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def digest(self) -> str:
        """The digest of the variables themselves."""
        digest = identity.variables_digest(self._host())
        if self._backbone.weights == RANDOM and jax.process_index() == 0:
            with contextlib.suppress(OSError):  # a note only saves time
                atomic_files.write_json(self._note(), {'variables': digest})
        return digest

    def on_devices(self) -> Any:
        """The variables, on the mesh."""
        if self._on_devices is None:
            self._on_devices = self._mesh.device_put(self._host())
        return self._on_devices

    def _note(self) -> Path:
        recipe = self._network.random_recipe(self._backbone, self._dataset, self._config.calibration_images)
        return self._store.note('weights', address(recipe))

    def _host(self) -> dict:
        if self._variables is None:
            if self._backbone.weights == RANDOM:
                self._variables = self._network.initialise(
                    self._backbone.init_seed,
                    self._dataset,
                    self._config.calibration_images,
                    self._config.bad_files_limit,
                )
            else:
                self._variables = self._load(self._network, self._backbone)
        return self._variables
