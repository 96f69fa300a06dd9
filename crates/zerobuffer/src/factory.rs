//! One way in to every kind of duplex channel.

use crate::client::{Client, RequestBuffer, Response};
use crate::closer::Closer;
use crate::config::{ClientConfig, ServerConfig};
use crate::error::{Error, Result};
use crate::handler::HandlerOutcome;
use crate::server::Server;
use crate::v1;
use std::time::{Duration, Instant};

/// The pause between two looks for a server of either kind.
const PAUSE: Duration = Duration::from_millis(1);

/// Makes servers of all three kinds, and the one client that talks to each of them.
///
/// | server | the handler | memory | to talk to |
/// |---|---|---|---|
/// | in place | edits the request where it lies | one buffer | clients of protocol version 2 |
/// | mutable | edits a copy | two buffers | existing v1 programs, and clients of this library |
/// | immutable | returns new data | two buffers | existing v1 programs, and clients of this library |
///
/// ```
/// use std::time::Duration;
/// use zerobuffer::{BufferConfig, DuplexChannelFactory, Frame};
///
/// let factory = DuplexChannelFactory::new();
/// let name = format!("doc-factory-{}", std::process::id());
/// let mut server = factory.create_in_place_duplex_server(&name, BufferConfig::new(0, 1 << 16))?;
/// server.start(|frame: &mut Frame| frame.data_mut().reverse())?;
///
/// // The client finds out which kind it is.
/// let mut client = factory.create_client(&name, Duration::from_secs(5))?;
/// assert!(client.is_in_place());
/// assert_eq!(client.call(b"stressed", Duration::from_secs(5))?.data(), b"desserts");
/// # Ok::<(), zerobuffer::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct DuplexChannelFactory;

impl DuplexChannelFactory {
    /// The factory; it has no state.
    pub fn new() -> Self {
        Self
    }

    /// A server that edits requests where they lie: [`Server::create`].
    ///
    /// # Errors
    /// As [`Server::create`].
    pub fn create_in_place_duplex_server(
        &self,
        name: &str,
        config: impl Into<ServerConfig>,
    ) -> Result<Server> {
        Server::create(name, config)
    }

    /// A server of two buffers whose handler edits a copy of the request.
    ///
    /// # Errors
    /// As [`v1::DuplexServer::create`].
    pub fn create_mutable_server(
        &self,
        name: &str,
        config: impl Into<v1::DuplexServerConfig>,
    ) -> Result<MutableDuplexServer> {
        Ok(MutableDuplexServer(v1::DuplexServer::create(name, config)?))
    }

    /// A server of two buffers whose handler returns new data.
    ///
    /// # Errors
    /// As [`v1::DuplexServer::create`].
    pub fn create_immutable_server(
        &self,
        name: &str,
        config: impl Into<v1::DuplexServerConfig>,
    ) -> Result<ImmutableDuplexServer> {
        Ok(ImmutableDuplexServer(v1::DuplexServer::create(name, config)?))
    }

    /// A client of whatever kind of server has the name, waiting for one until `timeout` has passed. An
    /// in-place channel comes first if there are both.
    ///
    /// # Errors
    /// As [`Client::connect`] and [`v1::DuplexClient::connect`].
    pub fn create_client(&self, name: &str, timeout: Duration) -> Result<DuplexClient> {
        let two_buffers = v1::DuplexClientConfig::default();
        self.create_client_with(name, timeout, ClientConfig::default(), two_buffers)
    }

