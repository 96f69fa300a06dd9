/// Calls that no thread waits for.
#pragma once

#include "bytes.hpp"
#include "error.hpp"
#include "frame.hpp"

#include <atomic>
#include <chrono>
#include <coroutine>
#include <memory>
#include <optional>
#include <tuple>
#include <utility>

namespace zerobuffer {
inline namespace abi1 {
namespace detail {

/// How a call ended, on the thread that tells of it.
inline Result<Response> outcome(zb_status status, zb_view *response) {
    if (status != ZB_OK) return last_error();
    return Response(response);
}

// The library orders what its caller's thread has done before what its own thread does. That is said again here, by
// an atomic, for ThreadSanitizer, which does not see the library's.

/// A callback on its way to the library's thread.
template <class Done>
struct Callback {
    Done done;
    std::atomic<bool> is_started = false;

    /// Calls it, and destroys it.
    static void tell(zb_status status, zb_view *response, void *context) noexcept {
        const std::unique_ptr<Callback> callback(static_cast<Callback *>(context));
        static_cast<void>(callback->is_started.load(std::memory_order_acquire));
        callback->done(outcome(status, response));
    }
};

} // namespace detail

/// A call that a coroutine awaits: made by `Client::call_async`. The coroutine goes on with the response, or with
/// the error thrown, on a thread of the library: it must not block there, for other calls wait for that thread, and
/// must not be destroyed while it awaits. With `ClientConfig::connections` several coroutines go on at the same time.
class [[nodiscard]] Call {
public:
    Call(const zb_client *client, Bytes data, std::chrono::nanoseconds timeout) noexcept
        : client_(client), data_(data), timeout_(timeout) {}

    bool await_ready() const noexcept { return false; }
    bool await_suspend(std::coroutine_handle<> awaiting) {
        const auto [client, data, timeout] = std::tuple(client_, data_, timeout_.count());
        awaiting_.store(awaiting.address(), std::memory_order_release);
        if (zb_client_call_async(client, data.data(), data.size(), timeout, &go_on, this, nullptr) == ZB_OK)
            return true; // This may not exist any more.
        outcome_.emplace(detail::last_error());
        return false;
    }
    Response await_resume() { return std::move(*outcome_).value(); }

private:
    static void go_on(zb_status status, zb_view *response, void *context) noexcept {
        auto *call = static_cast<Call *>(context);
        const auto awaiting =
            std::coroutine_handle<>::from_address(call->awaiting_.load(std::memory_order_acquire));
        call->outcome_.emplace(detail::outcome(status, response));
        awaiting.resume();
    }

    const zb_client *client_;
    Bytes data_;
    std::chrono::nanoseconds timeout_;
    std::atomic<void *> awaiting_ = nullptr;
    std::optional<Result<Response>> outcome_;
};

} // namespace abi1
} // namespace zerobuffer
