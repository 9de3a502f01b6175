"""The `mps-spectro` command."""

from __future__ import annotations

import argparse
import sys
from typing import Sequence

from . import __version__
from ._backend import BACKENDS
from ._bench.options import add_arguments as _bench_arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mps-spectro", description="torch.stft and torch.istft on fused Metal shaders: demonstration and checks."
    )
    parser.add_argument("--version", action="version", version=f"mps-spectro {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    demo = commands.add_parser("demo", help="take a recording through stft and istft, and compare with torch")
    demo.add_argument("audio", nargs="?", metavar="AUDIO", help="a sound file (default: a synthesised recording)")
    demo.add_argument("--output", default="demo-output", metavar="DIR", help="where to write (default: ./demo-output)")
    demo.add_argument("--backend", choices=BACKENDS, default="auto", help="default: the best one of this machine")
    demo.add_argument("--seconds", type=float, metavar="S", help="use only the first S seconds")

    doctor = commands.add_parser("doctor", help="report what works on this machine; put this into a bug report")
    doctor.add_argument("--json", action="store_true", help="print the report as JSON")

    bench = commands.add_parser("bench", help="measure torch, a framed baseline and this package side by side")
    _bench_arguments(bench)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit status: 0 fine, 1 the check or the job failed, 2 wrong usage."""
    arguments = _parser().parse_args(argv)
    if arguments.command == "doctor":
        from ._doctor import main as doctor

        return doctor(as_json=arguments.json)
    if arguments.command == "bench":
        from ._bench.command import run as bench

        return bench(arguments)

    from ._demo import DemoError, run

    try:
        run(arguments.audio, arguments.output, arguments.backend, arguments.seconds)
    except DemoError as why:
        print(f"mps-spectro demo: {why}", file=sys.stderr)
        return 1
    return 0
