"""The C interface for Python by cffi: the header as it is, and errors as exceptions."""

import os
import re
from pathlib import Path

from cffi import FFI

ROOT = Path(__file__).resolve().parents[3]
HEADER = ROOT / "crates/zerobuffer-ffi/include/zerobuffer.h"
LIBRARY = os.environ.get("ZEROBUFFER_LIBRARY", str(ROOT / "target/release/libzerobuffer.so"))


def declarations() -> str:
    """What cffi understands of the header: all of it but the preprocessor's conditions."""
    text = re.sub(r"#ifdef __cplusplus.*?#endif[^\n]*\n", "", HEADER.read_text(), flags=re.S)
    lines = text.splitlines()
    constant = re.compile(r"#define \w+ -?\d+$")
    return "\n".join(line for line in lines if not line.startswith("#") or constant.match(line))


ffi = FFI()
ffi.cdef(declarations())
lib = ffi.dlopen(LIBRARY)
assert lib.zb_abi_version() == lib.ZB_ABI_VERSION

NANOSECONDS = 1_000_000_000


class Failed(Exception):
    """A call that failed, with the facts."""

    def __init__(self) -> None:
        error = lib.zb_last_error()
        self.status = error.status
        self.sequence = error.sequence
        self.request_state = error.request_state
        self.handler_status = error.handler_status
        self.detail = ffi.buffer(error.detail, error.detail_len)[:].decode()
        super().__init__(ffi.buffer(error.message, error.message_len)[:].decode())


def check(status: int) -> None:
    if status != lib.ZB_OK:
        raise Failed()


class Client:
    """A client of one channel, on one thread."""

    def __init__(self, name: str, timeout: float, **fields: object) -> None:
        config = ffi.new("zb_client_config *")
        self._metadata = fill(config, fields)
        self._out = ffi.new("zb_client **")
        check(lib.zb_client_connect(name.encode(), config, int(timeout * NANOSECONDS), self._out))
        self.handle = self._out[0]
        self._sequence = ffi.new("uint64_t *")
        self._buffer = ffi.new("zb_buffer *")

    def send(self, data: bytes) -> int:
        """Fills a request in the ring, and sends it."""
        check(lib.zb_client_acquire(self.handle, len(data), 0, 0, self._buffer))
        ffi.memmove(self._buffer.data, data, len(data))
        check(lib.zb_buffer_commit(self._buffer, self._sequence))
        return self._sequence[0]

    def receive(self, sequence: int, timeout: float) -> "View":
        """The answer to one request; to any with sequence 0."""
        view = View()
        check(lib.zb_client_receive(self.handle, sequence, int(timeout * NANOSECONDS), view.raw))
        return view

    def call(self, data: bytes, timeout: float) -> "View":
        view = View()
        check(lib.zb_client_call(self.handle, data, len(data), int(timeout * NANOSECONDS), view.raw))
        return view

    def reconnect(self, timeout: float) -> None:
        check(lib.zb_client_reconnect(self.handle, int(timeout * NANOSECONDS), ffi.NULL))

    def server_metadata(self) -> str:
        length = ffi.new("size_t *")
        check(lib.zb_client_server_metadata(self.handle, ffi.NULL, 0, length))
        data = ffi.new("uint8_t[]", length[0])
        check(lib.zb_client_server_metadata(self.handle, data, length[0], length))
        return ffi.buffer(data)[:].decode()

    def close(self) -> None:
        lib.zb_client_close(self.handle)
        self.handle = ffi.NULL


class View:
    """Bytes in shared memory to read, released at the end of a `with` block."""

    def __init__(self) -> None:
        self.raw = ffi.new("zb_view *")

    def __enter__(self) -> "View":
        return self

    def __exit__(self, *_: object) -> None:
        lib.zb_view_release(self.raw)

    @property
    def sequence(self) -> int:
        return self.raw.sequence

    @property
    def data(self) -> "ffi.buffer":
        return ffi.buffer(self.raw.data, self.raw.len)


def fill(config: "ffi.CData", fields: dict) -> object:
    """Sets fields of a configuration. What it returns must live as long as the configuration."""
    config.size = ffi.sizeof(config[0])
    metadata = fields.pop("metadata", "").encode()
    kept = ffi.new("uint8_t[]", metadata or b"\0")
    if metadata:
        config.metadata = kept
        config.metadata_len = len(metadata)
    for name, value in fields.items():
        setattr(config, name, value)
    return kept
