"""Facts of a run beside its metrics, each a model, a function and what it shows."""
