"""Python finds this only where the package's folder `zerobuffer/` has lost its `__init__.py`: pip removes a former
zerobuffer-ipc after it has installed zerobuffer, with files of both."""

raise ImportError(
    "the package zerobuffer is not installed, or has lost files together with a former zerobuffer-ipc: install "
    "its wheel again (pip install --force-reinstall --no-deps zerobuffer-….whl)"
)
