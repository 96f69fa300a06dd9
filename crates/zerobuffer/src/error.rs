//! The one error type of the library: what was asked, what was found, and what to do.

use std::fmt;
use std::time::Duration;

/// The result of every fallible call of this library.
pub type Result<T> = std::result::Result<T, Error>;

/// What is known of a request whose server is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RequestState {
    /// The handler never ran on it: the bytes are as sent, and it is safe to send them again.
    NotStarted,
    /// The server had taken it: the bytes may be half-edited, and the handler's effects elsewhere may
    /// or may not have happened. Whether to send it again is the application's decision.
    InDoubt,
}

impl fmt::Display for RequestState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotStarted => "not started: safe to send again",
            Self::InDoubt => "in doubt: the server had taken it",
        })
    }
}

/// A request and what is known of it, as a peer's end leaves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LostRequest {
    /// The sequence number that the commit returned.
    pub sequence: u64,
    /// Whether its handler may have run.
    pub state: RequestState,
}

/// What a name stands for, and so who is at its two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Medium {
    /// A duplex channel, of one segment or of two buffers: a server and a client.
    Channel,
    /// A one-way buffer of version 1: a reader, who makes it, and a writer.
    Buffer,
}

impl Medium {
    /// The side that makes it.
    fn owner(self) -> &'static str {
        match self {
            Self::Channel => "server",
            Self::Buffer => "reader",
        }
    }

    /// The side that attaches to it.
    fn guest(self) -> &'static str {
        match self {
            Self::Channel => "client",
            Self::Buffer => "writer",
        }
    }
}

impl fmt::Display for Medium {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Channel => "channel",
            Self::Buffer => "buffer",
        })
    }
}