    /// As [`create_client`](Self::create_client), with a configuration for each kind; the one that fits
    /// is used.
    ///
    /// ```
    /// use std::time::Duration;
    /// use zerobuffer::{BufferConfig, ClientConfig, DuplexChannelFactory, v1};
    ///
    /// let factory = DuplexChannelFactory::new();
    /// let name = format!("doc-factory-with-{}", std::process::id());
    /// let _server = factory.create_in_place_duplex_server(&name, BufferConfig::new(64, 1 << 16))?;
    ///
    /// let in_place = ClientConfig::new().metadata("rgb24");
    /// let two_buffers = v1::DuplexClientConfig::new().metadata("rgb24");
    /// let client = factory.create_client_with(&name, Duration::ZERO, in_place, two_buffers)?;
    /// assert!(client.is_in_place());
    /// # Ok::<(), zerobuffer::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Client::connect_with`] and [`v1::DuplexClient::connect_with`].
    pub fn create_client_with(
        &self,
        name: &str,
        timeout: Duration,
        in_place: ClientConfig,
        two_buffers: v1::DuplexClientConfig,
    ) -> Result<DuplexClient> {
        let start = Instant::now();
        loop {
            let left = timeout.saturating_sub(start.elapsed());
            let error = match Client::connect_with(name, Duration::ZERO, in_place.clone()) {
                Ok(client) => return Ok(DuplexClient::InPlace(client)),
                Err(error @ (Error::NotRunning { .. } | Error::Busy { .. })) => error,
                Err(error) => return Err(error),
            };
            if v1::is_duplex_server_running(name)? {
                let client = v1::DuplexClient::connect_with(name, left, two_buffers)?;
                return Ok(DuplexClient::TwoBuffers(Box::new(client)));
            }
            if left.is_zero() {
                return Err(error);
            }
            crate::sys::sleep(PAUSE.min(left));
        }
    }
}

/// A server of two buffers whose handler edits a copy of the request.
#[derive(Debug)]
pub struct MutableDuplexServer(v1::DuplexServer);

impl MutableDuplexServer {
    /// Runs `handler` on a copy of every request: [`v1::DuplexServer::start_mutable`].
    ///
    /// # Errors
    /// The same.
    pub fn start<H, O>(&mut self, handler: H) -> Result<()>
    where
        H: FnMut(&mut v1::Draft<'_>) -> O + Send + 'static,
        O: HandlerOutcome,
    {
        self.0.start_mutable(handler)
    }
}

/// A server of two buffers whose handler returns new data.
#[derive(Debug)]
pub struct ImmutableDuplexServer(v1::DuplexServer);

impl ImmutableDuplexServer {
    /// Runs `handler` on every request; what it returns is the response, which cannot be empty.
    ///
    /// # Errors
    /// As [`v1::DuplexServer::start_immutable`], which avoids the copy of the returned data.
    pub fn start<H, D>(&mut self, mut handler: H) -> Result<()>
    where
        H: FnMut(&v1::Request<'_>) -> D + Send + 'static,
        D: AsRef<[u8]>,
    {
        self.0.start_immutable(move |request: &v1::Request<'_>, reply: &mut v1::Reply<'_>| {
            reply.write(handler(request).as_ref())
        })
    }
}

macro_rules! two_buffer_server_methods {
    ($type:ty) => {
        impl $type {
            /// Whether the background thread is serving: [`v1::DuplexServer::is_running`].
            pub fn is_running(&self) -> bool {
                self.0.is_running()
            }

            /// Stops: [`v1::DuplexServer::stop`].
            ///
            /// # Errors
            /// The same.
            pub fn stop(&mut self) -> Result<()> {
                self.0.stop()
            }
        }
    };
}

two_buffer_server_methods!(MutableDuplexServer);
two_buffer_server_methods!(ImmutableDuplexServer);

/// A client of a channel of either kind, with the same calls on both.
///
/// [`DuplexChannelFactory::create_client`] makes one. What one kind can do and the other cannot is
/// reached by matching on the variant.
#[derive(Debug)]
pub enum DuplexClient {
    /// Protocol version 2: the response lies where the request was.
    InPlace(Client),
    /// Protocol version 1: the response lies in a buffer of its own.
    TwoBuffers(Box<v1::DuplexClient>),
}

impl DuplexClient {
    /// Whether the response lies where the request was.
    pub fn is_in_place(&self) -> bool {
        matches!(self, Self::InPlace(_))
    }

    /// The channel's name.
    pub fn name(&self) -> &str {
        match self {
            Self::InPlace(client) => client.name(),
            Self::TwoBuffers(client) => client.name(),
        }
    }

    /// What closes this client from another thread: [`Client::closer`], [`v1::DuplexClient::closer`].
    pub fn closer(&self) -> Closer {
        match self {
            Self::InPlace(client) => client.closer(),
            Self::TwoBuffers(client) => client.closer(),
        }
    }

    /// Whether the server is there at this moment.
    pub fn is_server_connected(&self) -> bool {
        match self {
            Self::InPlace(client) => client.is_server_connected(),
            Self::TwoBuffers(client) => client.is_server_connected(),
        }
    }

