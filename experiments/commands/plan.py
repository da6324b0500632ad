"""The work of ``experiments.plan``: a step compiled for devices that are not attached, and its costs."""

import argparse
import dataclasses
from collections.abc import Callable

import ml_collections
from rich.console import Console

from backbones.errors import UserError, unknown
from backbones.text.tokenising import Tokenising
from experiments import tasks
from experiments.cli import atomic_files, display
from experiments.data import account, loading, model_input, texts
from experiments.data.dataset import Dataset
from experiments.data.model_input import Reader, input_kind
from experiments.data.options import ReadingOptions
from experiments.planning import absent_devices, ahead_of_time, program_costs
from experiments.training import mesh, own_keys
from experiments.training.mesh import DeviceMesh
from experiments.training.programs import Programs


def run(options: argparse.Namespace, config: ml_collections.ConfigDict) -> None:
    """Compile every phase and print a table for each."""
    shape = ahead_of_time.stored_shape(options.stored_size) if options.stored_size else None
    if shape is not None and input_kind(config.backbone) == 'texts':
        raise UserError(f'--stored_size is of images, and {config.backbone} reads texts; leave it out')
    devices, limit = absent_devices.devices(options.topology)
    if options.memory_gib:
        limit = round(options.memory_gib * 2**30)
    if options.find_batch and not limit:
        raise UserError(f'--find_batch needs the memory of a device of {options.topology}; set --memory_gib')
    device_mesh = mesh.make(config.mesh.data, config.mesh.fsdp, devices)
    classes, dataset = options.classes, None
    if classes is None or shape is None:
        dataset = loading.load(
            config.dataset,
            options.data_dir,
            ReadingOptions.of(config),
            tasks.find(config.task).truth,
            inputs=input_kind(config.backbone),
        )
        preprocessing = tasks.input_preprocessing(config.task, config.backbone, config.weights, config)
        dataset, lines = model_input.read_by(dataset, [Reader(config.backbone, preprocessing, trains=True)])
        account.show(dataset, lines)
        classes, shape = classes or len(dataset.classes), shape or _stored_shape(config, dataset)

    def programs(batch_per_device: int | None) -> Programs:
        batch = batch_per_device * device_mesh.devices if batch_per_device else config.batch_size
        with own_keys.named():
            return ahead_of_time.planned(config, classes, shape, batch, device_mesh, dataset)

    if options.find_batch:
        first = options.batch_per_device or ahead_of_time.UNIT
        initial = programs(ahead_of_time.batch_unit(config.accumulation))
    else:
        first = 0
        initial = programs(options.batch_per_device)
    names = [phase.name for phase in initial.regime.phases]
    if options.phase is not None and options.phase not in names:
        raise unknown(f'phase of the regime {config.regime!r}', options.phase, names)
    written = []
    for phase, name in enumerate(names):
        if options.phase in (None, name):
            found = _search(programs, phase, first, limit, config) if first else [_compile(initial, phase, limit)]
            written.append(_show(initial, phase, name, device_mesh, config, options.topology, found))
    if options.json:
        content = {'topology': options.topology, 'config': config.to_dict(), 'phases': written}
        with atomic_files.os_errors_as_user_errors(lambda: 'the numbers are those above; the same command writes them'):
            atomic_files.write_json(options.json, content)


def _stored_shape(config: ml_collections.ConfigDict, dataset: Dataset) -> tuple[int, ...]:
    """Of an example as a training reads it: an image, or the tokens of a text."""
    preprocessing = tasks.input_preprocessing(config.task, config.backbone, config.weights, config)
    read = texts.encoded(dataset, preprocessing) if isinstance(preprocessing, Tokenising) else dataset
    return tuple(read.images.shape[1:])


def _compile(compiled: Programs, phase: int, limit: int) -> ahead_of_time.Probe:
    per_device = compiled.batch_size // compiled.device_mesh.devices
    inputs = 'texts' if _reads_texts(compiled) else 'images'
    with display.console.status(f'compiling {compiled.regime.phases[phase].name}, {per_device} {inputs} per device'):
        probe = ahead_of_time.probe(compiled, phase, limit)
    verdict = '' if probe.fits is None else ', fits' if probe.fits else ', does not fit'
    display.console.print(f'{per_device} {inputs} per device: {_memory(probe)}{verdict} ({probe.seconds:.0f} s)')
    return probe