/// Everything that can go wrong, with its facts inside.
///
/// Match on [`Error::kind`] to decide, on the variant to learn the facts, and print the error to tell
/// a person what to do.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Error {
    /// The channel name breaks the grammar of [`ChannelName`](crate::ChannelName).
    BadName {
        /// The name as given (its first characters, if it is very long).
        name: String,
        /// The rule that it breaks.
        reason: &'static str,
    },
    /// A configuration value lies outside of what is allowed.
    BadConfig {
        /// The value's name.
        what: &'static str,
        /// What was asked.
        asked: u64,
        /// What is allowed.
        allowed: &'static str,
    },
    /// No server serves the channel; version 1: no reader has the buffer.
    NotRunning {
        /// What the name stands for.
        medium: Medium,
        /// The channel, or the buffer.
        name: String,
        /// What was found instead of a running server.
        found: &'static str,
    },
    /// Another client holds the channel: one server, one client. Version 1: another writer the buffer.
    Busy {
        /// What the name stands for.
        medium: Medium,
        /// The channel, or the buffer.
        name: String,
    },
    /// Another server serves the channel; version 1: another reader has the buffer.
    AlreadyRunning {
        /// What the name stands for.
        medium: Medium,
        /// The channel, or the buffer.
        name: String,
    },
    /// The operating system refuses access to an object.
    PermissionDenied {
        /// The object's name.
        object: String,
        /// What was attempted.
        operation: &'static str,
    },
    /// An object of that name exists, but is not ours or not what it should be; it was left alone.
    ForeignObject {
        /// The object's name.
        object: String,
        /// The user id of its owner.
        uid: u32,
        /// Why it was refused.
        reason: &'static str,
    },
    /// The segment speaks another protocol or version.
    Incompatible {
        /// The segment's name.
        object: String,
        /// The field that says so.
        field: &'static str,
        /// Its value.
        found: u64,
        /// What this library understands.
        expected: u64,
    },
    /// An object could not be made for want of memory, of files, or of the permission to make one so
    /// large.
    NoSpace {
        /// The object's name.
        object: String,
        /// Bytes that it needs.
        needed: u64,
        /// What there is not enough of, and what to do.
        reason: &'static str,
    },
    /// The deadline passed.
    Timeout {
        /// How long the call was allowed to take.
        waited: Duration,
        /// What it waited for.
        what: &'static str,
    },
    /// The ring had no room until the deadline: responses are being held, or requests unanswered.
    Full {
        /// Ring bytes needed.
        needed: u64,
        /// Ring bytes free.
        free: u64,
        /// Requests sent and not given back yet.
        in_flight: u64,
    },
    /// A request that can never fit this ring, or a length beyond the buffer that was acquired.
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Bytes asked for.
        asked: u64,
        /// Bytes possible.
        max: u64,
    },
    /// The peer's process ended without closing the channel.
    PeerDied {
        /// The request that the failed call was about, if it was about one.
        request: Option<LostRequest>,
    },
    /// The peer closed the channel in good order.
    PeerClosed {
        /// The request that the failed call was about, if it was about one.
        request: Option<LostRequest>,
    },
    /// The server's handler failed on this request; the data was not delivered.
    HandlerFailed {
        /// The request.
        sequence: u64,
        /// The handler's code: 1 error, 2 panic, 3 dropped unanswered, from 256 the application's.
        status: u16,
        /// What the handler said.
        message: String,
    },
    /// The peer broke the protocol; the channel cannot be used any more.
    ProtocolViolation {
        /// The field that gave it away.
        field: &'static str,
        /// The value seen in it.
        observed: u64,
        /// The largest (or only) value allowed.
        allowed: u64,
    },
    /// The handle was made before a `fork` and is used in the child.
    WrongProcess,
    /// No request with that sequence number is waiting for an answer.
    UnknownSequence {
        /// The number asked for.
        sequence: u64,
    },
    /// A request buffer is open already: commit or drop it first.
    ClaimOpen,
    /// All 2^56 − 1 sequence numbers of this connection are used: reconnect.
    SequenceExhausted,
    /// The object is not in the state that the call needs.
    InvalidState {
        /// What to do instead.
        reason: &'static str,
    },
    /// A system call failed in a way that has no kind of its own.
    System {
        /// The call.
        operation: &'static str,
        /// The object's name.
        object: String,
        /// The error number, see `errno(3)`.
        errno: i32,
    },
    /// This platform, or this kind of memory, cannot do it.
    Unsupported {
        /// What was asked.
        what: &'static str,
    },
    /// The object was closed on this side, by another thread maybe: see [`Closer`](crate::Closer).
    Closed,
    /// Version 1: at the ring's present position a frame of this length can never be placed, even when
    /// everything is released. Frames of at most half of the ring (minus 24 bytes) are never refused.
    WouldNeverFit {
        /// Bytes of the frame.
        asked: u64,
        /// The most bytes that can be written next.
        max: u64,
    },
    /// Version 1: no writer has attached to the buffer yet.
    NotConnectedYet {
        /// How long the call was allowed to take.
        waited: Duration,
    },
    /// Version 1: a frame is missing; the reader cannot go on.
    SequenceGap {
        /// The sequence number that should have come.
        expected: u64,
        /// The one that came.
        found: u64,
    },
    /// Version 1: metadata is written once in a buffer's life, and it has been.
    MetadataAlreadyWritten,
    /// Version 1: a frame has at least one byte.
    EmptyFrame,
    /// Version 1: answers can no longer be matched with requests; connect again.
    Desynchronised {
        /// What showed it.
        reason: &'static str,
    },
    /// Version 1: a former writer used the buffer and its last sequence number cannot be made out.
    SequenceUnknown {
        /// The buffer.
        name: String,
    },
    /// Version 1: another error, with what is behind it. Its kind is the other error's.
    Explained {
        /// The error with the facts, see [`Error::facts`].
        error: Box<Error>,
        /// What it is printed as.
        message: String,
    },
}

