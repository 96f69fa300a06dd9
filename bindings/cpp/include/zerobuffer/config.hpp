/// What servers, clients, readers and writers are made of.
#pragma once

#include <zerobuffer.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

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
    /// A service, which has any number of clients.
    Service = ZB_CHANNEL_SERVICE,
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

/// What a server of a service is made of. Where it says so, 0 is the library's default.
struct ServiceConfig {
    /// Bytes of the ring of a client that asks for none in particular.
    std::size_t ring_size = 32 * 1024 * 1024;
    /// Bytes of each of the two metadata blocks.
    std::size_t metadata_size = 4096;
    /// The largest ring that a client can ask for, at most 1 GiB.
    std::size_t max_ring_size = std::size_t{1} << 30;
    /// The most bytes of all clients' memory together; 0 for half of what is free when it is created.
    std::uint64_t max_bytes = 0;
    /// The most clients at the same time.
    std::uint32_t max_clients = 64;
    /// The most clients of one user; 0 for half of all for other users, and all for this server's own.
    std::uint32_t max_clients_per_user = 0;
    WaitStrategy wait = WaitStrategy::SpinThenPark;
    /// Threads that run the handler, for all clients together.
    std::uint32_t workers = 1;
    /// What each client can read about this server.
    std::string metadata = {};
    /// How long stopping waits for running handlers.
    std::chrono::nanoseconds stop_timeout = std::chrono::seconds(2);
    /// Users whose programs may attach, besides this server's own and root.
    std::vector<std::uint32_t> users = {};
    /// Groups whose members may attach, the last of which owns the directory and the socket.
    std::vector<std::uint32_t> groups = {};
    /// The runtime directory; empty for the user's own.
    std::string directory = {};
    /// A listening `SOCK_SEQPACKET` socket that this process was given, instead of one of its own.
    std::optional<std::int32_t> listener = std::nullopt;
    /// The most requests of one client that are worked on at the same time; 0 for as many as there are handlers.
    std::uint32_t handlers_per_client = 0;
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
    /// Not 0: the client mends itself, for programs that run for long. It has up to so many connections to
    /// different servers of a service, or one to a channel; sends each call on the one with the fewest under way,
    /// again elsewhere if a server's end left it not started, and connects to new servers as servers come and go.
    /// It is for any number of threads, and for `call`, `call_async` and `start_call` alone.
    std::uint32_t connections = 0;
    /// Services: bytes of the ring; 0 for what the server gives its clients.
    std::size_t ring_size = 0;
    /// Services: what the server calls this client; empty for the program's name.
    std::string label = {};
    /// Services: the runtime directory; empty for every place of this user's services, or root's.
    std::string directory = {};
};

namespace detail {

/// A timeout for C. 0 in a configuration would be its default, so the shortest one is a nanosecond.
inline std::int64_t at_least_1(std::chrono::nanoseconds timeout) {
    return timeout.count() == 0 ? 1 : timeout.count();
}

inline const std::uint8_t *bytes(const std::string &text) {
    return reinterpret_cast<const std::uint8_t *>(text.data());
}

/// Text for C, which has null for the default.
inline const char *text(const std::string &text) { return text.empty() ? nullptr : text.c_str(); }

inline zb_service_config to_c(const ServiceConfig &config) {
    zb_service_config made{};
    made.size = sizeof made;
    made.ring_size = config.ring_size;
    made.metadata_size = config.metadata_size;
    made.max_ring_size = config.max_ring_size;
    made.max_bytes = config.max_bytes;
    made.max_clients = config.max_clients;
    made.max_clients_per_user = config.max_clients_per_user;
    made.wait = static_cast<std::uint32_t>(config.wait);
    made.workers = config.workers;
    made.metadata = bytes(config.metadata);
    made.metadata_len = config.metadata.size();
    made.stop_timeout_ns = at_least_1(config.stop_timeout);
    made.users = config.users.data();
    made.users_len = config.users.size();
    made.groups = config.groups.data();
    made.groups_len = config.groups.size();
    made.directory = text(config.directory);
    made.has_listener = config.listener.has_value();
    made.listener = config.listener.value_or(0);
    made.handlers_per_client = config.handlers_per_client;
    return made;
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
    made.connections = config.connections;
    made.ring_size = config.ring_size;
    made.label = text(config.label);
    made.directory = text(config.directory);
    return made;
}

} // namespace detail
} // namespace abi1
} // namespace zerobuffer
