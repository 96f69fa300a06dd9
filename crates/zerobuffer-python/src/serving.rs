//! What servers of channels and of services have in common: Python's threads take their requests in turn, and
//! the thread that stops them is not held up for ever.

use crate::buffer::support;
use crate::errors::{Side, closed, duplex, exception};
use crate::handler::Handler;
use crate::process::Process;
use crate::request::{Request, Told};
use crate::waiting::{self, SLICE, not_yet};
use parking_lot::{Condvar, Mutex};
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use zerobuffer::{Closer, Error, OwnedRequest};

/// The pause before another try to make a segment that could not be made.
const RETRY: Duration = Duration::from_millis(100);

/// Where the requests come from.
pub(crate) enum Source {
    Channel(zerobuffer::Server),
    Service(zerobuffer::Service),
}

impl Source {
    fn receive(&mut self, timeout: Duration) -> Result<OwnedRequest, Error> {
        match self {
            Self::Channel(server) => server.receive(timeout).map(zerobuffer::Request::into_owned),
            Self::Service(service) => service.receive(timeout).map(zerobuffer::Request::into_owned),
        }
    }

    fn try_receive(&mut self) -> Result<Option<OwnedRequest>, Error> {
        match self {
            Self::Channel(_) => match self.receive(Duration::ZERO) {
                Err(Error::Timeout { .. }) => Ok(None),
                received => received.map(Some),
            },
            Self::Service(service) => {
                service.try_receive().map(|request| request.map(zerobuffer::Request::into_owned))
            }
        }
    }

    /// What becomes readable when a request comes.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Channel(_) => None,
            Self::Service(service) => Some(service.as_fd()),
        }
    }

    fn client_probe(&self) -> ClientProbe {
        match self {
            Self::Channel(server) => {
                let is_connected = server.client_probe();
                Box::new(move || usize::from(is_connected()))
            }
            Self::Service(service) => Box::new(service.client_probe()),
        }
    }

    fn closer(&self) -> Closer {
        match self {
            Self::Channel(server) => server.closer(),
            Self::Service(service) => service.closer(),
        }
    }

    fn stop(&mut self) -> Result<(), Error> {
        match self {
            Self::Channel(server) => server.stop(),
            Self::Service(service) => service.stop(),
        }
    }
}

/// Says how many clients there are, also while a thread has the source.
type ClientProbe = Box<dyn Fn() -> usize + Send + Sync>;

/// What a server and its threads share. The threads do not keep the server itself, so that one which nobody
/// has any more ends.
pub(crate) struct Serving {
    pub(crate) name: String,
    told: Arc<Told>,
    workers: usize,
    /// `None` after the end.
    source: Mutex<Option<Source>>,
    /// Ends the wait of the thread that has the source.
    closer: Closer,
    count_clients: ClientProbe,
    stopped: Arc<Stopped>,
    stop_timeout: Duration,
    /// The `threading.Thread`s that run the handler.
    threads: Mutex<Vec<Py<PyAny>>>,
    /// Those that still do.
    serving: AtomicUsize,
    /// Registered to run when the interpreter exits.
    at_exit: Mutex<Option<Py<PyAny>>>,
    started: AtomicBool,
    stopping: AtomicBool,
    /// Nobody has the server any more: its last thread ends it.
    forgotten: AtomicBool,
    /// Why the threads stopped.
    failure: Mutex<Option<Error>>,
    process: Process,
}

impl Serving {
    pub(crate) fn new(name: &str, source: Source, workers: usize, stop_timeout: Duration) -> Self {
        Self {
            name: name.to_owned(),
            told: Told::of(name),
            workers,
            closer: source.closer(),
            count_clients: source.client_probe(),
            source: Mutex::new(Some(source)),
            stopped: Arc::default(),
            stop_timeout,
            threads: Mutex::default(),
            serving: AtomicUsize::new(0),
            at_exit: Mutex::default(),
            started: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            forgotten: AtomicBool::new(false),
            failure: Mutex::default(),
            process: Process::default(),
        }
    }

    pub(crate) fn start(
        self: &Arc<Self>,
        handler: &Bound<'_, PyAny>,
        on_error: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let py = handler.py();
        self.process.check(py)?;
        let handler = Arc::new(Handler::new(&self.name, handler, on_error)?);
        if self.is_stopping() || self.started.swap(true, Ordering::Relaxed) {
            let reason = "the server was started or stopped before; create another one";
            return Err(closed(py, reason));
        }
        let stop = Arc::clone(self);
        let stop = PyCFunction::new_closure(py, None, None, move |arguments, _| {
            stop.stop(arguments.py())
        })?;
        let at_exit = support(py)?.call_method1("stop_at_exit", (&self.name, stop))?;
        *self.at_exit.lock() = Some(at_exit.unbind());
        for _ in 0..self.workers {
            self.start_thread(py, &handler)?;
        }
        Ok(())
    }

