/// The client: sends requests, and reads the responses where the requests were.
#pragma once

#include "bytes.hpp"
#include "calls.hpp"
#include "config.hpp"
#include "error.hpp"
#include "frame.hpp"

#include <atomic>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace zerobuffer {
inline namespace abi1 {

/// A request that a former connection left, and what is known of it.
struct LostRequest {
    std::uint64_t sequence;
    RequestState state;
};

/// What became of the requests that were in flight before `Client::reconnect`.
struct Reconnected {
    /// Requests that were sent again: their old number, and the new one.
    std::vector<std::pair<std::uint64_t, std::uint64_t>> resent;
    std::vector<LostRequest> lost;
};

/// A client of one channel, of either kind.
///
/// One thread at a time uses it, unless `ClientConfig::many_threads` is set; any thread may `close` it. Responses
/// that are held may outlive it.
class Client {
public:
    using Nanoseconds = std::chrono::nanoseconds;

    /// Attaches to the server of `name`, waiting for it until the timeout has passed; zero tries once.
    static Client connect(const std::string &name, Nanoseconds timeout,
                          const ClientConfig &config = {}) {
        return try_connect(name, timeout, config).value();
    }
    static Result<Client> try_connect(const std::string &name, Nanoseconds timeout,
                                      const ClientConfig &config = {}) {
        detail::check_abi();
        const zb_client_config raw = detail::to_c(config);
        zb_client *client = nullptr;
        if (zb_client_connect(name.c_str(), &raw, timeout.count(), &client) != ZB_OK)
            return detail::last_error();
        return Client(client);
    }

    /// Sends a copy of `data` and waits for the response, both within the timeout.
    Response call(Bytes data, Nanoseconds timeout) {
        return detail::filled<zb_client_call, Response>(raw(), data.data(), data.size(), timeout.count());
    }
    Result<Response> try_call(Bytes data, Nanoseconds timeout) {
        return detail::try_filled<zb_client_call, Response>(raw(), data.data(), data.size(),
                                                            timeout.count());
    }

    /// As `call`, for coroutines: `co_await client.call_async(data, timeout)`. Neither the coroutine's thread nor
    /// any other is blocked, not even where the ring is full. For clients for many threads of channels in place.
    Call call_async(Bytes data, Nanoseconds timeout) const noexcept { return {raw(), data, timeout}; }
    /// As `call_async`, without a coroutine: calls `done(Result<Response>)` once, whatever ends the call, on a thread
    /// of the library that it must not block; it must not throw. Returns a number for `cancel_call`. If this throws,
    /// `done` is not called. A client of one connection calls one `done` after the other; with
    /// `ClientConfig::connections` several run at the same time, on different threads. One may destroy the client
    /// only if no other one can be running.
    template <std::invocable<Result<Response>> Done>
    std::uint64_t start_call(Bytes data, Nanoseconds timeout, Done done) {
        using Callback = detail::Callback<Done>;
        std::unique_ptr<Callback> callback(new Callback{std::move(done)});
        callback->is_started.store(true, std::memory_order_release);
        const auto call = detail::numbered<zb_client_call_async>(
            raw(), data.data(), data.size(), timeout.count(), &Callback::tell, callback.get());
        static_cast<void>(callback.release()); // `tell` destroys it, and may have.
        return call;
    }
    /// Cancels a call that was started: `done` gets `Cancelled`, most often on this thread. False if it was told of before.
    bool cancel_call(std::uint64_t call) noexcept { return zb_client_cancel_call(raw(), call); }

    /// Sends a copy of `data`, and returns the request's number.
    std::uint64_t send_request(Bytes data) {
        return detail::numbered<zb_client_send>(raw(), data.data(), data.size());
    }
    Result<std::uint64_t> try_send_request(Bytes data) {
        return detail::try_numbered<zb_client_send>(raw(), data.data(), data.size());
    }

    /// A request of `size` bytes, to be filled in the ring and committed; with room for a response of
    /// `capacity` bytes, and aligned to `alignment` (a power of two up to 4096), if those are given.
    RequestBuffer acquire_request_buffer(std::size_t size, std::size_t capacity = 0,
                                         std::size_t alignment = 0) {
        return detail::filled<zb_client_acquire, RequestBuffer>(raw(), size, capacity, alignment);
    }
    Result<RequestBuffer> try_acquire_request_buffer(std::size_t size, std::size_t capacity = 0,
                                                     std::size_t alignment = 0) {
        return detail::try_filled<zb_client_acquire, RequestBuffer>(raw(), size, capacity, alignment);
    }

    /// The oldest response that is there, waiting for one until the timeout has passed.
    Response receive_response(Nanoseconds timeout) { return receive_response_for(0, timeout); }
    Result<Response> try_receive_response(Nanoseconds timeout) {
        return try_receive_response_for(0, timeout);
    }
    /// The response to one request, which is cancelled when the timeout passes, unless that is zero.
    Response receive_response_for(std::uint64_t sequence, Nanoseconds timeout) {
        return detail::filled<zb_client_receive, Response>(raw(), sequence, timeout.count());
    }
    Result<Response> try_receive_response_for(std::uint64_t sequence, Nanoseconds timeout) {
        return detail::try_filled<zb_client_receive, Response>(raw(), sequence, timeout.count());
    }

    /// Cancels a request: no response to it will be delivered. True if it was waiting.
    bool cancel(std::uint64_t sequence) noexcept { return zb_client_cancel(raw(), sequence); }

    /// Attaches to the channel's present server, after the previous one has exited or to start over. With
    /// two buffers all that was in flight is in doubt.
    Reconnected reconnect(Nanoseconds timeout) { return try_reconnect(timeout).value(); }
    Result<Reconnected> try_reconnect(Nanoseconds timeout) {
        zb_reconnected found{};
        if (zb_client_reconnect(raw(), timeout.count(), &found) != ZB_OK) return detail::last_error();
        Reconnected report;
        for (const zb_resent &request : std::span(found.resent, found.resent_count))
            report.resent.emplace_back(request.former, request.sequence);
        for (const zb_lost &request : std::span(found.lost, found.lost_count))
            report.lost.push_back({request.sequence, static_cast<RequestState>(request.state)});
        return report;
    }

    /// Ends it from any thread, while others are inside of its calls: each call that waits comes back at
    /// once, and it and every later one that could wait throws `Closed`. The destructor does the rest, once
    /// those threads have come back.
    void close() const noexcept { zb_client_shutdown(raw()); }

    /// Whether the server is there at this moment.
    bool is_server_connected() const noexcept { return zb_client_is_server_connected(raw()); }
    /// Whether answers lie where the requests were.
    bool is_in_place() const { return inspect().is_in_place != 0; }
    /// Two buffers: whether answers may not match, because one is missing or too many came.
    bool is_desynchronised() const { return inspect().is_desynchronised != 0; }
    /// Requests sent whose bytes are not back in the ring yet.
    std::size_t in_flight() const { return inspect().in_flight; }
    /// The most bytes that a request can have.
    std::size_t max_request_size() const { return inspect().max_request_size; }
    /// What the server has published about itself.
    std::string server_metadata() const {
        std::size_t len = 0;
        detail::check(zb_client_server_metadata(raw(), nullptr, 0, &len));
        std::string metadata(len, '\0');
        auto *data = reinterpret_cast<std::uint8_t *>(metadata.data());
        detail::check(zb_client_server_metadata(raw(), data, len, &len));
        metadata.resize(len);
        return metadata;
    }

    /// The proposal's spelling of `send_request`.
    std::uint64_t sendRequest(const void *data, std::size_t size) {
        return send_request(Bytes(static_cast<const std::uint8_t *>(data), size));
    }
    /// The proposal's spelling of `receive_response`, in milliseconds.
    Response receiveResponse(std::int64_t milliseconds) {
        return receive_response(std::chrono::milliseconds(milliseconds));
    }

private:
    explicit Client(zb_client *client) noexcept : client_(client) {}
    zb_client *raw() const noexcept { return client_.get(); }
    zb_client_state inspect() const {
        zb_client_state state{};
        state.size = sizeof state;
        detail::check(zb_client_inspect(raw(), &state));
        return state;
    }

    std::unique_ptr<zb_client, detail::Close<zb_client_close>> client_;
};

} // namespace abi1
} // namespace zerobuffer
