//! The server of an in-place channel.

use crate::buffer::with_bytes;
use crate::errors::{Side, closed, duplex, exception};
use crate::process::Process;
use crate::request::Request;
use crate::waiting::{self, SLICE, not_yet};
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use zerobuffer::{BufferConfig, Error, OwnedRequest, ServerConfig};

/// The pause before another try to make a segment that could not be made.
const RETRY: Duration = Duration::from_millis(100);

const STOPPED: Error = Error::InvalidState { reason: "the server was stopped; create another one" };

/// The sizes in a `zerobuffer.BufferConfig`, or in anything that looks like one.
pub(crate) fn sizes(config: Option<&Bound<'_, PyAny>>) -> PyResult<BufferConfig> {
    let Some(config) = config else { return Ok(BufferConfig::default()) };
    let size = |name| config.getattr(name)?.extract::<usize>();
    Ok(BufferConfig::new(size("metadata_size")?, size("payload_size")?))
}

/// A server of an in-place channel: it creates the channel, and serves one client after the other.
///
/// Either give it a handler, which runs on threads of its own (start), or take the requests yourself
/// (receive, or `for request in server`). stop() ends it in good order, and so does leaving a `with`
/// block.
#[pyclass(frozen, module = "zerobuffer")]
pub(crate) struct Server {
    name: String,
    workers: usize,
    stop_timeout: Duration,
    /// `None` after the end.
    server: Mutex<Option<zerobuffer::Server>>,
    /// The `threading.Thread`s that run the handler.
    threads: Mutex<Vec<Py<PyAny>>>,
    /// Registered to run when the interpreter exits.
    at_exit: Mutex<Option<Py<PyAny>>>,
    started: AtomicBool,
    stopping: AtomicBool,
    /// Why the threads gave up.
    failure: Mutex<Option<Error>>,
    process: Process,
}