def _search(
    programs: Callable[[int], Programs], phase: int, first: int, limit: int, config: ml_collections.ConfigDict
) -> list[ahead_of_time.Probe]:
    """All probes in the order of the search, except that the largest that fits comes last."""
    probes: dict[int, ahead_of_time.Probe] = {}

    def fits(batch: int) -> bool:
        probes[batch] = _compile(programs(batch), phase, limit)
        return bool(probes[batch].fits)

    best = ahead_of_time.find_batch(fits, first, ahead_of_time.batch_unit(config.accumulation))
    return [*(probe for batch, probe in probes.items() if batch != best), *([probes[best]] if best else [])]


def _tried(probe: ahead_of_time.Probe, forward: int) -> str:
    """The verdict on a batch and its arithmetic: close to the memory limit, the compiler recomputes values."""
    verdict = f'{"fits" if probe.fits else "does not fit"}: {_memory(probe)}'
    if probe.analysis is None:
        return verdict
    return f'{verdict}, {probe.analysis.flops / probe.batch_per_device / forward:.2f} x forward'


def _memory(probe: ahead_of_time.Probe) -> str:
    needed = program_costs.size(probe.needed_bytes) if probe.needed_bytes else 'more'
    return f'{needed} of {program_costs.size(probe.limit_bytes)}' if probe.limit_bytes else needed


def _show(
    compiled: Programs,
    phase: int,
    name: str,
    device_mesh: DeviceMesh,
    config: ml_collections.ConfigDict,
    devices: str,
    probes: list[ahead_of_time.Probe],
) -> dict:
    """Print the table of a phase for the last probe; returns the same numbers."""
    noun, unit = ('text', 'tokens') if _reads_texts(compiled) else ('image', 'px')
    of_length = f' of {max(compiled.input_size)} tokens' if noun == 'text' else ''
    last, sizes = probes[-1], ahead_of_time.sizes(compiled, phase)
    batch = last.batch_per_device
    verdict = 'unknown without --memory_gib'
    if last.fits is not None:
        verdict = f'{"yes" if last.fits else "no"}: {_memory(last)}'
    leading = [
        ('devices', device_mesh.describe()),
        ('batch', f'{batch:,} per device, {batch * device_mesh.devices:,} in all'),
        ('input', f'{max(compiled.input_size)} {unit}, {config.dtype}'),
        ('parameters', f'{sizes.trainable:,} of {sizes.parameters:,} train'),
        ('parameters on a device', program_costs.size(sizes.parameter_bytes)),
        ('optimizer state on a device', program_costs.size(sizes.optimizer_bytes)),
        ('fits', verdict),
    ]
    trailing = []
    forward = ahead_of_time.forward_flops(compiled)
    per_image = last.analysis.flops / batch if last.analysis else None
    if per_image is not None:
        trailing = [
            (
                f'arithmetic per {noun}{of_length}',
                f'{program_costs.operations(per_image)}, {per_image / forward:.2f} x a forward pass',
            ),
            ('compilation', f'{last.seconds:.0f} s'),
        ]
    if len(probes) > 1:
        trailing += [
            (f'tried {each.batch_per_device:,} per device', _tried(each, forward))
            for each in sorted(probes, key=lambda each: each.batch_per_device)
        ]
    # The table is the result; progress goes to standard error.
    output = Console() if Console().is_terminal else Console(width=120)
    title = f'{config.backbone} · {name} · {devices}'
    output.print(program_costs.table(last.analysis, title, leading, trailing))
    return {
        'phase': name,
        'devices': device_mesh.devices,
        'mesh': dict(device_mesh.mesh.shape),
        **dataclasses.asdict(sizes),
        'forward_flops_per_image': forward,
        'flops_per_image': per_image,
        **_numbers(last),
        'probes': [_numbers(each) for each in probes],
    }


def _reads_texts(compiled: Programs) -> bool:
    return isinstance(compiled.task.preprocessing, Tokenising)


def _numbers(probe: ahead_of_time.Probe) -> dict:
    return {**dataclasses.asdict(probe), 'peak_bytes': probe.analysis.peak_bytes if probe.analysis else None}
