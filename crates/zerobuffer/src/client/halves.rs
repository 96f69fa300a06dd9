//! A client's two halves, for two threads.

use super::channel::ClientChannel;
use super::number::Number;
use super::{RequestBuffer, RequestLayout, Response, acquire, receive_for, receive_next, send};
use crate::debug::debug_line;
use crate::error::Result;
use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

pub(super) fn split(
    channel: &Arc<ClientChannel>,
    send_timeout: Duration,
) -> (RequestSender<'_>, ResponseReceiver<'_>) {
    let sender = RequestSender { channel, send_timeout, not_sync: PhantomData };
    (sender, ResponseReceiver { channel, not_sync: PhantomData })
}

/// The half of a [`Client`](super::Client) that sends; see [`Client::split`](super::Client::split).
pub struct RequestSender<'c> {
    channel: &'c Arc<ClientChannel>,
    send_timeout: Duration,
    not_sync: PhantomData<Cell<()>>,
}

debug_line!(RequestSender<'_>, "RequestSender", |sender|
    name: sender.channel.segment.name.as_str()
);

impl RequestSender<'_> {
    /// As [`Client::send_request`](super::Client::send_request).
    ///
    /// # Errors
    /// The same.
    pub fn send_request(&self, data: &[u8]) -> Result<u64> {
        send(self.channel, data, self.send_timeout).map(Number::for_caller)
    }

    /// As [`Client::acquire_request_buffer`](super::Client::acquire_request_buffer).
    ///
    /// # Errors
    /// The same.
    pub fn acquire_request_buffer(&self, size: usize) -> Result<RequestBuffer<'_>> {
        self.acquire_request_buffer_with(size, RequestLayout::default())
    }

    /// As [`Client::acquire_request_buffer_with`](super::Client::acquire_request_buffer_with).
    ///
    /// # Errors
    /// The same.
    pub fn acquire_request_buffer_with(
        &self,
        size: usize,
        layout: RequestLayout,
    ) -> Result<RequestBuffer<'_>> {
        acquire(self.channel, size, layout, self.send_timeout)
    }
}

/// The half of a [`Client`](super::Client) that receives; see [`Client::split`](super::Client::split).
pub struct ResponseReceiver<'c> {
    channel: &'c Arc<ClientChannel>,
    not_sync: PhantomData<Cell<()>>,
}

debug_line!(ResponseReceiver<'_>, "ResponseReceiver", |receiver|
    name: receiver.channel.segment.name.as_str()
);

impl ResponseReceiver<'_> {
    /// As [`Client::receive_response`](super::Client::receive_response).
    ///
    /// # Errors
    /// The same.
    pub fn receive_response(&self, timeout: Duration) -> Result<Response<'_>> {
        receive_next(self.channel, timeout)
    }

    /// As [`Client::receive_response_for`](super::Client::receive_response_for).
    ///
    /// # Errors
    /// The same.
    pub fn receive_response_for(&self, sequence: u64, timeout: Duration) -> Result<Response<'_>> {
        receive_for(self.channel, Number::of_caller(sequence), timeout)
    }

    /// As [`Client::cancel`](super::Client::cancel).
    pub fn cancel(&self, sequence: u64) -> bool {
        self.channel.cancel(Number::of_caller(sequence))
    }
}
