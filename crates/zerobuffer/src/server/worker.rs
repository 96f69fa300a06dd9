//! The background threads.

use super::acceptor::Acceptor;
use super::channel::ServerChannel;
use super::guards::{Frame, status};
use crate::error::Error;
use crate::handler::{HandlerOutcome, drop_quietly, panic_message};
use crate::ready_threads::ReadyThreads;
use crate::v2::ring::Taken;
use crate::wait::Deadline;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// The pause before another try to make a segment that could not be made.
const RETRY: Duration = Duration::from_millis(100);

/// Has each thread of `ready_threads` run one of `handlers` on what `acceptor` takes.
pub(super) fn start<H, O>(
    ready_threads: ReadyThreads,
    acceptor: Acceptor,
    handlers: Vec<H>,
) -> Vec<JoinHandle<()>>
where
    H: FnMut(&mut Frame<'_>) -> O + Send + 'static,
    O: HandlerOutcome,
{
    let is_alone = handlers.len() == 1;
    let mut handlers = handlers.into_iter();
    if is_alone && let Some(mut handler) = handlers.next() {
        return ready_threads.start([move || serve_alone(acceptor, &mut handler)]);
    }
    let acceptor = Arc::new(Mutex::new(acceptor));
    ready_threads.start(handlers.map(|mut handler| {
        let acceptor = Arc::clone(&acceptor);
        move || serve_in_turn(&acceptor, &mut handler)
    }))
}

/// One thread that takes and handles, without locks.
fn serve_alone<O: HandlerOutcome>(
    mut acceptor: Acceptor,
    handler: &mut impl FnMut(&mut Frame<'_>) -> O,
) {
    loop {
        if let (Some(taken), Some(channel)) = (acceptor.next_at_once(), acceptor.channel()) {
            handle(channel, taken, handler);
            continue;
        }
        let taken = acceptor.next(&Deadline::after(Duration::MAX));
        match (taken, acceptor.channel()) {
            (Ok(taken), Some(channel)) => handle(channel, taken, handler),
            (Ok(_), None) => {}
            (Err(error), _) => {
                if !carries_on(&acceptor, error) {
                    return;
                }
            }
        }
    }
}

/// One of several threads: whoever has the acceptor waits for the next request, passes the acceptor
/// on, and handles what it has taken.
fn serve_in_turn<O: HandlerOutcome>(
    acceptor: &Mutex<Acceptor>,
    handler: &mut impl FnMut(&mut Frame<'_>) -> O,
) {
    loop {
        let mut turn = acceptor.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = match turn.next_at_once() {
            Some(taken) => Ok(taken),
            None => turn.next(&Deadline::after(Duration::MAX)),
        };
        match (taken, turn.channel()) {
            (Ok(taken), Some(channel)) => {
                let channel = Arc::clone(channel);
                drop(turn);
                handle(&channel, taken, handler);
            }
            (Ok(_), None) => {}
            (Err(error), _) => {
                if !carries_on(&turn, error) {
                    return;
                }
            }
        }
    }
}

/// Whether the server goes on after `error`.
fn carries_on(acceptor: &Acceptor, error: Error) -> bool {
    if acceptor.shared.is_stopping() {
        return false;
    }
    match error {
        // That client is not served any more; the next one is.
        Error::ProtocolViolation { .. } => true,
        Error::AlreadyRunning { .. } | Error::ForeignObject { .. } | Error::WrongProcess => {
            acceptor.shared.fail(error);
            false
        }
        // The next segment could not be made now, for want of memory or descriptors.
        _ => {
            crate::sys::sleep(RETRY);
            true
        }
    }
}

#[inline(always)]
fn handle<O: HandlerOutcome>(
    channel: &Arc<ServerChannel>,
    taken: Taken,
    handler: &mut impl FnMut(&mut Frame<'_>) -> O,
) {
    let mut frame = Frame::new(channel, taken);
    // After a panic the frame's bytes are not delivered, so nobody sees what it left behind.
    let outcome = catch_unwind(AssertUnwindSafe(|| handler(&mut frame).into_result()));
    match outcome {
        Ok(Ok(())) => frame.publish(status::OK),
        Ok(Err(message)) => frame.publish_failure(status::HANDLER_ERROR, &message),
        Err(panic) => {
            frame.publish_failure(status::HANDLER_PANIC, panic_message(&*panic));
            drop_quietly(panic);
        }
    }
}
