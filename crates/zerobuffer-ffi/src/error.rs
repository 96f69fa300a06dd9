//! Statuses, the last error of each thread, and what keeps panics inside.

use std::cell::RefCell;
use std::ffi::c_char;
use std::panic::{AssertUnwindSafe, catch_unwind};
use zerobuffer::{Error, RequestState, Result};

/// `ZB_OK`, or why a call failed. The numbers are stable, and the same in all languages.
pub type zb_status = i32;

/// It worked.
pub const ZB_OK: zb_status = 0;
/// Not the status of a call, but of what became of one: it was cancelled. See `zb_client_cancel_call`.
pub const ZB_CANCELLED: zb_status = -1;
/// The channel name breaks the rules for names.
pub const ZB_BAD_NAME: zb_status = 1;
/// A parameter or a configuration value lies outside of what is allowed; a null pointer is one such.
pub const ZB_BAD_CONFIG: zb_status = 2;
/// No server serves the channel; version 1: no reader has the buffer.
pub const ZB_NOT_RUNNING: zb_status = 3;
/// Another client has the channel; version 1: another writer the buffer.
pub const ZB_BUSY: zb_status = 4;
/// Another server serves the channel; version 1: another reader has the buffer.
pub const ZB_ALREADY_RUNNING: zb_status = 5;
/// The operating system refuses access to an object.
pub const ZB_PERMISSION_DENIED: zb_status = 6;
/// An object of that name exists, but has another owner or is of another kind.
pub const ZB_FOREIGN_OBJECT: zb_status = 7;
/// The segment has another protocol version.
pub const ZB_INCOMPATIBLE: zb_status = 8;
/// There is not enough memory, or not enough of another resource, to create an object.
pub const ZB_NO_SPACE: zb_status = 9;
/// The deadline passed.
pub const ZB_TIMEOUT: zb_status = 10;
/// The ring had no room until the deadline.
pub const ZB_FULL: zb_status = 11;
/// More bytes than can ever fit.
pub const ZB_TOO_LARGE: zb_status = 12;
/// The peer's process ended without closing the channel.
pub const ZB_PEER_DIED: zb_status = 13;
/// The peer closed the channel cleanly.
pub const ZB_PEER_CLOSED: zb_status = 14;
/// The server's handler failed on this request.
pub const ZB_HANDLER_FAILED: zb_status = 15;
/// The peer broke the protocol.
pub const ZB_PROTOCOL_VIOLATION: zb_status = 16;
/// The handle was made before a fork and is used in the child.
pub const ZB_WRONG_PROCESS: zb_status = 17;
/// No request with that sequence number is waiting for a response.
pub const ZB_UNKNOWN_SEQUENCE: zb_status = 18;
/// A buffer of this client or writer is open already.
pub const ZB_CLAIM_OPEN: zb_status = 19;
/// All sequence numbers of this connection are used.
pub const ZB_SEQUENCE_EXHAUSTED: zb_status = 20;
/// The object is not in the state that the call needs.
pub const ZB_INVALID_STATE: zb_status = 21;
/// A system call failed; `zb_error::os_error` says how.
pub const ZB_SYSTEM: zb_status = 22;
/// This platform, or this kind of channel, cannot do it.
pub const ZB_UNSUPPORTED: zb_status = 23;
/// The object was shut down on this side, possibly by another thread: see `zb_client_shutdown`.
pub const ZB_CLOSED: zb_status = 24;
/// Version 1: no frame of this length can ever be placed at the ring's present position.
pub const ZB_WOULD_NEVER_FIT: zb_status = 100;
/// Version 1: no writer has attached to the buffer yet.
pub const ZB_NOT_CONNECTED_YET: zb_status = 101;
/// Version 1: a frame is missing.
pub const ZB_SEQUENCE_GAP: zb_status = 102;
/// Version 1: metadata is written once in a buffer's life, and it has been.
pub const ZB_METADATA_ALREADY_WRITTEN: zb_status = 103;
/// Version 1: a frame has at least one byte.
pub const ZB_EMPTY_FRAME: zb_status = 104;
/// Version 1: responses can no longer be matched with requests.
pub const ZB_DESYNCHRONISED: zb_status = 105;
/// Version 1: the last sequence number of a previous writer cannot be determined.
pub const ZB_SEQUENCE_UNKNOWN: zb_status = 106;

/// The error is not about a request that a peer's end left unanswered.
pub const ZB_REQUEST_NONE: i32 = 0;
/// The handler never ran on the request: it is safe to send it again.
pub const ZB_REQUEST_NOT_STARTED: i32 = 1;
/// The server had taken the request: its effects may or may not have happened.
pub const ZB_REQUEST_IN_DOUBT: i32 = 2;

