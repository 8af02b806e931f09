"""``python -m glmlab``."""

from glmlab.cli import main

main()
