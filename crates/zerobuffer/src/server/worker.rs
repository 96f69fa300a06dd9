//! The background threads.

use super::acceptor::Acceptor;
use super::connection::Connection;
use super::guards::{Frame, status};
use crate::handler::{Failure, HandlerOutcome, run};
use crate::ready_threads::{ReadyThreads, Workers, goes_on};
use crate::tenure::Away;
use crate::v2::ring::Taken;
use crate::wait::Deadline;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Has each thread of `ready_threads` do one of `works` with what `acceptor` takes. A thread is [`Away`] when
/// its work begins; the work itself says when it has come back.
pub(super) fn start<W>(ready_threads: ReadyThreads, acceptor: Acceptor, works: Vec<W>) -> Workers
where
    W: FnMut(&Arc<Connection>, Taken, &Away) + Send + 'static,
{
    let is_alone = works.len() == 1;
    let mut works = works.into_iter();
    if is_alone && let Some(work) = works.next() {
        return ready_threads.start([move |away: &Away| serve_alone(acceptor, away, work)]);
    }
    let acceptor = Arc::new(Mutex::new(acceptor));
    ready_threads.start(works.map(|work| {
        let acceptor = Arc::clone(&acceptor);
        move |away: &Away| serve_in_turn(&acceptor, away, work)
    }))
}

/// The work of a handler that runs on the thread that takes its requests.
pub(super) fn handling<H, O>(
    mut handler: H,
) -> impl FnMut(&Arc<Connection>, Taken, &Away) + Send + 'static
where
    H: FnMut(&mut Frame<'_>) -> O + Send + 'static,
    O: HandlerOutcome,
{
    #[inline(always)]
    move |connection, taken, away| handle(connection, taken, away, &mut handler)
}

/// One thread that takes and handles, without locks.
fn serve_alone(
    mut acceptor: Acceptor,
    away: &Away,
    mut work: impl FnMut(&Arc<Connection>, Taken, &Away),
) {
    loop {
        if let (Some(taken), Some(channel)) = (acceptor.next_at_once(), acceptor.channel()) {
            away.go();
            work(&channel.connection, taken, away);
            continue;
        }
        let taken = acceptor.next(&Deadline::after(Duration::MAX));
        match (taken, acceptor.channel()) {
            (Ok(taken), Some(channel)) => {
                away.go();
                work(&channel.connection, taken, away);
            }
            (Ok(_), None) => {}
            (Err(error), _) => {
                if !goes_on(&acceptor.shared.segments, error) {
                    return;
                }
            }
        }
    }
}

/// One of several threads: the one that has the acceptor waits for the next request, passes the acceptor
/// on, and handles what it has taken.
fn serve_in_turn(
    acceptor: &Mutex<Acceptor>,
    away: &Away,
    mut work: impl FnMut(&Arc<Connection>, Taken, &Away),
) {
    loop {
        let mut turn = acceptor.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = match turn.next_at_once() {
            Some(taken) => Ok(taken),
            None => turn.next(&Deadline::after(Duration::MAX)),
        };
        match (taken, turn.channel()) {
            (Ok(taken), Some(channel)) => {
                let connection = Arc::clone(&channel.connection);
                away.go();
                drop(turn);
                work(&connection, taken, away);
            }
            (Ok(_), None) => {}
            (Err(error), _) => {
                if !goes_on(&turn.shared.segments, error) {
                    return;
                }
            }
        }
    }
}

#[inline(always)]
fn handle<O: HandlerOutcome>(
    connection: &Arc<Connection>,
    taken: Taken,
    away: &Away,
    handler: &mut impl FnMut(&mut Frame<'_>) -> O,
) {
    let mut frame = Frame::new(connection, taken);
    let outcome = run(|| handler(&mut frame));
    // The fence that must follow is that of the response's WAKE.
    away.come_back();
    match outcome {
        Ok(()) => frame.publish(status::OK),
        Err(Failure::Error(message)) => frame.publish_failure(status::HANDLER_ERROR, &message),
        Err(Failure::Panic(message)) => frame.publish_failure(status::HANDLER_PANIC, &message),
    }
}
