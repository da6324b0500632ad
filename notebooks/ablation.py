# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # CNN or ViT? Reading an ablation
#
# This notebook reads a work directory and recomputes nothing: its numbers are those that `experiments.ablate` wrote. It shows the rows behind the table of the README, which `results/` keeps; set `ABLATION_WORKDIR` to read any other work directory, such as `../runs/quickstart` after `make ablation`.

# %%
# %matplotlib inline
import os
from pathlib import Path

from IPython.display import Markdown

from experiments.results import aggregates, plots, tables

workdir = Path(os.environ.get('ABLATION_WORKDIR', '../results/quickstart'))
entries = aggregates.load(workdir)
f'{len(entries)} entries on {", ".join(aggregates.datasets(entries))}'

# %% [markdown]
# ## The table
#
# One row per backbone, weights and regime; the share of the training labels grows from left to right.

# %%
Markdown('\n'.join(tables.markdown(tables.view(entries, name)) for name in aggregates.datasets(entries)))

# %% [markdown]
# ## Accuracy against cost

# %%
plots.score_against_cost(entries)

# %% [markdown]
# ## Two backbones on the same images
#
# Every cell kept its prediction for each test image, so two backbones can be compared image by image: how often is one right where the other is wrong, and does that differ by more than chance (a test at 5 % over test images, and over seeds where they change anything)?


# %%
def pick(backbone, weights, dataset, regime='linear'):
    """The entry with all training labels."""
    return next(
        entry
        for entry in reversed(entries)
        if (entry.variant.backbone, entry.variant.weights, entry.dataset, entry.regime, entry.fraction)
        == (backbone, weights, dataset, regime, 1.0)
    )


header = '| data set | only the CNN right | only the ViT right | difference | p |'
lines = [header, '|---|---:|---:|---:|---:|']
for dataset in aggregates.datasets(entries):
    cnn = pick('resnet_micro', 'bundled:resnet_micro', dataset)
    vit = pick('vit_micro', 'bundled:vit_micro', dataset)
    only_cnn = (cnn.correct & ~vit.correct).mean()
    only_vit = (vit.correct & ~cnn.correct).mean()
    p = aggregates.p_value(cnn, vit)
    lines.append(f'| {dataset} | {only_cnn:.1%} | {only_vit:.1%} | {only_cnn - only_vit:+.1%} | {p:.2g} |')
Markdown('\n'.join(lines))
