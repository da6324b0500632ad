"""What the commands do once their arguments are read; ``experiments/NAME.py`` reads them without importing JAX."""
