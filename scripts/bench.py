#!/usr/bin/env python3
"""Measures torch, a framed baseline and this package side by side: scripts/bench.py --help, docs/performance.md.

The same as `mps-spectro bench`, from the checkout and without installing it.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mps_spectro._bench.command import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
