/// What servers, clients, readers and writers are made of.
#pragma once

#include <zerobuffer.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

namespace zerobuffer {
inline namespace abi1 {

/// No deadline.
inline constexpr std::chrono::nanoseconds forever = std::chrono::nanoseconds(ZB_FOREVER);

/// How one side waits for the other.
enum class WaitStrategy : std::uint32_t {
    /// Spin for a while, then sleep. For nearly everybody.
    SpinThenPark = ZB_WAIT_DEFAULT,
    /// Sleep at once: the least CPU time.
    Park = ZB_WAIT_PARK,
    /// Spin as long as no other thread needs the CPU: the lowest latency, for a core that has nothing else to do.
    Spin = ZB_WAIT_SPIN,
};

/// What kind of channel a client talks to.
enum class Channel : std::uint32_t {
    /// It finds out.
    Any = ZB_CHANNEL_ANY,
    /// Protocol version 2: the response lies where the request was.
    InPlace = ZB_CHANNEL_IN_PLACE,
    /// Protocol version 1: the response lies in a buffer of its own.
    TwoBuffers = ZB_CHANNEL_TWO_BUFFERS,
};

/// Version 1: how one side finds out that the other one has ended without closing.
enum class Liveness : std::uint32_t {
    /// By its process id, as existing v1 programs do.
    Pid = ZB_LIVENESS_PID,
    /// By its lock file: for containers that share /tmp.
    Lock = ZB_LIVENESS_LOCK,
    /// Never: for containers that share nothing but /dev/shm.
    None = ZB_LIVENESS_NONE,
};

/// The sizes of a channel's blocks, in bytes. Both are rounded up to multiples of 64.
struct BufferConfig {
    /// Metadata for each direction; a message needs 8 bytes more than its length.
    std::size_t metadata_size = 1024;
    /// The ring. A frame of n bytes takes n + 64 of it in place, n + 16 in version 1.
    std::size_t payload_size = 1024 * 1024;

    BufferConfig() = default;
    BufferConfig(std::size_t metadata, std::size_t payload)
        : metadata_size(metadata), payload_size(payload) {}

    /// A ring that holds exactly `in_flight` frames of up to `frame_size` bytes at the same time: requests
    /// under way and responses that are held, together. Two buffers may need one frame more.
    static BufferConfig for_frames(std::size_t frame_size, std::size_t in_flight) {
        return {BufferConfig().metadata_size, zb_payload_size_for_frames(frame_size, in_flight)};
    }
};

/// What a server is made of.
struct ServerConfig {
    BufferConfig buffer = {};
    /// Permission bits; 0600 lets in programs of the same user only.
    std::uint32_t mode = 0600;
    WaitStrategy wait = WaitStrategy::SpinThenPark;
    /// In place: threads that run the handler; with more than one, answers may overtake each other.
    std::uint32_t workers = 1;
    /// In place: what each client can read about this server.
    std::string metadata = {};
    /// How long stopping waits for running handlers, and then for the client to read its responses.
    std::chrono::nanoseconds stop_timeout = std::chrono::seconds(2);
    /// Two buffers only.
    Liveness liveness = Liveness::Pid;
};

/// What a client is made of.
struct ClientConfig {
    Channel channel = Channel::Any;
    /// Whether many threads use it at once.
    bool many_threads = false;
    WaitStrategy wait = WaitStrategy::SpinThenPark;
    /// The most requests in flight, held responses included.
    std::uint32_t max_in_flight = 4096;
    /// How long sending waits for room.
    std::chrono::nanoseconds send_timeout = std::chrono::seconds(5);
    /// What the handler can read about this client.
    std::string metadata = {};
    /// In place: whether requests that a server's end left not started are sent again.
    bool resend_not_started = false;
    /// The user id that must own the channel's objects, if not this process's.
    std::optional<std::uint32_t> owner = std::nullopt;
    /// Two buffers: the response buffer, which the client makes.
    BufferConfig response_buffer = {4096, 32 * 1024 * 1024};
    /// Two buffers: permission bits of the response buffer.
    std::uint32_t mode = 0600;
    /// Two buffers only.
    Liveness liveness = Liveness::Pid;
};

namespace detail {

/// A timeout for C. 0 in a configuration would be its default, so the shortest one is a nanosecond.
inline std::int64_t at_least_1(std::chrono::nanoseconds timeout) {
    return timeout.count() == 0 ? 1 : timeout.count();
}

inline const std::uint8_t *bytes(const std::string &text) {
    return reinterpret_cast<const std::uint8_t *>(text.data());
}

inline zb_server_config to_c(const ServerConfig &config, std::uint32_t kind) {
    zb_server_config made{};
    made.size = sizeof made;
    made.kind = kind;
    made.mode = config.mode;
    made.metadata_size = config.buffer.metadata_size;
    made.payload_size = config.buffer.payload_size;
    made.wait = static_cast<std::uint32_t>(config.wait);
    made.workers = config.workers;
    made.metadata = bytes(config.metadata);
    made.metadata_len = config.metadata.size();
    made.stop_timeout_ns = at_least_1(config.stop_timeout);
    made.liveness = static_cast<std::uint32_t>(config.liveness);
    return made;
}

inline zb_client_config to_c(const ClientConfig &config) {
    zb_client_config made{};
    made.size = sizeof made;
    made.channel = static_cast<std::uint32_t>(config.channel);
    made.threads = config.many_threads ? ZB_THREADS_MANY : ZB_THREADS_ONE;
    made.wait = static_cast<std::uint32_t>(config.wait);
    made.max_in_flight = config.max_in_flight;
    made.send_timeout_ns = at_least_1(config.send_timeout);
    made.metadata = bytes(config.metadata);
    made.metadata_len = config.metadata.size();
    made.resend_not_started = config.resend_not_started;
    made.has_owner = config.owner.has_value();
    made.owner = config.owner.value_or(0);
    made.response_metadata_size = config.response_buffer.metadata_size;
    made.response_payload_size = config.response_buffer.payload_size;
    made.mode = config.mode;
    made.liveness = static_cast<std::uint32_t>(config.liveness);
    return made;
}

} // namespace detail
} // namespace abi1
} // namespace zerobuffer
