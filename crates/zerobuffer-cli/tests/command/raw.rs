//! `call --raw`: nothing is read that does not fit, and frames follow each other.

use crate::reference::redacted;
use crate::support::{Ended, Folder, Name, Served, noise, run, run_with_input, zerobuffer};
use std::io::Write;
use std::process::Stdio;

/// The most that may go into a pipe that nobody reads from, and into a small channel.
const LITTLE: usize = 1 << 20;

/// Runs `call` with a standard input that never ends, and says how much of it went away.
fn endless(name: &str, more: &[&str]) -> (Ended, usize) {
    let args = [&["call", name, "--raw", "-", "--out", "/dev/null"], more].concat();
    let mut child = zerobuffer(&args).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let written = std::thread::spawn(move || {
        let chunk = [7; 4096];
        // Enough to show what is wrong, and not all of the memory.
        (0..64 << 20).step_by(chunk.len()).find(|_| stdin.write_all(&chunk).is_err())
    });
    let ended = child.wait_with_output().unwrap().into();
    (ended, written.join().unwrap().unwrap_or(usize::MAX))
}

#[test]
fn without_a_server_nothing_is_read() {
    let (ended, read) = endless("nobody-serves-this", &["--wait", "0"]);
    ended.failed(3, "nobody-serves-this");
    assert!(read < LITTLE, "{read} bytes");
}

#[test]
fn no_more_is_read_than_fits_the_channel_and_one_byte() {
    for kind in [&[][..], &["--two-buffers"]] {
        let name = Name::new("endless");
        let server =
            Served::start(&name, &[&["--filter", "echo", "--payload", "64KiB"], kind].concat());
        let (ended, read) = endless(&name, &[]);
        ended.failed(9, "a request of more than");
        assert!(
            ended.stderr.contains(&*name) && ended.stderr.contains("--payload"),
            "{}",
            ended.stderr
        );
        assert!(read < LITTLE, "{read} bytes");
        let (ended, read) = endless(&name, &["--size", "1000x1000x3"]);
        ended.failed(9, "a request of 3000000 bytes is too large");
        assert!(read < LITTLE, "{read} bytes");
        server.stop();
    }
}

#[test]
fn a_server_of_another_kind_or_user_is_noticed_before_anything_is_read() {
    let name = Name::new("owner");
    let server = Served::start(&name, &["--filter", "echo", "--channel"]);
    let (ended, read) = endless(&name, &["--owner", "4242"]);
    ended.failed(9, "owner");
    assert!(read < LITTLE, "{read} bytes");
    server.stop();
}

#[test]
fn frames_with_a_size_follow_each_other_from_standard_input_and_from_a_file() {
    let folder = Folder::new();
    for kind in [&[][..], &["--two-buffers"]] {
        let name = Name::new("frames");
        let filter = ["--filter", "redact", "--box", "1,0,2,3"];
        let server = Served::start(&name, &[&filter[..], kind].concat());
        for channels in [1, 3, 4] {
            let size = format!("7x5x{channels}");
            let len = 7 * 5 * channels;
            let frames = noise(20 * len);
            let expected: Vec<u8> = frames
                .chunks(len)
                .flat_map(|frame| redacted(frame, [7, 5, channels], [1, 0, 2, 3]))
                .collect();
            let to_stdout =
                ["call", &name, "--raw", "-", "--size", &size, "--out", "-", "--wait", "5"];
            let ended = run_with_input(&to_stdout, &frames);
            assert_eq!(ended.code, Some(0), "{}", ended.stderr);
            assert!(ended.stdout == expected, "{size}");

            let (input, output) = (folder.write("in", &frames), folder.path("out"));
            let to_file = ["call", &name, "--raw", &input, "--size", &size, "--out", &output];
            let said =
                run(&[&to_file[..], &["--wait", "5", "--repeat", "2", "--json"]].concat()).json();
            assert!(std::fs::read(&output).unwrap() == expected, "{size}");
            assert_eq!((&said["frames"], &said["requests"]), (&20.into(), &40.into()));
            assert_eq!((&said["request_bytes"], &said["answer_bytes"]), (&len.into(), &len.into()));
            assert_eq!(said["answer_crc32"], format!("{:08x}", crc32fast::hash(&expected)));
            assert_eq!(said["picture"]["channels"], channels);
        }
        server.stop();
    }
}

#[test]
fn half_a_frame_and_no_frame_are_errors_and_no_file_is_made() {
    let (folder, name) = (Folder::new(), Name::new("half"));
    let server = Served::start(&name, &["--filter", "echo"]);
    let output = folder.path("out");
    let args = ["call", &name, "--raw", "-", "--size", "4x2x1", "--out", &output];
    for (len, words) in [(0, "it has no frame"), (7, "has 7 bytes"), (20, "has 4 bytes")] {
        run_with_input(&args, &noise(len)).failed(8, words);
        assert!(!std::fs::exists(&output).unwrap());
    }
    server.stop();
}

#[test]
fn the_reader_of_the_frames_may_stop_before_the_last() {
    let name = Name::new("stop");
    let server = Served::start(&name, &["--filter", "echo"]);
    let args = ["call", &name, "--raw", "/dev/zero", "--size", "64x64x1", "--out", "-"];
    let mut child = zerobuffer(&args).spawn().unwrap();
    let mut frame = vec![1; 64 * 64];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut frame).unwrap();
    drop(child.stdout.take());
    let ended: Ended = child.wait_with_output().unwrap().into();
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
    assert!(frame.iter().all(|byte| *byte == 0));
    server.stop();
}

#[test]
fn mode_and_owner_say_who_may_use_a_channel() {
    use std::os::unix::fs::MetadataExt;
    let folder = Folder::new();
    let input = folder.write("in", b"bytes");
    let own = std::fs::metadata(&input).unwrap().uid();
    let (own, other) = (own.to_string(), (own + 1).to_string());
    let mode = |object: &str| std::fs::metadata(object).unwrap().mode() & 0o777;
    for kind in ["--channel", "--two-buffers"] {
        let name = Name::new("mode");
        let args = ["--filter", "echo", "--mode", "660", kind];
        let server = Served::start(&name, &args);
        assert_eq!(mode(server.greeting["segment"].as_str().unwrap()), 0o660);
        let call = ["call", &name, "--raw", &input, "--out", "/dev/null", "--wait", "2"];
        run(&[&call[..], &["--owner", &own, "--mode", "660"]].concat()).ok();
        run(&[&call[..], &["--owner", &other]].concat()).failed(9, "owner");
        server.stop();
    }
    let name = Name::new("client");
    let args = ["--filter", "echo", "--two-buffers", "--owner"];
    let call = ["call", &name, "--raw", &input, "--out", "/dev/null", "--wait", "2"];
    let server = Served::start(&name, &[&args[..], &[&*other]].concat());
    run(&call).failed(3, &name);
    run(&[&call[..], &["--owner", &own]].concat()).failed(3, "--mode 666");
    server.stop();
    let server = Served::start(&name, &[&args[..], &[&*own]].concat());
    run(&call).ok();
    server.stop();
    run(&["serve", &name, "--filter", "echo", "--owner", "1"]).failed(2, "--two-buffers");
}