/// The kinds of [`Error`], for decisions; the number is stable across releases and languages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(i32)]
pub enum ErrorKind {
    /// See [`Error::BadName`].
    BadName = 1,
    /// See [`Error::BadConfig`].
    BadConfig = 2,
    /// See [`Error::NotRunning`].
    NotRunning = 3,
    /// See [`Error::Busy`].
    Busy = 4,
    /// See [`Error::AlreadyRunning`].
    AlreadyRunning = 5,
    /// See [`Error::PermissionDenied`].
    PermissionDenied = 6,
    /// See [`Error::ForeignObject`].
    ForeignObject = 7,
    /// See [`Error::Incompatible`].
    Incompatible = 8,
    /// See [`Error::NoSpace`].
    NoSpace = 9,
    /// See [`Error::Timeout`].
    Timeout = 10,
    /// See [`Error::Full`].
    Full = 11,
    /// See [`Error::TooLarge`].
    TooLarge = 12,
    /// See [`Error::PeerDied`].
    PeerDied = 13,
    /// See [`Error::PeerClosed`].
    PeerClosed = 14,
    /// See [`Error::HandlerFailed`].
    HandlerFailed = 15,
    /// See [`Error::ProtocolViolation`].
    ProtocolViolation = 16,
    /// See [`Error::WrongProcess`].
    WrongProcess = 17,
    /// See [`Error::UnknownSequence`].
    UnknownSequence = 18,
    /// See [`Error::ClaimOpen`].
    ClaimOpen = 19,
    /// See [`Error::SequenceExhausted`].
    SequenceExhausted = 20,
    /// See [`Error::InvalidState`].
    InvalidState = 21,
    /// See [`Error::System`].
    System = 22,
    /// See [`Error::Unsupported`].
    Unsupported = 23,
    /// See [`Error::Closed`].
    Closed = 24,
    /// See [`Error::WouldNeverFit`].
    WouldNeverFit = 100,
    /// See [`Error::NotConnectedYet`].
    NotConnectedYet = 101,
    /// See [`Error::SequenceGap`].
    SequenceGap = 102,
    /// See [`Error::MetadataAlreadyWritten`].
    MetadataAlreadyWritten = 103,
    /// See [`Error::EmptyFrame`].
    EmptyFrame = 104,
    /// See [`Error::Desynchronised`].
    Desynchronised = 105,
    /// See [`Error::SequenceUnknown`].
    SequenceUnknown = 106,
}

impl ErrorKind {
    /// The stable number of this kind, from 1; 0 is never used, so that it can mean success.
    pub fn code(self) -> i32 {
        self as i32
    }
}

