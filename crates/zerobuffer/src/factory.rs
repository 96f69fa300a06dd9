//! One way in to every kind of duplex channel.

use crate::client::Client;
use crate::config::{ClientConfig, ServerConfig};
use crate::error::Result;
use crate::server::Server;
use crate::v1;
use std::time::Duration;

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

    /// A server of two buffers whose handler edits a copy of the request: start it with
    /// [`start_mutable`](v1::DuplexServer::start_mutable).
    ///
    /// # Errors
    /// As [`v1::DuplexServer::create`].
    pub fn create_mutable_server(
        &self,
        name: &str,
        config: impl Into<ServerConfig>,
    ) -> Result<v1::DuplexServer> {
        v1::DuplexServer::create(name, config)
    }

    /// A server of two buffers whose handler writes new data: start it with
    /// [`start_immutable`](v1::DuplexServer::start_immutable).
    ///
    /// # Errors
    /// As [`v1::DuplexServer::create`].
    pub fn create_immutable_server(
        &self,
        name: &str,
        config: impl Into<ServerConfig>,
    ) -> Result<v1::DuplexServer> {
        v1::DuplexServer::create(name, config)
    }

    /// A client of whatever kind of server has the name: [`Client::connect`].
    ///
    /// # Errors
    /// The same.
    pub fn create_client(&self, name: &str, timeout: Duration) -> Result<Client> {
        Client::connect(name, timeout)
    }

    /// As [`create_client`](Self::create_client), with a configuration: [`Client::connect_with`].
    ///
    /// # Errors
    /// The same.
    pub fn create_client_with(
        &self,
        name: &str,
        timeout: Duration,
        config: ClientConfig,
    ) -> Result<Client> {
        Client::connect_with(name, timeout, config)
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
    fn check_inverts(mut client: Client, in_place: bool) {
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
            .start_mutable(|draft: &mut v1::Draft<'_>| {
                draft.data_mut().iter_mut().for_each(|b| *b = !*b)
            })
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
            .start_immutable(|request: &v1::RequestView<'_>, reply: &mut v1::Reply<'_>| {
                reply.write(&request.data().iter().map(|byte| !byte).collect::<Vec<u8>>())
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
