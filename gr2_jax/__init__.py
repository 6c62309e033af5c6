"""GR2 (Generative Reasoning Re-ranker) in JAX."""
