"""Code that runs inside vLLM's own processes: the only place that touches its private parts."""
