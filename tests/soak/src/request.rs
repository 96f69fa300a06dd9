//! What is sent, what a handler makes of it, and how to tell whether a response is right.

use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64;

/// Bytes before the body.
pub(crate) const HEAD: usize = 48;

/// What the handler does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Op {
    Edit = 1,
    /// Fails with a message that names the request.
    Fail = 2,
    Panic = 3,
}

/// A request, as its client remembers it: enough to recompute request and answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    /// Which client, and its how many-eth request: unique, and 48 bits long.
    pub(crate) id: u64,
    pub(crate) op: Op,
    /// How long the handler sleeps in the middle of its work.
    pub(crate) pause: Duration,
    /// Where the body comes from.
    key: u64,
    pub(crate) len: usize,
}

// Words of the head.
const ID: usize = 0;
const OP: usize = 1;
const PAUSE: usize = 2;
const SUM: usize = 3;
const LIFE: usize = 4;
const PROOF: usize = 5;

fn word(data: &[u8], index: usize) -> u64 {
    data[index * 8..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn set_word(data: &mut [u8], index: usize, value: u64) {
    data[index * 8..index * 8 + 8].copy_from_slice(&value.to_le_bytes());
}

impl Sent {
    /// A request of `len` bytes, its head among them.
    pub(crate) fn new(
        id: u64,
        op: Op,
        pause: Duration,
        len: usize,
        rng: &mut fastrand::Rng,
    ) -> Self {
        Self { id, op, pause, key: rng.u64(..), len: len.max(HEAD) }
    }

    /// Writes the request.
    pub(crate) fn write(&self, data: &mut [u8]) {
        let (head, body) = data.split_at_mut(HEAD);
        fastrand::Rng::with_seed(self.key).fill(body);
        let words = [self.id, self.op as u64, self.pause.as_micros() as u64, xxh3_64(body), 0, 0];
        for (index, value) in words.into_iter().enumerate() {
            set_word(head, index, value);
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut data = vec![0; self.len];
        self.write(&mut data);
        data
    }

    /// What is wrong with `answer`; otherwise the number of the server that gave it.
    pub(crate) fn check(&self, answer: &[u8]) -> Result<u64, String> {
        if answer.len() != self.len {
            return Err(format!("{} bytes instead of {}", answer.len(), self.len));
        }
        let mut expected = self.bytes();
        edit(&mut expected[HEAD..], 0);
        let (head, body) = answer.split_at(HEAD);
        if word(head, ID) != self.id {
            return Err(format!("the answer to request {:#x}", word(head, ID)));
        }
        if let Some(at) = body.iter().zip(&expected[HEAD..]).position(|(a, b)| a != b) {
            return Err(format!("byte {at} of {} is wrong", body.len()));
        }
        match word(head, PROOF) == proof(self.id, body) {
            true => Ok(word(head, LIFE)),
            false => Err("whole, but without the handler's proof".to_owned()),
        }
    }
}

/// What a handler finds in a frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order {
    pub(crate) id: u64,
    pub(crate) op: Option<Op>,
    pub(crate) pause: Duration,
}

/// Reads a request and checks that it is whole.
pub(crate) fn read(data: &[u8]) -> Result<Order, String> {
    if data.len() < HEAD {
        return Err(format!("a request of {} bytes", data.len()));
    }
    let (head, body) = data.split_at(HEAD);
    let id = word(head, ID);
    if word(head, SUM) != xxh3_64(body) {
        return Err(format!("request {id:#x} of {} bytes is not what was sent", data.len()));
    }
    let ops = [Op::Edit, Op::Fail, Op::Panic];
    let op = ops.into_iter().find(|op| *op as u64 == word(head, OP));
    Ok(Order { id, op, pause: Duration::from_micros(word(head, PAUSE)) })
}

/// The handler's work, with a pause in the middle.
pub(crate) fn work(data: &mut [u8], order: Order, life: u64) {
    let (head, body) = data.split_at_mut(HEAD);
    let middle = body.len() / 2;
    edit(&mut body[..middle], 0);
    if !order.pause.is_zero() {
        std::thread::sleep(order.pause);
    }
    edit(&mut body[middle..], middle);
    set_word(head, LIFE, life);
    set_word(head, PROOF, proof(order.id, body));
}

/// Changes every byte, by its value and its place; `start` is the place of the first one.
fn edit(part: &mut [u8], start: usize) {
    for (n, byte) in part.iter_mut().enumerate() {
        let place = start + n;
        *byte = byte.rotate_left(3) ^ (place ^ place >> 8 ^ 0x5a) as u8;
    }
}

fn proof(id: u64, body: &[u8]) -> u64 {
    xxh3_64(body) ^ id.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The message of a handler that fails.
pub(crate) fn refusal(id: u64) -> String {
    format!("refused {id:#x}")
}
