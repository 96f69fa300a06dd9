//! A channel that nobody touches: its objects must stay the very same, and it must be served, whatever
//! happens to its neighbours.

use crate::lane::common_name;
use crate::report::Report;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;
use zerobuffer::{BufferConfig, Client, Frame, Server};

const PATIENCE: Duration = Duration::from_secs(20);

/// Uses the channel now and then until the run is over.
pub(crate) fn watch(report: &Report) {
    // The name of a lane's channel is a part of it.
    let name = format!("{}l0-next", common_name());
    if let Err(error) = use_channel(&name, report) {
        report.violation(&format!("the bystander: {error:?}"));
    }
}

fn use_channel(name: &str, report: &Report) -> zerobuffer::Result<()> {
    let mut server = Server::create(name, BufferConfig::new(64, 4096))?;
    server.start(|frame: &mut Frame<'_>| frame.data_mut().reverse())?;
    let mut client = Client::connect(name, PATIENCE)?;
    let objects = objects(name);
    while !report.is_finished() {
        let answer = client.call(b"stressed", PATIENCE)?;
        if answer.data() != b"desserts" {
            report.violation("the bystander's answer is wrong");
        }
        drop(answer);
        std::thread::sleep(Duration::from_millis(50));
    }
    let now = self::objects(name);
    if objects != now || objects.len() != 5 {
        report.violation(&format!("the bystander's objects were {objects:?} and are {now:?}"));
    }
    drop(client);
    server.stop()
}

/// Path, inode, mode, owner and size of each of a channel's objects.
fn objects(name: &str) -> Vec<(PathBuf, u64, u32, u32, u64)> {
    let mut objects: Vec<_> = crate::objects::names(name)
        .into_iter()
        .filter_map(|file| {
            let path = PathBuf::from("/dev/shm").join(file);
            let found = path.metadata().ok()?;
            Some((path, found.ino(), found.mode(), found.uid(), found.size()))
        })
        .collect();
    objects.sort();
    objects
}
