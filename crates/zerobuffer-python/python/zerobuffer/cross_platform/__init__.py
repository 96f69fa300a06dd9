"""A reader and a writer for the command line, with which the implementations of version 1 are tried with each
other: ``python -m zerobuffer.cross_platform reader NAME``, and ``writer NAME``."""

from .reader import main as reader_main
from .writer import main as writer_main

__all__ = ["reader_main", "writer_main"]
