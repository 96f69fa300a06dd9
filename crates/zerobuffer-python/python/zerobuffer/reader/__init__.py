"""The reader of version 1.

This module is a folder where the package ``zerobuffer-ipc`` 1.3.0 has a file. Both packages have the same import
name, and pip installs one over the other without a word. Python prefers the folder in whatever order that
happened, so it is noticed here, instead of by a program that runs with half of each.
"""

from pathlib import Path

from .._native import Reader

__all__ = ["Reader"]

if Path(__file__).parent.with_suffix(".py").exists():
    raise ImportError(
        "the packages zerobuffer and zerobuffer-ipc 1.3.0 or older are installed over each other; remove both "
        "(pip uninstall zerobuffer zerobuffer-ipc), then install zerobuffer again, which has everything "
        "that zerobuffer-ipc has"
    )
