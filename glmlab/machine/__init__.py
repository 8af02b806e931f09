"""What a machine is made of: GPUs as their makers describe them, and as the driver does."""
