"""The reader of version 1."""

from ._native import Reader

__all__ = ["Reader"]
