"""Every value of the configs, and which of them differ between runs."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.results.page import markup
from experiments.results.page.content import Report
from experiments.results.page.markup import Child, Markup, element

_ABSENT = '–'
_KINDS = {'ablation': 'ablations', 'training': 'trainings'}


def section(report: Report) -> Markup:
    """Differences between work directories, then versions, weights and all values."""
    configs = [report.configs.get(workdir, {}) for workdir in report.workdirs]
    names = [workdir.name or str(workdir) for workdir in report.workdirs]
    if len({*names}) < len(names):
        names = [str(workdir) for workdir in report.workdirs]
    parts: list[Child] = []
    for kind, title in _KINDS.items():
        members = [(name, flat(config)) for name, config in zip(names, configs, strict=True) if _kind(config) == kind]
        if len(members) > 1:
            parts += [element('h3', f'Differences between {title}'), _differences(*zip(*members, strict=True))]
    parts += [element('h3', 'Versions'), _versions(report)] if report.versions else []
    weights = _weights(report)
    parts += [element('h3', 'Weights'), weights] if weights else []
    parts += [element('h3', 'All values'), element('p', 'As config.json of each work directory has them.')]
    for name, config in zip(names, configs, strict=True):
        text = json.dumps(config, indent=2, ensure_ascii=False)
        parts.append(
            element('details', element('summary', markup.name(name)), element('pre', element('code', text), tabindex=0))
        )
    return markup.escaped(parts)


def _kind(config: Mapping[str, Any]) -> str:
    """Only configs of one kind have the same keys."""
    return 'ablation' if 'backbones' in config else 'training'


def _differences(names: Sequence[str], configs: Sequence[Mapping[str, str]]) -> Markup:
    differing = differences(configs)
    if not differing:
        return element('p', 'The configs are equal.')
    rows = [
        [element('code', markup.name(key)), *(markup.name(value, 200) for value in values)]
        for key, values in differing.items()
    ]
    return markup.table(['key', *map(markup.name, names)], rows)


def flat(config: Mapping[str, Any], prefix: str = '') -> dict[str, str]:
    """A config with nested keys joined by dots, and its values as JSON."""
    found = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f'{prefix}{key}.')
        else:
            found[f'{prefix}{key}'] = (
                value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
            )
    return found


def differences(configs: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    """The keys that do not have the same value in all configs, with their values; absent ones are a dash."""
    keys = sorted({key for config in configs for key in config})
    found = {key: [config.get(key, _ABSENT) for config in configs] for key in keys}
    return {key: values for key, values in found.items() if len({*values}) > 1}


def _versions(report: Report) -> Markup:
    rows = [
        [package, element('b', ', '.join(versions), ' (differ)') if len(versions) > 1 else versions[0]]
        for package, versions in report.versions.items()
    ]
    return markup.table(['package', 'version'], rows)


def _weights(report: Report) -> Markup | None:
    digests: dict[str, dict[str, None]] = {}
    for _, row in report.rows:
        if row.weights_digest:
            digests.setdefault(row.cell.variant.label, {})[row.weights_digest] = None
    if not digests:
        return None
    rows = [[markup.name(label), element('code', ', '.join(found))] for label, found in digests.items()]
    return markup.table(['backbone and weights', 'SHA-256 of the files'], rows)
