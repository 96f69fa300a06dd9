//! The client of an in-place channel.

use crate::buffer::{support, with_bytes};
use crate::calls::{Caller, Calls};
use crate::errors::{self, duplex};
use crate::guards::{RequestBuffer, Response};
use crate::loop_client::LoopClient;
use crate::service;
use crate::sliced::SlicedClient;
use crate::stop::Stop;
use crate::waiting;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use zerobuffer::{ChannelKind, ClientConfig, Error, OwnedResponse, RequestLayout};

/// A client of a service or an in-place channel. Any thread may use it; several can call at the same time.
///
/// Timeouts are in seconds; None waits for ever, 0 checks once. Closing it (`close()`, or leaving a
/// `with` block) lets the server serve the next client.
#[pyclass(frozen, module = "zerobuffer")]
pub(crate) struct Client {
    client: SlicedClient,
    strict_views: bool,
}

#[pymethods]
impl Client {
    /// Attaches to the service or the server of channel `name`, waiting up to `timeout` for it. A service is
    /// found first; "service:NAME" and "channel:NAME" say which it must be.
    ///
    /// metadata: what the handler finds in every request of this client.
    /// wait: "default", "park" (least CPU time) or "spin" (least latency).
    /// send_timeout: how long sending waits for room.
    /// max_in_flight: the most requests in flight, held responses included.
    /// owner: the user id that must own the channel or service; default this process's user, and root for
    /// services.
    /// resend_not_started: whether `call` sends a request again that the server's end left untouched.
    /// strict_views: whether a request buffer is not sent, with a BufferError, while an array or another view
    /// of it is alive.
    /// ring: of a service, the bytes of this client's ring; by default what the service gives.
    /// label: of a service, what it calls this client; by default the name of the program.
    /// directory: of a service, the runtime directory; by default $ZEROBUFFER_DIR, else all places where this
    /// user's services, or root's, may be.
    ///
    /// Raises NotRunning, Busy, BadName, BadConfig, TooLarge, PermissionDenied, ForeignObject or
    /// Incompatible.
    #[new]
    #[pyo3(signature = (name, timeout=Some(5.0), *, send_timeout=Some(5.0), resend_not_started=false,
        strict_views=false, **options),
        text_signature = "(name, timeout=5.0, *, metadata=None, wait='default', send_timeout=5.0, \
            max_in_flight=4096, owner=None, resend_not_started=False, strict_views=False, ring=0, \
            label=None, directory=None)")]
    fn new(
        py: Python<'_>,
        name: &str,
        timeout: Option<f64>,
        send_timeout: Option<f64>,
        resend_not_started: bool,
        strict_views: bool,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let config = ClientOptions::of(py, options)?.resend_not_started(resend_not_started);
        let client = connect(py, name, timeout, &config, None)?;
        let send_timeout = waiting::timeout(send_timeout)?;
        let client = SlicedClient::new(client, send_timeout, resend_not_started);
        Ok(Self { client, strict_views })
    }

    /// For AsyncClient: a LoopClient of a service; a Client of a channel, and if requests are to be sent again,
    /// which needs a thread that connects.
    ///
    /// stop: ends it with Closed once it is set.
    #[staticmethod]
    #[pyo3(signature = (name, timeout=Some(5.0), *, stop=None, resend_not_started=false,
        strict_views=false, **options),
        text_signature = "(name, timeout=5.0, *, stop=None, metadata=None, wait='default', \
            max_in_flight=4096, owner=None, resend_not_started=False, strict_views=False, ring=0, \
            label=None, directory=None)")]
    fn for_loop<'py>(
        py: Python<'py>,
        name: &str,
        timeout: Option<f64>,
        stop: Option<&Bound<'py, Stop>>,
        resend_not_started: bool,
        strict_views: bool,
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let config = ClientOptions::of(py, options)?.resend_not_started(resend_not_started);
        let client = connect(py, name, timeout, &config, stop)?;
        if client.is_service() && !resend_not_started {
            let client = LoopClient::new(client, config).map_err(duplex(py))?;
            return Ok(Bound::new(py, client)?.into_any());
        }
        let client = SlicedClient::new(client, Duration::ZERO, resend_not_started);
        Ok(Bound::new(py, Self { client, strict_views })?.into_any())
    }

    /// The channel's name.
    #[getter]
    fn name(&self) -> &str {
        self.client.name()
    }

    /// What the server has published about itself; b"" if nothing.
    #[getter]
    fn server_metadata<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.client.open(py)?.shared.server_metadata()))
    }

    /// Whether the server is there at this moment.
    #[getter]
    fn is_server_connected(&self) -> bool {
        self.client.is_server_connected()
    }

    /// Requests in flight. Those whose responses were released since a request was sent last are
    /// still counted.
    #[getter]
    fn in_flight(&self) -> usize {
        self.client.in_flight()
    }

    /// The most bytes that a request can have.
    #[getter]
    fn max_request_size(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.client.open(py)?.shared.max_request_size())
    }

    /// Copies `data` (bytes, or anything with the buffer protocol) into the ring and sends it. Returns
    /// its sequence number.
    ///
    /// Raises Full if there is no room within the send timeout, TooLarge if there never is, ClaimOpen
    /// while this thread has a request buffer open, PeerDied or PeerClosed.
    fn send_request(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<u64> {
        let client = self.client.open(py)?;
        let send = |bytes: &[u8]| client.send(py, bytes, client.send_timeout);
        with_bytes(data, |bytes| send(bytes)?.map_err(duplex(py)))
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
        let client = self.client.open(py)?;
        let layout = RequestLayout::new().capacity(capacity).alignment(alignment);
        let buffer = client.acquire(py, size, layout)?.map_err(duplex(py))?;
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
        let client = self.client.open(py)?;
        let response = client.receive_any(py, waiting::timeout(timeout)?)?;
        hand_out(py, response)
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
        let client = self.client.open(py)?;
        let response = client.receive(py, sequence, waiting::timeout(timeout)?)?;
        hand_out(py, response)
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
        let client = self.client.open(py)?;
        let timeout = waiting::timeout(timeout)?;
        let answer = with_bytes(data, |bytes| client.call(py, bytes, timeout));
        hand_out(py, answer?)
    }

    /// Cancels a request: no response to it will be delivered. True if it was cancelled; False if its
    /// response is there already, or if no such request is waiting.
    fn cancel(&self, sequence: u64) -> bool {
        self.client.cancel(sequence)
    }

    /// For AsyncClient: calls whose outcomes come to an event loop.
    fn calls(&self, py: Python<'_>) -> PyResult<Calls> {
        self.client.open(py)?;
        Calls::new(Caller::Client(Arc::clone(self.client.until_closed())))
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
        let client = self.client.open(py)?;
        let reconnected = client.reconnect(py, waiting::timeout(timeout)?)?;
        let reconnected = reconnected.map_err(duplex(py))?;
        let lost = reconnected.lost.into_iter().map(|lost| errors::lost_request(py, lost));
        PyList::new(py, lost.collect::<PyResult<Vec<_>>>()?)
    }

    /// Closes the channel cleanly, for good. Calls of other threads raise Closed, a reconnection that is
    /// under way included. Responses that are held stay readable.
    fn close(&self, py: Python<'_>) {
        self.client.close(py);
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

fn connect(
    py: Python<'_>,
    name: &str,
    timeout: Option<f64>,
    config: &ClientConfig,
    stop: Option<&Bound<'_, Stop>>,
) -> PyResult<zerobuffer::Client> {
    let timeout = waiting::timeout(timeout)?;
    let connected = waiting::until_signal(py, stop.map(Bound::get), |is_wanted| {
        zerobuffer::Client::connect_while(name, timeout, config.clone(), is_wanted)
    })?;
    connected.map_err(duplex(py))
}

/// The options that every client in place has: in one place what they are called and which values they have.
#[pyclass(frozen, module = "zerobuffer")]
pub(crate) struct ClientOptions(ClientConfig);

#[pymethods]
impl ClientOptions {
    #[new]
    #[pyo3(signature = (*, metadata=None, wait="default", max_in_flight=4096, owner=None, ring=0, label=None,
        directory=None))]
    #[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn new(
        py: Python<'_>,
        metadata: Option<&Bound<'_, PyAny>>,
        wait: &str,
        max_in_flight: usize,
        owner: Option<u32>,
        ring: usize,
        label: Option<String>,
        directory: Option<PathBuf>,
    ) -> PyResult<Self> {
        let mut config = ClientConfig::new()
            .channel(ChannelKind::InPlace)
            .wait(waiting::strategy(wait)?)
            .max_in_flight(max_in_flight)
            .ring(ring)
            .label(label.map_or_else(|| program(py), Ok)?);
        if let Some(path) = directory {
            config = config.directory(service::directory(path)?);
        }
        if let Some(metadata) = metadata {
            config = with_bytes(metadata, |bytes| Ok(config.metadata(bytes)))?;
        }
        if let Some(uid) = owner {
            config = config.owner(uid);
        }
        Ok(Self(config))
    }
}

impl ClientOptions {
    /// The configuration that a client's keywords make.
    pub(crate) fn of(
        py: Python<'_>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<ClientConfig> {
        let made = py.get_type::<Self>().call((), options)?;
        Ok(made.cast::<Self>()?.get().0.clone())
    }
}

/// What a client calls itself: the name of the program that Python runs.
fn program(py: Python<'_>) -> PyResult<String> {
    support(py)?.call_method0("program")?.extract()
}

#[inline]
fn hand_out(py: Python<'_>, received: Result<OwnedResponse, Error>) -> PyResult<Response> {
    received.map(Response::new).map_err(duplex(py))
}
