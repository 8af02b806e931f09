"""What one rank of a plan holds: weights, KV, layers; and a model that is one rank of another."""
