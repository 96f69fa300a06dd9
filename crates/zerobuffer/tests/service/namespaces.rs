//! Processes that share a directory, and neither process ids nor `/dev/shm`.

use crate::peer;
use crate::scene::{LONG, NAME, Scene};
use std::process::Command;
use zerobuffer::{Client, ErrorKind};
use zerobuffer_test_support::{Peer, not_run};

/// More than the `/dev/shm` of either side has.
const RING: usize = 256 << 20;

/// What follows runs in pid, mount and IPC namespaces of its own, with a `/dev/shm` of 64 MiB.
fn isolated() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--pid", "--ipc", "--mount", "--propagation", "private"]);
    command.args(["--fork", "--kill-child", "--mount-proc", "sh", "-c"]);
    command.arg("mount -t tmpfs -o size=64m none /dev/shm && \"$0\"; exit $?");
    command
}

fn isolated_peer(scene: &Scene, description: &str) -> Peer {
    let description = format!("directory={} {description}", scene.directory);
    let mut command = isolated();
    command.arg(std::env::current_exe().expect("a path")).env(peer::VARIABLE, description);
    let mut peer = Peer::spawn(&mut command);
    peer.expect("ready");
    peer
}

#[test]
fn a_ring_larger_than_dev_shm_works_across_namespaces_and_a_death_is_noticed() {
    let output = isolated().arg("true").output();
    match output {
        Ok(output) if output.status.success() => {}
        Ok(output) => return not_run("namespaces", String::from_utf8_lossy(&output.stderr).trim()),
        Err(error) => return not_run("namespaces", &format!("unshare: {error}")),
    }
    let scene = Scene::new();
    let mut server = isolated_peer(&scene, "role=server");
    let mut caller = isolated_peer(&scene, "role=client");
    caller.expect("under way");
    let config = scene.client_config().ring(RING);
    let mut client = Client::connect_with(NAME, LONG, config).unwrap();
    let mut large = vec![7; RING / 2];
    large[..8].copy_from_slice(&41_u64.to_le_bytes());
    let response = client.call(&large, LONG).unwrap();
    large[..8].copy_from_slice(&42_u64.to_le_bytes());
    assert!(response.data() == large, "edited where it lies");
    drop(response);
    let done = caller.ask("stop", "done ");
    assert!(done.ends_with("in doubt 0"), "{done}");
    let sequence = client.send_request(peer::STAY).unwrap();
    server.expect("staying");
    scene.kill(server);
    let error = client.receive_response_for(sequence, LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PeerDied);
}
