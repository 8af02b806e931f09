"""What a decode step takes, term by term, before it is measured; asked through :mod:`glmlab.predictor`."""
