/// Servers of all kinds.
#pragma once

#include "config.hpp"
#include "error.hpp"
#include "frame.hpp"

#include <chrono>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <ranges>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace zerobuffer {
inline namespace abi1 {
namespace detail {

/// Runs `handle`, and turns what it throws into a failure of the frame. Nothing leaves it.
template <class Handle>
std::int32_t contain(zb_frame *frame, Handle &&handle) noexcept {
    try {
        handle();
        return 0;
    } catch (const std::exception &error) {
        zb_frame_fail(frame, error.what(), std::strlen(error.what()));
    } catch (...) {
        constexpr std::string_view message = "the handler threw something that is no std::exception";
        zb_frame_fail(frame, message.data(), message.size());
    }
    return 1;
}

template <class Handler>
std::int32_t edit(zb_frame *raw, void *handler) noexcept {
    return contain(raw, [&] {
        Frame frame(*raw);
        (*static_cast<Handler *>(handler))(frame);
    });
}

template <class Handler>
std::int32_t reply(zb_frame *raw, void *handler) noexcept {
    return contain(raw, [&] {
        const Frame frame(*raw);
        const auto answer = (*static_cast<Handler *>(handler))(frame);
        const auto bytes = std::as_bytes(std::span(std::ranges::data(answer), std::ranges::size(answer)));
        std::uint8_t *to = nullptr;
        check(zb_frame_reply(raw, bytes.size(), &to));
        std::memcpy(to, bytes.data(), bytes.size());
    });
}

/// What the servers have in common.
class ServerHandle {
public:
    /// Whether threads are serving: false before the start, after the stop, and if it had to stop for a reason of its own.
    bool is_running() const noexcept { return zb_server_is_running(raw()); }
    /// Whether a client is attached at this moment.
    bool is_client_connected() const noexcept { return zb_server_is_client_connected(raw()); }
    /// Stops cleanly. Called again it does nothing. Throws what made the server stop before.
    void stop() { check(zb_server_stop(raw())); }
    /// Ends it from any thread, while another one is inside of its calls: a `receive` that waits comes back
    /// at once, and it and every later one throws `Closed`; no handler is called any more. `stop` or the
    /// destructor does the rest, once that thread has come back.
    void close() const noexcept { zb_server_shutdown(raw()); }

protected:
    ServerHandle(const std::string &name, const ServerConfig &config, std::uint32_t kind) {
        check_abi();
        const zb_server_config made = to_c(config, kind);
        zb_server *server = nullptr;
        check(zb_server_create(name.c_str(), &made, &server));
        server_.reset(server);
    }
    ServerHandle(const std::string &name, const ServiceConfig &config) {
        check_abi();
        const zb_service_config made = to_c(config);
        zb_server *server = nullptr;
        check(zb_service_create(name.c_str(), &made, &server));
        server_.reset(server);
    }

    /// The library frees the handler once nobody calls it any more.
    template <class Handler>
    void start_with(Handler handler, std::int32_t (*run)(zb_frame *, void *) noexcept) {
        auto kept = std::make_unique<Handler>(std::move(handler));
        constexpr auto release = [](void *user) { delete static_cast<Handler *>(user); };
        check(zb_server_start(raw(), run, kept.release(), release));
    }

    zb_server *raw() const noexcept { return server_.get(); }

private:
    std::unique_ptr<zb_server, Close<zb_server_close>> server_;
};

} // namespace detail

namespace detail {

/// What edits requests where they lie.
class InPlaceHandle : public ServerHandle {
public:
    /// Runs `handler(Frame &)` on every request, in the background. What it throws reaches the client as
    /// `HandlerFailed`. With several workers it runs on several frames at the same time.
    template <std::invocable<Frame &> Handler>
    void start(Handler handler) {
        start_with(std::move(handler), &edit<Handler>);
    }

    /// Without a handler: waits for the next request until the timeout has passed. Answer or detach it
    /// before the next one. Call it again and again: it also looks after clients that go.
    Request receive(std::chrono::nanoseconds timeout) {
        return filled<zb_server_receive, Request>(raw(), timeout.count());
    }
    Result<Request> try_receive(std::chrono::nanoseconds timeout) {
        return try_filled<zb_server_receive, Request>(raw(), timeout.count());
    }

protected:
    using ServerHandle::ServerHandle;
};

} // namespace detail

/// A server that edits the requests of its one client where they lie. Destroying it stops it cleanly.
///
/// One thread at a time uses it, and any may `close` it; handlers run on threads of the library.
class Server : public detail::InPlaceHandle {
public:
    /// Creates the channel; clients can attach as soon as this returns.
    static Server create(const std::string &name, const ServerConfig &config) {
        return Server(name, config);
    }
    static Server create(const std::string &name, BufferConfig buffer = {}) {
        return create(name, ServerConfig{.buffer = buffer});
    }

private:
    Server(const std::string &name, const ServerConfig &config)
        : InPlaceHandle(name, config, ZB_SERVER_IN_PLACE) {}
};

/// A server of any number of clients, each with memory of its own, under a name that any number of servers
/// share. It is used as a `Server` is; `Frame::client` says who asks. Clients find it before a channel of the same
/// name, and nothing is left in the file system but an empty directory.
class Service : public detail::InPlaceHandle {
public:
    static Service create(const std::string &name, const ServiceConfig &config = {}) {
        return Service(name, config);
    }

    /// How many clients are attached at this moment. Any thread may ask.
    std::size_t clients() const noexcept { return zb_server_clients(raw()); }

private:
    Service(const std::string &name, const ServiceConfig &config) : InPlaceHandle(name, config) {}
};

/// A server of two buffers whose handler edits a copy of the request, for clients of protocol version 1.
class MutableDuplexServer : public detail::ServerHandle {
public:
    static MutableDuplexServer create(const std::string &name, const ServerConfig &config) {
        return MutableDuplexServer(name, config);
    }

    /// Runs `handler(Frame &)` on a copy of every request, which is the response then.
    template <std::invocable<Frame &> Handler>
    void start(Handler handler) {
        start_with(std::move(handler), &detail::edit<Handler>);
    }

private:
    MutableDuplexServer(const std::string &name, const ServerConfig &config)
        : ServerHandle(name, config, ZB_SERVER_MUTABLE) {}
};

/// A server of two buffers whose handler returns new data, for clients of protocol version 1.
class ImmutableDuplexServer : public detail::ServerHandle {
public:
    static ImmutableDuplexServer create(const std::string &name, const ServerConfig &config) {
        return ImmutableDuplexServer(name, config);
    }

    /// Runs `handler(const Frame &)` on every request. It returns the response: a vector, string, span or
    /// other contiguous range of bytes, which cannot be empty.
    template <std::invocable<const Frame &> Handler>
        requires std::ranges::contiguous_range<std::invoke_result_t<Handler &, const Frame &>>
    void start(Handler handler) {
        start_with(std::move(handler), &detail::reply<Handler>);
    }

private:
    ImmutableDuplexServer(const std::string &name, const ServerConfig &config)
        : ServerHandle(name, config, ZB_SERVER_IMMUTABLE) {}
};

} // namespace abi1
} // namespace zerobuffer
