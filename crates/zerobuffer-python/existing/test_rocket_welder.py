"""Programs on the public rocket-welder-sdk run unchanged, whichever of the two sides has this package."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("rocket_welder_program.py")
# Of two processes that move gigabytes on a busy machine.
LIMIT = 600
PICTURE, FRAMES = (1920, 1080), 1000


def environment(name):
    value = os.environ.get(name)
    assert value, f"{name} is not set: run `cargo xtask existing`"
    return value


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """What to import the packages from."""
    folder = tmp_path_factory.mktemp("path")
    # The SDK's way to its event store, which none of this needs.
    (folder / "py_micro_plumberd.py").write_text("CommandBus = EventStoreClient = object\n")
    where = "import zerobuffer, pathlib; print(pathlib.Path(zerobuffer.__file__).parents[1])"

    def path(python):
        package = subprocess.check_output([python, "-c", where], text=True).strip()
        return os.pathsep.join([str(folder), package])

    return {"ours": path(sys.executable), "existing": path(environment("ZEROBUFFER_V1_PYTHON"))}


def start(path, *arguments):
    return subprocess.Popen(
        [environment("ZEROBUFFER_SDK_PYTHON"), PROGRAM, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
    )


@pytest.mark.parametrize("user, camera", [("ours", "ours"), ("ours", "existing"), ("existing", "ours")])
@pytest.mark.parametrize("mode", ["oneway", "duplex"])
def test_every_frame_goes_through(paths, user, camera, mode):
    name = f"rw{os.getpid()}"
    sides = [
        start(paths[package], role, mode, name, *PICTURE, FRAMES)
        for package, role in ((user, "user"), (camera, "camera"))
    ]
    try:
        told = [sides[1].stdout.readline(), None]
        if mode == "duplex":
            sides[0].stdin.write("\n")
            sides[0].stdin.flush()
        told[1] = sides[0].stdout.readline()
        # The camera goes first, so that nobody waits for its next frame.
        for side in sides[::-1]:
            side.communicate("\n", timeout=LIMIT)
    finally:
        for side in sides:
            side.kill()
    assert told == [f"{'written' if mode == 'oneway' else 'right'}: {FRAMES}\n", f"right: {FRAMES}\n"]
    assert [side.returncode for side in sides] == [0, 0]
    for left in Path("/dev/shm").glob(f"*{name}*"):
        # The existing package leaves semaphores behind.
        assert left.name.startswith("sem.sem-") and "existing" in (user, camera), left
        left.unlink()
