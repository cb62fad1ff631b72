"""``python -m edgefleet.serving``: prints its url when it is ready, and ends on SIGTERM."""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from edgefleet.base.errors import EdgefleetError
from edgefleet.protocol.fallback import BUDGET, TIMEOUT_S, WHEN, read_fallback
from edgefleet.serving.bounds import BOUNDS, read_bounds

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the serving process. Returns exit code 0 after SIGTERM, 1 if it cannot start."""
    parser = argparse.ArgumentParser(
        prog="python -m edgefleet.serving",
        description="Serve the releases that the agent activates, over Open Inference Protocol "
        "v2 and the REST API of TensorFlow Serving.",
    )
    parser.add_argument("--listen", default="127.0.0.1:8500", metavar="HOST:PORT")
    parser.add_argument(
        "--serve-grpc", metavar="HOST:PORT", help="serve the same protocol over gRPC, too"
    )
    parser.add_argument("--control-socket", required=True, type=Path, metavar="PATH")
    parser.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="load artifacts from this folder only"
    )
    parser.add_argument(
        "--cors-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="let pages of this origin call from a browser; * is any; may be repeated",
    )
    parser.add_argument(
        "--threads",
        default="0",
        metavar="N",
        help="threads of one inference; 0 is the whole CPUs in the quota of the cgroup, at least 1",
    )
    _add_fallback(parser)
    for bound in BOUNDS:
        text = f"{bound.text} (default: {bound.default})"
        parser.add_argument(f"--{bound.name}", metavar=bound.metavar, help=text)
    options = parser.parse_args(argv)
    # Blocked before the imports, which start threads: ``serve`` waits for the signals.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    import uvloop  # noqa: PLC0415 - see above

    from edgefleet.serving.server import (  # noqa: PLC0415 - see above
        ServingSettings,
        read_address,
        serve,
    )
    from edgefleet.serving.threads import set_thread_count  # noqa: PLC0415 - see above

    try:
        set_thread_count(options.threads)
        host, port = read_address(options.listen)
        grpc = read_address(options.serve_grpc, "serve-grpc") if options.serve_grpc else None
        settings = ServingSettings(
            host,
            port,
            options.control_socket,
            options.data_dir,
            origins=tuple(options.cors_origin),
            grpc=grpc,
            fallback=read_fallback(
                options.fallback,
                when=options.fallback_when,
                budget=options.fallback_budget,
                timeout_s=options.fallback_timeout_s,
                ca_file=options.fallback_ca_file,
                token_file=options.fallback_token_file,
            ),
            bounds=read_bounds({k: v for k, v in vars(options).items() if isinstance(v, str)}),
        )
        uvloop.run(serve(settings, STOP_SIGNALS, _print_url))
    except EdgefleetError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _add_fallback(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--fallback",
        default="",
        metavar="URL",
        help="endpoint to which requests may be forwarded; without it nothing leaves the device",
    )
    parser.add_argument("--fallback-when", default=WHEN, metavar="EVENTS")
    parser.add_argument("--fallback-budget", default=BUDGET, metavar="LIMITS")
    parser.add_argument("--fallback-timeout-s", default=TIMEOUT_S, metavar="SECONDS")
    parser.add_argument("--fallback-ca-file", default="", metavar="FILE")
    parser.add_argument("--fallback-token-file", default="", metavar="FILE")


def _print_url(url: str) -> None:
    sys.stdout.write(f"{url}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