#[pymethods]
impl Server {
    /// Creates the channel `name`; clients can attach as soon as this returns.
    ///
    /// config: a BufferConfig with the sizes.
    /// workers: how many threads start() runs the handler on; with more than one, answers may overtake
    /// each other.
    /// metadata: what each client finds in its `server_metadata`.
    /// wait: "default", "park" (least CPU time) or "spin" (least latency).
    /// mode: permission bits; by default only programs of the same user can attach.
    /// stop_timeout: how long stop() waits for running handlers, and then for the client to read.
    ///
    /// Raises AlreadyRunning, NoSpace, ForeignObject, BadName, BadConfig, TooLarge or PermissionDenied.
    #[new]
    #[pyo3(signature = (name, config=None, *, workers=1, metadata=None, wait="default", mode=0o600,
        stop_timeout=2.0))]
    #[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn new(
        py: Python<'_>,
        name: &str,
        config: Option<&Bound<'_, PyAny>>,
        workers: usize,
        metadata: Option<&Bound<'_, PyAny>>,
        wait: &str,
        mode: u32,
        stop_timeout: f64,
    ) -> PyResult<Self> {
        let stop_timeout = waiting::timeout(Some(stop_timeout))?;
        let mut server = ServerConfig::new(sizes(config)?)
            .workers(workers)
            .wait(waiting::strategy(wait)?)
            .mode(mode)
            .stop_timeout(stop_timeout);
        if let Some(metadata) = metadata {
            server = with_bytes(metadata, |bytes| Ok(server.metadata(bytes)))?;
        }
        // Reserving the memory may take a while.
        let created = py.detach(|| zerobuffer::Server::create(name, server));
        Ok(Self {
            name: name.to_owned(),
            workers,
            stop_timeout,
            server: Mutex::new(Some(created.map_err(duplex(py))?)),
            threads: Mutex::default(),
            at_exit: Mutex::default(),
            started: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            failure: Mutex::default(),
            process: Process::default(),
        })
    }

    /// The channel's name.
    #[getter]
    fn name(&self) -> &str {
        &self.name
    }

    /// Runs `handler(request)` on every request, on background threads, until stop(). What the request's
    /// bytes are when the handler returns is the answer.
    ///
    /// An exception reaches the client as HandlerFailed with its text, and so does a view that the
    /// handler has kept. Then on_error(exception) is called, if there is one; otherwise the exception
    /// is logged to the logger "zerobuffer.server".
    ///
    /// Raises InvalidState if it was started or stopped before.
    #[pyo3(signature = (handler, on_error=None))]
    fn start(
        slf: &Bound<'_, Self>,
        handler: Bound<'_, PyAny>,
        on_error: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        this.process.check(py)?;
        if this.is_stopping() || this.started.swap(true, Ordering::Relaxed) {
            let reason = "the server was started or stopped before; create another one";
            return Err(closed(py, reason));
        }
        let at_exit = py.import("zerobuffer._support")?.call_method1("stop_at_exit", (slf,))?;
        *this.at_exit.lock() = Some(at_exit.unbind());
        for _ in 0..this.workers {
            let options = PyDict::new(py);
            options.set_item("target", slf.getattr("_serve")?)?;
            options.set_item("args", (&handler, &on_error))?;
            options.set_item("name", format!("zerobuffer-{}", this.name))?;
            options.set_item("daemon", true)?;
            let thread = py.import("threading")?.call_method("Thread", (), Some(&options))?;
            thread.call_method0("start")?;
            this.threads.lock().push(thread.unbind());
        }
        Ok(())
    }

    /// The body of a background thread.
    fn _serve(
        &self,
        py: Python<'_>,
        handler: &Bound<'_, PyAny>,
        on_error: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        while !self.is_stopping() {
            match self.take(py, SLICE)? {
                Ok(request) => {
                    let request = Bound::new(py, Request::in_place(request))?;
                    let outcome = handler.call1((&request,)).map(drop);
                    if let Some(error) = request.get().finish(py, outcome) {
                        report(py, &self.name, &error, on_error);
                    }
                }
                // Nothing came, or that client is not served any more; the next one is.
                Err(Error::Timeout { .. } | Error::ProtocolViolation { .. }) => {}
                Err(
                    error @ (Error::AlreadyRunning { .. }
                    | Error::ForeignObject { .. }
                    | Error::WrongProcess),
                ) => {
                    self.failure.lock().get_or_insert(error);
                    break;
                }
                Err(Error::InvalidState { .. }) => break,
                // The next segment could not be made now, for want of memory or descriptors.
                Err(_) => py.detach(|| std::thread::sleep(RETRY)),
            }
        }
        Ok(())
    }

    /// Waits for the next request up to `timeout`, for a server without a handler. Call it again and
    /// again: it also looks after clients that go.
    ///
    /// Raises Timeout; ProtocolViolation if the client breaks the protocol; InvalidState if a handler was
    /// started, or after stop().
    #[pyo3(signature = (timeout=Some(5.0)), text_signature = "($self, timeout=5.0)")]
    fn receive(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Request> {
        self.process.check(py)?;
        if self.started.load(Ordering::Relaxed) {
            return Err(closed(py, "a handler has the requests"));
        }
        let taken = self.take(py, waiting::timeout(timeout)?)?;
        taken.map(Request::in_place).map_err(duplex(py))
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    /// The next request, whenever it comes; the end after stop().
    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Request>> {
        match self.receive(py, None) {
            Err(_) if self.is_stopping() => Ok(None),
            received => received.map(Some),
        }
    }

    /// Whether background threads are serving. False before start(), after stop(), and if the server
    /// had to give up (stop() then says why).
    #[getter]
    fn is_running(&self, py: Python<'_>) -> PyResult<bool> {
        if self.is_stopping() {
            return Ok(false);
        }
        for thread in self.threads(py) {
            if thread.call_method0("is_alive")?.is_truthy()? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a client is attached at this moment.
    #[getter]
    fn is_client_connected(&self, py: Python<'_>) -> bool {
        let is_connected = || self.server.lock().as_ref().is_some_and(|s| s.is_client_connected());
        self.process.is_this() && !self.is_stopping() && py.detach(is_connected)
    }

    /// Stops in good order: takes nothing more, lets running handlers finish, tells the client, lets it
    /// read its answers, and removes the channel's names. Called again it does nothing, or goes on if
    /// Ctrl-C had ended the wait.
    ///
    /// Raises what made the background threads give up before, if anything did.
    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        self.process.check(py)?;
        self.stopping.store(true, Ordering::Relaxed);
        if self.server.try_lock().is_some_and(|server| server.is_none()) {
            return Ok(());
        }
        self.join(py)?;
        let stop = |mut server: zerobuffer::Server| server.stop();
        let stopped = py.detach(|| self.server.lock().take().map_or(Ok(()), stop));
        if let Some(at_exit) = self.at_exit.lock().take() {
            py.import("atexit")?.call_method1("unregister", (at_exit,))?;
        }
        match self.failure.lock().take() {
            Some(error) => Err(exception(py, &error, Side::Duplex)),
            None => stopped.map_err(duplex(py)),
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
    ) -> PyResult<()> {
        self.stop(py)
    }

    fn __repr__(&self) -> String {
        format!("Server({:?})", self.name)
    }
}

impl Server {
    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    fn threads<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyAny>> {
        self.threads.lock().iter().map(|thread| thread.bind(py).clone()).collect()
    }

    /// Waits for the threads, but not for this one; one whose handler does not come back is left.
    fn join(&self, py: Python<'_>) -> PyResult<()> {
        let start = Instant::now();
        let this = py.import("threading")?.call_method0("current_thread")?;
        for thread in self.threads(py) {
            if !thread.is(&this) {
                let left = (self.stop_timeout + SLICE).saturating_sub(start.elapsed());
                thread.call_method1("join", (left.as_secs_f64(),))?;
            }
        }
        Ok(())
    }

    /// Takes the next request. Several threads take turns.
    fn take(&self, py: Python<'_>, timeout: Duration) -> PyResult<Result<OwnedRequest, Error>> {
        waiting::wait(py, timeout, not_yet, |slice| {
            let no_turn = Error::Timeout { waited: slice, what: "waiting for a request" };
            let mut server = match slice.is_zero() {
                // The interpreter is locked: whoever has this lock may wait for that one.
                true => self.server.try_lock().ok_or(no_turn)?,
                false => self.server.try_lock_for(slice).ok_or(no_turn)?,
            };
            if self.is_stopping() {
                return Err(STOPPED);
            }
            let server = server.as_mut().ok_or(STOPPED)?;
            server.receive(slice).map(zerobuffer::Request::into_owned)
        })
    }
}

/// Says what went wrong in a handler: to whoever asked for it, or to the log.
pub(crate) fn report(
    py: Python<'_>,
    channel: &str,
    error: &PyErr,
    on_error: Option<&Bound<'_, PyAny>>,
) {
    let reported = match on_error {
        Some(on_error) => on_error.call1((error.value(py),)).map(drop),
        None => py
            .import("zerobuffer._support")
            .and_then(|support| support.call_method1("log_failure", (channel, error.value(py))))
            .map(drop),
    };
    if let Err(error) = reported {
        error.write_unraisable(py, None);
    }
}
