//! Calls that no thread waits for.

use crate::client::{Caller, zb_client};
use crate::config::duration;
use crate::error::{ZB_OK, run, run_or, store, store_cancelled, zb_status};
use crate::pointers::{bytes, given};
use crate::view::{receive, zb_view};
use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use zerobuffer::{CallHandle, OwnedResponse, RequestLayout, Result};

/// What a call of `zb_client_call_async` ends with, exactly once. `ZB_OK` comes with the response, which is the
/// callee's from then on: copy the struct to where it is to stay, and release it with `zb_view_release`, at once or
/// later, on any thread, before or after the client is closed. Any other status comes with an empty view, and
/// `zb_last_error` has the facts until the callee fails in a call of its own. `ZB_CANCELLED` is that of a call that
/// `zb_client_cancel_call` has cancelled.
///
/// It runs on a thread of the library, or on the one that cancels the call. A client of one connection has one such
/// thread, which completes its calls one after the other. One with `connections` has a thread for each connection, for one
/// that was lost until its calls have ended, and one more for calls without a connection: there several callbacks
/// run at the same time, and what they share is theirs to protect. The callback of a cancelled call may run beside any other.
///
/// It is to be short and must not block: other calls wait for it. It may start and cancel calls, and shut the client
/// down; to send, it starts a call. It may close the client if nothing else can be using it: no other thread, and no
/// other callback that runs at the same time. It must not unwind: no exception, no `longjmp`.
pub type zb_done =
    Option<unsafe extern "C" fn(status: zb_status, response: *mut zb_view, context: *mut c_void)>;

/// Writes the `len` bytes of a request where the server will read them. All of them: they hold whatever was there
/// before. What `zb_done` must not do, this must not do either, nor use the client.
pub type zb_fill = Option<unsafe extern "C" fn(data: *mut u8, len: usize, context: *mut c_void)>;

/// A callback of C with what it uses.
#[derive(Clone, Copy)]
struct Callback {
    call: unsafe extern "C" fn(zb_status, *mut zb_view, *mut c_void),
    context: Context,
}

#[derive(Clone, Copy)]
struct Context(*mut c_void);

// SAFETY: the documentation of `zb_done` and `zb_fill` says on which threads they are called with it.
unsafe impl Send for Context {}

impl Callback {
    fn tell(self, status: zb_status, view: &mut MaybeUninit<zb_view>) {
        // SAFETY: a function of the header's type, with what it was given for; the view lives until it returns.
        unsafe { (self.call)(status, view.as_mut_ptr(), self.context.0) };
    }

    fn tell_cancelled(self) {
        self.tell(store_cancelled(), &mut MaybeUninit::new(zb_view::EMPTY));
    }
}

/// Tells the callback once.
struct Done {
    callback: Callback,
    /// Set when the call was started, and when it is dropped without an outcome: the second of the two tells that
    /// it was cancelled. What cannot be started is dropped, too, and its caller hears of it in another way.
    one_of_two: Arc<AtomicBool>,
    told: bool,
}

impl Done {
    fn finish(mut self, outcome: Result<OwnedResponse>) {
        self.told = true;
        let mut view = MaybeUninit::new(zb_view::EMPTY);
        let status = match outcome {
            Ok(response) => {
                zb_view::put(&mut view, response);
                ZB_OK
            }
            Err(error) => store(&error),
        };
        self.callback.tell(status, &mut view);
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        // AcqRel: with the other swap (`start`), so that what its thread has done before is seen here.
        if !self.told && self.one_of_two.swap(true, Ordering::AcqRel) {
            self.callback.tell_cancelled();
        }
    }
}

/// The response, if it was there at once, and the callback is not told.
fn start(
    done: zb_done,
    context: *mut c_void,
    call: Option<&mut MaybeUninit<u64>>,
    start: impl FnOnce(Done) -> Result<ControlFlow<OwnedResponse, CallHandle>>,
) -> Result<Option<OwnedResponse>> {
    let callback = Callback { call: given(done, "done")?, context: Context(context) };
    let one_of_two = Arc::new(AtomicBool::new(false));
    let done = Done { callback, one_of_two: Arc::clone(&one_of_two), told: false };
    let handle = match start(done)? {
        ControlFlow::Break(response) => return Ok(Some(response)),
        ControlFlow::Continue(handle) => handle,
    };
    if let Some(call) = call {
        call.write(handle.id());
    }
    // AcqRel: with the other swap (`Done::drop`).
    if one_of_two.swap(true, Ordering::AcqRel) {
        callback.tell_cancelled();
    }
    Ok(None)
}

