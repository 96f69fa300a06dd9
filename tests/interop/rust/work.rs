//! What servers do to requests, and what clients expect of them.

use anyhow::{Result, ensure};

/// Rounds after which contents come again.
const ROUNDS: usize = 4096;

/// Byte 0 becomes `t`, every other byte b becomes 255 − b.
pub(crate) fn transform(data: &mut [u8]) {
    if let Some((first, rest)) = data.split_first_mut() {
        *first = b't';
        rest.iter_mut().for_each(|byte| *byte = !*byte);
    }
}

/// Requests of one size, and their answers: windows of the same bytes, each a byte further on.
pub(crate) struct Contents {
    size: usize,
    sent: Vec<u8>,
    answered: Vec<u8>,
}

impl Contents {
    pub(crate) fn new(size: usize) -> Self {
        let mut sent = vec![0; size + ROUNDS];
        fastrand::fill(&mut sent);
        let answered = sent.iter().map(|byte| !byte).collect();
        Self { size, sent, answered }
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Writes the request of a round.
    pub(crate) fn fill(&self, op: u8, round: usize, request: &mut [u8]) {
        let start = round % ROUNDS;
        request.copy_from_slice(&self.sent[start..start + self.size]);
        request[0] = op;
    }

    /// Looks at every byte of the answer to a round.
    pub(crate) fn check(&self, round: usize, answer: &[u8]) -> Result<()> {
        let start = round % ROUNDS;
        let expected = &self.answered[start..start + self.size];
        ensure!(answer.len() == self.size, "{} bytes instead of {}", answer.len(), self.size);
        ensure!(answer[0] == b't', "byte 0 is {} instead of 't'", answer[0]);
        if answer[1..] != expected[1..] {
            let wrong = (1..self.size).find(|&index| answer[index] != expected[index]);
            anyhow::bail!("round {round}: byte {wrong:?} is wrong");
        }
        Ok(())
    }
}
