//! The one message that each side sends before there is a segment (docs/protocol-service.md, section 3 "Handshake").

use crate::error::{Error, Medium};

/// Bytes of a hello, and of a reply, before the text.
pub(crate) const MESSAGE: usize = 64;
/// The most bytes of the text behind it.
pub(crate) const MAX_TEXT: usize = 192;
/// Room for any message, and a byte more, so that one that is too long shows.
pub(crate) type Buffer = [u8; MESSAGE + MAX_TEXT + 1];
pub(crate) const EMPTY_BUFFER: Buffer = [0; MESSAGE + MAX_TEXT + 1];

const MAGIC: [u8; 8] = *b"ZBUFSVC\0";
const MAJOR: u16 = 1;
const MINOR: u16 = 0;

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// A segment.
    Attach,
    /// What the worker and its clients do: a file with text for monitors.
    Status,
    /// How many clients there are: a reply without a segment.
    Load,
}

/// Refuse rather than forward to another machine.
pub(crate) const LOCAL_ONLY: u64 = 1;

/// A client's message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) ask: Ask,
    /// Bytes of the ring; 0 leaves it to the worker.
    pub(crate) ring: u64,
    /// Bytes of the client's metadata block; 0 leaves it to the worker.
    pub(crate) metadata: u64,
    pub(crate) flags: u64,
    /// What program this is, for people.
    pub(crate) label: String,
}

/// What a worker does about a message that is no hello of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadHello {
    /// It is of another protocol: the connection is closed without a word.
    Foreign,
    /// It is of another version, or asks for what this one does not know.
    Incompatible,
}

/// Why a worker refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Incompatible = 1,
    TooLarge = 2,
    Full = 3,
    NoMemory = 4,
    Stopping = 5,
    NotAllowed = 6,
}

/// A worker's message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) refusal: Option<Refusal>,
    /// The size of the file that comes along; or the limit on account of which it refuses.
    pub(crate) size: u64,
    /// The connection's number on this worker.
    pub(crate) number: u64,
    pub(crate) attached: u32,
    pub(crate) allowed: u32,
    /// Who it is, among those that share a listener.
    pub(crate) worker: u64,
    pub(crate) text: String,
}

impl Hello {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = head(match self.ask {
            Ask::Attach => 1,
            Ask::Status => 2,
            Ask::Load => 3,
        });
        bytes.extend(self.ring.to_le_bytes());
        bytes.extend(self.metadata.to_le_bytes());
        bytes.extend(self.flags.to_le_bytes());
        with_text(bytes, &self.label)
    }

    /// `len` is the message's length, of which `buffer` has as much as fits.
    pub(crate) fn decode(buffer: &Buffer, len: usize) -> Result<Self, BadHello> {
        let bytes = whole(buffer, len).ok_or(BadHello::Foreign)?;
        let flags = u64_at(bytes, 32);
        if u16_at(bytes, 8) != MAJOR || flags & !LOCAL_ONLY != 0 {
            return Err(BadHello::Incompatible);
        }
        let ask = match u32_at(bytes, 12) {
            1 => Ask::Attach,
            2 => Ask::Status,
            3 => Ask::Load,
            _ => return Err(BadHello::Incompatible),
        };
        let (ring, metadata) = (u64_at(bytes, 16), u64_at(bytes, 24));
        Ok(Self { ask, ring, metadata, flags, label: printable(&bytes[MESSAGE..]) })
    }
}

