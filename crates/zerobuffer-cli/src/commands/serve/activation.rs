//! A listening socket that somebody else has made: systemd, or the program that starts this one.

use crate::args::ServeArgs;
use crate::commands::serving::Kind;
use crate::failure::Failure;
use std::os::fd::RawFd;

/// Where systemd's descriptors begin, see sd_listen_fds(3).
const FIRST: RawFd = 3;

/// The socket to serve: the one that was named, else the one that systemd has handed over to this process.
pub(super) fn listener(args: &ServeArgs) -> Result<Option<RawFd>, Failure> {
    if args.service.listener.is_some() {
        return Ok(args.service.listener);
    }
    let number = |name| std::env::var(name).ok()?.parse::<u32>().ok();
    // The variables outlive fork and exec, and say whom they are for.
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Ok(None);
    }
    match number("LISTEN_FDS") {
        None | Some(0) => Ok(None),
        Some(1) if Kind::of(args) == Kind::Service => Ok(Some(FIRST)),
        Some(1) => Err(Failure::usage("systemd has handed over a socket, and a channel has none")
            .hint("leave out --channel and --two-buffers, or start the unit without its socket")),
        Some(sockets) => Err(Failure::usage(format!(
            "systemd has handed over {sockets} sockets, and a server of a service has one"
        ))
        .hint("one ListenSequentialPacket= in the socket's unit")),
    }
}
