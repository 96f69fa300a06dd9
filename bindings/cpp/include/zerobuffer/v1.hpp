/// Protocol version 1: one-way buffers, to communicate with existing C++, C# and Python programs.
#pragma once

#include "bytes.hpp"
#include "config.hpp"
#include "error.hpp"
#include "frame.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace zerobuffer {
inline namespace abi1 {
namespace v1 {

/// A frame that was read.
using Frame = View;
/// A frame that is being written in place; it keeps the length that it was acquired with.
using FrameBuffer = Buffer;

/// What a reader is made of.
struct ReaderConfig {
    BufferConfig buffer = {};
    /// Permission bits; 0600 lets in programs of the same user only.
    std::uint32_t mode = 0600;
    WaitStrategy wait = WaitStrategy::SpinThenPark;
    Liveness liveness = Liveness::Pid;
};

/// What a writer is made of.
struct WriterConfig {
    /// How long a write waits for room, in all.
    std::chrono::nanoseconds write_timeout = std::chrono::seconds(5);
    WaitStrategy wait = WaitStrategy::SpinThenPark;
    Liveness liveness = Liveness::Pid;
    /// The user id that must own the buffer's objects, if not this process's.
    std::optional<std::uint32_t> owner = std::nullopt;
    /// Whether to start again with sequence 1 on a used buffer whose last one cannot be determined.
    bool restart_sequence = false;
};

/// A reader: creates a buffer, owns it, and removes it when destroyed. Many threads may use it at once.
class Reader {
public:
    static Reader create(const std::string &name, BufferConfig buffer = {}) {
        return create(name, ReaderConfig{.buffer = buffer});
    }
    static Reader create(const std::string &name, const ReaderConfig &config) {
        detail::check_abi();
        zb_reader_config raw{};
        raw.size = sizeof raw;
        raw.metadata_size = config.buffer.metadata_size;
        raw.payload_size = config.buffer.payload_size;
        raw.mode = config.mode;
        raw.wait = static_cast<std::uint32_t>(config.wait);
        raw.liveness = static_cast<std::uint32_t>(config.liveness);
        zb_reader *reader = nullptr;
        detail::check(zb_reader_create(name.c_str(), &raw, &reader));
        return Reader(reader);
    }

    /// The next frame, waiting for it until the timeout has passed. It may outlive the reader.
    Frame read_frame(std::chrono::nanoseconds timeout) {
        return detail::filled<zb_reader_read, Frame>(reader_.get(), timeout.count());
    }
    Result<Frame> try_read_frame(std::chrono::nanoseconds timeout) {
        return detail::try_filled<zb_reader_read, Frame>(reader_.get(), timeout.count());
    }

    /// A copy of the metadata; no bytes if the writer has set none. Look after the first frame.
    std::vector<std::uint8_t> metadata() const {
        std::size_t len = 0;
        detail::check(zb_reader_metadata(reader_.get(), nullptr, 0, &len));
        std::vector<std::uint8_t> metadata(len);
        detail::check(zb_reader_metadata(reader_.get(), metadata.data(), len, &len));
        return metadata;
    }

    /// Ends it from any thread, while others are inside of its calls: each call that waits comes back at
    /// once, and it and every later one that could wait throws `Closed`. The destructor does the rest, once
    /// those threads have come back.
    void close() const noexcept { zb_reader_shutdown(reader_.get()); }

    /// Whether a live writer is attached at this moment.
    bool is_writer_connected() const noexcept {
        return zb_reader_is_writer_connected(reader_.get());
    }

private:
    explicit Reader(zb_reader *reader) noexcept : reader_(reader) {}

    std::unique_ptr<zb_reader, detail::Close<zb_reader_close>> reader_;
};

/// A writer: attaches to a reader's buffer, and fills it. One thread at a time uses it, and any may `close` it.
class Writer {
public:
    /// Attaches to the buffer, waiting until the timeout has passed for it to be there and to be free.
    static Writer connect(const std::string &name, std::chrono::nanoseconds timeout,
                          const WriterConfig &config = {}) {
        detail::check_abi();
        zb_writer_config raw{};
        raw.size = sizeof raw;
        raw.write_timeout_ns = detail::at_least_1(config.write_timeout);
        raw.wait = static_cast<std::uint32_t>(config.wait);
        raw.liveness = static_cast<std::uint32_t>(config.liveness);
        raw.has_owner = config.owner.has_value();
        raw.owner = config.owner.value_or(0);
        raw.restart_sequence = config.restart_sequence;
        zb_writer *writer = nullptr;
        detail::check(zb_writer_connect(name.c_str(), &raw, timeout.count(), &writer));
        return Writer(writer);
    }

    /// Describes the stream, once in the buffer's life; to be called before the first frame.
    void set_metadata(Bytes metadata) {
        detail::check(zb_writer_set_metadata(writer_.get(), metadata.data(), metadata.size()));
    }

    /// Writes a copy of `data` as one frame, and returns its number.
    std::uint64_t write_frame(Bytes data) {
        return detail::numbered<zb_writer_write>(writer_.get(), data.data(), data.size());
    }
    Result<std::uint64_t> try_write_frame(Bytes data) {
        return detail::try_numbered<zb_writer_write>(writer_.get(), data.data(), data.size());
    }

    /// A frame of `size` bytes, to be filled in the ring and committed.
    FrameBuffer acquire(std::size_t size) {
        return detail::filled<zb_writer_acquire, FrameBuffer>(writer_.get(), size);
    }
    Result<FrameBuffer> try_acquire(std::size_t size) {
        return detail::try_filled<zb_writer_acquire, FrameBuffer>(writer_.get(), size);
    }

    /// Ends it from any thread, while others are inside of its calls: each call that waits comes back at
    /// once, and it and every later one that could wait throws `Closed`. The destructor does the rest, once
    /// those threads have come back.
    void close() const noexcept { zb_writer_shutdown(writer_.get()); }

    /// Whether the reader is there at this moment.
    bool is_reader_connected() const noexcept {
        return zb_writer_is_reader_connected(writer_.get());
    }

private:
    explicit Writer(zb_writer *writer) noexcept : writer_(writer) {}

    std::unique_ptr<zb_writer, detail::Close<zb_writer_close>> writer_;
};

} // namespace v1
} // namespace abi1
} // namespace zerobuffer
