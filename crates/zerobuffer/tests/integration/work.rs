//! What requests hold and what handlers make of them: everything that can be recomputed.

pub(crate) use zerobuffer_test_support::{Rng, seed};

/// How many times as long the random tests are to run: `ZEROBUFFER_TEST_FACTOR`, or once.
pub(crate) fn factor() -> u32 {
    std::env::var("ZEROBUFFER_TEST_FACTOR").map_or(1, |factor| factor.parse().expect("a number"))
}

/// `len` bytes that depend on `seed` alone.
pub(crate) fn bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut rng = Rng(seed);
    let mut data = vec![0; len];
    for chunk in data.chunks_mut(8) {
        let word = rng.next_word().to_le_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
    data
}

/// f: what the handler of most tests does, in place. Every byte changes by its value, its place and
/// the length, so moved, mixed, stale and half-edited bytes all show.
pub(crate) fn edit(data: &mut [u8]) {
    edit_first(data, data.len());
}

/// As [`edit`], but only the first `part` bytes of it: what a handler leaves that dies at work.
pub(crate) fn edit_first(data: &mut [u8], part: usize) {
    let len = data.len() as u64;
    for (n, chunk) in data[..part].chunks_mut(8).enumerate() {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        let key =
            (n as u64 ^ len << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 0x0101_0101_0101_0101;
        let word = (u64::from_le_bytes(word) ^ key).to_le_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
}

/// A checksum that notices every changed, moved or missing byte of ordinary accidents (FNV-1a on words).
pub(crate) fn checksum(data: &[u8]) -> u64 {
    let mut sum = 0xcbf2_9ce4_8422_2325 ^ data.len() as u64;
    for chunk in data.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        sum = (sum ^ u64::from_le_bytes(word)).wrapping_mul(0x0000_0100_0000_01b3);
        sum ^= sum >> 29;
    }
    sum
}

/// Checks that `answer` is f of the request that `len` and `seed` stand for (I1).
#[track_caller]
pub(crate) fn check(answer: &[u8], len: usize, seed: u64) {
    let mut expected = bytes(len, seed);
    edit(&mut expected);
    assert_eq!(answer.len(), len, "the answer's length");
    assert!(
        checksum(answer) == checksum(&expected) && answer == expected,
        "the answer is not f(request): {len} bytes of seed {seed:#x}, first difference at {:?}",
        answer.iter().zip(&expected).position(|(a, b)| a != b)
    );
}
