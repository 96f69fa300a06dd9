//! The one error type of the library: what was asked, what was found, and what to do.

mod table;
mod text;

pub use table::ErrorKind;
pub(crate) use text::{
    METADATA_OF_SERVICE, OTHER_OWNER, REQUEST_TO_SERVICE, UNEXPECTED_OWNER, shortened,
};

use std::fmt;
use std::time::Duration;

/// The result of every fallible call of this library.
pub type Result<T> = std::result::Result<T, Error>;

/// What is known of a request whose server has ended.
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

/// A request that a peer left unanswered when it ended, and what is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LostRequest {
    /// The sequence number that the commit returned; 0 for a call whose request was never sent.
    pub sequence: u64,
    /// Whether its handler may have run.
    pub state: RequestState,
}

/// What a name stands for, and with it what its two sides are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Medium {
    /// A duplex channel, of one segment or of two buffers: a server and a client.
    Channel,
    /// A service: any number of servers, and any number of clients.
    Service,
    /// A one-way buffer of version 1: a reader, who makes it, and a writer.
    Buffer,
}

impl Medium {
    /// The side that makes it.
    fn owner(self) -> &'static str {
        match self {
            Self::Channel | Self::Service => "server",
            Self::Buffer => "reader",
        }
    }

    /// The side that attaches to it.
    fn guest(self) -> &'static str {
        match self {
            Self::Channel | Self::Service => "client",
            Self::Buffer => "writer",
        }
    }
}

impl fmt::Display for Medium {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Channel => "channel",
            Self::Service => "service",
            Self::Buffer => "buffer",
        })
    }
}

/// Everything that can go wrong, with its facts inside.
///
/// Match on [`Error::kind`] to decide, on the variant to learn the facts, and print the error to tell
/// a person what to do.
#[derive(Clone)]
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
        /// The service, the channel, or the buffer.
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
        /// The user id of the object's owner; `None` where there is no object yet, or it cannot be examined.
        owner: Option<u32>,
        /// The object's mode, such as `0o600`.
        mode: Option<u32>,
    },
    /// An object of that name exists, but has another owner or is of another kind; it was left alone.
    ForeignObject {
        /// The object's name.
        object: String,
        /// The user id of its owner.
        uid: u32,
        /// Why it was refused.
        reason: &'static str,
    },
    /// The segment has another protocol version.
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
    /// There is not enough memory, or not enough of another resource, to create an object.
    NoSpace {
        /// The object's name.
        object: String,
        /// Bytes that it needs.
        needed: u64,
        /// What is short, and what to do.
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
        /// What the ring belongs to.
        medium: Medium,
        /// Ring bytes needed.
        needed: u64,
        /// Ring bytes free.
        free: u64,
        /// Requests that were sent and whose slots are not released yet.
        in_flight: u64,
        /// Of these, the ones whose responses this program holds; 0 for two buffers, where they take no room
        /// of the requests.
        held: u64,
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
    /// The peer closed the channel cleanly.
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
        /// The field with the impossible value.
        field: &'static str,
        /// The value seen in it.
        observed: u64,
        /// The largest (or only) value allowed.
        allowed: u64,
    },
    /// The handle was made before a `fork` and is used in the child.
    WrongProcess,
    /// No request with that sequence number is waiting for a response.
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
    /// The object was closed on this side, possibly by another thread: see [`Closer`](crate::Closer).
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
    /// Version 1: responses can no longer be matched with requests; connect again.
    Desynchronised {
        /// How it was noticed.
        reason: &'static str,
    },
    /// Version 1: a previous writer used the buffer, and its last sequence number cannot be determined.
    SequenceUnknown {
        /// The buffer.
        name: String,
    },
    /// Another error, with its cause. Its kind is the other error's.
    Explained {
        /// The error with the facts, see [`Error::facts`].
        error: Box<Error>,
        /// What it is printed as.
        message: String,
    },
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
        table::kind(self)
    }

    /// The request that a peer left unanswered when it ended, if this error is about one.
    ///
    /// A call that fails with [`PeerDied`](Self::PeerDied) or [`PeerClosed`](Self::PeerClosed) always has one.
    /// If the server had ended before the request was sent, that is [`RequestState::NotStarted`] with the
    /// sequence number 0. Any other function that fails without one has sent nothing.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use zerobuffer::{BufferConfig, Client, RequestState, Server};
    /// # let name = format!("doc-lost-request-{}", std::process::id());
    /// let server = Server::create(&name, BufferConfig::new(0, 1 << 16))?;
    /// let mut client = Client::connect(&name, Duration::from_secs(5))?;
    /// drop(server);
    /// let error = client.call(b"late", Duration::from_secs(5)).unwrap_err();
    /// assert_eq!(error.lost_request().map(|lost| lost.state), Some(RequestState::NotStarted));
    /// # Ok::<(), zerobuffer::Error>(())
    /// ```
    pub fn lost_request(&self) -> Option<LostRequest> {
        match self.facts() {
            Self::PeerDied { request } | Self::PeerClosed { request } => *request,
            _ => None,
        }
    }

    /// The error of a call that could not send its request.
    pub(crate) fn never_sent(self) -> Self {
        let request = Some(LostRequest { sequence: 0, state: RequestState::NotStarted });
        match self {
            Self::PeerDied { request: None } => Self::PeerDied { request },
            Self::PeerClosed { request: None } => Self::PeerClosed { request },
            Self::Explained { error, message } => error.never_sent().explained(message),
            error => error,
        }
    }

    /// Whether a client that has not found a server, or no place there, may find one later.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self.kind(), ErrorKind::NotRunning | ErrorKind::Busy | ErrorKind::NoSpace)
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

    /// The same error, with its cause.
    pub(crate) fn explained(self, message: String) -> Self {
        Self::Explained { error: Box::new(self), message }
    }
}

impl std::error::Error for Error {}

#[cfg(all(test, not(loom)))]
mod tests;
