//! The client's way to a server of two buffers: first its request buffer, then a response buffer of its own
//! (rule X2).

use super::of_channel;
use crate::config::ClientConfig;
use crate::error::{Error, Medium, Result};
use crate::name::BufferName;
use crate::v1::config::{ReaderConfig, WriterConfig};
use crate::v1::reader::Reader;
use crate::v1::writer::Writer;
use crate::wait::Deadline;
use std::time::Duration;

const PAUSE: Duration = Duration::from_millis(1);
/// Long enough for a server to notice that there is no client.
const METADATA_PAUSE: Duration = Duration::from_millis(40);
/// How long a client without metadata waits for that of a previous one to be forgotten. Existing v1
/// servers never forget it.
const FORGETTING: Duration = Duration::from_millis(500);
/// How long a client waits for a request buffer that is not in order to be made anew. Our server does that soon, an
/// existing v1 program never.
const RENEWAL: Duration = Duration::from_secs(2);
/// Between two looks at it: each takes the place of a client for a moment.
const RENEWAL_PAUSE: Duration = Duration::from_millis(10);

/// Connects to the server of `channel`, unless the caller cancels it.
///
/// # Errors
/// Those of [`Channel::connect`](super::Channel::connect).
pub(super) fn connect(
    channel: &str,
    config: &ClientConfig,
    deadline: &Deadline,
    is_cancelled: &dyn Fn() -> bool,
) -> Result<(Writer, Reader)> {
    let response_name = BufferName::response(channel)?;
    let attempt = Attempt { channel, config, deadline, is_cancelled };
    let told = |error| match of_channel(error, channel) {
        // The reader of the response buffer is another client.
        Error::AlreadyRunning { medium, name } => Error::Busy { medium, name },
        error => error,
    };
    loop {
        // First the requests, then the responses (rule X2): an existing v1 server polls for the response
        // buffer every 100 ms, and ours as soon as it sees a client.
        let requests = attempt.requests().map_err(told)?;
        let responses = Reader::create(response_name.as_str(), response_config(config));
        let responses = responses.map_err(told)?;
        // Only a server that has attached will respond (rule X3). One that was stopping when the requests
        // were found never does, but another one may take its place.
        if attempt.serves(&requests, || responses.is_writer_connected())? {
            return Ok((requests, responses));
        }
    }
}

/// One attempt to connect.
struct Attempt<'a> {
    channel: &'a str,
    config: &'a ClientConfig,
    deadline: &'a Deadline,
    is_cancelled: &'a dyn Fn() -> bool,
}

impl Attempt<'_> {
    /// Attaches to the request buffer, as its only user.
    fn requests(&self) -> Result<Writer> {
        let forgetting = Deadline::after(FORGETTING.min(self.deadline.left()));
        loop {
            let mut requests = self.attach()?;
            // What a previous client left must not be answered to us.
            if !self.serves(&requests, || requests.is_drained())? {
                continue;
            }
            if self.config.metadata.is_empty() {
                // A previous client's would be taken for ours.
                if !requests.has_metadata() || forgetting.left().is_zero() {
                    return Ok(requests);
                }
                drop(requests);
                crate::sys::sleep(METADATA_PAUSE.min(forgetting.left()));
                continue;
            }
            match requests.set_metadata(&self.config.metadata) {
                Ok(()) => return Ok(requests),
                // It is being made anew.
                Err(Error::PeerClosed { .. }) if !self.deadline.left().is_zero() => {}
                // Our server forgets a previous client's metadata once it sees that there is no client;
                // an existing v1 server never does.
                Err(Error::MetadataAlreadyWritten) if !self.deadline.left().is_zero() => {
                    drop(requests);
                    self.check()?;
                    crate::sys::sleep(METADATA_PAUSE.min(self.deadline.left()));
                }
                Err(error @ Error::MetadataAlreadyWritten) => {
                    return Err(error.explained(format!(
                        "the server of channel {:?} has a previous client's metadata, which an existing v1 program \
                         keeps: start it again",
                        self.channel
                    )));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Attaches to the request buffer, as soon as it is there, has no other writer, and is in order: one that a killed
    /// client has left otherwise is made anew by its server.
    fn attach(&self) -> Result<Writer> {
        let name = BufferName::request(self.channel)?;
        let renewal = Deadline::after(RENEWAL.min(self.deadline.left()));
        loop {
            let config = request_config(self.config);
            let (error, pause, left) =
                match Writer::connect_with(name.as_str(), Duration::ZERO, config) {
                    Err(error @ Error::ProtocolViolation { .. }) => {
                        (error, RENEWAL_PAUSE, renewal.left())
                    }
                    Err(error @ (Error::NotRunning { .. } | Error::Busy { .. })) => {
                        (error, PAUSE, self.deadline.left())
                    }
                    attached => return attached,
                };
            if left.is_zero() {
                return Err(error);
            }
            self.check()?;
            crate::sys::sleep(pause.min(left));
        }
    }

    fn check(&self) -> Result<()> {
        if (self.is_cancelled)() { Err(Error::Closed) } else { Ok(()) }
    }

    /// Waits for what a server does. False if this one disconnected before it did.
    ///
    /// # Errors
    /// `NotRunning` when the deadline has passed.
    fn serves(&self, requests: &Writer, condition: impl Fn() -> bool) -> Result<bool> {
        while !condition() {
            self.check()?;
            if self.deadline.left().is_zero() {
                return Err(Error::NotRunning {
                    medium: Medium::Channel,
                    name: self.channel.to_owned(),
                    found: "its server is there but does not answer in time; an existing v1 program serves one client only \
                            and may have had it",
                });
            }
            crate::sys::sleep(PAUSE.min(self.deadline.left()));
            if !requests.is_reader_connected() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn response_config(config: &ClientConfig) -> ReaderConfig {
    ReaderConfig::new(config.response_buffer.clone())
        .mode(config.mode)
        .liveness(config.liveness)
        .wait(config.wait)
}

fn request_config(config: &ClientConfig) -> WriterConfig {
    // A used request buffer whose last sequence cannot be made out is only made by a peer of the kind that
    // accepts a restart, or has no use for a second client anyway.
    let requests = WriterConfig::new().restart_sequence(true);
    let requests = requests.liveness(config.liveness).wait(config.wait);
    match config.owner {
        Some(uid) => requests.owner(uid),
        None => requests,
    }
}
