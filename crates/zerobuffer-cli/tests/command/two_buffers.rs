//! `serve --two-buffers`, and `call` on it: version 1 channels.

use crate::support::{Folder, Name, Served, in_shm, kill, noise, run, until, wait, zerobuffer};
use std::process::Child;

fn serve(name: &str, more: &[&str]) -> Served {
    Served::start(name, &[&["--two-buffers"], more].concat())
}

/// A client that calls until something stops it, and is attached.
fn endless_call(name: &str, folder: &Folder) -> Child {
    let input = folder.write("in", &noise(100));
    let args = ["call", name, "--raw", &input, "--out", "/dev/null", "--repeat", "1000000000"];
    let child = zerobuffer(&[&args[..], &["--json", "--wait", "10"]].concat()).spawn().unwrap();
    until("the client", || {
        std::fs::exists(format!("/dev/shm/{name}_response")).unwrap() && is_calling(&child)
    });
    child
}

/// Its processor time grows: it is past the handshake.
fn is_calling(child: &Child) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    stat.rsplit(") ").next().unwrap().split(' ').nth(11).unwrap() != "0"
}

#[test]
fn the_same_filters_edit_a_copy() {
    let (folder, key) = (Folder::new(), [0x5a, 0x01, 0xff]);
    for (filter, edit) in [
        ("echo", (|byte, _| byte) as fn(u8, u8) -> u8),
        ("invert", |byte, _| 255 - byte),
        ("xor", |byte, key| byte ^ key),
    ] {
        let name = Name::new(filter);
        let server = serve(&name, &["--filter", filter, "--key", "5a01ff"]);
        assert_eq!(server.greeting["two_buffers"], true);
        assert_eq!(server.greeting["segment"], format!("/dev/shm/{}_request", &*name));
        for len in [1, 1000, 15_000_000] {
            let data = noise(len);
            let (input, output) = (folder.write("in", &data), folder.path("out"));
            let args =
                ["call", &name, "--raw", &input, "--out", &output, "--repeat", "3", "--json"];
            let ended = run(&args);
            assert_eq!(ended.code, Some(0), "{}", ended.text());
            assert_eq!(ended.json()["two_buffers"], true);
            let expected: Vec<u8> =
                data.iter().zip(key.iter().cycle()).map(|(byte, key)| edit(*byte, *key)).collect();
            assert!(std::fs::read(&output).unwrap() == expected, "{filter} of {len} bytes");
        }
        let (code, farewell) = server.stop_by("INT");
        assert_eq!((code, &farewell["frames"]), (Some(0), &9.into()));
    }
}

#[test]
fn a_picture_takes_its_size_along() {
    let (folder, in_place, two_buffers) = (Folder::new(), Name::new("one"), Name::new("two"));
    let input = folder.path("in.png");
    image::RgbImage::from_fn(90, 70, |x, y| image::Rgb([x as u8, y as u8, (x * y) as u8]))
        .save(&input)
        .unwrap();
    let filters = ["--filter", "blur,grayscale,redact"];
    let servers = [Served::start(&in_place, &filters), serve(&two_buffers, &filters)];
    let mut answers = vec![];
    for name in [&in_place, &two_buffers, &two_buffers] {
        let output = folder.path("out.png");
        run(&["call", name, "--image", &input, "--out", &output]).ok();
        answers.push(std::fs::read(&output).unwrap());
    }
    assert!(answers[0] == answers[1] && answers[1] == answers[2]);
    servers.into_iter().for_each(Served::stop);
}

#[test]
fn a_refused_frame_closes_the_channel_and_the_server_goes_on() {
    let (name, folder) = (Name::new("refuse"), Folder::new());
    let server = serve(&name, &["--filter", "blur"]);
    let input = folder.write("in", b"no picture");
    for _ in 0..2 {
        let args = ["call", &name, "--raw", &input, "--out", "/dev/null", "--wait", "5"];
        run(&args).failed(4, "closed");
    }
    let (code, farewell) = server.stop_by("TERM");
    assert_eq!((code, &farewell["refused_frames"]), (Some(0), &2.into()));
}

#[test]
fn what_two_buffers_cannot_do_is_said() {
    let name = Name::new("cannot");
    let serving = ["serve", &name, "--two-buffers", "--filter", "echo"];
    run(&[&serving[..], &["--workers", "2"]].concat()).failed(2, "one worker");
    let server = serve(&name, &["--filter", "echo", "--payload", "4KiB"]);
    run(&serving).failed(5, "already has a server");
    run(&["call", &name, "--raw", "/dev/null", "--out", "/dev/null"]).failed(2, "no bytes");
    let input = Folder::new().write("in", b"gone");
    run(&["call", &name, "--raw", &input, "--out", "/dev/null"]).failed(8, "in");
    let folder = Folder::new();
    let input = folder.write("in", &noise(4081));
    run(&["call", &name, "--raw", &input, "--out", "/dev/null"]).failed(9, "--payload");
    server.stop();
}

#[test]
fn signals_stop_it_in_good_order_with_a_client_at_work() {
    for signal in ["TERM", "INT", "HUP"] {
        let (name, folder) = (Name::new("stop"), Folder::new());
        let server = serve(&name, &["--filter", "echo"]);
        let call = endless_call(&name, &folder);
        let (code, farewell) = server.stop_by(signal);
        assert_eq!((code, &farewell["reason"]), (Some(0), &format!("SIG{signal}").into()));
        let ended: crate::support::Ended = call.wait_with_output().unwrap().into();
        assert_eq!((ended.code, &ended.json()["error"]["kind"]), (Some(4), &"peer_closed".into()));
    }
}

#[test]
fn a_killed_server_ends_the_call_and_its_successor_clears_up() {
    let (name, folder) = (Name::new("kill"), Folder::new());
    let mut server = serve(&name, &["--filter", "echo"]);
    let call = endless_call(&name, &folder);
    kill(server.child.id(), "KILL");
    wait(&mut server.child);
    let ended: crate::support::Ended = call.wait_with_output().unwrap().into();
    assert_eq!((ended.code, &ended.json()["error"]["kind"]), (Some(4), &"peer_died".into()));
    assert!(!in_shm(&name).is_empty());
    let input = folder.path("in");
    run(&["call", &name, "--raw", &input, "--out", "/dev/null", "--wait", "0.1"])
        .failed(3, "serve");
    let server = serve(&name, &["--filter", "echo"]);
    run(&["call", &name, "--raw", &input, "--out", "/dev/null"]).ok();
    server.stop();
}

#[test]
fn killed_clients_do_not_disturb_the_server_and_it_clears_up_after_the_last() {
    let (name, folder) = (Name::new("clients"), Folder::new());
    let server = serve(&name, &["--filter", "echo"]);
    for _ in 0..2 {
        let mut call = endless_call(&name, &folder);
        call.kill().unwrap();
        call.wait().unwrap();
        let input = folder.path("in");
        run(&["call", &name, "--raw", &input, "--out", "/dev/null", "--wait", "5"]).ok();
    }
    let mut call = endless_call(&name, &folder);
    call.kill().unwrap();
    call.wait().unwrap();
    server.stop();
}