impl Reply {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = head(self.refusal.map_or(0, |refusal| refusal as u32));
        bytes.extend(self.size.to_le_bytes());
        bytes.extend(self.number.to_le_bytes());
        bytes.extend(self.attached.to_le_bytes());
        bytes.extend(self.allowed.to_le_bytes());
        bytes.extend(self.worker.to_le_bytes());
        with_text(bytes, &self.text)
    }

    /// # Errors
    /// `ProtocolViolation` if it is no reply at all.
    pub(crate) fn decode(buffer: &Buffer, len: usize) -> Result<Self, Error> {
        let violation =
            |field, observed, allowed| Error::ProtocolViolation { field, observed, allowed };
        let bytes = whole(buffer, len)
            .ok_or_else(|| violation("reply.length or reply.magic", len as u64, MESSAGE as u64))?;
        let code = u32_at(bytes, 12);
        let refusal = match code {
            _ if u16_at(bytes, 8) != MAJOR => Some(Refusal::Incompatible),
            0 => None,
            1 => Some(Refusal::Incompatible),
            2 => Some(Refusal::TooLarge),
            3 => Some(Refusal::Full),
            4 => Some(Refusal::NoMemory),
            5 => Some(Refusal::Stopping),
            6 => Some(Refusal::NotAllowed),
            _ => return Err(violation("reply.code", code.into(), 6)),
        };
        Ok(Self {
            refusal,
            size: u64_at(bytes, 16),
            number: u64_at(bytes, 24),
            attached: u32_at(bytes, 32),
            allowed: u32_at(bytes, 36),
            worker: u64_at(bytes, 40),
            text: printable(&bytes[MESSAGE..]),
        })
    }

    /// The error that a refused client of `service` gets, which had asked for a ring of `asked` bytes.
    pub(crate) fn error(&self, refusal: Refusal, service: &str, asked: u64) -> Error {
        let name = service.to_owned();
        let error = match refusal {
            Refusal::Incompatible => Error::Incompatible {
                object: format!("service {name:?}"),
                field: "protocol version, kind or flag of the hello",
                found: MAJOR.into(),
                expected: self.size,
            },
            Refusal::TooLarge => Error::TooLarge { what: "a ring", asked, max: self.size },
            Refusal::Full => Error::Busy { medium: Medium::Service, name },
            Refusal::NoMemory => Error::NoSpace {
                object: format!("a segment of service {name:?}"),
                needed: asked,
                reason: "its server has no memory or descriptors left, or may have no more; ask for a \
                         smaller ring, or raise the server's limits",
            },
            Refusal::Stopping => {
                Error::NotRunning { medium: Medium::Service, name, found: "its server is stopping" }
            }
            Refusal::NotAllowed => {
                let object = format!("service {name:?}");
                Error::PermissionDenied { object, operation: "attach to", owner: None, mode: None }
            }
        };
        match self.text.as_str() {
            "" => error,
            text => {
                let message = format!("a server of service {service:?} refuses: {text}");
                error.explained(message)
            }
        }
    }
}

/// Magic, version and the first number.
fn head(number: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(MESSAGE + MAX_TEXT);
    bytes.extend(MAGIC);
    bytes.extend(MAJOR.to_le_bytes());
    bytes.extend(MINOR.to_le_bytes());
    bytes.extend(number.to_le_bytes());
    bytes
}

fn with_text(mut bytes: Vec<u8>, text: &str) -> Vec<u8> {
    bytes.resize(MESSAGE, 0);
    bytes.extend(&text.as_bytes()[..text.floor_char_boundary_of(MAX_TEXT)]);
    bytes
}

/// A message of a possible length with the right first bytes.
fn whole(buffer: &Buffer, len: usize) -> Option<&[u8]> {
    let is_right = (MESSAGE..=MESSAGE + MAX_TEXT).contains(&len) && buffer[..8] == MAGIC;
    is_right.then(|| &buffer[..len])
}

/// A peer's text, which must not move a terminal's cursor.
fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace(char::is_control, "\u{fffd}")
}

trait FloorCharBoundary {
    fn floor_char_boundary_of(&self, most: usize) -> usize;
}

impl FloorCharBoundary for str {
    /// The largest boundary between characters that is at most `most`.
    fn floor_char_boundary_of(&self, most: usize) -> usize {
        let mut len = self.len().min(most);
        while !self.is_char_boundary(len) {
            len -= 1;
        }
        len
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u64_at(bytes, at) as u32
}

/// The eight bytes at `at`, all of which lie in the first 64.
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn buffer(bytes: &[u8]) -> (Buffer, usize) {
        let mut buffer = EMPTY_BUFFER;
        let fits = bytes.len().min(buffer.len());
        buffer[..fits].copy_from_slice(&bytes[..fits]);
        (buffer, bytes.len())
    }

    fn hello() -> Hello {
        let label = "camera".to_owned();
        Hello { ask: Ask::Attach, ring: 1 << 20, metadata: 4096, flags: 0, label }
    }

