//! What clients of both kinds of channel have in common: the library's client, which Python's threads wait
//! for in slices.

use crate::buffer::is_large;
use crate::errors::duplex;
use crate::waiting::{self, not_yet};
use parking_lot::Mutex;
use pyo3::prelude::*;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};
use zerobuffer::{
    Error, OwnedRequestBuffer, OwnedResponse, Reconnected, RequestLayout, RequestState,
    SharedClient,
};

/// A client whose waits let other threads of Python run, and end with Ctrl-C.
pub(crate) struct SlicedClient {
    name: String,
    shared: Arc<UntilClosed<SharedClient>>,
    send_timeout: Duration,
    resend_not_started: bool,
}

/// The library's client until it is closed. It is let go of then: a service has its client for as long as this
/// lives. The lock is taken with the interpreter lock held, so in no forked child somebody else has it.
pub(crate) struct UntilClosed<T>(Mutex<Option<T>>);

impl<T: Clone> UntilClosed<T> {
    pub(crate) fn new(client: T) -> Self {
        Self(Mutex::new(Some(client)))
    }

    pub(crate) fn get(&self) -> Result<T, Error> {
        self.0.lock().clone().ok_or(Error::Closed)
    }

    /// The first time, what is to be closed.
    pub(crate) fn take(&self) -> Option<T> {
        self.0.lock().take()
    }
}

/// The client for a call of Python's.
pub(crate) struct OpenClient {
    pub(crate) shared: SharedClient,
    pub(crate) send_timeout: Duration,
    resend_not_started: bool,
}

/// `Err`: a signal's handler has raised.
pub(crate) type Outcome<T> = PyResult<Result<T, Error>>;

impl SlicedClient {
    /// `resend_not_started`: whether `call` sends a request again that the server's end left untouched.
    pub(crate) fn new(
        client: zerobuffer::Client,
        send_timeout: Duration,
        resend_not_started: bool,
    ) -> Self {
        let name = client.name().to_owned();
        let shared = Arc::new(UntilClosed::new(client.into_shared()));
        Self { name, shared, send_timeout, resend_not_started }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// # Errors
    /// `Closed`.
    #[inline]
    pub(crate) fn open(&self, py: Python<'_>) -> PyResult<OpenClient> {
        let shared = self.shared.get().map_err(duplex(py))?;
        let (send_timeout, resend_not_started) = (self.send_timeout, self.resend_not_started);
        Ok(OpenClient { shared, send_timeout, resend_not_started })
    }

    pub(crate) fn until_closed(&self) -> &Arc<UntilClosed<SharedClient>> {
        &self.shared
    }

    pub(crate) fn is_server_connected(&self) -> bool {
        self.shared.get().is_ok_and(|shared| shared.is_server_connected())
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.shared.get().map_or(0, |shared| shared.in_flight())
    }

    pub(crate) fn cancel(&self, sequence: u64) -> bool {
        self.shared.get().is_ok_and(|shared| shared.cancel(sequence))
    }

    /// Closes it for good. In a forked child it does nothing to the channel.
    pub(crate) fn close(&self, py: Python<'_>) {
        if let Some(shared) = self.shared.take() {
            py.detach(move || shared.closer().close());
        }
    }
}

impl OpenClient {
    pub(crate) fn send(&self, py: Python<'_>, data: &[u8], timeout: Duration) -> Outcome<u64> {
        let step = |slice| self.shared.send_request_within(data, slice);
        match is_large(data.len()) {
            true => waiting::wait_detached(py, timeout, not_yet, step),
            false => waiting::wait(py, timeout, not_yet, step),
        }
    }

    pub(crate) fn acquire(
        &self,
        py: Python<'_>,
        size: usize,
        layout: RequestLayout,
    ) -> Outcome<OwnedRequestBuffer> {
        let acquire = |slice| self.shared.acquire_request_buffer(size, layout, slice);
        waiting::wait(py, self.send_timeout, not_yet, acquire)
    }

    pub(crate) fn receive_any(&self, py: Python<'_>, timeout: Duration) -> Outcome<OwnedResponse> {
        waiting::wait(py, timeout, not_yet, |slice| self.shared.receive_response(slice))
    }

