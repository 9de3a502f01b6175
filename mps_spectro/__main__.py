"""`python -m mps_spectro` is the `mps-spectro` command."""

from ._cli import main

raise SystemExit(main())
