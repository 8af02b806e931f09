"""What a model is: its shape, its weights and how they are written; by name in :mod:`glmlab.catalog`."""
