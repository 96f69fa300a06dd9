"""The modules for tools that look at a buffer of version 1."""

from pathlib import Path

import pytest
from zerobuffer import ZeroBufferException, platform
from zerobuffer.platform import linux
from zerobuffer.shared_memory import SharedMemoryFactory


@pytest.mark.parametrize("size", [0, -1, 1 << 62, 1 << 70])
def test_memory_that_cannot_be_made_leaves_no_name(name, size):
    with pytest.raises(ZeroBufferException):
        platform.create_shared_memory(name, size)
    assert not Path("/dev/shm", name).exists()


@pytest.mark.parametrize("folder", ["../../tmp/", "./", "/../shm/"])
def test_a_name_of_shared_memory_leads_to_no_other_folder(name, folder):
    with pytest.raises(ZeroBufferException):
        platform.create_shared_memory(folder + name, 8)
    with pytest.raises(ZeroBufferException):
        SharedMemoryFactory.open(folder + name)
    assert not Path("/tmp", name).exists()


def test_a_lock_file_that_was_made_anew_meanwhile_is_not_removed_as_stale(tmp_path, monkeypatch):
    path = str(tmp_path / "lock")
    holders = [platform.create_file_lock(path)]
    plain = linux._try_lock

    def late(file):
        if len(holders) == 1:
            # Between the look for the file and the look at its lock: another one takes its place.
            holders[0].close()
            holders.append(None)
            holders[1] = platform.create_file_lock(path)
        return plain(file)

    monkeypatch.setattr(linux, "_try_lock", late)
    assert not platform.FileLock.try_remove_stale(path)
    assert Path(path).exists()
    holders[1].close()


def test_a_lock_is_of_the_file_that_has_the_name(tmp_path, monkeypatch):
    path = str(tmp_path / "lock")
    former = platform.create_file_lock(path)
    plain = linux._try_lock
    looks = []

    def late(file):
        looks.append(file)
        if len(looks) == 1:
            former.close()
        return plain(file)

    monkeypatch.setattr(linux, "_try_lock", late)
    with platform.create_file_lock(path):
        assert Path(path).exists()
        with pytest.raises(ZeroBufferException):
            platform.create_file_lock(path)