    /// Waits for one response; afterwards the request is not waiting any more, whatever happens.
    pub(crate) fn receive(
        &self,
        py: Python<'_>,
        sequence: u64,
        timeout: Duration,
    ) -> Outcome<OwnedResponse> {
        let poll = |slice| self.shared.poll_response_for(sequence, slice);
        let received = waiting::wait(py, timeout, not_yet, poll);
        let late = matches!(received, Ok(Err(Error::Timeout { .. }))) && !timeout.is_zero();
        if (late || received.is_err()) && !self.shared.cancel(sequence) {
            // The response came while the request was being cancelled.
            let answer = self.shared.poll_response_for(sequence, Duration::ZERO);
            if late && answer.is_ok() {
                return Ok(answer);
            }
        }
        received
    }

    /// Sends `data` and waits for the response, both within `timeout`.
    #[inline]
    pub(crate) fn call(
        &self,
        py: Python<'_>,
        data: &[u8],
        timeout: Duration,
    ) -> Outcome<OwnedResponse> {
        if is_large(data.len()) {
            return self.call_slowly(py, data, None, timeout);
        }
        // The usual case reads no clock.
        match self.shared.try_call(data, Duration::ZERO) {
            Ok(ControlFlow::Break(response)) => Ok(Ok(response)),
            Ok(ControlFlow::Continue(sequence)) => {
                self.call_slowly(py, data, Some(Ok(sequence)), timeout)
            }
            Err(error) if not_yet(&error) => self.call_slowly(py, data, None, timeout),
            Err(error) => self.call_slowly(py, data, Some(Err(error)), timeout),
        }
    }

    /// A call from where it stands: sent as `sent`, failed, or not sent yet.
    #[cold]
    fn call_slowly(
        &self,
        py: Python<'_>,
        data: &[u8],
        mut sent: Option<Result<u64, Error>>,
        timeout: Duration,
    ) -> Outcome<OwnedResponse> {
        let start = Instant::now();
        let left = || timeout.saturating_sub(start.elapsed());
        loop {
            let outcome = match sent.take() {
                Some(Ok(sequence)) => {
                    self.receive(py, sequence, left().max(Duration::from_nanos(1)))?
                }
                Some(Err(error)) => Err(error),
                None => match self.send_for_call(py, data, left())? {
                    Ok(ControlFlow::Break(response)) => Ok(response),
                    Ok(ControlFlow::Continue(sequence)) => {
                        sent = Some(Ok(sequence));
                        continue;
                    }
                    Err(error) => Err(error),
                },
            };
            match outcome {
                Err(error) if self.resend_not_started && is_not_started(&error) => {
                    match self.reconnect(py, left())? {
                        Err(next) if matches!(next, Error::Closed) => return Ok(Err(next)),
                        // What became of the request, not of the attempt.
                        Err(_) => return Ok(Err(error)),
                        Ok(_) => {}
                    }
                }
                Err(Error::Timeout { what, .. }) => {
                    return Ok(Err(Error::Timeout { waited: timeout, what }));
                }
                outcome => return Ok(outcome),
            }
        }
    }

    fn send_for_call(
        &self,
        py: Python<'_>,
        data: &[u8],
        timeout: Duration,
    ) -> Outcome<ControlFlow<OwnedResponse, u64>> {
        let step = |slice| self.shared.try_call(data, slice);
        match is_large(data.len()) {
            true => waiting::wait_detached(py, timeout, not_yet, step),
            false => waiting::wait(py, timeout, not_yet, step),
        }
    }

    pub(crate) fn reconnect(&self, py: Python<'_>, timeout: Duration) -> Outcome<Reconnected> {
        let reconnect =
            |is_wanted: &dyn Fn() -> bool| self.shared.reconnect_while(timeout, is_wanted);
        waiting::until_signal(py, None, reconnect)
    }
}

/// Whether the server had ended before it took the request.
fn is_not_started(error: &Error) -> bool {
    match error {
        Error::PeerDied { request } | Error::PeerClosed { request } => {
            request.is_none_or(|request| request.state == RequestState::NotStarted)
        }
        _ => false,
    }
}
