"""What the two programs have in common."""

import argparse
import json
import random
import sys
import time
from typing import Any, Callable, Dict, List

Report = Dict[str, Any]


def pattern(kind: str, number: int, size: int) -> bytes:
    """The bytes of frame ``number``."""
    if kind == "sequential":
        return bytes((number + index) % 256 for index in range(size))
    if kind == "random":
        numbers = random.Random(number)
        return bytes(numbers.randint(0, 255) for _ in range(size))
    return {"zero": b"\0", "ones": b"\xff"}[kind] * size


def parser(what: str, verb: str) -> argparse.ArgumentParser:
    """The options that both have."""
    options = argparse.ArgumentParser(description=what)
    options.add_argument("buffer_name", help="the buffer's name")
    options.add_argument(
        "-n", "--frames", type=int, default=1000, help=f"how many frames to {verb} (default: 1000)"
    )
    options.add_argument(
        "-s", "--size", type=int, default=1024, help="bytes of each frame (default: 1024)"
    )
    options.add_argument("--batch-size", type=int, default=1, help="accepted, and changes nothing")
    options.add_argument("--json-output", action="store_true", help="print the result as JSON")
    options.add_argument("-v", "--verbose", action="store_true", help="say what is done")
    return options


def run(
    arguments: argparse.Namespace, operation: str, extra: Report, work: Callable[[Report], None]
) -> int:
    """Has ``work`` fill the report, prints it, and returns the program's status: 2 if nothing could be done, 1 if
    something was wrong."""
    counted = "frames_written" if operation == "write" else "frames_read"
    report: Report = {"operation": operation, "buffer_name": arguments.buffer_name, counted: 0}
    report.update(frame_size=arguments.size, metadata_size=0, duration_seconds=0.0)
    report.update(throughput_mbps=0.0, **extra, errors=[])
    errors: List[str] = report["errors"]
    start = time.perf_counter()
    status = 2
    try:
        work(report)
        status = 1 if errors or report.get("verification_errors") else 0
    except Exception as error:
        errors.append(str(error))
    seconds = report["duration_seconds"] = time.perf_counter() - start
    report["throughput_mbps"] = report[counted] * arguments.size / 2**20 / seconds
    if arguments.json_output:
        print(json.dumps(report, indent=2))
    else:
        rate = report["throughput_mbps"]
        print(f"{counted.replace('_', ' ')}: {report[counted]} in {seconds:.2f} s, {rate:.2f} MiB/s")
        for text in errors:
            print(f"error: {text}", file=sys.stderr)
    return status
