"""A reader for the command line."""

import hashlib
import sys

from zerobuffer import Reader
from zerobuffer.cross_platform._run import Report, parser, pattern, run

__all__ = ["main"]

# More of them than that are left out of the report.
_CHECKSUMS = 100


def main() -> int:
    """Makes a buffer and reads its frames; returns the program's status."""
    options = parser("Makes a buffer, and reads frames from it.", "read, -1 for all")
    options.add_argument(
        "--timeout-ms", type=int, default=5000, help="how long to wait for a frame, 0 for ever"
    )
    options.add_argument(
        "--verify",
        choices=["none", "sequential", "random", "zero", "ones"],
        default="none",
        help="what the frames must hold",
    )
    options.add_argument("--checksum", action="store_true", help="report the frames' MD5 sums")
    arguments = options.parse_args()
    timeout = arguments.timeout_ms / 1000 if arguments.timeout_ms else None

    def work(report: Report) -> None:
        with Reader(arguments.buffer_name) as reader:
            while report["frames_read"] != arguments.frames:
                frame = reader.read_frame(timeout=timeout)
                if frame is None:
                    break
                with frame:
                    _look(arguments, report, bytes(frame))
            report["metadata_size"] = len(reader.get_metadata() or b"")

    return run(arguments, "read", {"verification_errors": 0, "checksums": []}, work)


def _look(arguments: object, report: Report, data: bytes) -> None:
    number = report["frames_read"]
    options = vars(arguments)
    if len(data) != options["size"]:
        report["errors"].append(f"frame {number} has {len(data)} bytes, not {options['size']}")
    if options["verify"] != "none" and data != pattern(options["verify"], number, len(data)):
        report["verification_errors"] += 1
    if options["checksum"] and len(report["checksums"]) < _CHECKSUMS:
        checksum = hashlib.md5(data).hexdigest()
        report["checksums"].append({"frame": number, "checksum": checksum})
    report["frames_read"] = number + 1
    if options["verbose"] and not options["json_output"] and (number + 1) % 100 == 0:
        print(f"{number + 1} frames read")


if __name__ == "__main__":
    sys.exit(main())
