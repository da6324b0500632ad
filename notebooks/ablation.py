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
# This notebook reads a work directory and recomputes nothing: its numbers are those that `experiments.ablate` wrote. The rows of the quickstart come with the repository; set `ABLATION_WORKDIR` to read another work directory, such as that of `make ablation`, `runs/quickstart`.

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
