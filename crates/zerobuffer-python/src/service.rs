//! The server of a service.

use crate::buffer::with_bytes;
use crate::errors::duplex;
use crate::request::Request;
use crate::server::{BaseServer, remember, server_sizes, stop_previous};
use crate::serving::{Serving, Source};
use crate::waiting;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::os::fd::RawFd;
use std::path::PathBuf;
use zerobuffer::{Error, ServiceConfig};

/// A directory by its path, which may be a `pathlib.Path`.
///
/// # Errors
/// `ValueError` if it is not UTF-8.
pub(crate) fn directory(path: PathBuf) -> PyResult<String> {
    path.into_os_string().into_string().map_err(|path| {
        PyValueError::new_err(format!("directory is {}; its path must be UTF-8", path.display()))
    })
}

/// A server of any number of clients, each with memory of its own, under a name that any number of servers
/// share: processes on several cores, or a new version that starts before the old one stops.
///
/// Clients attach to it as to a channel, and nothing is left in the file system but an empty directory. Either
/// give it a handler, which runs on threads of its own (start), or take the requests yourself (receive, or
/// `for request in service`). stop() ends it cleanly, and so do leaving a `with` block, the end of the
/// interpreter, and the end of the last reference to it.
#[pyclass(frozen, extends = BaseServer, module = "zerobuffer")]
pub(crate) struct Service;

#[pymethods]
impl Service {
    /// Creates a server of the service `name`; clients can attach as soon as this returns.
    ///
    /// config: a BufferConfig with the sizes that each client's memory has, unless it asks for another ring;
    /// by default 4 KiB of metadata each way and a ring of 32 MiB.
    /// max_ring: the largest ring that a client can ask for; by default, and at most, 1 GiB.
    /// max_clients: the most clients at the same time; further ones get Busy.
    /// max_clients_per_user: of them, those of one user; by default half for other users than this server's.
    /// max_bytes: the most memory of all clients together; by default half of what is free now. Beyond it
    /// clients get NoSpace.
    /// workers: how many threads start() runs the handler on, for all clients together.
    /// handlers_per_client: the most requests of one client that are worked on at the same time; by default as
    /// many as are worked on at all.
    /// metadata: what each client finds in its `server_metadata`.
    /// wait: "default", "park" (least CPU time) or "spin" (least latency).
    /// stop_timeout: how long stop() waits for running handlers.
    /// users, groups: the numbers of users and groups whose programs may attach, besides this server's own
    /// user and root; the last group gets the directory and the socket.
    /// directory: the runtime directory; by default $ZEROBUFFER_DIR, else /run/zerobuffer for root, else
    /// $XDG_RUNTIME_DIR/zerobuffer, else /tmp/zerobuffer-UID.
    /// listener: the descriptor of a listening socket that this process was given, by systemd for instance.
    /// replace: stop the server of this name first that this process has, if it has one: for a cell of a
    /// notebook that is run again.
    ///
    /// Raises BadName, BadConfig, TooLarge, ForeignObject, PermissionDenied or System; TypeError if config is
    /// no BufferConfig.
    #[new]
    #[pyo3(signature = (name, config=None, *, max_ring=None, max_clients=64, max_clients_per_user=None,
        max_bytes=None, workers=1, handlers_per_client=None, metadata=None, wait="default",
        stop_timeout=2.0, users=vec![], groups=vec![], directory=None, listener=None, replace=false),
        text_signature = "(name, config=None, *, max_ring=None, max_clients=64, \
            max_clients_per_user=None, max_bytes=None, workers=1, handlers_per_client=None, \
            metadata=None, wait='default', \
            stop_timeout=2.0, users=(), groups=(), directory=None, listener=None, replace=False)")]
    #[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn new<'py>(
        py: Python<'py>,
        name: &str,
        config: Option<&Bound<'_, PyAny>>,
        max_ring: Option<usize>,
        max_clients: usize,
        max_clients_per_user: Option<usize>,
        max_bytes: Option<u64>,
        workers: usize,
        handlers_per_client: Option<usize>,
        metadata: Option<&Bound<'_, PyAny>>,
        wait: &str,
        stop_timeout: f64,
        users: Vec<u32>,
        groups: Vec<u32>,
        directory: Option<PathBuf>,
        listener: Option<RawFd>,
        replace: bool,
    ) -> PyResult<Bound<'py, Self>> {
        let stop_timeout = waiting::timeout(Some(stop_timeout))?;
        if !(1..=1024).contains(&workers) {
            let asked = workers as u64;
            let refused = Error::BadConfig { what: "workers", asked, allowed: "1 to 1024" };
            return Err(duplex(py)(refused));
        }
        // The library has one worker for them all: Python's threads take turns.
        let mut service = ServiceConfig::new()
            .max_clients(max_clients)
            .wait(waiting::strategy(wait)?)
            .stop_timeout(stop_timeout);
        if config.is_some() {
            let sizes = server_sizes(config)?;
            service = service.ring(sizes.payload_size()).metadata_size(sizes.metadata_size());
        }
        if let Some(bytes) = max_ring {
            service = service.max_ring(bytes);
        }
        if let Some(clients) = max_clients_per_user {
            service = service.max_clients_per_user(clients);
        }
        if let Some(bytes) = max_bytes {
            service = service.max_bytes(bytes);
        }
        if let Some(requests) = handlers_per_client {
            service = service.handlers_per_client(requests);
        }
        if let Some(path) = directory {
            service = service.directory(self::directory(path)?);
        }
        if let Some(descriptor) = listener {
            service = service.listener(descriptor);
        }
        service = users.into_iter().fold(service, ServiceConfig::user);
        service = groups.into_iter().fold(service, ServiceConfig::group);
        if let Some(metadata) = metadata {
            service = with_bytes(metadata, |bytes| Ok(service.metadata(bytes)))?;
        }
        stop_previous(py, name, replace)?;
        let created = py.detach(|| zerobuffer::Service::create(name, service));
        let source = Source::Service(created.map_err(duplex(py))?);
        let serving = Serving::new(name, source, workers, stop_timeout);
        let service = Bound::new(py, BaseServer::over(serving).add_subclass(Self))?;
        remember(service.as_super())?;
        Ok(service)
    }

    /// How many clients are attached to this server at this moment.
    #[getter]
    fn clients(slf: PyRef<'_, Self>) -> usize {
        slf.as_super().serving.clients()
    }

    /// The next request of any client, or None: for a program that waits for other things, too. It never waits. Once
    /// it has returned None, `fileno()` becomes readable as soon as there may be a request again, or the service
    /// ends: then call it until it returns None.
    ///
    /// Raises InvalidState if a handler was started; Closed after stop().
    fn try_receive(slf: PyRef<'_, Self>, py: Python<'_>) -> PyResult<Option<Request>> {
        slf.as_super().serving.try_receive(py)
    }

    /// The descriptor to wait on for try_receive(), with select, selectors or an event loop. Never read from it. It is
    /// closed by stop().
    ///
    /// Raises Closed after stop().
    fn fileno(slf: PyRef<'_, Self>, py: Python<'_>) -> PyResult<RawFd> {
        slf.as_super().serving.descriptor(py)
    }

    fn __repr__(slf: PyRef<'_, Self>) -> String {
        format!("Service({:?})", slf.as_super().name())
    }
}
