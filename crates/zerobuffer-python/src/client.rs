//! The client of an in-place channel.

use crate::buffer::{is_large, with_bytes};
use crate::calls::Calls;
use crate::errors::{self, duplex};
use crate::guards::{RequestBuffer, Response};
use crate::waiting::{self, not_reconnected, not_there, not_yet};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use zerobuffer::{
    ChannelKind, ClientConfig, Error, OwnedResponse, RequestLayout, RequestState, SharedClient,
};

/// A client of an in-place channel. Any thread may use it; several can call at the same time.
///
/// Timeouts are in seconds; None waits for ever, 0 checks once. Closing it (`close()`, or leaving a
/// `with` block) lets the server serve the next client.
#[pyclass(frozen, module = "zerobuffer")]
pub(crate) struct Client {
    client: SharedClient,
    send_timeout: Duration,
    resend_not_started: bool,
    strict_views: bool,
    /// Responses that the program holds.
    held: Arc<AtomicUsize>,
    closed: AtomicBool,
}

#[pymethods]
impl Client {
    /// Attaches to the server of channel `name`, waiting up to `timeout` for it.
    ///
    /// metadata: what the handler finds in every request of this client.
    /// wait: "default", "park" (least CPU time) or "spin" (least latency).
    /// send_timeout: how long sending waits for room.
    /// max_in_flight: the most requests in flight, held responses included.
    /// owner: the user id that must own the channel; default this process's user.
    /// resend_not_started: whether `call` sends a request again that the server's end left untouched.
    /// strict_views: whether a request buffer is not sent, with a BufferError, while an array or another view
    /// of it is alive.
    ///
    /// Raises NotRunning, Busy, BadName, BadConfig, TooLarge, PermissionDenied, ForeignObject or
    /// Incompatible.
    #[new]
    #[pyo3(signature = (name, timeout=Some(5.0), *, metadata=None, wait="default",
        send_timeout=Some(5.0), max_in_flight=4096, owner=None, resend_not_started=false,
        strict_views=false),
        text_signature = "(name, timeout=5.0, *, metadata=None, wait='default', send_timeout=5.0, \
            max_in_flight=4096, owner=None, resend_not_started=False, strict_views=False)")]
    #[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn new(
        py: Python<'_>,
        name: &str,
        timeout: Option<f64>,
        metadata: Option<&Bound<'_, PyAny>>,
        wait: &str,
        send_timeout: Option<f64>,
        max_in_flight: usize,
        owner: Option<u32>,
        resend_not_started: bool,
        strict_views: bool,
    ) -> PyResult<Self> {
        let mut config = ClientConfig::new()
            .channel(ChannelKind::InPlace)
            .wait(waiting::strategy(wait)?)
            .max_in_flight(max_in_flight)
            .resend_not_started(resend_not_started);
        if let Some(metadata) = metadata {
            config = with_bytes(metadata, |bytes| Ok(config.metadata(bytes)))?;
        }
        if let Some(uid) = owner {
            config = config.owner(uid);
        }
        let connect = |slice| zerobuffer::Client::connect_with(name, slice, config.clone());
        let client = waiting::wait(py, waiting::timeout(timeout)?, not_there, connect)?
            .map_err(duplex(py))?;
        Ok(Self {
            client: client.into_shared(),
            send_timeout: waiting::timeout(send_timeout)?,
            resend_not_started,
            strict_views,
            held: Arc::default(),
            closed: AtomicBool::new(false),
        })
    }

    /// The channel's name.
    #[getter]
    fn name(&self) -> &str {
        self.client.name()
    }

    /// What the server has published about itself; b"" if nothing.
    #[getter]
    fn server_metadata<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.client.server_metadata())
    }

    /// Whether the server is there at this moment.
    #[getter]
    fn is_server_connected(&self) -> bool {
        !self.closed.load(Ordering::Relaxed) && self.client.is_server_connected()
    }

    /// Requests in flight. Those whose responses were released since a request was sent last are
    /// still counted.
    #[getter]
    fn in_flight(&self) -> usize {
        self.client.in_flight()
    }

    /// The most bytes that a request can have.
    #[getter]
    fn max_request_size(&self) -> usize {
        self.client.max_request_size()
    }

    /// Copies `data` (bytes, or anything with the buffer protocol) into the ring and sends it. Returns
    /// its sequence number.
    ///
    /// Raises Full if there is no room within the send timeout, TooLarge if there never is, ClaimOpen
    /// while this thread has a request buffer open, PeerDied or PeerClosed.
    fn send_request(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<u64> {
        self.check_open(py)?;
        with_bytes(data, |bytes| self.send(py, bytes, self.send_timeout)?.map_err(self.raised(py)))
    }

    /// A buffer of `size` bytes in the ring, to be filled where the server will read it:
    ///
    ///     with client.acquire_request_buffer(image.nbytes) as buffer:
    ///         np.asarray(buffer)[:] = image.ravel()
    ///     response = client.receive_response_for(buffer.sequence)
    ///
    /// capacity: room for a longer response. alignment: a power of two up to 4096, of the data's place.
    ///
    /// Raises as send_request does, and BadConfig.
    #[pyo3(signature = (size, *, capacity=0, alignment=1))]
    fn acquire_request_buffer(
        &self,
        py: Python<'_>,
        size: usize,
        capacity: usize,
        alignment: usize,
    ) -> PyResult<RequestBuffer> {
        self.check_open(py)?;
        let layout = RequestLayout::new().capacity(capacity).alignment(alignment);
        let acquire = |slice| self.client.acquire_request_buffer(size, layout, slice);
        let buffer =
            waiting::wait(py, self.send_timeout, not_yet, acquire)?.map_err(self.raised(py))?;
        Ok(RequestBuffer::new(buffer, self.strict_views))
    }

    /// The oldest answer that is there, waiting for one up to `timeout`. Answers may come in any order:
    /// compare their `sequence`.
    ///
    /// Once the server no longer runs, what it had answered is delivered first, then each request that is left
    /// is reported once.
    ///
    /// Raises Timeout, which changes nothing; HandlerFailed, PeerDied and PeerClosed about the request
    /// in their `sequence`.
    #[pyo3(signature = (timeout=Some(5.0)), text_signature = "($self, timeout=5.0)")]
    fn receive_response(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Response> {
        self.check_open(py)?;
        let receive = |slice| self.client.receive_response(slice);
        let response = waiting::wait(py, waiting::timeout(timeout)?, not_yet, receive)?;
        self.hand_out(py, response)
    }

    /// The response to request `sequence`, waiting for it up to `timeout`. Then the request is
    /// cancelled, unless the timeout is 0.
    ///
    /// Raises as receive_response does, and UnknownSequence.
    #[pyo3(signature = (sequence, timeout=Some(5.0)),
        text_signature = "($self, sequence, timeout=5.0)")]
    fn receive_response_for(
        &self,
        py: Python<'_>,
        sequence: u64,
        timeout: Option<f64>,
    ) -> PyResult<Response> {
        self.check_open(py)?;
        let response = self.receive(py, sequence, waiting::timeout(timeout)?)?;
        self.hand_out(py, response)
    }

    /// Sends `data` and waits for the response, both within `timeout`. A request that has no response by
    /// then is cancelled.
    ///
    /// Raises as send_request and receive_response do.
    #[pyo3(signature = (data, timeout=Some(5.0)),
        text_signature = "($self, data, timeout=5.0)")]
    fn call(
        &self,
        py: Python<'_>,
        data: &Bound<'_, PyAny>,
        timeout: Option<f64>,
    ) -> PyResult<Response> {
        self.check_open(py)?;
        let timeout = waiting::timeout(timeout)?;
        let answer = with_bytes(data, |bytes| {
            let sequence = match self.client.send_request_within(bytes, Duration::ZERO) {
                Ok(sequence) if !is_large(bytes.len()) => sequence,
                sent => return self.call_slowly(py, bytes, sent, timeout),
            };
            // The usual case reads no clock.
            match self.client.poll_response_for(sequence, Duration::ZERO) {
                Ok(response) => Ok(Ok(response)),
                Err(error) if not_yet(&error) => self.call_slowly(py, bytes, Ok(sequence), timeout),
                Err(error) => self.call_slowly(py, bytes, Err(error), timeout),
            }
        });
        self.hand_out(py, answer?)
    }

    /// Cancels a request: no response to it will be delivered. True if it was cancelled; False if its
    /// response is there already, or if no such request is waiting.
    fn cancel(&self, sequence: u64) -> bool {
        self.client.cancel(sequence)
    }

    /// For AsyncClient: calls whose outcomes come to an event loop.
    fn calls(&self, py: Python<'_>) -> PyResult<Calls> {
        self.check_open(py)?;
        Calls::new(&self.client, &self.held)
    }

    /// Attaches to the channel's present server after the previous one has ended; a connection that works
    /// is left as it is. Returns a list of LostRequest: what is known of each request that was in flight.
    /// Calls that wait for one of them raise PeerDied or PeerClosed. Sequence numbers go on, so that an
    /// old one is never taken for a new request's.
    ///
    /// Raises as Client() does: try again later.
    #[pyo3(signature = (timeout=Some(5.0)), text_signature = "($self, timeout=5.0)")]
    fn reconnect<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyList>> {
        self.check_open(py)?;
        let reconnect = |slice| self.client.reconnect(slice);
        let reconnected =
            waiting::wait(py, waiting::timeout(timeout)?, not_reconnected, reconnect)?
                .map_err(duplex(py))?;
        let lost = reconnected.lost.into_iter().map(|lost| errors::lost_request(py, lost));
        PyList::new(py, lost.collect::<PyResult<Vec<_>>>()?)
    }

    /// Closes the channel cleanly, for good. Calls of other threads raise Closed, a reconnection that is
    /// under way included. Responses that are held stay readable.
    fn close(&self, py: Python<'_>) {
        if !self.closed.swap(true, Ordering::Relaxed) {
            py.detach(|| self.client.closer().close());
        }
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        _type: &Bound<'_, PyAny>,
        _value: &Bound<'_, PyAny>,
        _traceback: &Bound<'_, PyAny>,
    ) {
        self.close(py);
    }

    fn __repr__(&self) -> String {
        format!("Client({:?})", self.name())
    }
}

