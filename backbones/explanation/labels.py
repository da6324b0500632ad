"""Names of the ways to explain, and what pictures call them; these need no JAX."""

from collections.abc import Mapping

ROLLOUT, GRAD_CAM, PCA = 'rollout', 'gradcam', 'pca'

LABELS: Mapping[str, str] = {ROLLOUT: 'attention rollout', GRAD_CAM: 'Grad-CAM', PCA: 'PCA of features'}
