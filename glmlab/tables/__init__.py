"""What the command line shows of the catalogs."""
