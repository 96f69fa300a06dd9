//! **Another process edits your data in place.** A client writes a request into a ring in shared
//! memory, a server in another process modifies it where it lies, and the client reads the response at
//! the same address: no second buffer, no copy.
//!
//! ```
//! use std::time::Duration;
//! use zerobuffer::{BufferConfig, Client, Frame, Server};
//!
//! // One process serves. 1 MiB of ring, which requests and responses share.
//! let name = format!("doc-lib-{}", std::process::id());
//! let mut server = Server::create(&name, BufferConfig::new(0, 1 << 20))?;
//! server.start(|frame: &mut Frame| {
//!     for byte in frame.data_mut() {
//!         *byte = 255 - *byte;
//!     }
//! })?;
//!
//! // Another one calls.
//! let mut client = Client::connect(&name, Duration::from_secs(5))?;
//! let response = client.call(&[0, 100, 255], Duration::from_secs(1))?;
//! assert_eq!(response.data(), [255, 155, 0]);
//! # Ok::<(), zerobuffer::Error>(())
//! ```
//!
//! # Typed records
//!
//! Requests and responses are bytes. Their start is a multiple of 32 from the start of a page, so plain
//! old data can be used where it lies, for example with `bytemuck`:
//!
//! ```
//! # use std::time::Duration;
//! # use zerobuffer::{BufferConfig, Client, Frame, Server};
//! #[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
//! #[repr(C)]
//! struct Sample {
//!     time_ns: u64,
//!     value: f64,
//! }
//!
//! # let name = format!("doc-records-{}", std::process::id());
//! let mut server = Server::create(&name, BufferConfig::new(0, 1 << 16))?;
//! server.start(|frame: &mut Frame| match bytemuck::try_cast_slice_mut(frame.data_mut()) {
//!     Ok(samples) => {
//!         samples.iter_mut().for_each(|sample: &mut Sample| sample.value *= 0.5);
//!         Ok(())
//!     }
//!     Err(error) => Err(format!("not whole samples: {error}")), // the client gets this message
//! })?;
//!
//! let mut client = Client::connect(&name, Duration::from_secs(5))?;
//! let sent = [Sample { time_ns: 1, value: 3.0 }, Sample { time_ns: 2, value: 5.0 }];
//! let response = client.call(bytemuck::cast_slice(&sent), Duration::from_secs(1))?;
//! let halved: &[Sample] = bytemuck::cast_slice(response.data());
//! assert_eq!((halved[0].value, halved[1].value), (1.5, 2.5));
//! # Ok::<(), zerobuffer::Error>(())
//! ```
//!
//! What has no fixed form is written by `serde` into the request's own bytes, and a response that is
//! longer than its request needs room from the start:
//!
//! ```
//! # use std::time::Duration;
//! # use zerobuffer::{BufferConfig, Client, Frame, RequestLayout, Server};
//! #[derive(serde::Serialize, serde::Deserialize)]
//! struct Job {
//!     words: Vec<String>,
//! }
//!
//! # let name = format!("doc-serde-{}", std::process::id());
//! let mut server = Server::create(&name, BufferConfig::new(0, 1 << 16))?;
//! server.start(|frame: &mut Frame| {
//!     let mut job: Job = serde_json::from_slice(frame.data()).map_err(|error| error.to_string())?;
//!     job.words.push("done".to_owned());
//!     let reply = serde_json::to_vec(&job).map_err(|error| error.to_string())?;
//!     frame.resize(reply.len()).map_err(|error| error.to_string())?;
//!     frame.data_mut().copy_from_slice(&reply);
//!     Ok::<(), String>(())
//! })?;
//!
//! let client = Client::connect(&name, Duration::from_secs(5))?;
//! let job = serde_json::to_vec(&Job { words: vec!["one".to_owned()] })?;
//! let layout = RequestLayout::new().capacity(1024); // for the response
//! let mut request = client.acquire_request_buffer_with(job.len(), layout)?;
//! request.data_mut().copy_from_slice(&job);
//! let sequence = request.commit()?;
//! let response = client.receive_response_for(sequence, Duration::from_secs(1))?;
//! let job: Job = serde_json::from_slice(response.data())?;
//! assert_eq!(job.words, ["one", "done"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Many clients, many servers, many calls
//!
//! | for | use |
//! |---|---|
//! | any number of clients, or several server processes | [`Service`]; clients find it with [`Client::connect`] |
//! | many threads of one process | [`SharedClient`], by [`Client::into_shared`] |
//! | many calls that no thread waits for | [`SharedClient::call_async`], a future for any executor; `examples/tokio_calls.rs` |
//! | the same without any thread of the library | with tokio `tokio::Client`, which needs the feature `tokio`; in an event loop of your own [`EventLoopClient`] |
//! | handlers that await | [`Server::start_async`], [`Service::start_async`] |
//! | a server that is restarted | [`ClientConfig::resend_not_started`] |
//!
//! # What it guarantees, with a conforming peer
//!
//! - No call outlives its deadline by more than a few milliseconds.
//! - Every response is the response to its own request, whole, or a typed [`Error`].
//! - The peer's death is noticed within milliseconds, however it died and in whatever namespace (at once
//!   in the same one: a client that has waited for 10 ms starts a thread for that, which takes no
//!   signals and ends with the connection), and comes with what is known of each request: [`RequestState::NotStarted`] may be sent again,
//!   [`RequestState::InDoubt`] may be half-edited and is never handed out as a response.
//! - A restart needs no cleaning by hand, and nothing that belongs to another channel or user is
//!   touched.
//!
//! # What it refuses
//!
//! One server and one client for each channel; several threads on each side, not several processes. A
//! [`Service`] has any number of both. No network, no other machine. A request never moves, so its response has room only where it lies: ask
//! for more with [`RequestLayout::capacity`] if answers can be longer than requests.
//!
//! # How a request travels
//!
//! ```text
//! client claim → fill → commit → [ring] → server take → edit in place → answer → [ring]
//!        → client collect → read → release
//! ```
//!
//! [`Client::acquire_request_buffer`] claims, [`RequestBuffer::commit`] commits;
//! [`Server::start`] or [`Server::receive`] takes, and answers when the handler returns or on
//! [`Request::respond`]; [`Client::receive_response`] collects, and dropping the [`Response`] releases.
//! Each guard is one state of the slot: what you hold is yours, and yours alone.
//!
//! # Trust
//!
//! Slices of shared memory are handed out as ordinary `&[u8]` and `&mut [u8]`, because the protocol
//! gives their holder exclusive ownership, and because by default only programs of the same user can
//! open the segment. That is sound with a conforming peer.
//!
//! With any peer: every word that the peer can write is read once into a local, checked, and then used;
//! the first one that breaks a rule poisons the channel with [`Error::ProtocolViolation`]. A peer can
//! not make this library access memory outside of the segment, loop for ever, or pair a response with
//! another request. What shared memory cannot prevent: a peer with write access can change data while
//! you read it, cut the file short (which raises SIGBUS), and burn CPU time. Share a segment more
//! widely ([`ServerConfig::mode`], [`ClientConfig::owner`]) only with programs that you trust.
//!
//! # After a fork
//!
//! Handles belong to the process that made them. In a forked child every call fails with
//! [`Error::WrongProcess`], slices are empty, and dropping a handle touches nothing; a slice that was
//! borrowed before the fork must not be used, since the child does not have the mapping.
//!
//! # Platforms
//!
//! Linux with glibc on 64-bit little-endian machines. Elsewhere the crate compiles, and
//! every way in fails with [`Error::Unsupported`].
#![deny(unsafe_code)]
// Tests may be cancelled.
#![cfg_attr(test, allow(clippy::disallowed_methods))]
// Under loom only the algorithm is built; what serves the rest lies idle.
#![cfg_attr(loom, allow(dead_code, unused_imports))]