    /// The most bytes that a request can have.
    pub fn max_request_size(&self) -> usize {
        match self {
            Self::InPlace(client) => client.max_request_size(),
            Self::TwoBuffers(client) => client.max_request_size(),
        }
    }

    /// Copies `data` into the channel and sends it. Returns its sequence number.
    ///
    /// # Errors
    /// As [`Client::send_request`] and [`v1::DuplexClient::send_request`].
    pub fn send_request(&self, data: &[u8]) -> Result<u64> {
        match self {
            Self::InPlace(client) => client.send_request(data),
            Self::TwoBuffers(client) => client.send_request(data),
        }
    }

    /// A buffer of `size` bytes in the channel, to be filled in place and committed.
    ///
    /// # Errors
    /// As [`Client::acquire_request_buffer`] and [`v1::DuplexClient::acquire_request_buffer`].
    pub fn acquire_request_buffer(&self, size: usize) -> Result<DuplexRequestBuffer<'_>> {
        Ok(match self {
            Self::InPlace(client) => {
                DuplexRequestBuffer::InPlace(client.acquire_request_buffer(size)?)
            }
            Self::TwoBuffers(client) => {
                DuplexRequestBuffer::TwoBuffers(client.acquire_request_buffer(size)?)
            }
        })
    }

    /// The next response, waiting for one until `timeout` has passed.
    ///
    /// # Errors
    /// As [`Client::receive_response`] and [`v1::DuplexClient::receive_response`].
    pub fn receive_response(&self, timeout: Duration) -> Result<DuplexResponse<'_>> {
        Ok(match self {
            Self::InPlace(client) => DuplexResponse::InPlace(client.receive_response(timeout)?),
            Self::TwoBuffers(client) => {
                DuplexResponse::TwoBuffers(client.receive_response(timeout)?)
            }
        })
    }

    /// The response to request `sequence`, waiting for it until `timeout` has passed; then the request is
    /// cancelled, unless the timeout is zero.
    ///
    /// # Errors
    /// As [`Client::receive_response_for`] and [`v1::DuplexClient::receive_response_for`].
    pub fn receive_response_for(
        &self,
        sequence: u64,
        timeout: Duration,
    ) -> Result<DuplexResponse<'_>> {
        Ok(match self {
            Self::InPlace(client) => {
                DuplexResponse::InPlace(client.receive_response_for(sequence, timeout)?)
            }
            Self::TwoBuffers(client) => {
                DuplexResponse::TwoBuffers(client.receive_response_for(sequence, timeout)?)
            }
        })
    }

    /// Sends `data` and waits for the response, both within `timeout`.
    ///
    /// # Errors
    /// As [`Client::call`] and [`v1::DuplexClient::call`].
    pub fn call(&mut self, data: &[u8], timeout: Duration) -> Result<DuplexResponse<'_>> {
        Ok(match self {
            Self::InPlace(client) => DuplexResponse::InPlace(client.call(data, timeout)?),
            Self::TwoBuffers(client) => DuplexResponse::TwoBuffers(client.call(data, timeout)?),
        })
    }

    /// Cancels a request: no response to it will be delivered. True if it was waiting.
    pub fn cancel(&self, sequence: u64) -> bool {
        match self {
            Self::InPlace(client) => client.cancel(sequence),
            Self::TwoBuffers(client) => client.cancel(sequence),
        }
    }
}

/// A request that is being written in place; see [`DuplexClient::acquire_request_buffer`].
#[derive(Debug)]
pub enum DuplexRequestBuffer<'c> {
    /// Of an in-place channel.
    InPlace(RequestBuffer<'c>),
    /// Of two buffers.
    TwoBuffers(v1::RequestBuffer<'c>),
}

impl DuplexRequestBuffer<'_> {
    /// The request's bytes, in shared memory.
    pub fn data_mut(&mut self) -> &mut [u8] {
        match self {
            Self::InPlace(buffer) => buffer.data_mut(),
            Self::TwoBuffers(buffer) => buffer.data_mut(),
        }
    }

    /// Sends the request, and returns its sequence number.
    ///
    /// # Errors
    /// As [`RequestBuffer::commit`] and [`v1::RequestBuffer::commit`].
    pub fn commit(self) -> Result<u64> {
        match self {
            Self::InPlace(buffer) => buffer.commit(),
            Self::TwoBuffers(buffer) => buffer.commit(),
        }
    }
}

