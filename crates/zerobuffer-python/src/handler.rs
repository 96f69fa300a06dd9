//! Handlers that are written in Python: what may be one, how one runs, and what becomes of its failures.

use crate::buffer::support;
use crate::request::{Request, message};
use pyo3::exceptions::PyBaseException;
use pyo3::prelude::*;

/// A handler, and who hears of its failures.
pub(crate) struct Handler {
    channel: String,
    handler: Py<PyAny>,
    on_error: Option<Py<PyAny>>,
}

impl Handler {
    /// # Errors
    /// `TypeError` for what cannot be called, and for coroutine and generator functions, whose bodies nobody
    /// would run.
    pub(crate) fn new(
        channel: &str,
        handler: &Bound<'_, PyAny>,
        on_error: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        support(handler.py())?.call_method1("check_handler", (handler,))?;
        Ok(Self {
            channel: channel.to_owned(),
            handler: handler.clone().unbind(),
            on_error: on_error.map(|on_error| on_error.clone().unbind()),
        })
    }

    /// Runs it on `request`, and answers that.
    pub(crate) fn run(&self, request: &Bound<'_, Request>) {
        let (py, this) = (request.py(), request.get());
        let returned = self.handler.bind(py).call1((request,));
        let outcome = returned.and_then(|returned| Self::check_returned(returned, request));
        let failure = outcome.as_ref().err().map(|error| message(py, error));
        this.answer(py, failure);
        let told = match outcome {
            Ok(()) => this.tell_of_views(py),
            Err(error) => {
                // With its traceback.
                let error = error.into_value(py).into_bound(py);
                self.report(&error);
                this.clear_frames(&error)
            }
        };
        say(py, told);
    }

    /// A handler edits its request; what it returns goes nowhere. It may return what it has edited, as numpy's
    /// functions with `out=` do.
    fn check_returned(returned: Bound<'_, PyAny>, request: &Bound<'_, Request>) -> PyResult<()> {
        if returned.is_none() || returned.is(request) || request.get().is_shown_by(&returned) {
            return Ok(());
        }
        support(returned.py())?.call_method1("refuse_returned", (returned,)).map(drop)
    }

    /// Reports what went wrong: to the callback that was set for it, or to the log.
    fn report(&self, error: &Bound<'_, PyBaseException>) {
        let py = error.py();
        let told = match &self.on_error {
            Some(on_error) => on_error.bind(py).call1((error,)),
            None => support(py)
                .and_then(|support| support.call_method1("log_failure", (&self.channel, error))),
        };
        say(py, told);
    }
}

/// What goes wrong while a failure is told has nobody left to be told to.
fn say<T>(py: Python<'_>, told: PyResult<T>) {
    if let Err(error) = told {
        error.write_unraisable(py, None);
    }
}
