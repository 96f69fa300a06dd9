/// Errors: one hierarchy with the facts inside, and `Result` for those who do not want exceptions.
#pragma once

#include <zerobuffer.h>

#include <cstdint>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>

namespace zerobuffer {
inline namespace abi1 {

// Every kind of error: its name, its number, its class, and the base of that class.
#define ZEROBUFFER_ERRORS(X) \
    X(BadName, ZB_BAD_NAME, BadName, Error) \
    X(BadConfig, ZB_BAD_CONFIG, BadConfig, Error) \
    X(NotRunning, ZB_NOT_RUNNING, NotRunning, Error) \
    X(Busy, ZB_BUSY, Busy, Error) \
    X(AlreadyRunning, ZB_ALREADY_RUNNING, AlreadyRunning, Error) \
    X(PermissionDenied, ZB_PERMISSION_DENIED, PermissionDenied, Error) \
    X(ForeignObject, ZB_FOREIGN_OBJECT, ForeignObject, Error) \
    X(Incompatible, ZB_INCOMPATIBLE, Incompatible, Error) \
    X(NoSpace, ZB_NO_SPACE, NoSpace, Error) \
    X(Timeout, ZB_TIMEOUT, Timeout, Error) \
    X(Full, ZB_FULL, Full, Error) \
    X(TooLarge, ZB_TOO_LARGE, TooLarge, Error) \
    X(PeerDied, ZB_PEER_DIED, PeerDied, PeerGone) \
    X(PeerClosed, ZB_PEER_CLOSED, PeerClosed, PeerGone) \
    X(HandlerFailed, ZB_HANDLER_FAILED, HandlerFailed, Error) \
    X(ProtocolViolation, ZB_PROTOCOL_VIOLATION, ProtocolViolation, Error) \
    X(WrongProcess, ZB_WRONG_PROCESS, WrongProcess, Error) \
    X(UnknownSequence, ZB_UNKNOWN_SEQUENCE, UnknownSequence, Error) \
    X(ClaimOpen, ZB_CLAIM_OPEN, ClaimOpen, Error) \
    X(SequenceExhausted, ZB_SEQUENCE_EXHAUSTED, SequenceExhausted, Error) \
    X(InvalidState, ZB_INVALID_STATE, InvalidState, Error) \
    X(System, ZB_SYSTEM, SystemError, Error) \
    X(Unsupported, ZB_UNSUPPORTED, Unsupported, Error) \
    X(Closed, ZB_CLOSED, Closed, Error) \
    X(WouldNeverFit, ZB_WOULD_NEVER_FIT, WouldNeverFit, Error) \
    X(NotConnectedYet, ZB_NOT_CONNECTED_YET, NotConnectedYet, Error) \
    X(SequenceGap, ZB_SEQUENCE_GAP, SequenceGap, Error) \
    X(MetadataAlreadyWritten, ZB_METADATA_ALREADY_WRITTEN, MetadataAlreadyWritten, Error) \
    X(EmptyFrame, ZB_EMPTY_FRAME, EmptyFrame, Error) \
    X(Desynchronised, ZB_DESYNCHRONISED, Desynchronised, Error) \
    X(SequenceUnknown, ZB_SEQUENCE_UNKNOWN, SequenceUnknown, Error) \
    X(Cancelled, ZB_CANCELLED, Cancelled, Error)

/// What went wrong, for decisions. The numbers are those of the C interface and of all other languages.
enum class ErrorKind : std::int32_t {
#define ZEROBUFFER_KIND(Kind, number, Class, Base) Kind = number,
    ZEROBUFFER_ERRORS(ZEROBUFFER_KIND)
#undef ZEROBUFFER_KIND
};

/// What is known of a request whose server has ended.
enum class RequestState : std::int32_t {
    /// The error is not about a request.
    None = ZB_REQUEST_NONE,
    /// The handler never ran on it: it is safe to send it again.
    NotStarted = ZB_REQUEST_NOT_STARTED,
    /// The server had taken it: its effects may or may not have happened.
    InDoubt = ZB_REQUEST_IN_DOUBT,
};

/// The base of everything that this library throws. `what()` says what happened and what to do.
class Error : public std::runtime_error {
public:
    /// The error of the latest C call that failed on this thread.
    explicit Error(const zb_error &facts)
        : std::runtime_error(facts.message),
          kind_(static_cast<ErrorKind>(facts.status)),
          request_state_(static_cast<RequestState>(facts.request_state)),
          handler_status_(facts.handler_status),
          os_error_(facts.os_error),
          sequence_(facts.sequence),
          asked_(facts.asked),
          allowed_(facts.allowed),
          in_flight_(facts.in_flight),
          subject_(facts.subject, facts.subject_len),
          detail_(facts.detail, facts.detail_len) {}

    ErrorKind kind() const noexcept { return kind_; }
    /// The request that the error is about; 0 if it is about none.
    std::uint64_t sequence() const noexcept { return sequence_; }
    /// Of a `PeerDied` or `PeerClosed`: what is known of that request.
    RequestState request_state() const noexcept { return request_state_; }
    /// Of a `HandlerFailed`: 1 error, 2 panic, 3 dropped unanswered, from 256 the application's.
    std::uint32_t handler_status() const noexcept { return handler_status_; }
    /// Of a `SystemError`: see errno(3).
    int os_error() const noexcept { return os_error_; }
    /// What was asked for, needed or found.
    std::uint64_t asked() const noexcept { return asked_; }
    /// What is possible, free or expected instead.
    std::uint64_t allowed() const noexcept { return allowed_; }
    /// Of a `Full`: requests sent and not released yet.
    std::uint64_t in_flight() const noexcept { return in_flight_; }
    /// The name of the channel, object, field or value.
    const std::string &subject() const noexcept { return subject_; }
    /// What the handler said; the reason, rule, range or operation for other kinds.
    const std::string &detail() const noexcept { return detail_; }

    /// Throws this as the class of its kind.
    [[noreturn]] inline void raise() const;

private:
    ErrorKind kind_;
    RequestState request_state_;
    std::uint32_t handler_status_;
    int os_error_;
    std::uint64_t sequence_;
    std::uint64_t asked_;
    std::uint64_t allowed_;
    std::uint64_t in_flight_;
    std::string subject_;
    std::string detail_;
};

/// The peer has ended: `PeerDied` or `PeerClosed`.
class PeerGone : public Error {
public:
    using Error::Error;
    explicit PeerGone(const Error &error) : Error(error) {}
};

// A class of its own for each kind, so that what nobody catches is printed with a name that people know.
#define ZEROBUFFER_CLASS(Kind, number, Class, Base) \
    class Class final : public Base { \
    public: \
        explicit Class(const Error &error) : Base(error) {} \
    };
ZEROBUFFER_ERRORS(ZEROBUFFER_CLASS)
#undef ZEROBUFFER_CLASS

inline void Error::raise() const {
    switch (kind_) {
#define ZEROBUFFER_THROW(Kind, number, Class, Base) case ErrorKind::Kind: throw Class(*this);
        ZEROBUFFER_ERRORS(ZEROBUFFER_THROW)
#undef ZEROBUFFER_THROW
    }
    throw *this; // of a newer library
}
#undef ZEROBUFFER_ERRORS

/// A value or an `Error`: what functions return whose name begins with `try_`.
template <class T>
class [[nodiscard]] Result {
public:
    Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
    Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}

    bool has_value() const noexcept { return state_.index() == 0; }
    explicit operator bool() const noexcept { return has_value(); }

    /// The value, which must be there.
    T &operator*() & noexcept { return *std::get_if<0>(&state_); }
    const T &operator*() const & noexcept { return *std::get_if<0>(&state_); }
    T &&operator*() && noexcept { return std::move(*std::get_if<0>(&state_)); }
    T *operator->() noexcept { return std::get_if<0>(&state_); }
    const T *operator->() const noexcept { return std::get_if<0>(&state_); }

    /// The error, which must be there.
    const Error &error() const noexcept { return *std::get_if<1>(&state_); }

    /// The value, or the error thrown.
    T value() && {
        if (!has_value()) error().raise();
        return std::move(**this);
    }

private:
    std::variant<T, Error> state_;
};

namespace detail {

/// The error of the call that has just failed on this thread.
inline Error last_error() { return Error(*zb_last_error()); }

[[noreturn, gnu::cold, gnu::noinline]] inline void throw_last_error() { last_error().raise(); }

inline void check(zb_status status) {
    if (status != ZB_OK) [[unlikely]] throw_last_error();
}

/// Closes a handle.
template <auto close>
struct Close {
    template <class Handle>
    void operator()(Handle *handle) const noexcept { close(handle); }
};

/// Refuses a library that speaks another binary interface than this header.
inline void check_abi() {
    static const bool same = zb_abi_version() == ZB_ABI_VERSION;
    if (!same)
        throw std::runtime_error("libzerobuffer has another binary interface than the header that "
                                 "this program was built with; install the one that fits");
}

} // namespace detail
} // namespace abi1
} // namespace zerobuffer