/// A response, read in shared memory; released when it is dropped.
#[derive(Debug)]
pub enum DuplexResponse<'c> {
    /// Where the request was.
    InPlace(Response<'c>),
    /// In the response buffer.
    TwoBuffers(v1::DuplexResponse<'c>),
}

impl DuplexResponse<'_> {
    /// The response's bytes, in shared memory.
    pub fn data(&self) -> &[u8] {
        match self {
            Self::InPlace(response) => response.data(),
            Self::TwoBuffers(response) => response.data(),
        }
    }

    /// The sequence number of the request that this is the response to.
    pub fn sequence(&self) -> u64 {
        match self {
            Self::InPlace(response) => response.sequence(),
            Self::TwoBuffers(response) => response.sequence(),
        }
    }
}

#[cfg(all(test, not(zerobuffer_unsupported)))]
mod tests {
    use super::*;
    use crate::config::BufferConfig;
    use crate::error::ErrorKind;
    use crate::server::Frame;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn name(what: &str) -> String {
        format!("factory-{what}-{}", std::process::id())
    }

    /// All calls of the common client.
    fn check_inverts(mut client: DuplexClient, in_place: bool) {
        assert_eq!(client.is_in_place(), in_place);
        assert!(client.is_server_connected() && client.max_request_size() >= 100);
        assert_eq!(client.call(&[1, 2], PATIENCE).unwrap().data(), [254, 253]);
        let first = client.send_request(&[3]).unwrap();
        let mut buffer = client.acquire_request_buffer(2).unwrap();
        buffer.data_mut().copy_from_slice(&[4, 5]);
        let second = buffer.commit().unwrap();
        let response = client.receive_response_for(second, PATIENCE).unwrap();
        assert_eq!((response.sequence(), response.data()), (second, &[251, 250][..]));
        drop(response);
        let response = client.receive_response(PATIENCE).unwrap();
        assert_eq!((response.sequence(), response.data()), (first, &[252][..]));
        drop(response);
        let nothing = client.receive_response(Duration::ZERO).unwrap_err();
        assert_eq!(nothing.kind(), ErrorKind::Timeout);
        assert!(!client.cancel(second));
    }

    #[test]
    fn one_client_talks_to_an_in_place_server() {
        let factory = DuplexChannelFactory::new();
        let name = name("place");
        let mut server =
            factory.create_in_place_duplex_server(&name, BufferConfig::new(0, 4096)).unwrap();
        server
            .start(|frame: &mut Frame<'_>| frame.data_mut().iter_mut().for_each(|b| *b = !*b))
            .unwrap();
        check_inverts(factory.create_client(&name, PATIENCE).unwrap(), true);
    }

    #[test]
    fn one_client_talks_to_a_mutable_server() {
        let factory = DuplexChannelFactory::new();
        let name = name("mutable");
        let mut server = factory.create_mutable_server(&name, BufferConfig::new(0, 4096)).unwrap();
        server
            .start(|draft: &mut v1::Draft<'_>| draft.data_mut().iter_mut().for_each(|b| *b = !*b))
            .unwrap();
        assert!(server.is_running());
        check_inverts(factory.create_client(&name, PATIENCE).unwrap(), false);
        server.stop().unwrap();
    }

    #[test]
    fn one_client_talks_to_an_immutable_server() {
        let factory = DuplexChannelFactory::new();
        let name = name("immutable");
        let mut server =
            factory.create_immutable_server(&name, BufferConfig::new(0, 4096)).unwrap();
        server
            .start(|request: &v1::Request<'_>| {
                request.data().iter().map(|byte| !byte).collect::<Vec<u8>>()
            })
            .unwrap();
        check_inverts(factory.create_client(&name, PATIENCE).unwrap(), false);
        server.stop().unwrap();
    }

    #[test]
    fn without_a_server_of_any_kind_it_says_so_at_the_deadline() {
        let client = DuplexChannelFactory::new().create_client(&name("none"), Duration::ZERO);
        assert_eq!(client.unwrap_err().kind(), ErrorKind::NotRunning);
    }
}
