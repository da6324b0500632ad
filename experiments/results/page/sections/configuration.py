"""Every value of the configs, and which of them differ between runs."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.cli import work_directories
from experiments.results import config_differences
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
        members = [(name, config) for name, config in zip(names, configs, strict=True) if _kind(config) == kind]
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


def _differences(names: Sequence[str], configs: Sequence[Mapping[str, Any]]) -> Markup:
    differing = config_differences.differing([work_directories.flatten(config) for config in configs])
    if not differing:
        return element('p', 'The configs are equal.')
    rows = [
        [element('code', markup.name(key)), *(markup.name(_text(value), 200) for value in values)]
        for key, values in sorted(differing.items())
    ]
    return markup.table(['key', *map(markup.name, names)], rows)


def _text(value: str | None) -> str:
    """A value that is JSON: a string as it is, unless it is empty; an absent one is a dash."""
    if value is None:
        return _ABSENT
    found = json.loads(value)
    return found if isinstance(found, str) and found else json.dumps(found, ensure_ascii=False)


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
