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
# # Importing published weights
#
# Weights of others come in as many layouts as there are libraries. `backbones.load_weights` recognises the layout, brings every array to its place, and refuses what does not fit. Here: a checkpoint of PyTorch in, a photograph through it, and the same file out again. No torch is needed.

# %%
# %matplotlib inline
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_sample_image

import backbones

directory = Path('../runs/notebooks/import_weights')
directory.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## In
#
# A source is a file, a directory as a hub lays it out, `hf:ORG/REPO`, or `pip:NAME` for weights in a package. The report says what became of every array.

# %%
classifier = backbones.create_classifier('efficientnet_lite0', 1000)
variables, report = backbones.load_weights('efficientnet_lite0', 'pip:efficientnet-lite0', classifier=True)
print(report)
print(report.preprocessing)

# %% [markdown]
# Parameters are a plain tree whose paths are the same for every backbone; masks that freeze a part of one are patterns over these paths.

# %%
paths = ['/'.join(key.key for key in path) for path, _ in jax.tree.leaves_with_path(variables['params'])]
print(f'{sum(leaf.size for leaf in jax.tree.leaves(variables["params"])):,} parameters in {len(paths)} arrays, such as')
print('\n'.join(paths[::40]))

# %% [markdown]
# ## Through
#
# `prepare` does on the device what the weights expect: resizing, cropping and normalising.

# %%
photograph = load_sample_image('flower.jpg')
prepare = backbones.preprocess('efficientnet_lite0')
logits = jax.jit(classifier.apply)(variables, prepare(photograph[None]))
probabilities = jax.nn.softmax(logits[0])
backbones.load('efficientnet_lite0')(photograph)[0].plot()

# %% [markdown]
# ## What is refused
#
# A file that does not fit is an error that says why, and what would mend it: another backbone's weights, for example.

# %%
try:
    backbones.load_weights('efficientnet_b0', 'pip:efficientnet-lite0')
except backbones.UserError as error:
    print(error)

# %% [markdown]
# ## Out
#
# `save_weights` reads the same table of keys backwards. What goes in comes out bit for bit, so that the library the weights came from reads the file as its own.

# %%
file = directory / 'back.safetensors'
backbones.save_weights(file, variables, layout='lukemelas')
again, back = backbones.load_weights('efficientnet_lite0', file, classifier=True, padding='same', epsilon=1e-3)
print(back)
jax.tree.map(np.testing.assert_array_equal, variables, again)
print(f'{file.stat().st_size / 1e6:.1f} MB, every one of {len(jax.tree.leaves(again))} arrays the same bit for bit')

# %% [markdown]
# ## Other sizes and channels
#
# The same weights take images of any size, and of one channel: the first convolution is then summed over its three.

# %%
grey = backbones.create('efficientnet_lite0')
grey_variables, grey_report = backbones.load_weights('efficientnet_lite0', 'pip:efficientnet-lite0', input_channels=1)
features = grey.apply(grey_variables, jnp.zeros((1, 160, 320, 1)), train=False)
for stage, maps in features.stages.items():
    print(stage, maps.shape)
print(grey_report)
