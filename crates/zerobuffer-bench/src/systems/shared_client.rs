//! A client for many threads, and its calls as futures.

use super::in_place::{SMALL_RING, ServerSpec, TIMEOUT, Wait, connect};
use crate::machine::Pinned;
use crate::plan::Round;
use crate::timing::per_operation;
use crate::work::Work;
use anyhow::{Result, ensure};
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use zerobuffer::{Client, SharedClient};

/// A checked call with eight bytes on the only thread of a shared client.
pub(crate) fn call_ns(round: &Round, wait: Wait) -> Result<f64> {
    let seats = round.seats()?;
    let spec = ServerSpec::new(SMALL_RING, wait, Work::Increment);
    let (client, _peer) = connect(seats, &spec)?;
    let client = client.into_shared();
    let _pinned = Pinned::to(seats.client)?;
    let mut number: u64 = 0;
    per_operation(round.budget, |count| {
        for _ in 0..count {
            let response = client.call(&number.to_le_bytes(), TIMEOUT)?;
            number += 1;
            ensure!(response.data() == number.to_le_bytes(), "a wrong response to {number}");
        }
        Ok(())
    })
}

/// A round trip of eight bytes whose two ends take turns on one thread.
pub(crate) fn alone_ns(round: &Round, shared: bool) -> Result<f64> {
    let spec = ServerSpec::new(SMALL_RING, Wait::Spin, Work::Increment);
    let mut server = spec.create()?;
    let client = Client::connect(spec.name(), TIMEOUT)?;
    let _pinned = round.seats().ok().map(|seats| Pinned::to(seats.client)).transpose()?;
    if !shared {
        return per_operation(round.budget, |count| {
            for number in 0..count {
                let sequence = client.send_request(&number.to_le_bytes())?;
                server.receive(TIMEOUT)?.respond();
                ensure!(client.receive_response_for(sequence, TIMEOUT)?.len() == 8, "no response");
            }
            Ok(())
        });
    }
    let client = client.into_shared();
    per_operation(round.budget, |count| {
        for number in 0..count {
            let sequence = client.send_request(&number.to_le_bytes())?;
            server.receive(TIMEOUT)?.respond();
            ensure!(client.receive_response_for(sequence, TIMEOUT)?.len() == 8, "no response");
        }
        Ok(())
    })
}

/// `count` round trips of a shared client, each end doing its part when it is its turn.
pub(crate) fn step(count: u64) -> Result<()> {
    let spec = ServerSpec::new(SMALL_RING, Wait::Spin, Work::Increment);
    let mut server = spec.create()?;
    let client = Client::connect(spec.name(), TIMEOUT)?.into_shared();
    for number in 0..count {
        let sequence = client.send_request(&number.to_le_bytes())?;
        server.receive(TIMEOUT)?.respond();
        ensure!(client.receive_response_for(sequence, TIMEOUT)?.len() == 8, "no response");
    }
    Ok(())
}

/// One of many calls that so many tasks of one thread await, both sides sleeping.
pub(crate) fn awaited_ns(round: &Round, tasks: usize) -> Result<f64> {
    let seats = round.seats()?;
    let spec = ServerSpec::new(SMALL_RING, Wait::Park, Work::Increment);
    let (client, _peer) = connect(seats, &spec)?;
    let client = client.into_shared();
    let _pinned = Pinned::to(seats.client)?;
    let ns = per_operation(round.budget, |count| {
        // A batch is so many calls of each task.
        run((0..tasks).map(|_| calls(&client, count)).collect())
    })?;
    Ok(ns / tasks as f64)
}

async fn calls(client: &SharedClient, count: u64) -> Result<()> {
    for number in 0..count {
        let response = client.call_async(&number.to_le_bytes(), TIMEOUT).await?;
        ensure!(response.data() == (number + 1).to_le_bytes(), "a wrong response to {number}");
    }
    Ok(())
}

/// Tasks that were woken, and the executor's sleep.
#[derive(Default)]
struct Ready {
    tasks: Mutex<VecDeque<usize>>,
    woken: Condvar,
}

struct Task {
    index: usize,
    ready: Arc<Ready>,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.ready.tasks.lock().expect("no task panics").push_back(self.index);
        self.ready.woken.notify_one();
    }
}

/// An executor of one thread.
fn run<F: Future<Output = Result<()>>>(tasks: Vec<F>) -> Result<()> {
    let ready = Arc::<Ready>::default();
    let mut tasks: Vec<Option<Pin<Box<F>>>> =
        tasks.into_iter().map(|task| Some(Box::pin(task))).collect();
    let wakers: Vec<Waker> = (0..tasks.len())
        .map(|index| Waker::from(Arc::new(Task { index, ready: Arc::clone(&ready) })))
        .collect();
    wakers.iter().for_each(Waker::wake_by_ref);
    let mut left = tasks.len();
    while left > 0 {
        let mut woken = ready.tasks.lock().expect("no task panics");
        while woken.is_empty() {
            woken = ready.woken.wait(woken).expect("no task panics");
        }
        let now = std::mem::take(&mut *woken);
        drop(woken);
        for index in now {
            let Some(task) = &mut tasks[index] else { continue };
            if let Poll::Ready(outcome) =
                task.as_mut().poll(&mut Context::from_waker(&wakers[index]))
            {
                outcome?;
                tasks[index] = None;
                left -= 1;
            }
        }
    }
    Ok(())
}