impl Error {
    /// The kind, for decisions.
    ///
    /// ```
    /// use std::time::Duration;
    /// use zerobuffer::{Client, ErrorKind};
    ///
    /// let error = Client::connect("nobody-serves-this", Duration::ZERO).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::NotRunning);
    /// ```
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::BadName { .. } => ErrorKind::BadName,
            Self::BadConfig { .. } => ErrorKind::BadConfig,
            Self::NotRunning { .. } => ErrorKind::NotRunning,
            Self::Busy { .. } => ErrorKind::Busy,
            Self::AlreadyRunning { .. } => ErrorKind::AlreadyRunning,
            Self::PermissionDenied { .. } => ErrorKind::PermissionDenied,
            Self::ForeignObject { .. } => ErrorKind::ForeignObject,
            Self::Incompatible { .. } => ErrorKind::Incompatible,
            Self::NoSpace { .. } => ErrorKind::NoSpace,
            Self::Timeout { .. } => ErrorKind::Timeout,
            Self::Full { .. } => ErrorKind::Full,
            Self::TooLarge { .. } => ErrorKind::TooLarge,
            Self::PeerDied { .. } => ErrorKind::PeerDied,
            Self::PeerClosed { .. } => ErrorKind::PeerClosed,
            Self::HandlerFailed { .. } => ErrorKind::HandlerFailed,
            Self::ProtocolViolation { .. } => ErrorKind::ProtocolViolation,
            Self::WrongProcess => ErrorKind::WrongProcess,
            Self::UnknownSequence { .. } => ErrorKind::UnknownSequence,
            Self::ClaimOpen => ErrorKind::ClaimOpen,
            Self::SequenceExhausted => ErrorKind::SequenceExhausted,
            Self::InvalidState { .. } => ErrorKind::InvalidState,
            Self::System { .. } => ErrorKind::System,
            Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::Closed => ErrorKind::Closed,
            Self::WouldNeverFit { .. } => ErrorKind::WouldNeverFit,
            Self::NotConnectedYet { .. } => ErrorKind::NotConnectedYet,
            Self::SequenceGap { .. } => ErrorKind::SequenceGap,
            Self::MetadataAlreadyWritten => ErrorKind::MetadataAlreadyWritten,
            Self::EmptyFrame => ErrorKind::EmptyFrame,
            Self::Desynchronised { .. } => ErrorKind::Desynchronised,
            Self::SequenceUnknown { .. } => ErrorKind::SequenceUnknown,
            Self::Explained { error, .. } => error.kind(),
        }
    }

    /// The request that a peer's end left unanswered, if this error is about one.
    pub fn lost_request(&self) -> Option<LostRequest> {
        match self.facts() {
            Self::PeerDied { request } | Self::PeerClosed { request } => *request,
            _ => None,
        }
    }

    /// The error that holds the facts: this one, or for an [`Explained`](Self::Explained) one the error that
    /// it explains.
    ///
    /// ```
    /// use std::time::Duration;
    /// use zerobuffer::{BufferConfig, Error, v1};
    ///
    /// let name = format!("doc-facts-{}", std::process::id());
    /// let _reader = v1::Reader::create(&name, BufferConfig::new(0, 1024))?;
    /// let mut writer = v1::Writer::connect(&name, Duration::ZERO)?;
    /// let error = writer.write_frame(&[0; 1000]).unwrap_err();
    /// assert!(matches!(error.facts(), Error::TooLarge { asked: 1000, .. }));
    /// assert!(error.to_string().ends_with("at most 992 bytes fit, or exactly 1008"));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn facts(&self) -> &Self {
        match self {
            Self::Explained { error, .. } => error.facts(),
            error => error,
        }
    }

    /// The same error, with what is behind it.
    pub(crate) fn explained(self, message: String) -> Self {
        Self::Explained { error: Box::new(self), message }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadName { name, reason } => write!(f, "bad name {name:?}: {reason}"),
            Self::BadConfig { what, asked, allowed } => {
                write!(f, "{what} of {asked} is not possible: allowed is {allowed}")
            }
            Self::NotRunning { medium, name, found } => {
                let owner = medium.owner();
                write!(f, "no {owner} for {medium} {name:?}: {found}; start one, or wait longer")
            }
            Self::Busy { medium, name } => {
                let guest = medium.guest();
                write!(
                    f,
                    "{medium} {name:?} already has a {guest}; close it, or use another {medium} for each \
                     {guest}"
                )
            }
            Self::AlreadyRunning { medium, name } => write!(
                f,
                "{medium} {name:?} already has a {}; stop it, or choose another name",
                medium.owner()
            ),
            Self::PermissionDenied { object, operation } => write!(
                f,
                "no permission to {operation} {object}; run as its owner, or have the server widen its mode"
            ),
            Self::ForeignObject { object, uid, reason } => write!(
                f,
                "{object} (owner uid {uid}) is not used: {reason}; remove it if it is yours to \
                 remove, expect its owner if you trust them, or choose another name"
            ),
            Self::Incompatible { object, field, found, expected } => write!(
                f,
                "{object} does not speak this protocol version: {field} is {found}, expected {expected}"
            ),
            Self::NoSpace { object, needed, reason } => {
                write!(f, "no space for {object} ({needed} bytes): {reason}")
            }
            _ => self.fmt_use(f),
        }
    }
}

