"""GR2 (Generative Reasoning Re-ranker) in JAX."""

__version__ = '0.1.0'
