//! The library's errors as the exceptions of `zerobuffer.exceptions`, with the facts as attributes.

use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyModule};
use std::borrow::Cow;
use std::time::Duration;
use zerobuffer::{Error, LostRequest, RequestState};

/// Whose call failed: version 1 has names of its own for the other side's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Reader,
    Writer,
    /// A client of two buffers, when it sends.
    Requests,
    /// A client of two buffers, when it receives.
    Responses,
    Duplex,
}

/// The exception for `error`.
pub(crate) fn exception(py: Python<'_>, error: &Error, side: Side) -> PyErr {
    build(py, error, side).unwrap_or_else(|failed| failed)
}

/// For use in `map_err`: the exception for an error of a duplex channel.
pub(crate) fn duplex(py: Python<'_>) -> impl Fn(Error) -> PyErr {
    move |error| exception(py, &error, Side::Duplex)
}

/// A call on an object that was closed before.
pub(crate) fn closed(py: Python<'_>, reason: &'static str) -> PyErr {
    exception(py, &Error::InvalidState { reason }, Side::Duplex)
}

fn build(py: Python<'_>, error: &Error, side: Side) -> PyResult<PyErr> {
    let class = class(py, error, side)?;
    if let Error::SequenceGap { expected, found } = error {
        return Ok(PyErr::from_value(class.call1((expected, found))?));
    }
    let raised = class.call1((error.to_string(),))?;
    for (name, value) in facts(py, error.facts())? {
        raised.setattr(name, value)?;
    }
    Ok(PyErr::from_value(raised))
}

fn class<'py>(py: Python<'py>, error: &Error, side: Side) -> PyResult<Bound<'py, PyAny>> {
    let module = module(py)?;
    let error = error.facts();
    let class = module.getattr(&*class_name(error, side))?;
    let is_end = matches!(error, Error::PeerDied { .. } | Error::PeerClosed { .. });
    let existing = match side {
        Side::Duplex => return Ok(class),
        // Version 1 knows nothing of forks.
        _ if matches!(error, Error::WrongProcess) => return Ok(class),
        Side::Requests if is_end => Some(module.getattr("ReaderDeadException")?),
        Side::Responses if is_end => Some(module.getattr("WriterDeadException")?),
        _ => None,
    };
    module.call_method1("of_version_1", (class, existing))
}

fn module(py: Python<'_>) -> PyResult<&Bound<'_, PyModule>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let import = || Ok::<_, PyErr>(PyModule::import(py, "zerobuffer.exceptions")?.unbind());
    Ok(MODULE.get_or_try_init(py, import)?.bind(py))
}

/// The class of an error's kind: mostly it has the kind's name.
fn class_name(error: &Error, side: Side) -> Cow<'static, str> {
    let name = match (error, side) {
        (Error::PeerDied { .. } | Error::PeerClosed { .. }, Side::Reader) => "WriterDeadException",
        (Error::PeerDied { .. } | Error::PeerClosed { .. }, Side::Writer) => "ReaderDeadException",
        (Error::SequenceGap { .. }, _) => "SequenceError",
        (Error::MetadataAlreadyWritten, _) => "MetadataAlreadyWrittenException",
        (error, _) => return Cow::Owned(format!("{:?}", error.kind())),
    };
    Cow::Borrowed(name)
}

type Facts<'py> = Vec<(&'static str, Bound<'py, PyAny>)>;

fn facts<'py>(py: Python<'py>, error: &Error) -> PyResult<Facts<'py>> {
    macro_rules! facts {
        ($($name:ident),* $(,)?) => {
            vec![$((stringify!($name), $name.into_bound_py_any(py)?)),*]
        };
    }
    Ok(match error {
        Error::BadName { name, reason } => facts![name, reason],
        Error::BadConfig { what, asked, allowed } => facts![what, asked, allowed],
        Error::NotRunning { name, found, .. } => facts![name, found],
        Error::Busy { name, .. } | Error::AlreadyRunning { name, .. } => facts![name],
        Error::PermissionDenied { object, operation, owner, mode } => {
            facts![object, operation, owner, mode]
        }
        Error::ForeignObject { object, uid, reason } => facts![object, uid, reason],
        Error::Incompatible { object, field, found, expected } => {
            facts![object, field, found, expected]
        }
        Error::NoSpace { object, needed, reason } => facts![object, needed, reason],
        Error::Timeout { waited, what } => {
            let waited = seconds(*waited);
            facts![waited, what]
        }
        Error::NotConnectedYet { waited } => {
            let waited = seconds(*waited);
            facts![waited]
        }
        Error::Full { needed, free, in_flight, held, .. } => facts![needed, free, in_flight, held],
        Error::TooLarge { what, asked, max } => facts![what, asked, max],
        Error::WouldNeverFit { asked, max } => facts![asked, max],
        Error::PeerDied { request } | Error::PeerClosed { request } => {
            let sequence = request.map(|request| request.sequence);
            let state = request.map(|request| state(py, request.state)).transpose()?;
            let closed = matches!(error, Error::PeerClosed { .. });
            facts![sequence, state, closed]
        }
        Error::HandlerFailed { sequence, status, message } => facts![sequence, status, message],
        Error::ProtocolViolation { field, observed, allowed } => facts![field, observed, allowed],
        Error::UnknownSequence { sequence } => facts![sequence],
        Error::Closed => {
            let reason = "closed";
            facts![reason]
        }
        Error::InvalidState { reason } | Error::Desynchronised { reason } => facts![reason],
        Error::System { operation, object, errno } => facts![operation, object, errno],
        Error::Unsupported { what } => facts![what],
        Error::SequenceUnknown { name } => facts![name],
        _ => Vec::new(),
    })
}

fn seconds(duration: Duration) -> Option<f64> {
    (duration != Duration::MAX).then_some(duration.as_secs_f64())
}

/// The member of `zerobuffer.RequestState`.
fn state(py: Python<'_>, state: RequestState) -> PyResult<Bound<'_, PyAny>> {
    module(py)?.getattr("RequestState")?.getattr(match state {
        RequestState::NotStarted => "NOT_STARTED",
        _ => "IN_DOUBT",
    })
}

/// The `zerobuffer.LostRequest`.
pub(crate) fn lost_request(py: Python<'_>, lost: LostRequest) -> PyResult<Bound<'_, PyAny>> {
    let arguments = PyDict::new(py);
    arguments.set_item("sequence", lost.sequence)?;
    arguments.set_item("state", state(py, lost.state)?)?;
    module(py)?.getattr("LostRequest")?.call((), Some(&arguments))
}
