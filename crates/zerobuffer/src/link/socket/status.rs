//! Asking a service's workers what they do (docs/protocol-service.md, section 3.6 "Status").

use super::connect::{after, judge, receive};
use super::directory::{Address, NO_SOCKET};
use super::handshake::{Ask, Buffer, Hello, Reply};
use crate::config::Place;
use crate::error::{Error, Medium, Result};
use crate::name::ChannelName;
use crate::sys::{self, Packet, Socket};
use crate::wait::Deadline;

/// More than the text of 100,000 clients.
const MAX_TEXT: u64 = 64 << 20;

/// One entry for each worker that listens: its text, or why there is none.
///
/// # Errors
/// `NotRunning` if none listens; that of a directory that cannot be used.
pub(crate) fn ask_status(
    service: &ChannelName,
    place: &Place,
    deadline: &Deadline,
) -> Result<Vec<Result<String>>> {
    let mut told = Vec::new();
    let mut asked = Vec::new();
    for worker in place.find(service)? {
        match ask(service, place, &worker) {
            Some(Ok(socket)) => asked.push(socket),
            Some(Err(error)) => told.push(Err(error)),
            None => {}
        }
    }
    if asked.is_empty() && told.is_empty() {
        return Err(place.told(service, not_running(service, NO_SOCKET)));
    }
    let end = after(deadline.left());
    while !asked.is_empty() {
        asked.retain(|socket| match receive(socket) {
            Err(errno) if errno.is_not_yet() => true,
            Ok((packet, buffer)) => {
                told.push(read(service, packet, &buffer));
                false
            }
            Err(errno) => {
                told.push(Err(errno.on("ask a server of service", service.as_str())));
                false
            }
        });
        if asked.is_empty() || sys::monotonic_ns() >= end {
            break;
        }
        let sockets: Vec<&Socket> = asked.iter().collect();
        let _ = Socket::wait_for_any(&sockets, end);
    }
    told.extend(asked.iter().map(|_| Err(not_running(service, "its server does not reply"))));
    Ok(told)
}

fn not_running(service: &ChannelName, found: &'static str) -> Error {
    Error::NotRunning { medium: Medium::Service, name: service.to_string(), found }
}

/// `None`: nobody listens there.
fn ask(service: &ChannelName, place: &Place, worker: &Address) -> Option<Result<Socket>> {
    let socket = match worker.connect() {
        Ok(socket) => socket,
        Err(errno) if errno.is_refusal() || errno.is_absence() => return None,
        Err(errno) if errno.is_not_yet() => {
            return Some(Err(not_running(service, "its server accepts no more connections")));
        }
        Err(errno) => {
            return Some(Err(errno.on("ask a server of service", service.as_str())));
        }
    };
    let hello =
        Hello { ask: Ask::Status, ring: 0, metadata: 0, flags: 0, label: "status".to_owned() };
    // If it ends meanwhile, why it refuses may lie there.
    let _ = socket.send(&hello.encode());
    Some(judge(service, place, &socket).map(|()| socket))
}

/// What a worker has sent.
fn read(service: &ChannelName, packet: Packet, buffer: &Buffer) -> Result<String> {
    let violation =
        |field, observed, allowed| Err(Error::ProtocolViolation { field, observed, allowed });
    if packet.len == 0 {
        return Err(not_running(service, "its server has ended the connection"));
    }
    let reply = Reply::decode(buffer, packet.len)?;
    if let Some(refusal) = reply.refusal {
        return Err(reply.error(refusal, service.as_str(), 0));
    }
    let Some(file) = packet.file else {
        return violation("descriptors of the reply", packet.descriptors as u64, 1);
    };
    let failed = |errno: sys::Errno| errno.on("read the status of", service.as_str());
    // The seals first: what is read after them cannot change any more.
    let stat = file.stat().map_err(failed)?;
    if !stat.regular || !file.is_sealed().map_err(failed)? {
        return violation("seals of the status", 0, 1);
    }
    let size = file.stat().map_err(failed)?.size;
    if size != reply.size || size > MAX_TEXT {
        return violation("size of the status", size, reply.size.min(MAX_TEXT));
    }
    let text = file.read(size as usize).map_err(failed)?;
    String::from_utf8(text).or_else(|_| violation("UTF-8 of the status", 0, 1))
}
