//! What a child tells the controller: lines on its standard output, which survive its kill.

use std::io::Write as _;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// The process is up.
    Ready,
    /// A client is attached; nanoseconds since its predecessor's end or since it began to try.
    Attached(u64),
    /// A client has learned of the death of its server, nanoseconds after the signal was sent.
    Death(u64),
    /// Something was back so many nanoseconds after its time, and the machine itself was late by so many.
    Late { by: u64, machine: u64, what: String },
    /// Requests in their classes, counted once in a while.
    Count(String, u64),
    /// A promise was broken.
    Violation(String),
    /// The process ends in order, and leaves nothing behind.
    Unchanged,
}

impl Message {
    /// Tells it, in one piece: the next thing may be a kill.
    pub(crate) fn tell(&self) {
        let line = match self {
            Self::Ready => "ready".to_owned(),
            Self::Attached(ns) => format!("attached {ns}"),
            Self::Death(ns) => format!("death {ns}"),
            Self::Late { by, machine, what } => format!("late {by} {machine} {what}"),
            Self::Count(what, count) => format!("count {count} {what}"),
            Self::Violation(text) => format!("violation {}", text.replace('\n', " ")),
            Self::Unchanged => "unchanged".to_owned(),
        };
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(format!("{line}\n").as_bytes());
        let _ = out.flush();
    }

    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (first, text) = rest.split_once(' ').unwrap_or((rest, ""));
        Some(match word {
            "ready" => Self::Ready,
            "attached" => Self::Attached(rest.parse().ok()?),
            "death" => Self::Death(rest.parse().ok()?),
            "late" => {
                let (machine, what) = text.split_once(' ')?;
                let (by, machine) = (first.parse().ok()?, machine.parse().ok()?);
                Self::Late { by, machine, what: what.to_owned() }
            }
            "count" => Self::Count(text.to_owned(), first.parse().ok()?),
            "violation" => Self::Violation(rest.to_owned()),
            "unchanged" => Self::Unchanged,
            _ => return None,
        })
    }
}

/// Tells the controller that a promise was broken.
pub(crate) fn violation(text: impl Into<String>) {
    Message::Violation(text.into()).tell();
}

#[cfg(test)]
mod tests {
    use super::Message;

    #[test]
    fn lines_that_are_no_messages_are_not_understood() {
        for line in ["", "running 1 test", "late 5", "death soon", "attached"] {
            assert_eq!(Message::parse(line), None, "{line:?}");
        }
        let late = Message::Late { by: 5, machine: 6, what: "a call of 7 ms".to_owned() };
        assert_eq!(Message::parse("late 5 6 a call of 7 ms"), Some(late));
        assert_eq!(
            Message::parse("count 3 in doubt"),
            Some(Message::Count("in doubt".to_owned(), 3))
        );
    }
}
