//! The demo from end to end, and every way in which it can be interrupted.

use crate::call::sides;
use crate::reference::{blurred, redacted};
use crate::support::{
    Ended, Folder, RUNTIME, directory_of, in_shm, kill, run, sockets, until, wait, zerobuffer,
};
use std::process::Child;

/// The channel of a demo that ran as process `pid`.
fn channel_of(pid: u64) -> String {
    format!("zerobuffer-demo-{pid}")
}

/// Checks that a demo has left nothing, not even a directory.
fn left_nothing(name: &str) {
    assert_eq!(in_shm(name), [""; 0]);
    assert!(!std::fs::exists(directory_of(name)).unwrap());
}

/// Runs a demo, and checks that it left nothing.
fn demo(args: &[&str]) -> Ended {
    let child = zerobuffer(&[&["demo"], args].concat()).spawn().unwrap();
    let name = channel_of(child.id().into());
    let ended: Ended = child.wait_with_output().unwrap().into();
    left_nothing(&name);
    ended
}

#[test]
fn the_demo_writes_the_picture_and_its_answer() {
    let folder = Folder::new();
    let out = folder.path("deep/er");
    let ended = demo(&["--size", "150x90", "--frames", "20", "--out", &out, "--json"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let said = ended.json();
    for (key, value) in [
        ("frames", 20),
        ("right_answers", 20),
        ("wrong_answers", 0),
        ("width", 150),
        ("height", 90),
        ("channels", 3),
        ("frame_bytes", 40_500),
        // The control part, the ring up to a page, and the page of the doorbells.
        ("segment_bytes", 4096 + 40_960 + 4096),
        // Headers, the metadata of the requests, and two rings.
        ("two_buffers_bytes", 2 * 128 + 64 + 2 * 40_576),
        ("bytes_copied", 0),
        ("two_buffers_bytes_copied", 20 * 40_500),
        ("bytes_written_by_client", 20 * 40_500),
    ] {
        assert_eq!(said[key], value, "{key}");
    }
    assert_eq!(said["ok"], true);
    let two_buffers = &said["two_buffers"];
    for (key, value) in [
        ("right_answers", 20),
        ("wrong_answers", 0),
        ("segment_bytes", 2 * 128 + 64 + 2 * 40_576),
        ("bytes_copied", 20 * 40_500),
    ] {
        assert_eq!(two_buffers[key], value, "{key}");
    }
    assert_eq!(two_buffers["segments"].as_array().unwrap().len(), 2);
    assert!(two_buffers["server_pid"] != said["server_pid"]);
    for measured in [&said, two_buffers] {
        assert!(measured["round_trip_us"]["p50"].as_f64().unwrap() > 0.0);
        assert!(measured["frames_per_second"].as_f64().unwrap() > 0.0);
    }

    let redaction = &said["redaction"];
    for (key, value) in [
        ("right_answers", 20),
        ("wrong_answers", 0),
        ("bytes_copied", 0),
        ("two_buffers_bytes_copied", 20 * 40_500),
    ] {
        assert_eq!(redaction[key], value, "{key}");
    }
    assert_eq!(redaction["two_buffers"]["right_answers"], 20);
    assert!((said["redacted_percent"].as_f64().unwrap() - 4.9).abs() < 0.05, "{said}");
    for work in [&said, redaction] {
        let ratio =
            ["min", "median", "max"].map(|key| work["round_trip_ratio"][key].as_f64().unwrap());
        assert!(ratio[0] > 0.0 && ratio.is_sorted(), "{ratio:?}");
    }

    let before = image::open(said["before"].as_str().unwrap()).unwrap();
    let after = image::open(said["after"].as_str().unwrap()).unwrap();
    assert_eq!((before.width(), before.height()), (150, 90));
    assert!(before.as_bytes() != after.as_bytes());
    let expected =
        redacted(&blurred(before.as_bytes(), sides(&before), 1), sides(&before), [45, 55, 60, 11]);
    assert!(after.as_bytes() == expected);
}

#[test]
fn the_demo_takes_a_picture_and_scales_it() {
    let folder = Folder::new();
    let input = folder.path("in.jpg");
    image::RgbImage::from_fn(60, 40, |x, y| image::Rgb([x as u8 * 4, y as u8 * 6, 99]))
        .save(&input)
        .unwrap();
    for (size, wanted) in [(&[][..], (60, 40)), (&["--size", "33x77"], (33, 77))] {
        let out = folder.path("out");
        let args = ["--image", &input, "--frames", "3", "--out", &out, "--radius", "3"];
        let text = demo(&[&args, size].concat()).ok();
        assert!(text.contains("3 frames of ") && text.contains("in place"), "{text}");
        assert!(text.contains("two buffers") && text.matches("all right").count() == 4, "{text}");
        let before = image::open(folder.path("out/before.png")).unwrap();
        let after = image::open(folder.path("out/after.png")).unwrap();
        assert_eq!((before.width(), before.height()), wanted);
        let [width, height, _] = sides(&before);
        let (x, y) = (width * 300 / 1000, height * 615 / 1000);
        let (right, bottom) = (width * 700 / 1000, height * 740 / 1000);
        let area = [x, y, right - x, bottom - y];
        let blurred = blurred(before.as_bytes(), sides(&before), 3);
        assert!(after.as_bytes() == redacted(&blurred, sides(&before), area));
    }
}

#[test]
fn a_picture_of_one_pixel_is_a_picture() {
    let folder = Folder::new();
    demo(&["--size", "1x1", "--frames", "9", "--out", &folder.path("out")]).ok();
}

#[test]
fn wrong_answers_are_found_and_the_exit_code_says_so() {
    let folder = Folder::new();
    let out = folder.path("out");
    let args = ["--size", "64x40", "--frames", "20", "--out", &out, "--spoil", "6", "--json"];
    let ended = demo(&args);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let said = ended.json();
    assert_eq!((&said["ok"], &said["wrong_answers"]), (&false.into(), &3.into()));
    assert_eq!(said["two_buffers"]["wrong_answers"], 3);
    let redaction = &said["redaction"];
    assert_eq!((&redaction["wrong_answers"], &redaction["right_answers"]), (&3.into(), &17.into()));
    assert_eq!(redaction["two_buffers"]["wrong_answers"], 3);
}

#[test]
fn what_cannot_work_is_said_before_anything_starts() {
    let folder = Folder::new();
    let out = folder.path("out");
    let missing = folder.path("missing.png");
    demo(&["--image", &missing, "--out", &out]).failed(8, "missing.png");
    let file = folder.write("file", b"");
    demo(&["--size", "9x9", "--out", &file]).failed(8, "file");
    demo(&["--size", "9x9", "--out", &out, "--box", "9,0,1,1"]).failed(2, "outside");
}

#[test]
fn a_server_that_cannot_start_tells_why() {
    let folder = Folder::new();
    // More than the limit for a file that this shell gives it.
    let args = ["demo", "--size", "200x100", "--out", &folder.path("out"), "--json"];
    let command = env!("CARGO_BIN_EXE_zerobuffer");
    let output = std::process::Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 16; exec \"$0\" \"$@\"", command])
        .args(args)
        .env("ZEROBUFFER_DIR", RUNTIME)
        .output()
        .unwrap();
    let ended = Ended::from(output);
    assert_eq!(ended.code, Some(9), "{}{}", ended.text(), ended.stderr);
    assert_eq!(ended.json()["ok"], false);
}

