//! What monitors are told, and what a clean leaves.

use crate::raw::{Raw, hello};
use crate::scene::{LONG, NAME, Scene, eventually};
use serde_json::Value;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;
use zerobuffer::{Client, ErrorKind, Service};

pub(crate) fn parsed(service: &Service) -> Value {
    serde_json::from_str(&service.status().unwrap()).unwrap()
}

/// The values of these keys.
fn numbers<const N: usize>(of: &Value, keys: [&str; N]) -> [u64; N] {
    keys.map(|key| of[key].as_u64().unwrap_or_else(|| panic!("{key} of {of}")))
}

#[test]
fn a_monitor_learns_what_a_server_and_its_clients_do() {
    let scene = Scene::new();
    let config = scene.service_config().max_clients(10).metadata_size(64);
    let mut service = Service::create(NAME, config).unwrap();
    let config = scene.client_config().label("cam\"era\\\u{1b}é").ring(4096);
    let client = Client::connect_with(NAME, LONG, config).unwrap();
    let sent = [(); 5].map(|()| client.send_request(b"request").unwrap());
    service.receive(LONG).unwrap().respond();
    service.receive(LONG).unwrap().fail("no");
    let held = service.receive(LONG).unwrap().into_owned();
    assert!(client.cancel(sent[4]));

    let status = parsed(&service);
    assert_eq!((&status["version"], &status["service"]), (&1.into(), &NAME.into()));
    assert_eq!(status["worker"].as_str().unwrap().len(), 16);
    assert_eq!(numbers(&status, ["pid", "done", "failed", "cancelled"]), [pid(), 1, 1, 0]);
    assert!(status["started_unix_seconds"].as_u64().unwrap() > 1_700_000_000);
    assert!(status["seconds"].as_f64().unwrap() >= 0.0);
    let limits = ["clients", "clients_of_own_user", "clients_of_another_user", "handlers"];
    assert_eq!(numbers(&status["limits"], limits), [10, 10, 5, 1]);
    let [used, allowed] =
        [&status, &status["limits"]].map(|of| of["segment_bytes"].as_u64().unwrap());
    assert!(used > 4096 && used <= allowed, "{used} of {allowed}");
    let told = &status["clients"][0];
    assert_eq!(told["label"], "cam\"era\\\u{fffd}é");
    assert_eq!(numbers(told, ["pid", "ring_bytes", "ring_bytes_in_use"]), [pid(), 4096, 5 * 64]);
    assert_eq!(numbers(told, ["waiting", "in_hand", "unreleased"]), [2, 1, 2]);
    assert_eq!(numbers(told, ["done", "failed", "cancelled"]), [1, 1, 0]);

    held.respond();
    for sequence in [sent[0], sent[2]] {
        client.receive_response_for(sequence, LONG).unwrap();
    }
    service.receive(LONG).unwrap().respond();
    assert_eq!(service.receive(Duration::ZERO).unwrap_err().kind(), ErrorKind::Timeout);
    let told = &parsed(&service)["clients"][0];
    assert_eq!(numbers(told, ["waiting", "in_hand", "done", "cancelled"]), [0, 0, 3, 1]);
    drop(client);
    assert_eq!(service.receive(Duration::ZERO).unwrap_err().kind(), ErrorKind::Timeout);
    eventually("it is forgotten", || {
        let _ = service.receive(Duration::ZERO);
        service.clients() == 0
    });
    let status = parsed(&service);
    assert_eq!(numbers(&status, ["done", "failed", "cancelled"]), [3, 1, 1], "as before");
    assert_eq!(status["clients"], serde_json::json!([]));
}

fn pid() -> u64 {
    std::process::id().into()
}

#[test]
fn every_server_is_asked_and_one_that_hangs_is_named() {
    let scene = Scene::new();
    let error = scene.servers().status(LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotRunning, "{error}");
    let mut servers = [(); 2].map(|()| scene.peer("role=server"));
    scene.kill(scene.peer("role=server"));
    let client = scene.client();
    let told = scene.servers().status(LONG).unwrap();
    let told = told.into_iter().map(|text| serde_json::from_str::<Value>(&text.unwrap()).unwrap());
    let told: Vec<Value> = told.collect();
    let mut pids: Vec<i64> = told.iter().map(|one| one["pid"].as_i64().unwrap()).collect();
    let mut expected: Vec<i64> = servers.iter().map(|server| server.pid().into()).collect();
    pids.sort_unstable();
    expected.sort_unstable();
    assert_eq!(pids, expected);
    let clients = told.iter().flat_map(|one| one["clients"].as_array().unwrap());
    assert_eq!(clients.count(), 1);
    servers[0].freeze();
    let told = scene.servers().status(Duration::from_millis(200)).unwrap();
    let hangs = |entry: &&zerobuffer::Result<String>| {
        entry.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotRunning)
    };
    assert_eq!((told.len(), told.iter().filter(hangs).count()), (2, 1), "{told:?}");
    servers[0].go_on();
    drop(client);
    servers.iter_mut().for_each(|server| _ = server.ask("stop", "stopped"));
}

#[test]
fn a_status_is_sealed_and_ends_the_connection() {
    let scene = Scene::new();
    let _service = scene.service();
    let mut raw = Raw::connect(&scene);
    let mut ask = hello();
    ask[12] = 2;
    raw.send(&ask);
    let (reply, file) = raw.receive_file();
    let file = file.unwrap();
    assert_eq!((reply.len(), reply[12]), (64, 0), "accepted");
    // SAFETY: the calls take integers, and a byte that can be read.
    let (seals, written) = unsafe {
        let fd = file.as_raw_fd();
        (libc::fcntl(fd, libc::F_GET_SEALS), libc::pwrite(fd, b"x".as_ptr().cast(), 1, 0))
    };
    let wanted = libc::F_SEAL_WRITE | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    assert_eq!((seals & wanted, written), (wanted, -1));
    let size = std::fs::File::from(file).metadata().unwrap().len();
    assert_eq!(reply[16..24], size.to_le_bytes());
    assert_eq!(raw.receive(), b"");
}

#[test]
fn whatever_a_client_writes_of_itself_is_told_within_bounds() {
    let scene = Scene::new();
    let service = scene.service();
    let raw = Raw::attach(&scene);
    for offset in (0..0xb0).step_by(8) {
        raw.write(offset, &[0xfe; 8]);
    }
    let told = &parsed(&service)["clients"][0];
    let keys = ["ring_bytes_in_use", "waiting", "in_hand", "unreleased", "done"];
    assert!(numbers(told, keys).into_iter().all(|number| number <= 1 << 20), "{told}");
}

#[test]
fn a_clean_spares_what_listens_and_removes_what_is_dead() {
    let scene = Scene::new();
    let directory = format!("{}/{NAME}", scene.directory);
    assert!(scene.servers().clean().unwrap(), "there is nothing");
    let mut server = scene.peer("role=server");
    scene.kill(scene.peer("role=server"));
    assert_eq!(scene.sockets().len(), 2);
    assert!(!scene.servers().clean().unwrap());
    assert_eq!(scene.sockets().len(), 1, "that of the one that listens");
    let mut client = scene.client();
    assert_eq!(client.call(&1_u64.to_le_bytes(), LONG).unwrap().data(), 2_u64.to_le_bytes());
    drop(client);
    server.ask("stop", "stopped");
    assert!(Path::new(&directory).exists());
    assert!(scene.servers().clean().unwrap());
    assert!(!Path::new(&directory).exists());
    let mut again = scene.peer("role=server");
    again.ask("stop", "stopped");
}
