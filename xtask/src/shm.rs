//! Shared memory must be after the tests as it was before.

use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

/// The names in /dev/shm at one moment.
pub(crate) struct Snapshot(BTreeSet<String>);

impl Snapshot {
    pub(crate) fn take() -> Result<Self> {
        let directory = Path::new("/dev/shm");
        let entries = directory.read_dir().context("cannot list /dev/shm")?;
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        Ok(Self(names.collect::<Result<_>>()?))
    }

    /// Fails if there are names that were not there before. What other programs of the machine make
    /// meanwhile has some seconds to go.
    pub(crate) fn check_unchanged(&self) -> Result<()> {
        let mut left = self.new_names()?;
        for _ in 0..50 {
            if left.is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(200));
            left.retain(|name| Path::new("/dev/shm").join(name).exists());
        }
        ensure!(left.is_empty(), "the tests left in /dev/shm: {}", left.join(", "));
        println!("/dev/shm is as before ({} names)", self.0.len());
        Ok(())
    }

    fn new_names(&self) -> Result<Vec<String>> {
        Ok(Self::take()?.0.difference(&self.0).cloned().collect())
    }
}