    fn start_thread(self: &Arc<Self>, py: Python<'_>, handler: &Arc<Handler>) -> PyResult<()> {
        let (serve, handler) = (Arc::clone(self), Arc::clone(handler));
        let serve = PyCFunction::new_closure(py, None, None, move |arguments, _| {
            serve.serve(arguments.py(), &handler)
        })?;
        let options = PyDict::new(py);
        options.set_item("target", serve)?;
        options.set_item("name", format!("zerobuffer-{}", self.name))?;
        options.set_item("daemon", true)?;
        let thread = py.import("threading")?.call_method("Thread", (), Some(&options))?;
        self.serving.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = thread.call_method0("start") {
            self.serving.fetch_sub(1, Ordering::Relaxed);
            return Err(error);
        }
        self.threads.lock().push(thread.unbind());
        Ok(())
    }

    pub(crate) fn receive(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Request> {
        self.process.check(py)?;
        if self.started.load(Ordering::Relaxed) {
            return Err(closed(py, "a handler has the requests"));
        }
        let taken = self.take(py, waiting::timeout(timeout)?)?;
        taken.map(|request| Request::in_place(request, &self.told)).map_err(duplex(py))
    }

    /// The next request, if there is one.
    pub(crate) fn try_receive(&self, py: Python<'_>) -> PyResult<Option<Request>> {
        self.process.check(py)?;
        if self.started.load(Ordering::Relaxed) {
            return Err(closed(py, "a handler has the requests"));
        }
        let taken = py.detach(|| match self.is_stopping() {
            true => Err(Error::Closed),
            false => self.source.lock().as_mut().ok_or(Error::Closed)?.try_receive(),
        });
        let taken = taken.map_err(duplex(py))?;
        Ok(taken.map(|request| Request::in_place(request, &self.told)))
    }

    /// Of a service that has not ended: what becomes readable when a request comes.
    pub(crate) fn descriptor(&self, py: Python<'_>) -> PyResult<RawFd> {
        self.process.check(py)?;
        let descriptor = || Some(self.source.lock().as_ref()?.descriptor()?.as_raw_fd());
        py.detach(descriptor).ok_or(Error::Closed).map_err(duplex(py))
    }

    pub(crate) fn is_running(&self, py: Python<'_>) -> PyResult<bool> {
        if self.is_stopping() {
            return Ok(false);
        }
        let threads: Vec<_> =
            self.threads.lock().iter().map(|thread| thread.clone_ref(py)).collect();
        for thread in threads {
            if thread.call_method0(py, "is_alive")?.is_truthy(py)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// How many clients are attached at this moment. An event loop asks this, so it waits for nobody.
    pub(crate) fn clients(&self) -> usize {
        match self.process.is_this() && !self.is_stopping() {
            true => (self.count_clients)(),
            false => 0,
        }
    }

    /// Nobody has the server any more. The collector may say so on any thread, so nothing waits for a handler.
    pub(crate) fn forget(&self) {
        if !self.process.is_this() {
            return;
        }
        self.stopping.store(true, Ordering::Relaxed);
        self.forgotten.store(true, Ordering::Relaxed);
        if self.serving.load(Ordering::Relaxed) == 0 {
            let _ = Python::try_attach(|py| self.end_forgotten(py));
        }
    }

    /// The body of a background thread.
    fn serve(&self, py: Python<'_>, handler: &Handler) -> PyResult<()> {
        let served = self.serve_all(py, handler);
        let is_last = self.serving.fetch_sub(1, Ordering::Relaxed) == 1;
        if is_last && self.forgotten.load(Ordering::Relaxed) {
            self.end_forgotten(py);
        }
        served
    }

    fn serve_all(&self, py: Python<'_>, handler: &Handler) -> PyResult<()> {
        while !self.is_stopping() {
            match self.take(py, SLICE)? {
                Ok(request) => {
                    handler.run(&Bound::new(py, Request::in_place(request, &self.told))?);
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
                Err(Error::InvalidState { .. } | Error::Closed) => break,
                // The next segment could not be made now, for want of memory or descriptors.
                Err(_) => py.detach(|| std::thread::sleep(RETRY)),
            }
        }
        Ok(())
    }

    pub(crate) fn stop(&self, py: Python<'_>) -> PyResult<()> {
        self.process.check(py)?;
        let start = Instant::now();
        self.begin_stop(py);
        let stopped = loop {
            if let Some(stopped) = self.await_stop(py) {
                break stopped;
            }
            py.check_signals()?;
        };
        self.unregister(py)?;
        self.join(py, start)?;
        let failure = self.failure.lock().take();
        match failure {
            Some(error) => Err(exception(py, &error, Side::Duplex)),
            None => stopped.map_err(duplex(py)),
        }
    }

    /// Has a thread stop the source, unless that was done before: the library waits for handlers and for the
    /// client, and Ctrl-C does not reach it.
    fn begin_stop(&self, py: Python<'_>) {
        self.stopping.store(true, Ordering::Relaxed);
        py.detach(|| {
            // The thread that has the source lets go of it.
            self.closer.close();
            let source = self.source.lock().take();
            let Some(mut source) = source else { return };
            let stopped = Arc::clone(&self.stopped);
            let stop = move || {
                let outcome = source.stop();
                // Its descriptors are closed before anybody is told.
                drop(source);
                stopped.set(outcome);
            };
            let thread = std::thread::Builder::new().name("zb-stop".to_owned());
            if thread.spawn(stop).is_err() {
                // It was stopped as it was dropped.
                self.stopped.set(Ok(()));
            }
        });
    }

    /// Waits for the end of a stop that was begun, for a slice; what it has come to.
    fn await_stop(&self, py: Python<'_>) -> Option<Result<(), Error>> {
        py.detach(|| self.stopped.wait(SLICE))
    }

    /// Ends the source of a server that nobody has any more, who could be told what goes wrong.
    fn end_forgotten(&self, py: Python<'_>) {
        self.begin_stop(py);
        let stopped = loop {
            if let Some(stopped) = self.await_stop(py) {
                break stopped;
            }
        };
        if let Err(error) = self.unregister(py).and(stopped.map_err(duplex(py))) {
            error.write_unraisable(py, None);
        }
    }

    /// Nothing is left to be done when the interpreter exits.
    fn unregister(&self, py: Python<'_>) -> PyResult<()> {
        let at_exit = self.at_exit.lock().take();
        match at_exit {
            Some(at_exit) => py.import("atexit")?.call_method1("unregister", (at_exit,)).map(drop),
            None => Ok(()),
        }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Waits for the threads of a server that was stopped, but not for this one; one whose handler does not come
    /// back is left.
    fn join(&self, py: Python<'_>, start: Instant) -> PyResult<()> {
        let this = py.import("threading")?.call_method0("current_thread")?;
        loop {
            let Some(thread) = self.threads.lock().pop() else { return Ok(()) };
            if !thread.is(&this) {
                let left = (self.stop_timeout + SLICE).saturating_sub(start.elapsed());
                thread.bind(py).call_method1("join", (left.as_secs_f64(),))?;
            }
        }
    }

    /// Takes the next request. Several threads take turns.
    fn take(&self, py: Python<'_>, timeout: Duration) -> PyResult<Result<OwnedRequest, Error>> {
        waiting::wait(py, timeout, not_yet, |slice| {
            let no_turn = Error::Timeout { waited: slice, what: "waiting for a request" };
            let mut source = match slice.is_zero() {
                // The interpreter is locked: the holder of this lock may wait for that one.
                true => self.source.try_lock().ok_or(no_turn)?,
                false => self.source.try_lock_for(slice).ok_or(no_turn)?,
            };
            if self.is_stopping() {
                return Err(Error::Closed);
            }
            source.as_mut().ok_or(Error::Closed)?.receive(slice)
        })
    }
}

/// What a stop has come to, for everybody that waits for it.
#[derive(Default)]
struct Stopped {
    outcome: Mutex<Option<Result<(), Error>>>,
    is_there: Condvar,
}

impl Stopped {
    fn set(&self, outcome: Result<(), Error>) {
        *self.outcome.lock() = Some(outcome);
        self.is_there.notify_all();
    }

    /// The first to ask gets the error.
    fn wait(&self, timeout: Duration) -> Option<Result<(), Error>> {
        let mut outcome = self.outcome.lock();
        if outcome.is_none() {
            self.is_there.wait_for(&mut outcome, timeout);
        }
        outcome.as_mut().map(|outcome| std::mem::replace(outcome, Ok(())))
    }
}
