//! Parts of what errors say that depend on the facts.

use super::{LostRequest, Medium, RequestState};
use std::borrow::Cow;
use std::fmt;

/// A client trusts objects of its own user, or of the one that it was told.
pub(crate) const UNEXPECTED_OWNER: &str = "its owner is not the one expected";

/// A server replaces objects of its own user only.
pub(crate) const OTHER_OWNER: &str = "another user owns it";

/// What the ring that a client has asked for does not hold.
pub(crate) const REQUEST_TO_SERVICE: &str = "a request to a service";

/// What a service's own block for metadata does not hold.
pub(crate) const METADATA_OF_SERVICE: &str = "metadata of a service";

/// What became of a request when its server ended; without one, how to go on.
pub(super) struct End<'e>(pub(super) &'e Option<LostRequest>);

impl fmt::Display for End<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(LostRequest { sequence: 0, state: RequestState::NotStarted }) => {
                f.write_str("the request was never sent: safe to send again")
            }
            Some(LostRequest { sequence, state }) => write!(f, "request {sequence} is {state}"),
            None => f.write_str("connect again to reach its successor"),
        }
    }
}

/// A peer's text, which must not move a terminal's cursor.
pub(super) struct Shown<'e>(pub(super) &'e str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_kept = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
        self.0
            .chars()
            .map(|c| if is_kept(c) { c } else { char::REPLACEMENT_CHARACTER })
            .try_for_each(|c| fmt::Write::write_char(f, c))
    }
}

/// `text` in at most `max` bytes; what was cut ends with an ellipsis.
pub(crate) fn shortened(text: &str, max: usize) -> Cow<'_, str> {
    const MARK: &str = "…";
    if text.len() <= max {
        return Cow::Borrowed(text);
    }
    let (mut len, mark) = match max.checked_sub(MARK.len()) {
        Some(len) => (len, MARK),
        None => (max, ""),
    };
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    Cow::Owned(format!("{}{mark}", &text[..len]))
}

/// Who may use an object to which access was refused, and what to set.
pub(super) struct Found {
    pub(super) owner: Option<u32>,
    pub(super) mode: Option<u32>,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Some(owner), Some(mode)) = (self.owner, self.mode) else {
            return f.write_str("; run as its owner, or set a wider `mode` where it is created");
        };
        write!(
            f,
            " (owner: user {owner}, mode {mode:04o}); run as user {owner}, or set a wider `mode` where it is \
             created: 0660 for its group, 0666 for every user"
        )
    }
}

/// What to do about an object that is not used.
pub(super) struct ForeignAdvice<'e> {
    pub(super) uid: u32,
    pub(super) reason: &'e str,
}

impl fmt::Display for ForeignAdvice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            UNEXPECTED_OWNER => write!(f, "set `owner` to {} if you trust that user", self.uid),
            OTHER_OWNER => write!(f, "have user {} remove it, or choose another name", self.uid),
            _ => f.write_str("remove it if it is yours, or choose another name"),
        }
    }
}

/// Who has the places of a full ring, and what makes room.
pub(super) struct Places {
    pub(super) medium: Medium,
    pub(super) held: u64,
}

impl fmt::Display for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let larger = match self.medium {
            Medium::Buffer => {
                return f.write_str(
                    "the reader has to read and release them, or make the payload larger",
                );
            }
            Medium::Channel => {
                "make the payload larger (`for_frames` of the buffer's configuration)"
            }
            Medium::Service => "make the ring larger (`ring` of the client's configuration)",
        };
        match self.held {
            0 => f.write_str("receive their responses, allow more time (`send_timeout`)")?,
            1 => f.write_str("1 response among them is held by this program: release it")?,
            held => write!(
                f,
                "{held} responses among them are held by this program: release them, since places \
                 become free in their order"
            )?,
        }
        write!(f, ", or {larger}")
    }
}

/// Fixed advice.
pub(super) struct Advice;

impl Advice {
    /// What else there is to know once a wait has timed out.
    pub(super) fn after(what: &str) -> &'static str {
        match what {
            "waiting for a response" => {
                "; a request that is cancelled keeps its place until the server passes it"
            }
            _ => "",
        }
    }

    /// What to do about `what` that is too large.
    pub(super) fn for_size_of(what: &str) -> &'static str {
        match what {
            "metadata" => "write less, or create the channel or buffer with a larger metadata size",
            METADATA_OF_SERVICE => "write less, or configure a larger `metadata_size`",
            "a request" | "a frame" => "send less, or create the buffer with a larger payload size",
            REQUEST_TO_SERVICE => {
                "send less, or connect with a larger `ring` in the client's configuration"
            }
            "a resized request" => "acquire a larger request buffer",
            "a resized response" => {
                "have the client acquire its request with more response capacity"
            }
            _ => "ask for less",
        }
    }
}

/// The system's own words for an error number, and what helps where they do not say it.
pub(super) struct SystemReason<'e> {
    pub(super) operation: &'e str,
    pub(super) errno: i32,
}

impl fmt::Display for SystemReason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operation, errno } = *self;
        write!(f, "{}{}", std::io::Error::from_raw_os_error(errno), what_helps(operation, errno))
    }
}

/// What helps against a shortage that the system's own words do not explain.
fn what_helps(operation: &str, errno: i32) -> &'static str {
    match errno {
        libc::EMFILE => {
            "; this process may have no more descriptors (see `ulimit -n`): close some of what it has \
             open, or have the limit raised"
        }
        libc::ENFILE => "; the system may have no more open files: have fs.file-max raised",
        libc::ENOMEM => {
            "; this process may have no more memory (see `ulimit -v`) or mappings (vm.max_map_count): \
             close some of what it has open, or have the limit raised"
        }
        libc::EAGAIN if operation == "start the thread" => {
            "; there may be too many threads (see `ulimit -u`): end some, or try again"
        }
        _ => "",
    }
}
