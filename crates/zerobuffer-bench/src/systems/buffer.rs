//! Through one buffer of version 1: frames from a writer to a reader, which answers nothing.

use crate::machine::Pinned;
use crate::names::unique_name;
use crate::peer::{Peer, ready_until_told};
use crate::plan::Round;
use crate::timing::per_operation;
use crate::work;
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use zerobuffer::{BufferConfig, Error, v1};

/// The peer's role.
pub(crate) const ROLE: &str = "reader";
/// Bytes of each frame.
const LEN: usize = 1024;
/// For every frame; far beyond what any takes.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What a peer needs to know to be the reader.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ReaderSpec {
    name: String,
    ring: usize,
}

/// The reader's process: checks the number in each frame.
pub(crate) fn serve(spec: &ReaderSpec, cpu: usize) -> Result<()> {
    // Before pinning: the library asks how many CPUs it may use.
    let reader = v1::Reader::create(&spec.name, BufferConfig::new(0, spec.ring))?;
    let _pinned = Pinned::to(cpu)?;
    let closer = reader.closer();
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| read(reader));
        let told = ready_until_told();
        closer.close();
        reading.join().expect("the reading thread does not panic")?;
        told
    })
}

fn read(reader: v1::Reader) -> Result<()> {
    let mut next = 0;
    loop {
        match reader.read_frame(TIMEOUT) {
            Ok(frame) => {
                let number = work::number(frame.data());
                ensure!(frame.len() == LEN && number == Some(next), "frame {next} is {number:?}");
                next += 1;
            }
            Err(Error::Closed | Error::PeerClosed { .. } | Error::PeerDied { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Frames of 1 KiB in a second through a ring of `ring` bytes.
pub(crate) fn frames_per_second(round: &Round, ring: usize) -> Result<f64> {
    let seats = round.seats()?;
    let spec = ReaderSpec { name: unique_name("buffer"), ring };
    let _peer = Peer::start(ROLE, &spec, seats.server)?;
    let config = v1::WriterConfig::new().write_timeout(TIMEOUT);
    let mut writer = v1::Writer::connect_with(&spec.name, TIMEOUT, config)?;
    let _pinned = Pinned::to(seats.client)?;
    let mut frame = [7; LEN];
    let mut next = 0;
    let mut write = |count: u64| -> Result<()> {
        for _ in 0..count {
            work::put_number(&mut frame, next);
            writer.write_frame(&frame)?;
            next += 1;
        }
        Ok(())
    };
    // Once round: from then on the writer is as fast as the reader, and every page has been touched.
    write((ring / LEN) as u64)?;
    Ok(1e9 / per_operation(round.budget, write)?)
}
