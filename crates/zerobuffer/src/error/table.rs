//! The one table of error kinds: meaning, name, number, and what the error says to a person. The C header, C++,
//! C# and Python have a constant or a class for each row; `cargo xtask api` compares them with this table.

use super::Error;
use super::text::{Advice, End, ForeignAdvice, Found, Places, Shown, SystemReason};
use std::fmt;

/// Makes [`ErrorKind`], [`Error::kind`] and the texts of all errors. A variant of [`Error`] without a row does
/// not compile, and neither does a row without a variant or without a text.
macro_rules! error_kinds {
    (@write $f:ident ($($text:tt)+)) => { write!($f, $($text)+) };
    ($($(#[$meaning:meta])* $kind:ident = $number:literal { $($fact:ident),* } => $text:tt;)*) => {
        /// The kinds of [`Error`], for decisions; the number is stable across releases and languages.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        #[repr(i32)]
        pub enum ErrorKind {
            $($(#[$meaning])*
            #[doc = ""]
            #[doc = concat!("See [`Error::", stringify!($kind), "`].")]
            $kind = $number,)*
        }

        pub(super) fn kind(error: &Error) -> ErrorKind {
            match error {
                $(Error::$kind { .. } => ErrorKind::$kind,)*
                Error::Explained { error, .. } => error.kind(),
            }
        }

        pub(super) fn text(error: &Error, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            match error {
                $(Error::$kind { $($fact,)* .. } => error_kinds!(@write f $text),)*
                Error::Explained { message, .. } => f.write_str(message),
            }
        }
    };
}

error_kinds! {
    /// The channel name breaks the rules for names.
    BadName = 1 { name, reason } => ("bad name {name:?}: {reason}");

    /// A configuration value lies outside of what is allowed.
    BadConfig = 2 { what, asked, allowed } => ("{what} is {asked}; allowed: {allowed}");

    /// No server serves the channel; version 1: no reader has the buffer.
    NotRunning = 3 { medium, name, found } => (
        "no {} for {medium} {name:?}: {found}; start one, or wait longer", medium.owner()
    );

    /// Another client has the channel; version 1: another writer has the buffer.
    Busy = 4 { medium, name } => (
        "{medium} {name:?} already has a {guest}; close it, or use another {medium} for each {guest}",
        guest = medium.guest()
    );

    /// Another server serves the channel; version 1: another reader has the buffer.
    AlreadyRunning = 5 { medium, name } => (
        "{medium} {name:?} already has a {}; stop it, or choose another name", medium.owner()
    );

    /// The operating system refuses access to an object.
    PermissionDenied = 6 { object, operation, owner, mode } => (
        "no permission to {operation} {object}{}", Found { owner: *owner, mode: *mode }
    );

    /// An object of that name exists, but has another owner or is of another kind; it was left alone.
    ForeignObject = 7 { object, uid, reason } => (
        "{object} (owner: user {uid}) is not used: {reason}; {}", ForeignAdvice { uid: *uid, reason }
    );

    /// The segment has another protocol version.
    Incompatible = 8 { object, field, found, expected } => (
        "{object} has another protocol version: {field} is {found}, expected {expected}; update the older \
         of the two programs"
    );

    /// There is not enough memory, or not enough of another resource, to create an object.
    NoSpace = 9 { object, needed, reason } => ("no space for {object} ({needed} bytes): {reason}");

    /// The deadline passed.
    Timeout = 10 { waited, what } => (
        "timeout after {waited:?}: {what}; allow more time, or check that the peer is running{}",
        Advice::after(what)
    );

    /// The ring had no room until the deadline.
    Full = 11 { medium, needed, free, in_flight, held } => (
        "the ring is full: {needed} bytes needed, {free} free, {in_flight} frames in flight; {}; what was \
         cancelled keeps its place until the peer passes it",
        Places { medium: *medium, held: *held }
    );

    /// More bytes than can ever fit.
    TooLarge = 12 { what, asked, max } => (
        "{what} of {asked} bytes is too large: at most {max} bytes fit; {}", Advice::for_size_of(what)
    );

    /// The peer's process ended without closing the channel.
    PeerDied = 13 { request } => ("the peer process died; {}", End(request));

    /// The peer closed the channel cleanly.
    PeerClosed = 14 { request } => ("the peer has closed; {}", End(request));

    /// The server's handler failed on this request.
    HandlerFailed = 15 { sequence, status, message } => (
        "the handler failed on request {sequence} (status {status}): {}", Shown(message)
    );

    /// The peer broke the protocol; the channel cannot be used any more.
    ProtocolViolation = 16 { field, observed, allowed } => (
        "the peer broke the protocol: {field} is {observed}; allowed: {allowed}; this connection cannot be \
         used any more, connect again to a peer that you trust"
    );

    /// The handle was made before a fork and is used in the child.
    WrongProcess = 17 {} => (
        "this handle belongs to the parent process; open one of your own after the fork"
    );

    /// No request with that sequence number is waiting for a response.
    UnknownSequence = 18 { sequence } => (
        "no request {sequence} is waiting for a response; it has been received or cancelled, or was never \
         sent here"
    );

    /// A request buffer is open already.
    ClaimOpen = 19 {} => ("a request buffer is open already; commit or drop it first");

    /// All sequence numbers of this connection are used.
    SequenceExhausted = 20 {} => ("all sequence numbers of this connection are used; reconnect");

    /// The object is not in the state that the call needs.
    InvalidState = 21 { reason } => ("{reason}");

    /// A system call failed in a way that has no kind of its own.
    System = 22 { operation, object, errno } => (
        "{operation} failed on {object}: {}", SystemReason { operation, errno: *errno }
    );

    /// This platform, or this kind of channel, cannot do it.
    Unsupported = 23 { what } => ("not supported here: {what}");

    /// The object was closed on this side, possibly by another thread.
    Closed = 24 {} => (
        "it was closed on this side; make another one, or reconnect if it is a shared client"
    );

    /// Version 1: no frame of this length can ever be placed at the ring's present position.
    WouldNeverFit = 100 { asked, max } => (
        "a frame of {asked} bytes can never be placed at the ring's present position (at most {max} can); \
         keep frames below half of the ring, or make the payload larger"
    );

    /// Version 1: no writer has attached to the buffer yet.
    NotConnectedYet = 101 { waited } => (
        "no writer has attached within {waited:?}; start one, or wait longer"
    );

    /// Version 1: a frame is missing; the reader cannot go on.
    SequenceGap = 102 { expected, found } => (
        "frame {expected} is missing: frame {found} came instead; create the buffer again"
    );

    /// Version 1: metadata is written once in a buffer's life, and it has been.
    MetadataAlreadyWritten = 103 {} => (
        "the metadata of this buffer has been written already; create the buffer again to write others"
    );

    /// Version 1: a frame has at least one byte.
    EmptyFrame = 104 {} => ("a version 1 frame has at least one byte; write one or more");

    /// Version 1: responses can no longer be matched with requests.
    Desynchronised = 105 { reason } => (
        "responses can no longer be matched with requests: {reason}; connect again"
    );

    /// Version 1: the last sequence number of a previous writer cannot be determined.
    SequenceUnknown = 106 { name } => (
        "the last sequence number of the previous writer of buffer {name:?} cannot be determined; restart \
         the reader, or allow the writer to start again at 1"
    );
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        text(self, f)
    }
}

/// The kind and the text, in one line: it is what `fn main() -> Result<()>` prints.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.to_string().replace('\n', "\\n");
        write!(f, "{:?}: {text}", self.kind())
    }
}