impl Error {
    /// What goes wrong with a channel that exists.
    fn fmt_use(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout { waited, what } => write!(f, "timeout after {waited:?}: {what}"),
            Self::Full { needed, free, in_flight } => write!(
                f,
                "the ring is full: {needed} bytes needed, {free} free, {in_flight} frames in flight; have \
                 them read and released, or make the payload larger"
            ),
            Self::TooLarge { what, asked, max } => {
                write!(f, "{what} of {asked} bytes is too large: at most {max} bytes fit")
            }
            Self::PeerDied { request } => write_end(f, "the peer process died", request),
            Self::PeerClosed { request } => write_end(f, "the peer has closed", request),
            Self::HandlerFailed { sequence, status, message } => {
                // The peer's text must not move a terminal's cursor.
                let shown = message.replace(|c: char| c.is_control() && c != '\n' && c != '\t', "\u{fffd}");
                write!(f, "the handler failed on request {sequence} (status {status}): {shown}")
            }
            Self::ProtocolViolation { field, observed, allowed } => write!(
                f,
                "the peer broke the protocol: {field} is {observed}, allowed is {allowed}; nothing more \
                 is exchanged with it, connect anew to a peer that you trust"
            ),
            Self::WrongProcess => f.write_str(
                "this handle belongs to the parent process; open one of your own after the fork",
            ),
            Self::UnknownSequence { sequence } => {
                write!(f, "no request {sequence} is waiting for an answer")
            }
            Self::ClaimOpen => {
                f.write_str("a request buffer is open already; commit or drop it first")
            }
            Self::SequenceExhausted => {
                f.write_str("all sequence numbers of this connection are used; reconnect")
            }
            Self::InvalidState { reason } => f.write_str(reason),
            Self::System { operation, object, errno } => {
                let reason = std::io::Error::from_raw_os_error(*errno);
                write!(f, "{operation} failed on {object}: {reason}{}", what_helps(operation, *errno))
            }
            Self::Unsupported { what } => write!(f, "not supported here: {what}"),
            Self::Closed => f.write_str(
                "it was closed on this side; make another one, or reconnect if it is a shared client",
            ),
            _ => self.fmt_version_1(f),
        }
    }

    /// What only version 1 knows; everything else was said before.
    fn fmt_version_1(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WouldNeverFit { asked, max } => write!(
                f,
                "a frame of {asked} bytes can never be placed at the ring's present position (at most \
                 {max} can); keep frames below half of the ring, or make the payload larger"
            ),
            Self::NotConnectedYet { waited } => {
                write!(f, "no writer has attached within {waited:?}; start one, or wait longer")
            }
            Self::SequenceGap { expected, found } => write!(
                f,
                "frame {expected} is missing, frame {found} came instead; make the buffer anew"
            ),
            Self::MetadataAlreadyWritten => {
                f.write_str("metadata was written before; it is written once")
            }
            Self::EmptyFrame => f.write_str("a version 1 frame has at least one byte"),
            Self::Desynchronised { reason } => {
                write!(f, "answers can no longer be matched with requests: {reason}; connect again")
            }
            Self::SequenceUnknown { name } => write!(
                f,
                "a former writer used buffer {name:?} and its last sequence number cannot be made out; \
                 restart the reader, or allow the writer to start again at 1"
            ),
            Self::Explained { message, .. } => f.write_str(message),
            other => write!(f, "{:?}", other.kind()),
        }
    }
}

fn write_end(f: &mut fmt::Formatter<'_>, what: &str, request: &Option<LostRequest>) -> fmt::Result {
    match request {
        Some(LostRequest { sequence, state }) => write!(f, "{what}; request {sequence} is {state}"),
        None => write!(f, "{what}; connect again to reach its successor"),
    }
}

impl std::error::Error for Error {}

/// What helps against a shortage that the system's own words do not explain.
fn what_helps(operation: &str, errno: i32) -> &'static str {
    match errno {
        libc::EMFILE => {
            "; this process may have no more descriptors (see `ulimit -n`): close channels, or have \
             the limit raised"
        }
        libc::ENFILE => "; the system may have no more open files: have fs.file-max raised",
        libc::ENOMEM => {
            "; this process may have no more memory (see `ulimit -v`) or mappings (vm.max_map_count): \
             close channels, or have the limit raised"
        }
        libc::EAGAIN if operation == "start the thread" => {
            "; there may be too many threads (see `ulimit -u`): end some, or try again"
        }
        _ => "",
    }
}
