"""What the doctor looks at; asked through :mod:`glmlab.diagnosis`."""
