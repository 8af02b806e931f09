"""What takes memory on a GPU, part by part; asked through :mod:`glmlab.memory`."""
