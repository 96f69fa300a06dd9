//! What a service says of itself and its clients to monitors: text in JSON, whose keys are in
//! docs/protocol-service.md, section 3.6 "Status".

use super::attached::{Attached, Ended};
use super::config::ServiceConfig;
use super::hub::Hub;
use crate::atomics::{AtomicU64, Ordering};
use crate::name::ChannelName;
use crate::server::limit::Limit;
use crate::sys;
use crate::v2::layout::{REQUEST, RESPONSE, UNIT, oieb};
use std::fmt::{Display, Write};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// What the service is, for all of its threads.
#[derive(Debug)]
pub(super) struct About {
    pub(super) name: ChannelName,
    pub(super) config: ServiceConfig,
    pub(super) hub: Arc<Hub>,
    /// Its identity among the servers of that name.
    pub(super) worker: u64,
    /// Bytes that all segments may have together, and those that they have.
    pub(super) max_bytes: u64,
    pub(super) used: Arc<AtomicU64>,
    started_ns: u64,
    started: SystemTime,
}

impl About {
    pub(super) fn new(
        name: ChannelName,
        config: ServiceConfig,
        hub: Arc<Hub>,
        worker: u64,
    ) -> Self {
        let (max_bytes, used) = (config.bytes_in_all(), Arc::default());
        let (started_ns, started) = (sys::monotonic_ns(), SystemTime::now());
        Self { name, config, hub, worker, max_bytes, used, started_ns, started }
    }

    /// Of a client's requests in hand.
    pub(super) fn limit(&self, client: u64) -> Option<Limit> {
        let hub = Arc::downgrade(&self.hub);
        let resume = move || hub.upgrade().iter().for_each(|hub| hub.resume(client));
        self.config.handlers_per_client.map(|most| Limit::new(most as u64, resume))
    }

    /// The service's state as JSON.
    pub(super) fn text(&self) -> String {
        let now = sys::monotonic_ns();
        let (mut ended, clients) = self.hub.survey();
        clients.iter().for_each(|client| ended.add(Ended::of(client)));
        let started = self.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut text = String::new();
        let mut json = Object::begin(&mut text);
        json.number("version", 1);
        json.string("service", self.name.as_str());
        json.string("worker", &format!("{:016x}", self.worker));
        json.number("pid", sys::process_id());
        json.number("started_unix_seconds", started.as_secs());
        json.number("seconds", seconds(now, self.started_ns));
        write_ended(ended, &mut json);
        json.number("segment_bytes", self.used.load(Ordering::Relaxed));
        json.object("limits", |json| self.write_limits(json));
        json.objects("clients", &clients, |json, client| write_client(json, client, now));
        json.end();
        text
    }

    fn write_limits(&self, json: &mut Object<'_>) {
        let config = &self.config;
        json.number("clients", config.max_clients);
        json.number("clients_of_own_user", config.clients_of(sys::effective_uid()));
        json.number("clients_of_another_user", config.clients_of_others());
        json.number("ring_bytes", config.max_ring);
        json.number("segment_bytes", self.max_bytes);
        json.number("handlers", config.workers);
        if let Some(most) = config.handlers_per_client {
            json.number("handlers_of_client", most);
        }
    }
}

fn write_ended(ended: Ended, json: &mut Object<'_>) {
    json.number("done", ended.done);
    json.number("failed", ended.failed);
    json.number("cancelled", ended.cancelled);
}

/// What a client writes into its own segment can be anything, and is bounded here: no program that reads the
/// text gets numbers that cannot be.
fn write_client(json: &mut Object<'_>, client: &Attached, now: u64) {
    let (identity, connection) = (client.identity(), &client.connection);
    let (ring, segment) = (&connection.ring, &connection.segment);
    let size = segment.geometry.payload_size;
    let (in_hand, taken, answered) = (ring.in_hand(), ring.taken(), ring.answered());
    let committed = segment.load(REQUEST + oieb::PAYLOAD_WRITTEN_COUNT);
    let released = segment.load(RESPONSE + oieb::PAYLOAD_READ_COUNT);
    let free = segment.load(REQUEST + oieb::PAYLOAD_FREE_BYTES);
    let frames = size / UNIT;
    json.number("number", identity.number());
    json.string("label", identity.label());
    json.number("pid", identity.pid());
    json.number("uid", identity.uid());
    json.number("gid", identity.gid());
    json.number("seconds", seconds(now, client.since_ns()));
    json.number("ring_bytes", size);
    json.number("ring_bytes_in_use", size - free.min(size));
    json.number("waiting", committed.saturating_sub(taken).min(frames));
    json.number("in_hand", in_hand.min(frames));
    json.number("unreleased", answered.saturating_sub(released).min(frames));
    write_ended(Ended::of(client), json);
}

fn seconds(now: u64, since: u64) -> f64 {
    (now.saturating_sub(since) / 1_000_000) as f64 / 1000.0
}

/// An object of JSON that is being written.
struct Object<'t> {
    text: &'t mut String,
    is_empty: bool,
}

impl<'t> Object<'t> {
    fn begin(text: &'t mut String) -> Self {
        text.push('{');
        Self { text, is_empty: true }
    }

    fn end(self) {
        self.text.push('}');
    }

    fn key(&mut self, key: &str) {
        if !std::mem::take(&mut self.is_empty) {
            self.text.push(',');
        }
        write_string(self.text, key);
        self.text.push(':');
    }

    fn number(&mut self, key: &str, value: impl Display) {
        self.key(key);
        let _ = write!(self.text, "{value}");
    }

    fn string(&mut self, key: &str, value: &str) {
        self.key(key);
        write_string(self.text, value);
    }

    fn object(&mut self, key: &str, write: impl FnOnce(&mut Object<'_>)) {
        self.key(key);
        let mut inner = Object::begin(self.text);
        write(&mut inner);
        inner.end();
    }

    fn objects<T>(&mut self, key: &str, all: &[T], write: impl Fn(&mut Object<'_>, &T)) {
        self.key(key);
        self.text.push('[');
        for (at, one) in all.iter().enumerate() {
            if at > 0 {
                self.text.push(',');
            }
            let mut inner = Object::begin(self.text);
            write(&mut inner, one);
            inner.end();
        }
        self.text.push(']');
    }
}

fn write_string(text: &mut String, value: &str) {
    text.push('"');
    for letter in value.chars() {
        match letter {
            '"' | '\\' => text.extend(['\\', letter]),
            letter if letter.is_control() => {
                let _ = write!(text, "\\u{:04x}", u32::from(letter));
            }
            letter => text.push(letter),
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_and_objects_are_separated() {
        let mut text = String::new();
        let mut json = Object::begin(&mut text);
        json.string("a\"b", "back\\slash \"quoted\"\n\u{1b}\u{85} é");
        json.object("inner", |json| json.number("one", 1));
        json.objects("all", &[1, 2], |json, number| json.number("n", *number));
        json.objects("none", &[0; 0], |_, _| {});
        json.end();
        let expected = concat!(
            r#"{"a\"b":"back\\slash \"quoted\"\u000a\u001b\u0085 é","inner":{"one":1},"#,
            r#""all":[{"n":1},{"n":2}],"none":[]}"#
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn times_have_three_digits() {
        assert_eq!(seconds(1_234_567_890, 0).to_string(), "1.234");
        assert_eq!(seconds(0, 5).to_string(), "0");
    }
}
