/// The guards: bytes in shared memory, and whose they are.
#pragma once

#include "error.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

namespace zerobuffer {
inline namespace abi1 {
namespace detail {

/// Lets a guard begin without a value, for a C call that gives it one whether it succeeds or not.
struct Unfilled {};

/// A struct of the C interface that holds something as long as its `data` is not null.
template <class Raw, auto release_raw>
class Guard {
public:
    Guard() noexcept : raw_{} {}
    explicit Guard(Unfilled) noexcept {}
    /// Takes what a C struct holds.
    explicit Guard(Raw *held) noexcept : raw_(std::exchange(*held, {})) {}
    Guard(Guard &&other) noexcept : Guard(&other.raw_) {}
    Guard &operator=(Guard &&other) noexcept {
        if (this != &other) {
            release_raw(&raw_);
            raw_ = std::exchange(other.raw_, {});
        }
        return *this;
    }
    ~Guard() {
        if (raw_.data != nullptr) release_raw(&raw_);
    }

    /// For calls of the C interface that fill it.
    Raw *raw() noexcept { return &raw_; }

protected:
    Raw raw_;
};

/// What a C call fills whose last parameter is for that: a guard.
template <auto call, class Guard, class... Arguments>
Guard filled(Arguments... arguments) {
    Guard guard{Unfilled{}};
    check(call(arguments..., guard.raw()));
    return guard;
}
template <auto call, class Guard, class... Arguments>
Result<Guard> try_filled(Arguments... arguments) {
    Guard guard{Unfilled{}};
    if (call(arguments..., guard.raw()) != ZB_OK) return last_error();
    return guard;
}
/// As `filled`, for a sequence number.
template <auto call, class... Arguments>
std::uint64_t numbered(Arguments... arguments) {
    std::uint64_t sequence = 0;
    check(call(arguments..., &sequence));
    return sequence;
}
template <auto call, class... Arguments>
Result<std::uint64_t> try_numbered(Arguments... arguments) {
    std::uint64_t sequence = 0;
    if (call(arguments..., &sequence) != ZB_OK) return last_error();
    return sequence;
}

} // namespace detail

/// Bytes in shared memory to read: a response, or a version 1 frame. Released when it is destroyed.
///
/// It converts to `std::span<const std::uint8_t>`, and is a range of bytes itself. A view of a client is
/// used on the thread that uses the client, unless it was detached; the client may be destroyed before.
class View : public detail::Guard<zb_view, zb_view_release> {
public:
    using Guard::Guard;

    const std::uint8_t *data() const noexcept { return raw_.data; }
    std::size_t size() const noexcept { return raw_.len; }
    bool empty() const noexcept { return raw_.len == 0; }
    const std::uint8_t *begin() const noexcept { return raw_.data; }
    const std::uint8_t *end() const noexcept { return raw_.data + raw_.len; }
    /// The bytes as text.
    std::string_view text() const noexcept {
        return {reinterpret_cast<const char *>(raw_.data), raw_.len};
    }
    /// The number of the request that this answers; of the frame, as its writer counts.
    std::uint64_t sequence() const noexcept { return raw_.sequence; }
    /// Whether something is held.
    explicit operator bool() const noexcept { return raw_.data != nullptr; }

    /// Gives the bytes back before the end of its life.
    void release() noexcept { zb_view_release(&raw_); }
    /// Lets it be released on any thread. The bytes stay where they are.
    void detach() { detail::check(zb_view_detach(&raw_)); }
};

/// Bytes in shared memory to fill: a request, or a version 1 frame. `commit` sends it; destroyed before, it
/// is abandoned. They hold whatever was there before: write all of them.
class Buffer : public detail::Guard<zb_buffer, zb_buffer_abandon> {
public:
    using Guard::Guard;

    std::uint8_t *data() noexcept { return raw_.data; }
    std::size_t size() const noexcept { return raw_.len; }
    std::uint8_t *begin() noexcept { return raw_.data; }
    std::uint8_t *end() noexcept { return raw_.data + raw_.len; }
    /// The most bytes that there is room for, here and for the response.
    std::size_t capacity() const noexcept { return raw_.capacity; }
    /// Changes how many bytes are sent; more than `capacity` fails when it is committed.
    void resize(std::size_t len) noexcept { raw_.len = len; }

    /// Sends it, and returns its sequence number.
    std::uint64_t commit() { return detail::numbered<zb_buffer_commit>(&raw_); }
    Result<std::uint64_t> try_commit() { return detail::try_numbered<zb_buffer_commit>(&raw_); }
    /// Abandons it before the end of its life.
    void abandon() noexcept { zb_buffer_abandon(&raw_); }
};

/// Who a client of a service is, by the system's word and, as to its label, by its own.
struct ClientIdentity {
    /// Its connection on this server, from 1, never used again.
    std::uint64_t number;
    /// What it calls itself; valid as long as the frame is, and its server is not stopped.
    std::string_view label;
    /// Its process id, 0 if that is not visible from here; its user and group.
    std::uint32_t pid, uid, gid;
};

/// A request in a handler's hands: bytes in shared memory, to be edited where they lie. What they are when
/// the handler returns is the response.
class Frame {
public:
    explicit Frame(zb_frame &raw) noexcept : raw_(&raw) {}
    Frame(const Frame &) = delete;
    Frame &operator=(const Frame &) = delete;

    std::uint8_t *data() noexcept { return raw_->data; }
    const std::uint8_t *data() const noexcept { return raw_->data; }
    std::size_t size() const noexcept { return raw_->len; }
    bool empty() const noexcept { return raw_->len == 0; }
    std::uint8_t *begin() noexcept { return raw_->data; }
    std::uint8_t *end() noexcept { return raw_->data + raw_->len; }
    const std::uint8_t *begin() const noexcept { return raw_->data; }
    const std::uint8_t *end() const noexcept { return raw_->data + raw_->len; }
    /// The same as `data`, by the proposal's names.
    std::uint8_t *get_mutable_data() noexcept { return data(); }
    const std::uint8_t *get_data() const noexcept { return data(); }
    /// The bytes as text.
    std::string_view text() const noexcept {
        return {reinterpret_cast<const char *>(raw_->data), raw_->len};
    }
    /// The most bytes that the response can have.
    std::size_t capacity() const noexcept { return raw_->capacity; }
    /// The request's number, as its client counts.
    std::uint64_t sequence() const noexcept { return raw_->sequence; }

    /// Changes the length of the response; bytes that are added are zero. In place only.
    void resize(std::size_t len) { detail::check(zb_frame_resize(raw_, len)); }
    /// Whether nobody gets the response any more: the client has cancelled the request, closed or died. Ask
    /// between two pieces of long work, and return when it is true. A server that is being stopped still delivers
    /// the response, so this stays false: finish it, or throw. Only when `ServerConfig::stop_timeout` has passed,
    /// and the client of a server in place is told `PeerClosed`, is it true as well: a later response is not
    /// delivered.
    bool is_cancelled() const noexcept { return zb_frame_is_cancelled(raw_); }
    /// The client's metadata; no bytes if it has none.
    std::span<const std::uint8_t> metadata() const {
        const std::uint8_t *data = nullptr;
        std::size_t len = 0;
        detail::check(zb_frame_metadata(raw_, &data, &len));
        return {data, len};
    }
    /// Who has sent it, to a service; nothing on a channel, which has one client.
    std::optional<ClientIdentity> client() const {
        zb_client_identity made{};
        made.size = sizeof made;
        detail::check(zb_frame_client(raw_, &made));
        if (made.number == 0) return std::nullopt;
        const std::string_view label(reinterpret_cast<const char *>(made.label), made.label_len);
        return ClientIdentity{made.number, label, made.pid, made.uid, made.gid};
    }

private:
    zb_frame *raw_;
};

/// A request that was taken with `Server::receive`: a frame that is answered by `respond` or `fail`.
/// Destroyed unanswered, the client's call fails at once.
///
/// It is used on the thread that uses the server, unless it was detached.
class Request : public detail::Guard<zb_frame, zb_frame_abandon> {
public:
    using Guard::Guard;

    std::uint8_t *data() noexcept { return raw_.data; }
    std::size_t size() const noexcept { return raw_.len; }
    std::uint8_t *begin() noexcept { return raw_.data; }
    std::uint8_t *end() noexcept { return raw_.data + raw_.len; }
    std::size_t capacity() const noexcept { return raw_.capacity; }
    std::uint64_t sequence() const noexcept { return raw_.sequence; }
    /// As `Frame::resize`.
    void resize(std::size_t len) { detail::check(zb_frame_resize(&raw_, len)); }
    /// As `Frame::is_cancelled`.
    bool is_cancelled() const noexcept { return zb_frame_is_cancelled(&raw_); }
    /// As `Frame::metadata`.
    std::span<const std::uint8_t> metadata() { return Frame(raw_).metadata(); }
    /// As `Frame::client`.
    std::optional<ClientIdentity> client() { return Frame(raw_).client(); }

    /// Answers with the bytes as they are.
    void respond() { detail::check(zb_frame_respond(&raw_)); }
    /// Answers with a failure and as much of the message as fits.
    void fail(std::string_view message) {
        detail::check(zb_frame_fail(&raw_, message.data(), message.size()));
    }
    /// Abandons it before the end of its life.
    void abandon() noexcept { zb_frame_abandon(&raw_); }
    /// Lets it be answered on any thread, and after requests that came later.
    void detach() { detail::check(zb_frame_detach(&raw_)); }
};

/// A response.
using Response = View;
/// A request that is being written in place.
using RequestBuffer = Buffer;

} // namespace abi1
} // namespace zerobuffer
