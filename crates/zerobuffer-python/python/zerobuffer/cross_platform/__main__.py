"""``python -m zerobuffer.cross_platform reader|writer …``"""

import sys

from . import reader_main, writer_main

_MAINS = {"reader": reader_main, "writer": writer_main}

if len(sys.argv) < 2 or sys.argv[1] not in _MAINS:
    sys.exit("usage: python -m zerobuffer.cross_platform reader|writer NAME [options]")
sys.exit(_MAINS[sys.argv.pop(1)]())
