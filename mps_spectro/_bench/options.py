"""What can be asked of the benchmark; apart, so that the command line stays quick to start."""

from __future__ import annotations

import argparse

from .cases import SECTIONS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--quick", action="store_true", help="only the rows that say most (all with a target), and fewer repeats"
    )
    parser.add_argument("--section", action="append", choices=SECTIONS, help="only this section; may be repeated")
    parser.add_argument("--device", choices=("cuda", "mps", "cpu"), help="default: the best one of this machine")
    parser.add_argument("--audio", metavar="FILE", help="measure on this recording too")
    parser.add_argument(
        "--dispatch-profile", action="store_true", help="split small calls into Python, launch and device"
    )
    parser.add_argument("--json", metavar="FILE", help="write all measurements to FILE")
    parser.add_argument("--plot", metavar="FILE", help="draw the ratios to FILE (needs matplotlib)")