/// A demo that runs until something stops it, and its servers' processes: in place, two buffers.
fn endless_demo(folder: &Folder) -> (Child, [u32; 2], String) {
    let out = folder.path("out");
    let args = ["demo", "--size", "300x200", "--frames", "100000000", "--out", &out];
    let child = zerobuffer(&args).spawn().unwrap();
    until("the first answer", || std::fs::exists(folder.path("out/after.png")).unwrap());
    let pid = child.id();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let servers: Vec<u32> =
        children.split_whitespace().map(|child| child.parse().unwrap()).collect();
    let name = channel_of(pid.into());
    // The service's socket; segments, semaphores and lock files of both buffers.
    assert_eq!((sockets(&name).len(), in_shm(&name).len()), (1, 2 * 5));
    (child, servers.try_into().unwrap(), name)
}

fn is_running(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn ctrl_c_and_sigterm_put_everything_away() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let folder = Folder::new();
        let (child, servers, name) = endless_demo(&folder);
        kill(child.id(), signal);
        let ended: Ended = child.wait_with_output().unwrap().into();
        ended.failed(code, "interrupted");
        left_nothing(&name);
        assert!(!servers.iter().any(|server| is_running(*server)));
    }
}

#[test]
fn a_killed_server_of_either_kind_ends_the_demo_and_nothing_stays() {
    for index in [0, 1] {
        let folder = Folder::new();
        let (child, servers, name) = endless_demo(&folder);
        kill(servers[index], "KILL");
        let ended: Ended = child.wait_with_output().unwrap().into();
        ended.failed(4, "the peer process died");
        left_nothing(&name);
    }
}

#[test]
fn a_killed_demo_takes_its_servers_with_it_and_nothing_stays() {
    let folder = Folder::new();
    let (mut child, servers, name) = endless_demo(&folder);
    kill(child.id(), "KILL");
    wait(&mut child);
    until("the servers to go", || !servers.iter().any(|server| is_running(*server)));
    left_nothing(&name);
}

#[test]
fn a_default_demo_takes_seconds_at_most() {
    let help = run(&["demo", "--help"]).ok();
    assert!(help.contains("[default: 60]") && help.contains("[default: 1280x720"), "{help}");
}