impl Client {
    fn check_open(&self, py: Python<'_>) -> PyResult<()> {
        match self.closed.load(Ordering::Relaxed) {
            false => Ok(()),
            true => Err(duplex(py)(Error::Closed)),
        }
    }

    /// The exception for an error of a call that sends.
    fn raised(&self, py: Python<'_>) -> impl Fn(Error) -> PyErr {
        let held = self.held.load(Ordering::Relaxed);
        move |error| errors::sending(py, &error, held)
    }

    fn hand_out(
        &self,
        py: Python<'_>,
        received: Result<OwnedResponse, Error>,
    ) -> PyResult<Response> {
        match received {
            Ok(response) => Ok(Response::new(response, &self.held)),
            Err(error) => Err(self.raised(py)(error)),
        }
    }

    fn send(&self, py: Python<'_>, data: &[u8], timeout: Duration) -> PyResult<Result<u64, Error>> {
        let step = |slice| self.client.send_request_within(data, slice);
        match is_large(data.len()) {
            true => waiting::wait_detached(py, timeout, not_yet, step),
            false => waiting::wait(py, timeout, not_yet, step),
        }
    }

    /// Waits for one response; afterwards the request is not waiting any more, whatever happens.
    fn receive(
        &self,
        py: Python<'_>,
        sequence: u64,
        timeout: Duration,
    ) -> PyResult<Result<OwnedResponse, Error>> {
        let poll = |slice| self.client.poll_response_for(sequence, slice);
        let received = waiting::wait(py, timeout, not_yet, poll);
        let late = matches!(received, Ok(Err(Error::Timeout { .. }))) && !timeout.is_zero();
        if (late || received.is_err()) && !self.client.cancel(sequence) {
            // The response came while the request was being cancelled.
            let answer = self.client.poll_response_for(sequence, Duration::ZERO);
            if late && answer.is_ok() {
                return Ok(answer);
            }
        }
        received
    }

    /// A call from where it stands: sent as `sent`, not sent for want of room, or failed.
    #[cold]
    fn call_slowly(
        &self,
        py: Python<'_>,
        data: &[u8],
        mut sent: Result<u64, Error>,
        timeout: Duration,
    ) -> PyResult<Result<OwnedResponse, Error>> {
        let start = Instant::now();
        let left = || timeout.saturating_sub(start.elapsed());
        loop {
            if sent.as_ref().is_err_and(not_yet) {
                sent = self.send(py, data, left())?;
            }
            let outcome = match sent {
                Ok(sequence) => self.receive(py, sequence, left().max(Duration::from_nanos(1)))?,
                Err(error) => Err(error),
            };
            match outcome {
                Err(error) if self.resend_not_started && is_not_started(&error) => {
                    let reconnect = |slice| self.client.reconnect(slice);
                    if let Err(error) = waiting::wait(py, left(), not_reconnected, reconnect)? {
                        return Ok(Err(error));
                    }
                    sent = self.send(py, data, left())?;
                }
                Err(Error::Timeout { what, .. }) => {
                    return Ok(Err(Error::Timeout { waited: timeout, what }));
                }
                outcome => return Ok(outcome),
            }
        }
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
