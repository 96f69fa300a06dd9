//! Shared memory must be after the tests as it was before.

use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::path::Path;

/// The names in /dev/shm at one moment.
pub(crate) struct Snapshot(BTreeSet<String>);

impl Snapshot {
    pub(crate) fn take() -> Result<Self> {
        let directory = Path::new("/dev/shm");
        let entries = directory.read_dir().context("cannot list /dev/shm")?;
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        Ok(Self(names.collect::<Result<_>>()?))
    }

    /// Fails if there are names of ours that were not there before. Other programs of the machine may
    /// come and go.
    pub(crate) fn check_unchanged(&self) -> Result<()> {
        let left: Vec<String> = Self::take()?.0.difference(&self.0).cloned().collect();
        ensure!(left.is_empty(), "the tests left in /dev/shm: {}", left.join(", "));
        println!("/dev/shm is as before ({} names)", self.0.len());
        Ok(())
    }
}