/// Sends a copy of `len` bytes, and calls `done` with the response to it: never blocks, and no thread waits. For
/// clients with `ZB_THREADS_MANY` or `connections`, of channels in place and services.
///
/// What cannot be sent at once, because the ring is full or another request is before it, is sent by a thread of the
/// library, in order. Waiting for room and for the response together are bounded by the timeout. Every call that was
/// started is told of exactly once (`zb_done`), also when the server ends, when the client is shut down or closed,
/// and when the call is cancelled; possibly before this returns. If this fails, the call was not started, and `done`
/// is not called.
///
/// `call`, if it is not null, gets the number for `zb_client_cancel_call`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_client_call_async(
    client: Option<&zb_client>,
    data: *const u8,
    len: usize,
    timeout_ns: i64,
    done: zb_done,
    context: *mut c_void,
    call: Option<&mut MaybeUninit<u64>>,
) -> zb_status {
    run(|| {
        // SAFETY: the rule **Pointers**.
        let data = unsafe { bytes(data, len, "data")? };
        let client = given(client, "client")?.caller()?;
        let timeout = duration(timeout_ns);
        start(done, context, call, |done| {
            let done = |outcome| done.finish(outcome);
            match client {
                Caller::Shared(client) => client.start_call(data, timeout, done),
                Caller::Pool(pool) => pool.start_call(data, timeout, done),
            }
            .map(ControlFlow::Continue)
        })
        .map(drop)
    })
}

/// As `zb_client_call_async`, for callers to whom a few microseconds are no wait. If no other such call is under way,
/// it checks for the response for so long; one that comes at once needs no other thread. Then `response` gets it, and
/// `done` is not called. Otherwise `response` is empty, and all is as with that function. A client with
/// `connections` does not check.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_client_try_call_async(
    client: Option<&zb_client>,
    data: *const u8,
    len: usize,
    timeout_ns: i64,
    done: zb_done,
    context: *mut c_void,
    call: Option<&mut MaybeUninit<u64>>,
    response: Option<&mut MaybeUninit<zb_view>>,
) -> zb_status {
    receive(response, |out| {
        // SAFETY: the rule **Pointers**.
        let data = unsafe { bytes(data, len, "data")? };
        let client = given(client, "client")?.caller()?;
        let timeout = duration(timeout_ns);
        out.write(zb_view::EMPTY);
        let response = start(done, context, call, |done| {
            let done = |outcome| done.finish(outcome);
            match client {
                Caller::Shared(client) => client.try_start_call(data, timeout, done),
                Caller::Pool(pool) => {
                    pool.start_call(data, timeout, done).map(ControlFlow::Continue)
                }
            }
        })?;
        if let Some(response) = response {
            zb_view::put(out, response);
        }
        Ok(())
    })
}

/// As `zb_client_call_async`, but `fill` writes the request of `size` bytes where the server will read it, with
/// `capacity` and `alignment` as for `zb_client_acquire`. It is called with `context` before this returns, or later
/// on a thread of the library; again, if the request is sent on another connection; never once `done` was called.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_client_call_async_with(
    client: Option<&zb_client>,
    size: usize,
    capacity: usize,
    alignment: usize,
    fill: zb_fill,
    timeout_ns: i64,
    done: zb_done,
    context: *mut c_void,
    call: Option<&mut MaybeUninit<u64>>,
) -> zb_status {
    run(|| {
        let client = given(client, "client")?.caller()?;
        let layout = RequestLayout::new().capacity(capacity).alignment(alignment.max(1));
        let (fill, used) = (given(fill, "fill")?, Context(context));
        let fill = move |data: &mut [u8]| {
            let Context(context) = { used };
            // SAFETY: a function of the header's type, with what it was given for.
            unsafe { fill(data.as_mut_ptr(), data.len(), context) };
        };
        start(done, context, call, |done| {
            let (timeout, done) = (duration(timeout_ns), |outcome| done.finish(outcome));
            match client {
                Caller::Shared(client) => client.start_call_with(size, layout, fill, timeout, done),
                Caller::Pool(pool) => pool.start_call_with(size, layout, fill, timeout, done),
            }
            .map(ControlFlow::Continue)
        })
        .map(drop)
    })
}

/// Cancels a call that `zb_client_call_async` has started. True if it was cancelled: `done` gets `ZB_CANCELLED`,
/// before this returns, or soon after if the request is being sent at this moment. False if `done` is being called
/// with something else, or was. The server may be working on the request all the same.
#[unsafe(no_mangle)]
pub extern "C" fn zb_client_cancel_call(client: Option<&zb_client>, call: u64) -> bool {
    run_or(false, || match client.and_then(|client| client.caller().ok()) {
        Some(Caller::Shared(client)) => client.cancel_call(call),
        Some(Caller::Pool(pool)) => pool.cancel_call(call),
        None => false,
    })
}
