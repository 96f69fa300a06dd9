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

/// Has each thread of `ready_threads` do one of `works` with what `acceptor` takes.
pub(super) fn start<W>(
    ready_threads: ReadyThreads,
    acceptor: Acceptor,
    works: Vec<W>,
) -> Vec<JoinHandle<()>>
where
    W: FnMut(&Arc<ServerChannel>, Taken) + Send + 'static,
{
    let is_alone = works.len() == 1;
    let mut works = works.into_iter();
    if is_alone && let Some(work) = works.next() {
        return ready_threads.start([move || serve_alone(acceptor, work)]);
    }
    let acceptor = Arc::new(Mutex::new(acceptor));
    ready_threads.start(works.map(|work| {
        let acceptor = Arc::clone(&acceptor);
        move || serve_in_turn(&acceptor, work)
    }))
}

/// The work of a handler that runs on the thread that takes its requests.
pub(super) fn handling<H, O>(
    mut handler: H,
) -> impl FnMut(&Arc<ServerChannel>, Taken) + Send + 'static
where
    H: FnMut(&mut Frame<'_>) -> O + Send + 'static,
    O: HandlerOutcome,
{
    #[inline(always)]
    move |channel, taken| handle(channel, taken, &mut handler)
}

/// One thread that takes and handles, without locks.
fn serve_alone(mut acceptor: Acceptor, mut work: impl FnMut(&Arc<ServerChannel>, Taken)) {
    loop {
        if let (Some(taken), Some(channel)) = (acceptor.next_at_once(), acceptor.channel()) {
            work(channel, taken);
            continue;
        }
        let taken = acceptor.next(&Deadline::after(Duration::MAX));
        match (taken, acceptor.channel()) {
            (Ok(taken), Some(channel)) => work(channel, taken),
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
fn serve_in_turn(acceptor: &Mutex<Acceptor>, mut work: impl FnMut(&Arc<ServerChannel>, Taken)) {
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
                work(&channel, taken);
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
