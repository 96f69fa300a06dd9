//! The driver notices what is wrong with peers, and nothing that is not.

use serde_json::Value;
use std::process::{Command, Output, Stdio};

const PEER: &str = env!("CARGO_BIN_EXE_interop-peer");

/// Runs the driver on the right peer and a wrong one: those cells of `server` with `client` that are
/// red on each kind of channel, and what was printed.
fn run(wrong: &str, server: &str, client: &str) -> ([Vec<String>; 3], Output) {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("matrix.json");
    let driver = Command::new(env!("CARGO_BIN_EXE_interop-matrix"))
        .args(["--peer", &format!("right={PEER}"), "--count", "3"])
        .args(wrong.split('|'))
        .args(["--server", server, "--client", client, "--json"])
        .arg(&json)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let prefix = format!("zbm{}x", driver.id());
    let output = driver.wait_with_output().unwrap();
    let names = ["/dev/shm", "/tmp"].map(|folder| std::fs::read_dir(folder).unwrap());
    let mut names =
        names.into_iter().flatten().map(|name| name.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.find(|name| name.contains(&prefix)), None, "left in /dev/shm or /tmp");
    let report: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let cells = report["cells"].as_array().unwrap();
    let red = ["in-place", "two-buffers", "service"].map(|channel| {
        let of_channel = cells.iter().filter(|cell| cell["channel"] == channel);
        let red = of_channel.filter(|cell| {
            assert_eq!((&cell["server"], &cell["client"]), (&server.into(), &client.into()));
            cell["ok"] == false
        });
        red.map(|cell| cell["case"].as_str().unwrap().to_owned()).collect()
    });
    assert_eq!(cells.len(), if wrong.contains("--case") { 3 } else { 32 });
    (red, output)
}

/// The red cells of each kind of channel, if the server is a peer that is wrong in this way.
#[track_caller]
fn expect_of_server(wrong: &str, in_place: &[&str], two_buffers: &[&str], said: &str) {
    let peer = format!("--peer|wrong={PEER} --wrong {wrong}");
    check(run(&peer, "wrong", "right"), in_place, two_buffers, said);
}

#[track_caller]
fn check(
    (red, output): ([Vec<String>; 3], Output),
    in_place: &[&str],
    two_buffers: &[&str],
    said: &str,
) {
    let text = String::from_utf8_lossy(&output.stdout);
    // A service has what a channel in place has, and clients at once, which have contents to check.
    let mut service = in_place.to_vec();
    if let Some(at) = in_place.iter().position(|case| *case == "client killed") {
        service.insert(at, "clients at once");
    }
    assert_eq!(red, [in_place, two_buffers, &service], "{text}");
    assert!(text.contains(said), "{said:?} is missing: {text}");
    let failed = in_place.len() + two_buffers.len() + service.len();
    assert!(text.contains(&format!("{failed} failed")), "{text}");
    assert_eq!(output.status.success(), failed == 0, "{output:?}");
}

#[test]
fn right_peers_make_a_green_matrix() {
    check(run("--jobs|2", "right", "right"), &[], &[], "32 passed, 0 failed");
}

#[test]
fn a_wrong_byte_is_noticed_in_every_case_that_looks_at_it() {
    let sizes = ["roundtrips 33", "roundtrips 65536", "roundtrips 6220800"];
    let others = ["failure", "client killed", "restart"];
    let two_buffers = [&sizes[..], &others[..]].concat();
    let mut in_place = two_buffers.clone();
    in_place.insert(4, "out-of-order");
    expect_of_server("byte", &in_place, &two_buffers, "byte Some(32) is wrong");
}

#[test]
fn a_failure_that_is_none_is_noticed() {
    expect_of_server("failure", &["failure"], &["failure"], "instead of a failure: Ok(1)");
}

#[test]
fn metadata_that_does_not_arrive_is_noticed() {
    expect_of_server("metadata", &["metadata"], &[], r#"the server sees """#);
}

#[test]
fn a_server_with_too_few_workers_is_noticed() {
    expect_of_server("order", &["out-of-order"], &[], "came before its turn");
}

#[test]
fn an_object_that_a_server_leaves_is_noticed() {
    expect_of_server("object", &["leftovers"], &["leftovers"], "left behind: /dev/shm/");
}

#[test]
fn a_process_that_a_server_leaves_is_noticed() {
    expect_of_server("process", &["leftovers"], &["leftovers"], "(sleep 60)");
}

#[test]
fn a_server_that_is_never_ready_is_killed_and_named() {
    let peer = format!("--peer|wrong={PEER} --wrong silent|--limit|1|--case|roundtrips 33");
    let red = ["roundtrips 33"];
    let said = r#"the server in wrong did not say "ready" within 1s, and was killed"#;
    check(run(&peer, "wrong", "right"), &red, &red, said);
}

#[test]
fn a_server_that_does_not_stop_is_killed_and_named() {
    let peer = format!("--peer|wrong={PEER} --wrong deaf|--limit|3|--case|restart");
    let said = "the server in wrong did not end within 3s, and was killed";
    check(run(&peer, "wrong", "right"), &["restart"], &["restart"], said);
}

#[test]
fn a_client_that_hangs_is_killed_and_what_it_said_is_shown() {
    let peer = format!("--peer|wrong={PEER} --wrong hang|--limit|1|--case|failure");
    let outcome = run(&peer, "right", "wrong");
    check(outcome, &["failure"], &["failure"], "\n  this client never ends\n");
}

#[test]
fn a_peer_that_is_missing_makes_red_cells() {
    let said = "failure: please install npm";
    let missing = "--missing|lost=please install npm|--case|failure";
    check(run(missing, "lost", "right"), &["failure"], &["failure"], said);
    check(run(missing, "right", "lost"), &["failure"], &["failure"], said);
}
