//! Exit codes, and errors that say what to do.

use serde::{Deserialize, Serialize};
use std::path::Path;
use std::process::ExitCode;
use zerobuffer::{Error, ErrorKind};

/// How the program ends; documented in `docs/command.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Done,
    WrongAnswer,
    Usage,
    NoServer,
    PeerGone,
    Taken,
    Timeout,
    FilterRefused,
    File,
    Refused,
    Signal(u8),
}

impl Exit {
    /// The number that the shell sees.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::WrongAnswer => 1,
            Self::Usage => 2,
            Self::NoServer => 3,
            Self::PeerGone => 4,
            Self::Taken => 5,
            Self::Timeout => 6,
            Self::FilterRefused => 7,
            Self::File => 8,
            Self::Refused => 9,
            Self::Signal(number) => 128 | number,
        }
    }

    fn from_code(code: u8) -> Self {
        let known = [
            Self::Done,
            Self::WrongAnswer,
            Self::Usage,
            Self::NoServer,
            Self::PeerGone,
            Self::Taken,
            Self::Timeout,
            Self::FilterRefused,
            Self::File,
        ];
        known.into_iter().find(|exit| exit.code() == code).unwrap_or(Self::Refused)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command could not do its work.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// What kind it is, in snake_case: the library's kind, or `usage`, `file`, `wrong_answer`,
    /// `interrupted`.
    kind: String,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

/// A failure as `--json` shows it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FailureRecord {
    ok: bool,
    pub(crate) error: ErrorRecord,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ErrorRecord {
    kind: String,
    exit_code: u8,
    message: String,
    hint: Option<String>,
}

impl Failure {
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, kind: "usage".to_owned(), message: message.into(), hint: None }
    }

    /// A file that could not be used: what was attempted, on what, and why not.
    pub(crate) fn file(attempt: &str, path: &Path, reason: impl std::fmt::Display) -> Self {
        let message = format!("cannot {attempt} {}: {reason}", path.display());
        Self { exit: Exit::File, kind: "file".to_owned(), message, hint: None }
    }

    pub(crate) fn wrong_answer(message: String) -> Self {
        Self { exit: Exit::WrongAnswer, kind: "wrong_answer".to_owned(), message, hint: None }
    }

    pub(crate) fn system(message: impl Into<String>) -> Self {
        Self { exit: Exit::Refused, kind: "system".to_owned(), message: message.into(), hint: None }
    }

    pub(crate) fn interrupted(signal: u8) -> Self {
        let message = format!("interrupted by signal {signal}");
        let kind = "interrupted".to_owned();
        Self { exit: Exit::Signal(signal), kind, message, hint: None }
    }

    /// The same failure, with the name of the service or channel that it is about.
    pub(crate) fn about(mut self, name: &str) -> Self {
        if self.exit != Exit::Usage && !self.message.contains(&format!("{name:?}")) {
            self.message = format!("{name:?}: {}", self.message);
        }
        self
    }

    /// The same failure in other words.
    pub(crate) fn reworded(mut self, message: String) -> Self {
        self.message = message;
        self
    }

    /// The same failure, and how far things had come.
    pub(crate) fn with(mut self, so_far: &str) -> Self {
        self.message = format!("{}; {so_far}", self.message);
        self
    }

    /// The same failure, with advice.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn record(&self) -> FailureRecord {
        FailureRecord {
            ok: false,
            error: ErrorRecord {
                kind: self.kind.clone(),
                exit_code: self.exit.code(),
                message: self.message.clone(),
                hint: self.hint.clone(),
            },
        }
    }
}

impl From<FailureRecord> for Failure {
    fn from(record: FailureRecord) -> Self {
        let ErrorRecord { kind, exit_code, message, hint } = record.error;
        Self { exit: Exit::from_code(exit_code), kind, message, hint }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let kind = error.kind();
        Self {
            exit: exit_of(kind),
            kind: snake_case(&format!("{kind:?}")),
            message: error.to_string(),
            hint: hint_of(&error).map(str::to_owned),
        }
    }
}

fn exit_of(kind: ErrorKind) -> Exit {
    match kind {
        ErrorKind::BadName | ErrorKind::BadConfig | ErrorKind::EmptyFrame => Exit::Usage,
        ErrorKind::NotRunning | ErrorKind::NotConnectedYet => Exit::NoServer,
        ErrorKind::PeerDied | ErrorKind::PeerClosed => Exit::PeerGone,
        ErrorKind::Busy | ErrorKind::AlreadyRunning => Exit::Taken,
        ErrorKind::Timeout | ErrorKind::Full => Exit::Timeout,
        ErrorKind::HandlerFailed => Exit::FilterRefused,
        _ => Exit::Refused,
    }
}

/// What to do about it with this command, where the library's own words do not say it.
fn hint_of(error: &Error) -> Option<&'static str> {
    if let Error::TooLarge { what: "metadata", .. } = error {
        return Some(
            "a picture's size needs 24 bytes: start the server with --metadata 64 or more",
        );
    }
    Some(match error.kind() {
        ErrorKind::BadName => {
            "a name has 1 to 200 of A-Z a-z 0-9 . _ - and does not start with a dot"
        }
        ErrorKind::NotRunning => {
            "`zerobuffer serve NAME --filter echo` starts one; --wait SECONDS waits for it"
        }
        ErrorKind::Busy => {
            "a channel serves one client at a time, a service --max-clients; --wait SECONDS waits for its turn"
        }
        ErrorKind::TooLarge | ErrorKind::WouldNeverFit => {
            "start the server with a larger --payload, for example --payload 256MiB; of a service `call --ring 256MiB` \
             asks for it"
        }
        ErrorKind::Timeout | ErrorKind::Full => "--timeout SECONDS gives the server more time",
        ErrorKind::EmptyFrame => "a channel over two buffers has no requests of no bytes",
        ErrorKind::NoSpace => "--payload asks for less",
        ErrorKind::PeerDied => "start the server again; what a dead one leaves it clears away",
        ErrorKind::PermissionDenied | ErrorKind::ForeignObject => {
            "`serve --group GID` lets others in, with --channel `serve --mode 666`; `call --owner UID` trusts the \
             server's user"
        }
        _ => return None,
    })
}

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_snake_case() {
        assert_eq!(snake_case("NotRunning"), "not_running");
        assert_eq!(snake_case("Busy"), "busy");
    }

    #[test]
    fn a_failure_survives_the_way_through_json() {
        let failure = Failure::from(Error::Busy {
            medium: zerobuffer::Medium::Channel,
            name: "x".to_owned(),
        });
        let text = serde_json::to_string(&failure.record()).unwrap();
        let back = Failure::from(serde_json::from_str::<FailureRecord>(&text).unwrap());
        assert_eq!(back.exit, Exit::Taken);
        assert_eq!(
            (back.kind, back.message, back.hint),
            (failure.kind, failure.message, failure.hint)
        );
    }

    #[test]
    fn a_signal_ends_the_program_as_shells_expect() {
        assert_eq!(Exit::Signal(2).code(), 130);
        assert_eq!(Exit::Signal(15).code(), 143);
    }
}
