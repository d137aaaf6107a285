"""What is trained already: weights by name, and the files they lie in."""

from checkpoints.fetch import fetch, find, is_source, locate
from checkpoints.weights import Weights, read, table, write

__all__ = ["Weights", "fetch", "find", "is_source", "locate", "read", "table", "write"]