mod atomics;
#[cfg(not(loom))]
mod client;
#[cfg(not(loom))]
mod closer;
#[cfg(not(loom))]
mod config;
/// The part of the client that is modelled.
#[cfg(loom)]
#[path = "client/current.rs"]
mod current;
#[cfg(not(loom))]
mod debug;
mod error;
#[cfg(not(loom))]
mod factory;
mod failpoint;
#[cfg(all(feature = "faults", not(loom)))]
#[doc(hidden)]
pub mod faults;
#[cfg(not(loom))]
mod handler;
/// The parts of a service that are modelled.
#[cfg(loom)]
#[path = "server/limit.rs"]
mod limit;
#[cfg(not(loom))]
mod link;
#[cfg(not(loom))]
pub mod memory;
#[cfg(not(loom))]
mod name;
#[cfg(not(loom))]
mod object;
#[cfg(loom)]
#[path = "server/service/queue.rs"]
mod queue;
#[cfg(not(loom))]
mod ready_threads;
#[cfg(not(loom))]
mod seats;
#[cfg(not(loom))]
mod server;
mod sys;
mod tenure;
#[cfg(all(feature = "tokio", unix, not(loom)))]
pub mod tokio;
#[cfg(not(loom))]
mod trace;
#[cfg(not(loom))]
pub mod v1;
mod v2;
mod wait;

#[cfg(not(loom))]
pub use client::{
    CallFuture, CallHandle, Client, EventLoopClient, OwnedRequestBuffer, OwnedResponse, Pool,
    Reconnected, RequestBuffer, RequestLayout, Response, SharedClient,
};
#[cfg(not(loom))]
pub use closer::Closer;
#[cfg(not(loom))]
pub use config::{BufferConfig, ChannelKind, ClientConfig, ServerConfig};
pub use error::{Error, ErrorKind, LostRequest, Medium, RequestState, Result};
/// For this library's own fault tests; see the feature of that name.
#[cfg(all(feature = "failpoints", not(loom)))]
#[doc(hidden)]
pub mod failpoints {
    pub use crate::failpoint::{arm, is_armed};
}
#[cfg(not(loom))]
pub use factory::DuplexChannelFactory;
#[cfg(not(loom))]
pub use handler::HandlerOutcome;
#[cfg(not(loom))]
pub use name::{ChannelName, MAX_NAME_LEN};
#[cfg(not(loom))]
pub use server::{
    ClientIdentity, Frame, OwnedRequest, Request, Server, Servers, Service, ServiceConfig,
};
#[cfg(not(loom))]
pub use sys::Pages;
pub use wait::WaitStrategy;

/// The example of the project's first page.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