    /// The bytes of docs/protocol-service.md.
    #[test]
    fn a_hello_has_the_bytes_of_the_document() {
        let expected = "5a425546535643000100000001000000\
                        00001000000000000010000000000000\
                        00000000000000000000000000000000\
                        00000000000000000000000000000000\
                        63616d657261";
        let bytes: String = hello().encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(bytes, expected);
    }

    #[test]
    fn a_reply_has_the_bytes_of_the_document() {
        let reply = Reply {
            refusal: None,
            size: 0x104000,
            number: 3,
            attached: 2,
            allowed: 64,
            worker: 0x0123_4567_89ab_cdef,
            text: String::new(),
        };
        let expected = "5a425546535643000100000000000000\
                        00401000000000000300000000000000\
                        0200000040000000efcdab8967452301\
                        00000000000000000000000000000000";
        let bytes: String = reply.encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(bytes, expected);
    }

    #[test]
    fn messages_come_back_as_they_were() {
        for ask in [Ask::Attach, Ask::Status, Ask::Load] {
            let sent = Hello { ask, flags: LOCAL_ONLY, ..hello() };
            let (buffer, len) = buffer(&sent.encode());
            assert_eq!(Hello::decode(&buffer, len), Ok(sent));
        }
        use Refusal::{Full, Incompatible, NoMemory, NotAllowed, Stopping, TooLarge};
        let refusals = [Incompatible, TooLarge, Full, NoMemory, Stopping, NotAllowed];
        for refusal in refusals.map(Some).into_iter().chain([None]) {
            let text = "why".to_owned();
            let sent =
                Reply { refusal, size: 1, number: 2, attached: 3, allowed: 4, worker: 5, text };
            let (buffer, len) = buffer(&sent.encode());
            assert_eq!(Reply::decode(&buffer, len).unwrap(), sent);
        }
    }

    #[test]
    fn what_is_no_hello_is_told_from_one_of_another_version() {
        let decode = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = hello().encode();
            change(&mut bytes);
            let (buffer, len) = buffer(&bytes);
            Hello::decode(&buffer, len)
        };
        assert_eq!(decode(&|bytes| bytes.truncate(63)), Err(BadHello::Foreign));
        assert_eq!(decode(&|bytes| bytes.resize(257, b'x')), Err(BadHello::Foreign));
        assert_eq!(decode(&|bytes| bytes.clear()), Err(BadHello::Foreign));
        assert_eq!(decode(&|bytes| bytes[0] = b'z'), Err(BadHello::Foreign));
        assert_eq!(decode(&|bytes| bytes[8] = 2), Err(BadHello::Incompatible));
        assert_eq!(decode(&|bytes| bytes[12] = 4), Err(BadHello::Incompatible));
        assert_eq!(decode(&|bytes| bytes[39] = 1), Err(BadHello::Incompatible));
        assert_eq!(decode(&|bytes| bytes[10] = 9), Ok(hello()), "a later minor version");
        assert_eq!(decode(&|bytes| bytes[63] = 9), Ok(hello()), "reserved bytes");
    }

    #[test]
    fn texts_are_cut_between_characters_and_cannot_move_a_cursor() {
        let label = "é".repeat(97);
        let (buffer, len) = buffer(&Hello { label: format!("a{label}"), ..hello() }.encode());
        let cut = Hello::decode(&buffer, len).unwrap().label;
        assert_eq!(cut, format!("a{}", "é".repeat(95)));
        assert_eq!(printable(b"a\x1b[2Jb\xff"), "a\u{fffd}[2Jb\u{fffd}");
    }

    #[test]
    fn each_refusal_is_an_error_of_its_own_kind_with_the_workers_words() {
        let reply = Reply {
            refusal: None,
            size: 7,
            number: 0,
            attached: 0,
            allowed: 0,
            worker: 0,
            text: "full house".to_owned(),
        };
        for (refusal, kind) in [
            (Refusal::Incompatible, ErrorKind::Incompatible),
            (Refusal::TooLarge, ErrorKind::TooLarge),
            (Refusal::Full, ErrorKind::Busy),
            (Refusal::NoMemory, ErrorKind::NoSpace),
            (Refusal::Stopping, ErrorKind::NotRunning),
            (Refusal::NotAllowed, ErrorKind::PermissionDenied),
        ] {
            let error = reply.error(refusal, "images", 64);
            assert_eq!(error.kind(), kind);
            assert!(error.to_string().contains("full house"), "{error}");
        }
    }
}
