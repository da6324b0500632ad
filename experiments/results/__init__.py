"""From rows to intervals, tables and plots; nothing here imports JAX or the trainer."""
