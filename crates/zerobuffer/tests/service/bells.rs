//! A server whose bells are none: what its client makes of them.

use crate::peer::STAY;
use crate::scene::{LONG, Scene, eventually};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use zerobuffer::{ErrorKind, RequestState, WaitStrategy};

/// The server's end of its only connection, beside the server. `None`: the system does not allow it.
fn stolen(pid: i32) -> Option<OwnedFd> {
    let links = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let sockets = links.filter(|entry| {
        std::fs::read_link(entry.path())
            .is_ok_and(|link| link.to_string_lossy().starts_with("socket:"))
    });
    let fds: Vec<i32> =
        sockets.map(|entry| entry.file_name().to_str().unwrap().parse().unwrap()).collect();
    // SAFETY: the calls take integers; what they make is this test's own.
    let own = unsafe {
        let process = libc::syscall(libc::SYS_pidfd_open, pid, 0) as i32;
        assert!(process >= 0);
        let process = OwnedFd::from_raw_fd(process);
        fds.into_iter()
            .map(|fd| {
                let own = libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), fd, 0) as i32;
                (own >= 0).then(|| OwnedFd::from_raw_fd(own))
            })
            .collect::<Option<Vec<_>>>()?
    };
    own.into_iter().find(|socket| {
        let (mut is_listening, mut size) = (0_i32, 4);
        // SAFETY: four bytes that can be written.
        let asked = unsafe {
            let value = (&raw mut is_listening).cast();
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ACCEPTCONN,
                value,
                &mut size,
            )
        };
        asked == 0 && is_listening == 0
    })
}

fn send(socket: &OwnedFd, messages: &[&[u8]]) {
    for message in messages {
        // SAFETY: the bytes can be read.
        unsafe {
            let (data, len) = (message.as_ptr().cast(), message.len());
            libc::send(socket.as_raw_fd(), data, len, libc::MSG_NOSIGNAL);
        }
    }
}

#[test]
fn bad_bells_of_a_server_are_a_violation_and_no_death() {
    for messages in [&[&b"two"[..]][..], &[b"1", b"1", b"1"]] {
        let scene = Scene::new();
        let mut server = scene.peer("role=server");
        let config = scene.client_config().wait(WaitStrategy::Park);
        let client = zerobuffer::Client::connect_with(crate::scene::NAME, LONG, config).unwrap();
        let sequence = client.send_request(STAY).unwrap();
        server.expect("staying");
        let Some(socket) = stolen(server.pid()) else {
            return zerobuffer_test_support::not_run("bad bells", "pidfd_getfd is not allowed");
        };
        send(&socket, messages);
        let error = client.receive_response_for(sequence, LONG).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ProtocolViolation, "{messages:?}: {error}");
        let error = client.send_request(b"more").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ProtocolViolation, "{error}");
        assert!(!client.is_server_connected());
        drop(socket);
        server.expect("cancelled");
        eventually("it is forgotten", || server.ask("clients", "clients") == "0");
        drop(client);
        server.ask("stop", "stopped");
    }
}

/// Its server lives, and may take anything yet; what it says of what it has taken is not to be trusted.
#[test]
fn what_was_sent_before_a_bad_bell_is_in_doubt_and_not_sent_again() {
    let scene = Scene::new();
    let mut server = scene.peer("role=server");
    let config = scene.client_config().wait(WaitStrategy::Park).resend_not_started(true);
    let mut client = zerobuffer::Client::connect_with(crate::scene::NAME, LONG, config).unwrap();
    let taken = client.send_request(STAY).unwrap();
    server.expect("staying");
    let waits = client.send_request(&1_u64.to_le_bytes()).unwrap();
    let Some(socket) = stolen(server.pid()) else {
        return zerobuffer_test_support::not_run("bad bells", "pidfd_getfd is not allowed");
    };
    send(&socket, &[b"two"]);
    let error = client.receive_response_for(taken, LONG).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ProtocolViolation);
    let report = client.reconnect(LONG).unwrap();
    let in_doubt = |sequence| zerobuffer::LostRequest { sequence, state: RequestState::InDoubt };
    assert_eq!(report.lost, [in_doubt(taken), in_doubt(waits)]);
    assert_eq!(report.resent, []);
    drop((socket, client));
    server.expect("cancelled");
    server.ask("stop", "stopped");
}
