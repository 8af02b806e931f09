"""How rules are read, judged and held consistent; asked through :mod:`glmlab.rules`."""