/// What there is to know about a failed call. Numbers that a status has no use for are 0, texts
/// empty.
#[repr(C)]
pub struct zb_error {
    /// Bytes of this struct in the library in use. Fields may be added at its end.
    pub size: usize,
    /// The status that the call returned.
    pub status: zb_status,
    /// `ZB_SYSTEM`: the error number, see errno(3).
    pub os_error: i32,
    /// The request that the error is about: `ZB_HANDLER_FAILED`, `ZB_UNKNOWN_SEQUENCE`, and
    /// `ZB_PEER_DIED` or `ZB_PEER_CLOSED` if they are about one. Sequence numbers start at 1.
    pub sequence: u64,
    /// `ZB_PEER_DIED`, `ZB_PEER_CLOSED`: what is known of that request, `ZB_REQUEST_*`.
    pub request_state: i32,
    /// `ZB_HANDLER_FAILED`: 1 error, 2 panic, 3 dropped unanswered, from 256 the application's.
    pub handler_status: u32,
    /// What was asked for, needed or found: bytes; nanoseconds for `ZB_TIMEOUT`; the owner's user
    /// id for `ZB_FOREIGN_OBJECT`.
    pub asked: u64,
    /// What is possible, free or expected instead.
    pub allowed: u64,
    /// `ZB_FULL`: requests sent and not released yet.
    pub in_flight: u64,
    /// One sentence for a person, with what to do. Ends with a zero byte, as the other texts do.
    pub message: *const c_char,
    /// Bytes of `message`.
    pub message_len: usize,
    /// The name of the channel, object, field or value that the error is about.
    pub subject: *const c_char,
    /// Bytes of `subject`.
    pub subject_len: usize,
    /// What the handler said; the reason, rule, range or operation for other statuses.
    pub detail: *const c_char,
    /// Bytes of `detail`.
    pub detail_len: usize,
}

/// A last error with the texts that its pointers lead to.
struct Last {
    error: zb_error,
    texts: [Vec<u8>; 3],
}

const NO_ERROR: zb_error = zb_error {
    size: size_of::<zb_error>(),
    message: c"".as_ptr(),
    subject: c"".as_ptr(),
    detail: c"".as_ptr(),
    // SAFETY: numbers and pointers, for all of which zero is a value.
    ..unsafe { std::mem::zeroed() }
};

thread_local! {
    static LAST: RefCell<Last> =
        const { RefCell::new(Last { error: NO_ERROR, texts: [Vec::new(), Vec::new(), Vec::new()] }) };
}

/// The facts about the latest call that failed on this thread. Never null. Valid until the next
/// call on this thread that fails; a call that succeeds changes nothing.
#[unsafe(no_mangle)]
pub extern "C" fn zb_last_error() -> *const zb_error {
    // A thread that is ending has no last error any more.
    static NONE: Constant = Constant(NO_ERROR);
    LAST.try_with(|last| &raw const last.borrow().error).unwrap_or(&raw const NONE.0)
}

struct Constant(zb_error);

// SAFETY: it is never written, and its pointers lead to constants.
unsafe impl Sync for Constant {}

/// Runs one function of the interface: its error, or its panic, becomes a status and this thread's
/// last error.
#[inline(always)]
pub(crate) fn run(call: impl FnOnce() -> Result<()>) -> zb_status {
    // After a panic the handle may be of no more use, but it breaks no memory: everything of it is owned
    // by safe types of the library.
    // The error is stored inside: a status is all that has to come out by way of memory.
    let status = || match call() {
        Ok(()) => ZB_OK,
        Err(error) => store(&error),
    };
    catch_unwind(AssertUnwindSafe(status)).unwrap_or_else(store_panic)
}

/// As [`run`], for functions that return a value and set no error: `fallback` in place of a panic.
#[inline(always)]
pub(crate) fn run_or<T>(fallback: T, call: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        store_panic(panic);
        fallback
    })
}

#[cold]
fn store_panic(panic: Box<dyn std::any::Any + Send>) -> zb_status {
    // What it carries could panic again when dropped.
    std::mem::forget(panic);
    store(&Error::InvalidState {
        reason: "the library panicked, which is a bug: please report what it wrote to standard error",
    })
}

#[cold]
pub(crate) fn store(error: &Error) -> zb_status {
    let status = error.kind().code();
    // A thread that is ending has nowhere to keep the facts; the status is right all the same.
    let _ = LAST.try_with(|last| {
        let mut last = last.borrow_mut();
        let (subject, detail) = texts(error.facts());
        last.texts = [error.to_string().as_bytes(), subject, detail].map(with_zero);
        let [message, subject, detail] = last.texts.each_ref().map(|text| text.as_ptr().cast());
        let [message_len, subject_len, detail_len] =
            last.texts.each_ref().map(|text| text.len() - 1);
        let texts =
            zb_error { message, message_len, subject, subject_len, detail, detail_len, ..NO_ERROR };
        last.error = zb_error { status, ..with_facts(error.facts(), texts) };
    });
    status
}

/// What there is to know about a call that was cancelled.
pub(crate) fn store_cancelled() -> zb_status {
    store(&Error::InvalidState { reason: "the call was cancelled" });
    let _ = LAST.try_with(|last| last.borrow_mut().error.status = ZB_CANCELLED);
    ZB_CANCELLED
}

fn with_zero(text: &[u8]) -> Vec<u8> {
    let mut copy = text.to_vec();
    copy.push(0);
    copy
}

