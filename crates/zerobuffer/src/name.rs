//! Channel names and the operating system's names that follow from them.

use crate::error::{Error, Result};

/// The longest channel name in bytes.
pub const MAX_NAME_LEN: usize = 200;

/// A checked channel name: 1 to [`MAX_NAME_LEN`] bytes of `A–Z a–z 0–9 . _ -`, not starting with a
/// dot (protocol v2, section 3.1 "Grammar").
///
/// Every object name is derived from a value of this type, so a name that has not been checked never
/// reaches a system call.
///
/// ```
/// use zerobuffer::{ChannelName, ErrorKind};
///
/// let name: ChannelName = "image-proc".parse()?;
/// assert_eq!(name.segment(), "/image-proc_duplex");
/// assert_eq!("../etc".parse::<ChannelName>().unwrap_err().kind(), ErrorKind::BadName);
/// # Ok::<(), zerobuffer::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ChannelName(String);

impl ChannelName {
    /// Checks `name`.
    ///
    /// # Errors
    /// [`Error::BadName`] with the rule that was broken.
    pub fn new(name: &str) -> Result<Self> {
        let reason = if name.is_empty() {
            Some("it is empty")
        } else if name.len() > MAX_NAME_LEN {
            Some("it is longer than 200 bytes")
        } else if name.starts_with('.') {
            Some("it starts with a dot")
        } else if !name.bytes().all(is_name_byte) {
            Some("it holds a byte other than A-Z a-z 0-9 . _ -")
        } else {
            None
        };
        match reason {
            Some(reason) => Err(Error::BadName { name: name.chars().take(220).collect(), reason }),
            None => Ok(Self(name.to_owned())),
        }
    }

    /// The name as given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The POSIX shared-memory name of the in-place segment, `/{name}_duplex`.
    pub fn segment(&self) -> String {
        format!("/{}_duplex", self.0)
    }

    pub(crate) fn request_ready(&self) -> String {
        format!("/sem-request-ready-{}", self.0)
    }

    pub(crate) fn response_ready(&self) -> String {
        format!("/sem-response-ready-{}", self.0)
    }

    pub(crate) fn response_consumed(&self) -> String {
        format!("/sem-response-consumed-{}", self.0)
    }

    pub(crate) fn space_available(&self) -> String {
        format!("/sem-space-available-{}", self.0)
    }
}

impl std::str::FromStr for ChannelName {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::new(name)
    }
}

impl std::fmt::Display for ChannelName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A checked name of a version 1 buffer: 1 to [`BufferName::MAX_LEN`] bytes without `/` and NUL, not `.`
/// or `..`.
///
/// Existing v1 programs check nothing, so this grammar is as wide as the file system allows: every buffer
/// that they can create has a valid name. Duplex channels append `_request` and `_response` to theirs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct BufferName(String);

impl BufferName {
    /// The longest name: the semaphore's file `sem.sem-w-{name}` has 255 bytes then.
    pub(crate) const MAX_LEN: usize = 245;

    /// Checks `name`.
    ///
    /// # Errors
    /// [`Error::BadName`] with the rule that was broken.
    pub(crate) fn new(name: &str) -> Result<Self> {
        let reason = if name.is_empty() {
            Some("it is empty")
        } else if name.len() > Self::MAX_LEN {
            Some("it is longer than 245 bytes (236 for a duplex channel)")
        } else if name == "." || name == ".." {
            Some("it is a directory")
        } else if name.bytes().any(|byte| byte == b'/' || byte == 0) {
            Some("it holds a slash or a NUL")
        } else {
            None
        };
        match reason {
            Some(reason) => Err(Error::BadName { name: name.chars().take(260).collect(), reason }),
            None => Ok(Self(name.to_owned())),
        }
    }

    /// The name of the buffer that carries the requests of the version 1 duplex channel `channel`.
    pub(crate) fn request(channel: &str) -> Result<Self> {
        Self::part(channel, "_request")
    }

    /// The name of the buffer that carries its responses.
    pub(crate) fn response(channel: &str) -> Result<Self> {
        Self::part(channel, "_response")
    }

    fn part(channel: &str, suffix: &str) -> Result<Self> {
        // A channel whose longer name is too long has no buffers at all, not one of the two.
        Self::new(channel)?;
        Self::new(&format!("{channel}_response"))?;
        Self::new(&format!("{channel}{suffix}"))
    }

    /// The name as given.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn segment(&self) -> String {
        format!("/{}", self.0)
    }

    /// A token for each frame written.
    pub(crate) fn data_ready(&self) -> String {
        format!("/sem-w-{}", self.0)
    }

    /// A token for each frame released.
    pub(crate) fn space_freed(&self) -> String {
        format!("/sem-r-{}", self.0)
    }
}

impl std::fmt::Display for BufferName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn names_within_the_grammar_are_accepted() {
        for name in ["a", "image-proc", "A.b_c-9", "-", "_", "a..b", &"x".repeat(200)] {
            assert_eq!(ChannelName::new(name).expect(name).as_str(), name);
        }
    }

    #[test]
    fn names_outside_the_grammar_are_refused_with_a_reason() {
        let long = "x".repeat(201);
        for name in
            ["", ".", "..", ".hidden", "a/b", "/a", "a\0b", "a b", "ä", "a\n", "%s", long.as_str()]
        {
            let error = ChannelName::new(name).expect_err(name);
            assert_eq!(error.kind(), ErrorKind::BadName, "{name:?}");
        }
    }

    #[test]
    fn every_object_name_of_the_longest_channel_fits_a_file_name() {
        let name = ChannelName::new(&"x".repeat(MAX_NAME_LEN)).unwrap();
        for object in [
            name.segment(),
            name.request_ready(),
            name.response_ready(),
            name.response_consumed(),
            name.space_available(),
        ] {
            // glibc prefixes a semaphore's file with "sem."; a file name has at most 255 bytes.
            assert!("sem.".len() + object.len() - 1 <= 255, "{object}");
        }
    }

    #[test]
    fn version_1_names_are_what_a_file_system_takes() {
        for name in ["a", "a.b", "ä b", ".hidden", &"x".repeat(245)] {
            assert_eq!(BufferName::new(name).expect(name).as_str(), name);
        }
        for name in ["", ".", "..", "a/b", "a\0", &"x".repeat(246)] {
            assert_eq!(BufferName::new(name).unwrap_err().kind(), ErrorKind::BadName, "{name:?}");
        }
        let longest = BufferName::new(&"x".repeat(245)).unwrap();
        for object in [longest.segment(), longest.data_ready(), longest.space_freed()] {
            assert!("sem.".len() + object.len() - 1 <= 255, "{object}");
        }
        assert!(BufferName::request(&"x".repeat(236)).is_ok());
        assert_eq!(BufferName::request(&"x".repeat(237)).unwrap_err().kind(), ErrorKind::BadName);
    }
}
