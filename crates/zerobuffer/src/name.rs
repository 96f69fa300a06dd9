//! Channel names and the operating system's names that follow from them.

use crate::error::{Error, Result};

/// The longest channel name in bytes.
pub const MAX_NAME_LEN: usize = 200;

/// A checked channel name: 1 to [`MAX_NAME_LEN`] bytes of `A–Z a–z 0–9 . _ -`, not starting with a
/// dot (protocol v2, section 2).
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
}
