"""Features of frozen backbones for an ablation: from the store, or from one pass that is then stored."""

import collections
import contextlib
import copy
import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import ml_collections
import numpy as np
from jaxtyping import Float, Int

from backbones.inputs import AnyPreprocessing
from backbones.text.tokenising import Tokenising
from experiments.cli import atomic_files
from experiments.data import texts, unreadable
from experiments.data.dataset import Dataset
from experiments.data.model_input import input_preprocessing, input_size
from experiments.features import collective_store, frozen_pass, identity, taps, tfidf
from experiments.features.addresses import address
from experiments.features.entry_files import Bounds, Shard, StoredFeatures
from experiments.features.frozen_backbone import FrozenBackbone
from experiments.features.frozen_pass import Pass
from experiments.features.network import Network, data_document, make_network
from experiments.features.pixels import pixels_pass
from experiments.features.store import Store, Wanted
from experiments.features.throughput import Throughputs, measure
from experiments.results.axes import BASELINES, PIXELS, RANDOM, TFIDF
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
        input_size: height and width of its input in pixels, or the length of texts in tokens; ``None`` for TF-IDF.
        weight_bytes: bytes of its parameters and statistics.
        peak_memory_bytes: memory of its forward pass on each device, see ``throughput.PROCEDURE``; ``None``: unknown.
    """

    parameters: int = 0
    images_per_second: float | None = None
    input_size: tuple[int, ...] | None = None
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
    """Features by backbone and data set; a program is compiled once per backbone, input size and taps.

    Args:
        config: the config of the ablation.
        store: the feature store; with several processes, all must see it, and process 0 writes.
        workdir: where measured speeds are kept.
        device_mesh: all devices of all processes by default.
        dtype: type in which backbones compute.
        throughputs: where speeds are found and measured; those of several extractors measure a network once.

    Attributes:
        tap: where features are taken.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        store: Store,
        workdir: Path,
        device_mesh: mesh.DeviceMesh | None = None,
        dtype: str = 'float32',
        throughputs: Throughputs | None = None,
    ):
        self._config = config
        self._store = store
        self._throughputs = throughputs or Throughputs(workdir, store)
        self._mesh = device_mesh or mesh.make()
        self._dtype = dtype
        self.tap, self._in_memory = config.tap, True
        # Every device takes the same share of a batch.
        self._batch_size = -(-config.batch_size // self._mesh.devices) * self._mesh.devices
        self._networks: dict[tuple[str, AnyPreprocessing], Network] = {}
        # The last data set of texts that was tokenised, and for what.
        self._tokens: list[tuple[Dataset, Tokenising, _Read]] = []
        # Digests of the pretrained weights that were loaded, so that stored features are found without loading them.
        self._digests: dict[FrozenBackbone, str] = {}
        # The last ones, which the data sets of one backbone share.
        self._last_weights: list[_Weights] = []
        self._held = _Held()

    def at(self, tap: str, in_memory: bool = True) -> 'Extractor':
        """The same at another tap: networks, weights and what ``hold`` got are shared.

        Args:
            in_memory: whether extracted features are an array; otherwise they stay on disk, memory-mapped.
        """
        other = copy.copy(self)
        other.tap, other._in_memory = tap, in_memory
        return other

    def check(self, backbone: FrozenBackbone) -> None:
        """Check that a backbone can be built and has the tap, and that its pretrained weights fit, by loading them.

        Raises:
            UserError: it cannot, it has not, or they do not.
        """
        if backbone.name not in BASELINES:
            network = self._network(backbone)
            taps.check(network.name, network.model, self.tap)
            if backbone.weights != RANDOM and backbone not in self._digests:
                self._digests[backbone] = identity.variables_digest(self._load(network, backbone))

    def is_stored(self, backbone: FrozenBackbone, dataset: Dataset) -> bool:
        """Whether features are in the store, as far as that is known without computing anything."""
        if not isinstance(dataset.images, np.ndarray) and getattr(dataset.images, 'content', None) is None:
            return False  # all images would be decoded to know them
        if backbone.name == PIXELS:
            document = pixels_pass(tuple(dataset.images.shape[1:]), self._batch_size, self._mesh)[2]
        elif backbone.name == TFIDF:
            document = tfidf.document(dataset)
        else:
            network = self._network(backbone)
            noted = _Weights(self, network, backbone, dataset).noted_digest()
            if noted is None:
                return False
            document = {**network.document_at(self.tap), 'weights': noted}
            dataset = self._read(network, dataset).dataset
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
        beside: Sequence[str] = (),
    ) -> tuple[StoredFeatures, Costs]:
        """Do the same as a call, but leave the features on disk, memory-mapped.

        Args:
            calibrated_on: the data set whose training images give the statistics of random weights; ``dataset`` if
                ``None``.
            beside: other taps, whose features are stored too if a pass is needed.

        Raises:
            UserError: see ``__call__``.
        """
        if backbone.name == PIXELS:
            stored, costs = self._pixels(backbone, dataset, advance), Costs(input_size=self._pixels_size(dataset))
        elif backbone.name == TFIDF:
            stored, costs = self._tfidf(backbone, dataset, advance), Costs()
        else:
            weights = self._weights(backbone, calibrated_on or dataset)
            read = self._read(weights.network, dataset)
            stored = self._held.pop(backbone, dataset, self.tap)
            if stored is None:
                stored = self._find(weights, read.dataset, self.tap, advance)
            if stored is None:
                advances = {self.tap: advance, **dict.fromkeys(beside, lambda count: None)}
                stored = self._compute(weights, read.dataset, advances)[self.tap]
            if read.places is not None:
                stored = stored.reordered(read.places)
            costs = self._costs(weights)
        bad = [(dataset.ids[index], reason) for index, reason in sorted(stored.unreadable.items())]
        unreadable.report(bad, f'examples of {dataset.name!r}', self._config.bad_files_limit)
        return stored, costs

    def hold(
        self, backbone: FrozenBackbone, dataset: Dataset, names: Sequence[str], advance: Advance = lambda count: None
    ) -> None:
        """Get the features at several taps for the next calls ``at`` each: what is not stored, from one pass.

        Args:
            names: of the taps.
            advance: called with the number of examples that were finished, of each tap.

        Raises:
            UserError: see ``__call__``.
        """
        self._held.clear()
        weights = self._weights(backbone, dataset)
        read = self._read(weights.network, dataset).dataset
        found = {tap: self._find(weights, read, tap, advance) for tap in names}
        missing = {tap: advance for tap in names if found[tap] is None}
        computed = self._compute(weights, read, missing) if missing else {}
        self._held.put(backbone, dataset, {tap: found[tap] or computed[tap] for tap in names})

    def _network(self, backbone: FrozenBackbone) -> Network:
        config = self._config
        size, length = input_size(config), config.text_length
        preprocessing = input_preprocessing(backbone.name, backbone.weights, size, config.fit, length)
        key = (backbone.name, preprocessing)
        if key not in self._networks:
            self._networks[key] = make_network(*key, self._dtype, self._batch_size, self._mesh, config.runtime)
        return self._networks[key]

    def _read(self, network: Network, dataset: Dataset) -> '_Read':
        """What a pass of a network reads of a data set: of texts their tokens, in another order."""
        tokenising = network.preprocessing
        if not isinstance(tokenising, Tokenising):
            return _Read(dataset)
        if not self._tokens or self._tokens[0][0] is not dataset or self._tokens[0][1] != tokenising:
            self._tokens[:] = [(dataset, tokenising, _Read(*texts.by_length(texts.encoded(dataset, tokenising))))]
        return self._tokens[0][2]

    def _weights(self, backbone: FrozenBackbone, dataset: Dataset) -> '_Weights':
        network = self._network(backbone)
        last = self._last_weights
        if not last or not last[0].are(network, backbone, dataset):
            last[:] = [_Weights(self, network, backbone, dataset)]
        return last[0]

    def _load(self, network: Network, backbone: FrozenBackbone) -> dict:
        """The pretrained variables of a backbone, read as the config asks."""
        return network.load(backbone.weights, self._config.image_size > 0, self._config.strict_weights)

    def _costs(self, weights: '_Weights') -> Costs:
        network = weights.network
        # One figure per network whatever the taps, whose own passes may lack the last stages, under the address that
        # earlier versions gave the usual one.
        document = {'tap': taps.USUAL, **{key: network.document[key] for key in ('backbone', 'computation')}}
        size = network.preprocessing.size
        measured = self._throughputs.get(
            {**document, 'input': list(size)},
            network.name,
            lambda: measure(network.frozen(taps.USUAL), weights.on_devices(), size),
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
        wanted = self._wanted({**document, 'data': data_document(dataset)}, backbone, dataset, shape)
        (stored,) = self._fetch([wanted], [advance], dataset, lambda places: frozen, lambda: shades)
        return stored

    def _tfidf(self, backbone: FrozenBackbone, dataset: Dataset, advance: Advance) -> StoredFeatures:
        frozen = tfidf.TfidfPass(dataset, self._batch_size)
        document = {**tfidf.document(dataset), 'data': data_document(dataset)}
        wanted = self._wanted(document, backbone, dataset, frozen.shape)
        (stored,) = self._fetch([wanted], [advance], dataset, lambda places: frozen, lambda: None)
        return stored

    def _pixels_size(self, dataset: Dataset) -> tuple[int, int]:
        """Height and width of the pixels that are features."""
        height, width, _ = dataset.images.shape[1:]
        document = pixels_pass(tuple(dataset.images.shape[1:]), self._batch_size, self._mesh)[2]
        return tuple(document['preprocessing']['size']) if document['preprocessing'] else (height, width)

    def _find(self, weights: '_Weights', dataset: Dataset, tap: str, advance: Advance) -> StoredFeatures | None:
        """The features at a tap, if they can be known without making the weights."""
        network = weights.network
        taps.check(network.name, network.model, tap)
        noted = collective_store.of_main_process(weights.noted_digest())
        if noted is None:
            return None
        document = {**network.document_at(tap), 'data': data_document(dataset), 'weights': noted}
        bounds = self._bounds(len(dataset.targets), network.features_shapes[tap])
        found = collective_store.find(self._store, document, bounds)
        if found is not None:
            advance(len(dataset.targets))
        return found

    def _compute(
        self, weights: '_Weights', dataset: Dataset, advances: Mapping[str, Advance]
    ) -> dict[str, StoredFeatures]:
        """The features at some taps; what is not stored comes from one pass.

        Args:
            advances: of each tap, what is called with the number of examples that were finished.
        """
        network = weights.network
        names = list(advances)
        data = {'data': data_document(dataset), 'weights': weights.digest()}
        stored = self._fetch(
            [
                self._wanted(
                    {**network.document_at(tap), **data}, weights.backbone, dataset, network.features_shapes[tap]
                )
                for tap in names
            ],
            list(advances.values()),
            dataset,
            lambda places: network.frozen(*(names[place] for place in places)),
            weights.on_devices,
        )
        return dict(zip(names, stored, strict=True))

    def _wanted(self, document: dict, backbone: FrozenBackbone, dataset: Dataset, shape: tuple[int, ...]) -> Wanted:
        about = {
            'backbone': backbone.label,
            'data': dataset.name if dataset.corruption is None else f'{dataset.name} {dataset.corruption.label}',
            'tap': document.get('tap', backbone.name),
            'examples': f'{len(dataset.targets):,}',
        }
        return Wanted(document, about, self._bounds(len(dataset.targets), shape))

    def _fetch(
        self,
        wanted: Sequence[Wanted],
        advances: Sequence[Advance],
        dataset: Dataset,
        frozen: Callable[[Sequence[int]], Pass],
        variables: Callable[[], Any],
    ) -> list[StoredFeatures]:
        """Features from the store, or from one pass.

        Args:
            advances: one for each of ``wanted``.
            frozen: gives the pass whose outputs are those at some places among ``wanted``.
        """

        def compute(missing: Sequence[Sequence[int]]) -> Iterator[tuple[int, Shard]]:
            places = [place for place, numbers in enumerate(missing) if numbers]
            parts = [[(number, *wanted[place].bounds[number]) for number in missing[place]] for place in places]
            chosen = [advances[place] for place in places]
            for output, shard in self._shards(frozen(places), variables(), dataset, parts, chosen):
                yield places[output], shard

        def announce(found: Sequence[Sequence[int]]) -> None:
            for each, advance, numbers in zip(wanted, advances, found, strict=True):
                for number in numbers:
                    advance(each.bounds[number][1] - each.bounds[number][0])

        return collective_store.fetch(self._store, wanted, compute, announce)

    def _bounds(self, examples: int, shape: tuple[int, ...]) -> Bounds:
        """Bounds of the shards, each of whole batches."""
        fitting = min(_SHARD_EXAMPLES, _SHARD_BYTES // max(4 * int(np.prod(shape)), 1))
        step = max(fitting // self._batch_size, 1) * self._batch_size
        return [(start, min(start + step, examples)) for start in range(0, examples, step)]

    def _shards(
        self,
        frozen: Pass,
        variables: Any,
        dataset: Dataset,
        parts: Sequence[Sequence[tuple[int, int, int]]],
        advances: Sequence[Advance],
    ) -> Iterator[tuple[int, Shard]]:
        """Run one pass over all examples of some shards, so that reading ahead continues from one shard to the next.

        Args:
            parts: of each output, its shards in order: number, first example and one past the last.

        Yields:
            Each shard, with its output, as soon as all of its examples are computed.
        """
        needed = np.zeros(len(dataset.targets), bool)
        for _, start, stop in itertools.chain(*parts):
            needed[start:stop] = True
        waiting = [collections.deque(shards) for shards in parts]
        values: list[list[np.ndarray]] = [[] for _ in parts]
        bad: dict[int, str] = {}
        # As shards are of whole batches, a batch is in a shard or outside, and the same whatever else is computed.
        with contextlib.closing(frozen.run(variables, dataset, np.flatnonzero(needed))) as batches:
            for batch in batches:
                first, last = batch.indices[0], batch.indices[-1]
                bad.update(batch.unreadable)
                frozen_pass.check_limit(dataset, bad, self._config.bad_files_limit)
                concerned = [output for output, shards in enumerate(waiting) if shards and shards[0][1] <= first]
                for output in concerned:
                    advances[output](len(batch.indices))
                    values[output].append(batch.values[output])
                    number, start, stop = waiting[output][0]
                    if last + 1 == stop:
                        own = {index: reason for index, reason in bad.items() if start <= index < stop}
                        yield output, Shard(number, np.concatenate(values[output]), own)
                        values[output].clear()
                        waiting[output].popleft()


class _Read(NamedTuple):
    """A data set as a pass reads it.

    Attributes:
        dataset: images, or tokens of texts.
        places: where each example of the original lies in it; ``None``: where it was.
    """

    dataset: Dataset
    places: Int[np.ndarray, ' examples'] | None = None


class _Held:
    """Features of one backbone on one data set, by tap, until each is asked for."""

    def __init__(self):
        self._of: tuple[FrozenBackbone, Dataset] | None = None
        self._features: dict[str, StoredFeatures] = {}

    def clear(self) -> None:
        self._of, self._features = None, {}

    def put(self, backbone: FrozenBackbone, dataset: Dataset, features: dict[str, StoredFeatures]) -> None:
        self._of, self._features = (backbone, dataset), features

    def pop(self, backbone: FrozenBackbone, dataset: Dataset, tap: str) -> StoredFeatures | None:
        """Those of a tap, which are held no longer; ``None`` if there are none."""
        if self._of is None or self._of[0] != backbone or self._of[1] is not dataset:
            return None
        return self._features.pop(tap, None)


class _Weights:
    """The variables of a backbone, loaded or initialised when needed.

    Attributes:
        network: the backbone, built.
        backbone: its name and weights.
    """

    def __init__(self, extractor: Extractor, network: Network, backbone: FrozenBackbone, dataset: Dataset):
        self._config, self._mesh, self._load = extractor._config, extractor._mesh, extractor._load
        self._store, self._digests = extractor._store, extractor._digests
        self.network, self.backbone, self._dataset = network, backbone, dataset
        self._variables: dict | None = None
        self._on_devices: Any = None

    def are(self, network: Network, backbone: FrozenBackbone, dataset: Dataset) -> bool:
        """Whether they are those of a backbone, calibrated on a data set if they are random."""
        return network is self.network and backbone == self.backbone and dataset is self._dataset

    def noted_digest(self) -> str | None:
        """The noted digest of variables that were loaded, or of random ones from the same recipe."""
        if self.backbone.weights != RANDOM:
            return self._digests.get(self.backbone)
        try:
            return str(json.loads(self._note().read_text())['variables'])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def digest(self) -> str:
        """The digest of the variables themselves."""
        digest = identity.variables_digest(self._host())
        if self.backbone.weights == RANDOM and jax.process_index() == 0:
            with contextlib.suppress(OSError):  # a note only saves time
                atomic_files.write_json(self._note(), {'variables': digest})
        return digest

    def on_devices(self) -> Any:
        """The variables, on the mesh."""
        if self._on_devices is None:
            self._on_devices = self._mesh.device_put(self._host())
        return self._on_devices

    def _note(self) -> Path:
        recipe = self.network.random_recipe(self.backbone, self._dataset, self._config.calibration_images)
        return self._store.note('weights', address(recipe))

    def _host(self) -> dict:
        if self._variables is None:
            if self.backbone.weights == RANDOM:
                self._variables = self.network.initialise(
                    self.backbone.init_seed,
                    self._dataset,
                    self._config.calibration_images,
                    self._config.bad_files_limit,
                )
            else:
                self._variables = self._load(self.network, self.backbone)
        return self._variables
