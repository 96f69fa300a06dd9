//! What the other process can be: each role by its name.

use crate::limits;
use crate::peer::Assignment;
#[cfg(feature = "iceoryx2")]
use crate::systems::iceoryx;
use crate::systems::{buffer, growth, in_place, service, streams, two_buffers, zeromq};
use anyhow::{Result, bail};

/// The peer's own main function.
pub(crate) fn run(assignment: &str) -> Result<()> {
    let told = Assignment::parse(assignment)?;
    match told.role.as_str() {
        limits::LINE => limits::serve_line(told.spec()?, told.cpu),
        limits::SEMAPHORES => limits::serve_semaphores(told.spec()?, told.cpu),
        in_place::ROLE => in_place::serve(&told.spec()?, told.cpu),
        service::ROLE => service::serve(&told.spec()?, told.cpu),
        two_buffers::ROLE => two_buffers::serve(&told.spec()?, told.cpu),
        #[cfg(feature = "iceoryx2")]
        iceoryx::ROLE => iceoryx::serve(&told.spec()?, told.cpu),
        streams::SOCKET => streams::serve_socket(told.spec()?, told.cpu),
        streams::PIPES => streams::serve_pipes(told.spec()?, told.cpu),
        buffer::ROLE => buffer::serve(&told.spec()?, told.cpu),
        zeromq::ROLE => zeromq::serve(&told.spec()?, told.cpu),
        growth::ROLE => growth::serve(&told.spec()?, told.cpu),
        other => bail!("no peer has the role {other}"),
    }
}
