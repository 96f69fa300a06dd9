//! Through iceoryx2's request-response service, used as its documentation recommends: memory is
//! loaned and written in place on both sides, and both sides poll.

use super::exchange::{Exchange, Load, Pipeline};
use crate::machine::{Pinned, Seats};
use crate::names::{Leftovers, unique_name};
use crate::peer::{Peer, ready_until_told};
use anyhow::{Context, Result, bail};
use iceoryx2::pending_response::PendingResponse;
use iceoryx2::port::client::Client;
use iceoryx2::port::server::Server;
use iceoryx2::prelude::{Config, FileName, LogLevel, NodeBuilder, SemanticString, ipc};
use iceoryx2::service::port_factory::request_response::PortFactory;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

type Bytes = [u8];
type Factory = PortFactory<ipc::Service, Bytes, (), Bytes, ()>;
type Pending = PendingResponse<ipc::Service, Bytes, (), Bytes, ()>;

/// The peer's role.
pub(crate) const ROLE: &str = "iceoryx2";

/// What the server's answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// The request's bytes, copied into the loaned response and edited there.
    Copy,
    /// Loaned memory as it is, with the edited number in it.
    Other,
}

/// What a peer needs to know to be an iceoryx2 server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ServerSpec {
    name: String,
    load: Load,
    answer: Answer,
    clients: usize,
}

/// A server process, for the clients that `spec` says.
pub(super) struct Host {
    peer: Peer,
    spec: ServerSpec,
    /// The last to go: iceoryx2 leaves an object for the next service under the same prefix.
    _leftovers: Leftovers,
}

impl Host {
    pub(super) fn start(
        seats: Seats,
        load: Load,
        answer: Answer,
        clients: usize,
    ) -> Result<Arc<Self>> {
        let spec = ServerSpec { name: unique_name("iceoryx2"), load, answer, clients };
        let _leftovers = Leftovers(spec.prefix());
        let peer = Peer::start(ROLE, &spec, seats.server)?;
        Ok(Arc::new(Self { peer, spec, _leftovers }))
    }
}

/// A client with its server process.
pub(crate) struct Service {
    client: Client<ipc::Service, Bytes, (), Bytes, ()>,
    host: Arc<Host>,
    len: usize,
    sent: VecDeque<Pending>,
}

impl Service {
    pub(crate) fn open(seats: Seats, load: Load, answer: Answer) -> Result<Self> {
        Self::connect(&Host::start(seats, load, answer, 1)?)
    }

    /// To be used on the thread that calls this: iceoryx2's handles stay there.
    pub(super) fn connect(host: &Arc<Host>) -> Result<Self> {
        let (service, len) = (host.spec.service()?, host.spec.load.len);
        let client = service.client_builder().initial_max_slice_len(len).create()?;
        Ok(Self { client, host: Arc::clone(host), len, sent: VecDeque::new() })
    }

    #[inline]
    fn request(&self, fill: impl FnOnce(&mut [u8])) -> Result<Pending> {
        let request = self.client.loan_slice_uninit(self.len)?;
        let mut request = crate::shared::initialised_request(request);
        fill(request.payload_mut());
        Ok(request.send()?)
    }
}

/// Turns until the client stops waiting for a server: seconds, not milliseconds.
const HOPELESS: u64 = 1 << 31;

#[inline]
fn response<R>(pending: &Pending, read: impl FnOnce(&[u8]) -> R) -> Result<R> {
    for _ in 0..HOPELESS {
        if let Some(response) = pending.receive()? {
            return Ok(read(response.payload()));
        }
        std::hint::spin_loop();
    }
    bail!("the iceoryx2 server does not answer")
}

impl Exchange for Service {
    #[inline]
    fn exchange<R>(
        &mut self,
        fill: impl FnOnce(&mut [u8]),
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<R> {
        response(&self.request(fill)?, read)
    }

    fn server(&self) -> &Peer {
        &self.host.peer
    }
}

impl Pipeline for Service {
    #[inline]
    fn send(&mut self, fill: impl FnOnce(&mut [u8])) -> Result<()> {
        self.sent.push_back(self.request(fill)?);
        Ok(())
    }

    #[inline]
    fn receive<R>(&mut self, read: impl FnOnce(&[u8]) -> R) -> Result<R> {
        response(&self.sent.pop_front().context("requests in flight")?, read)
    }
}

impl ServerSpec {
    fn prefix(&self) -> String {
        format!("{}_", self.name)
    }

    fn service(&self) -> Result<Factory> {
        iceoryx2::prelude::set_log_level(LogLevel::Error);
        let mut config = Config::default();
        // Objects of its own, so that nothing of other users of iceoryx2 is touched.
        config.global.prefix = FileName::new(self.prefix().as_bytes())?;
        let node = NodeBuilder::new().config(&config).create::<ipc::Service>()?;
        let service = node
            .service_builder(&self.name.as_str().try_into()?)
            .request_response::<Bytes, Bytes>()
            .max_active_requests_per_client(self.load.in_flight)
            .max_clients(self.clients)
            .max_servers(1)
            // One for each client, and the server's.
            .max_nodes(self.clients + 1)
            .open_or_create()?;
        Ok(service)
    }
}

/// The server's process.
pub(crate) fn serve(spec: &ServerSpec, cpu: usize) -> Result<()> {
    let _pinned = Pinned::to(cpu)?;
    let stop = AtomicBool::new(false);
    let (created, is_created) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        // A service's handles stay on the thread that made them.
        let server = scope.spawn(|| {
            let server =
                spec.service()?.server_builder().initial_max_slice_len(spec.load.len).create()?;
            created.send(())?;
            answer(&server, spec, &stop)
        });
        let told = is_created.recv().context("iceoryx2's server").and_then(|()| ready_until_told());
        stop.store(true, Ordering::Relaxed);
        server.join().expect("the answering thread does not panic")?;
        told
    })
}

fn answer(
    server: &Server<ipc::Service, Bytes, (), Bytes, ()>,
    spec: &ServerSpec,
    stop: &AtomicBool,
) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        let Some(request) = server.receive()? else {
            std::hint::spin_loop();
            continue;
        };
        let response = request.loan_slice_uninit(request.payload().len())?;
        let mut response = match spec.answer {
            Answer::Copy => response.write_from_slice(request.payload()),
            Answer::Other => {
                let mut response = crate::shared::initialised_response(response);
                let number = crate::work::number(request.payload()).unwrap_or_default();
                crate::work::put_number(response.payload_mut(), number);
                response
            }
        };
        spec.load.work.on(response.payload_mut());
        response.send()?;
    }
    Ok(())
}
