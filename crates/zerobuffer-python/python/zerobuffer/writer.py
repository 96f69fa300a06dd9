"""The writer of version 1."""

from ._native import Writer

__all__ = ["Writer"]