fn with_facts(error: &Error, base: zb_error) -> zb_error {
    match *error {
        Error::PeerDied { .. } | Error::PeerClosed { .. } => match error.lost_request() {
            Some(lost) => {
                zb_error { sequence: lost.sequence, request_state: state_code(lost.state), ..base }
            }
            None => base,
        },
        Error::HandlerFailed { sequence, status, .. } => {
            zb_error { sequence, handler_status: u32::from(status), ..base }
        }
        Error::UnknownSequence { sequence } => zb_error { sequence, ..base },
        Error::System { errno, .. } => zb_error { os_error: errno, ..base },
        Error::Full { needed, free, in_flight, .. } => {
            zb_error { asked: needed, allowed: free, in_flight, ..base }
        }
        _ => {
            let (asked, allowed) = amounts(error);
            zb_error { asked, allowed, ..base }
        }
    }
}

fn amounts(error: &Error) -> (u64, u64) {
    match *error {
        Error::BadConfig { asked, .. } => (asked, 0),
        Error::TooLarge { asked, max, .. } | Error::WouldNeverFit { asked, max } => (asked, max),
        Error::NoSpace { needed, .. } => (needed, 0),
        Error::Timeout { waited, .. } | Error::NotConnectedYet { waited } => {
            (u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX), 0)
        }
        Error::ForeignObject { uid, .. } => (u64::from(uid), 0),
        Error::Incompatible { found, expected, .. } => (found, expected),
        Error::SequenceGap { expected, found } => (found, expected),
        Error::ProtocolViolation { observed, allowed, .. } => (observed, allowed),
        _ => (0, 0),
    }
}

/// Subject and detail.
fn texts(error: &Error) -> (&[u8], &[u8]) {
    let (subject, detail) = match error {
        Error::BadName { name, reason } => (name.as_str(), *reason),
        Error::BadConfig { what, allowed, .. } => (*what, *allowed),
        Error::NotRunning { name, found, .. } => (name.as_str(), *found),
        Error::Busy { name, .. }
        | Error::AlreadyRunning { name, .. }
        | Error::SequenceUnknown { name } => (name.as_str(), ""),
        Error::PermissionDenied { object, operation, .. }
        | Error::System { object, operation, .. } => (object.as_str(), *operation),
        Error::ForeignObject { object, reason, .. } => (object.as_str(), *reason),
        Error::Incompatible { object, field, .. } => (object.as_str(), *field),
        Error::NoSpace { object, reason, .. } => (object.as_str(), *reason),
        Error::ProtocolViolation { field, .. } => (*field, ""),
        Error::Timeout { what, .. } | Error::Unsupported { what } => ("", *what),
        Error::HandlerFailed { message, .. } => ("", message.as_str()),
        Error::InvalidState { reason } | Error::Desynchronised { reason } => ("", *reason),
        _ => ("", ""),
    };
    (subject.as_bytes(), detail.as_bytes())
}

pub(crate) fn state_code(state: RequestState) -> i32 {
    match state {
        RequestState::NotStarted => ZB_REQUEST_NOT_STARTED,
        // Whatever else there may come to be: not safe to send again.
        _ => ZB_REQUEST_IN_DOUBT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_status_and_a_last_error() {
        let status = run(|| panic!("on purpose"));
        assert_eq!(status, ZB_INVALID_STATE);
        // SAFETY: never null, and no call of this thread fails meanwhile.
        let error = unsafe { &*zb_last_error() };
        assert_eq!(error.status, ZB_INVALID_STATE);
        // SAFETY: its text has that many bytes.
        let text = unsafe { std::slice::from_raw_parts(error.message.cast(), error.message_len) };
        assert!(String::from_utf8_lossy(text).contains("panicked"));
    }

    #[test]
    fn a_panic_where_there_is_no_status_becomes_the_fallback_and_a_last_error() {
        store(&Error::ClaimOpen);
        assert!(run_or(true, || panic!("on purpose")));
        // SAFETY: as above.
        assert_eq!(unsafe { (*zb_last_error()).status }, ZB_INVALID_STATE);
    }

    #[test]
    fn facts_of_an_error_reach_the_struct() {
        store(&Error::HandlerFailed { sequence: 7, status: 300, message: "a\0b".to_owned() });
        // SAFETY: as above.
        let error = unsafe { &*zb_last_error() };
        assert_eq!((error.sequence, error.handler_status, error.detail_len), (7, 300, 3));
        // SAFETY: there are as many bytes, and a zero.
        let detail = unsafe { std::slice::from_raw_parts(error.detail.cast::<u8>(), 4) };
        assert_eq!(detail, b"a\0b\0");
        let medium = zerobuffer::Medium::Channel;
        store(&Error::Full { medium, needed: 1, free: 2, in_flight: 3, held: 0 });
        // SAFETY: as above.
        let error = unsafe { &*zb_last_error() };
        assert_eq!((error.asked, error.allowed, error.in_flight, error.sequence), (1, 2, 3, 0));
    }
}
