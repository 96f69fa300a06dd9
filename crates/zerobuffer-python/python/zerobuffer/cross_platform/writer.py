"""A writer for the command line."""

import sys
import time
from pathlib import Path

from zerobuffer import Writer
from zerobuffer.cross_platform._run import Report, parser, pattern, run

__all__ = ["main"]


def main() -> int:
    """Writes frames into a reader's buffer; returns the program's status."""
    options = parser("Writes frames into a buffer that a reader has made.", "write")
    options.add_argument("-m", "--metadata", help="metadata to write")
    options.add_argument("--metadata-file", type=Path, help="a file with the metadata")
    options.add_argument(
        "--pattern",
        choices=["sequential", "random", "zero", "ones"],
        default="sequential",
        help="what the frames hold (default: sequential)",
    )
    options.add_argument("--delay-ms", type=int, default=0, help="how long to wait between frames")
    arguments = options.parse_args()

    def work(report: Report) -> None:
        metadata = arguments.metadata.encode() if arguments.metadata else b""
        if not metadata and arguments.metadata_file:
            metadata = arguments.metadata_file.read_bytes()
        with Writer(arguments.buffer_name) as writer:
            if metadata:
                writer.set_metadata(metadata)
                report["metadata_size"] = len(metadata)
            for number in range(arguments.frames):
                writer.write_frame(pattern(arguments.pattern, number, arguments.size))
                report["frames_written"] = number + 1
                if arguments.verbose and not arguments.json_output and (number + 1) % 100 == 0:
                    print(f"{number + 1} frames written")
                if arguments.delay_ms > 0:
                    time.sleep(arguments.delay_ms / 1000)

    return run(arguments, "write", {}, work)


if __name__ == "__main__":
    sys.exit(main())
