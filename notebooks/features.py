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
# # What features look like: image → stages → principal components, CNN beside ViT
#
# Both networks meet the same contract: images go in, and out come `stages`, maps of growing depth, and `pooled`, what a classifier sees. The pair here has equally many parameters and was pretrained alike, on photographs of 32 pixels; its weights come with the repository.

# %%
# %matplotlib inline
import jax
import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_sample_image

import backbones
from backbones.explanation import principal_components

photographs = np.stack([load_sample_image(name)[:, 80:507] for name in ('china.jpg', 'flower.jpg')])
NETWORKS = {'CNN': 'resnet_micro', 'ViT': 'vit_micro'}
# Four times the size of pretraining: the positions of the ViT are resampled for it.
SIZE = (128, 128)

# %% [markdown]
# ## Image → stages
#
# The stages of a CNN are its outputs at each resolution; those of a ViT are its blocks at each quarter of the depth, all at the resolution of its patches.

# %%
features = {}
for family, name in NETWORKS.items():
    variables, _ = backbones.load_weights(name, f'bundled:{name}')
    prepare = backbones.preprocess(name).replace(size=SIZE)
    apply = jax.jit(backbones.create(name).apply, static_argnames='train')
    features[family] = apply(variables, prepare(photographs), train=False)
    for stage, maps in features[family].stages.items():
        print(f'{family}  {stage}  {maps.shape}')
    print(f'{family}  pooled  {features[family].pooled.shape}')

# %% [markdown]
# ## Stages → principal components
#
# The first three principal components of a stage, over both photographs, as red, green and blue: places of one colour have similar features. Early stages tell edges and colours apart, late ones regions.

# %%
figure, axes = plt.subplots(4, 5, figsize=(9.5, 7.6), layout='constrained')
for block, (family, name) in enumerate(NETWORKS.items()):
    pictures = {stage: principal_components.colours(list(maps)) for stage, maps in features[family].stages.items()}
    for number in range(2):
        row = axes[2 * number + block]
        row[0].imshow(photographs[number])
        row[0].set_ylabel(f'{family}: {name}')
        for axis, (stage, colours) in zip(row[1:], pictures.items(), strict=True):
            axis.imshow(np.asarray(colours[number]), interpolation='nearest')
            axis.set_title(f'{stage}, {colours[number].shape[0]}x{colours[number].shape[1]}', fontsize=9)
for axis in axes.flat:
    axis.set_xticks([])
    axis.set_yticks([])
plt.show()

# %% [markdown]
# ## How much of a stage's variance do few directions hold?
#
# The share of the variance that the first components explain, as a measure of how many directions a stage uses.

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True, layout='constrained')
for axis, family in zip(axes, NETWORKS, strict=True):
    for stage, maps in features[family].stages.items():
        rows = np.asarray(maps).reshape(-1, maps.shape[-1])
        variances = np.linalg.svd(rows - rows.mean(0), compute_uv=False) ** 2
        shares = 100 * variances.cumsum() / variances.sum()
        axis.plot(np.arange(1, 33), shares[:32], label=f'{stage} ({maps.shape[-1]} channels)')
    axis.set_title(f'{family}: {NETWORKS[family]}')
    axis.set_xlabel('principal components')
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
axes[0].set_ylabel('variance in per cent')
plt.show()

# %% [markdown]
# Which places and which training images a prediction rests on, `python -m experiments.explain` shows: attention rollout for ViTs, Grad-CAM for CNNs.
