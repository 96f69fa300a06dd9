//! Version 1 buffers: what `writer` writes, `relay` relays and `reader` finds.

use crate::support::{Ended, Folder, Name, in_shm, kill, noise, run, until, wait, zerobuffer};
use serde_json::Value;
use std::process::Child;
use std::time::{Duration, Instant};

/// Starts a command that makes the buffer, and waits until that is there.
pub(crate) fn making(buffer: &str, args: &[&str]) -> Child {
    let child = zerobuffer(args).spawn().unwrap();
    until("the buffer", || std::fs::exists(format!("/dev/shm/{buffer}")).unwrap());
    child
}

fn reader(name: &str, more: &[&str]) -> Child {
    making(name, &[&["reader", name, "--json"], more].concat())
}

fn writer(name: &str, more: &[&str]) -> Ended {
    run(&[&["writer", name, "--json"], more].concat())
}

fn ended(child: Child) -> Ended {
    child.wait_with_output().unwrap().into()
}

/// The result of a command that went well.
fn done(ended: Ended) -> Value {
    assert_eq!(ended.code, Some(0), "{}{}", ended.text(), ended.stderr);
    let said = ended.json();
    assert_eq!((&said["ok"], &said["errors"]), (&true.into(), &Value::Array(vec![])));
    assert!(said.get("error").is_none());
    said
}

/// The result of a command that failed in this way.
fn failed(ended: &Ended, code: i32, kind: &str) -> Value {
    assert_eq!(ended.code, Some(code), "{}{}", ended.text(), ended.stderr);
    assert_eq!(ended.stderr, "");
    let said = ended.json();
    assert_eq!((&said["ok"], &said["error"]["kind"]), (&false.into(), &kind.into()));
    assert_eq!(said["error"]["exit_code"], code);
    assert!(!said["errors"].as_array().unwrap().is_empty(), "{said}");
    said
}

#[test]
fn every_pattern_arrives_in_frames_of_every_size() {
    for pattern in ["sequential", "random", "zero", "ones"] {
        for (size, frames) in [("1", "300"), ("1000", "300"), ("1MiB", "60"), ("31MiB", "3")] {
            let name = Name::new("pattern");
            let reading = reader(&name, &["-n", frames, "-s", size, "--verify", pattern]);
            let wrote = done(writer(&name, &["-n", frames, "-s", size, "--pattern", pattern]));
            let read = done(ended(reading));
            let frames: u64 = frames.parse().unwrap();
            assert_eq!(wrote["frames_written"], frames);
            assert_eq!(read["frames_read"], frames);
            assert_eq!(read["verification_errors"], 0);
            assert_eq!(wrote["frame_size"], read["frame_size"]);
            assert_eq!(wrote["total_bytes"], read["total_bytes"]);
        }
    }
}

#[test]
fn json_has_the_fields_of_the_existing_tools() {
    let name = Name::new("fields");
    let reading = reader(&name, &["--frames", "120", "--checksum"]);
    let wrote = done(writer(&name, &["--frames", "120", "--size", "3", "--metadata", "what"]));
    let read = done(ended(reading));
    assert_eq!((&wrote["operation"], &read["operation"]), (&"write".into(), &"read".into()));
    for said in [&wrote, &read] {
        assert_eq!(said["buffer_name"], &*name);
        assert_eq!((&said["frame_size"], &said["metadata_size"]), (&3.into(), &4.into()));
        for key in ["duration_seconds", "throughput_mbps"] {
            assert!(said[key].as_f64().unwrap() > 0.0, "{key}");
        }
    }
    let checksums = read["checksums"].as_array().unwrap();
    assert_eq!(checksums.len(), 100);
    // printf '\x02\x03\x04' | md5sum
    assert_eq!(checksums[2]["frame"], 2);
    assert_eq!(checksums[2]["checksum"], "13427305830a139207a3da251a52b53c");
}

#[test]
fn json_output_is_another_name_of_json() {
    let name = Name::new("alias");
    let ended = run(&["writer", &name, "--json-output", "--timeout-ms", "1"]);
    failed(&ended, 3, "not_running");
}

#[test]
fn without_options_a_thousand_frames_of_1024_bytes_go_through() {
    let name = Name::new("default");
    let reading = making(&name, &["reader", &name]);
    let wrote = run(&["writer", &name]).ok();
    assert!(wrote.contains("wrote 1,000 frames, 1,024,000 bytes"), "{wrote}");
    let read = ended(reading).ok();
    assert!(read.contains("read 1,000 frames, 1,024,000 bytes"), "{read}");
}

#[test]
fn wrong_frames_end_with_1_and_are_told() {
    let cases: [(&[&str], &str); 4] = [
        (&["--verify", "ones"], "frame 0: byte 0 is 0, ones has 255"),
        (&["--verify", "random"], "frame 0: byte"),
        (&["--size", "11"], "frame 4: 10 bytes instead of 11"),
        (&["--size", "11", "--verify", "sequential"], "frame 4: 10 bytes instead of 11"),
    ];
    for (options, words) in cases {
        let name = Name::new("wrong");
        let reading = reader(&name, &[&["-n", "5"], options].concat());
        done(writer(&name, &["-n", "5", "-s", "10"]));
        let said = failed(&ended(reading), 1, "wrong_answer");
        assert_eq!((&said["frames_read"], &said["verification_errors"]), (&5.into(), &5.into()));
        assert!(said["errors"].to_string().contains(words), "{said}");
    }
    let name = Name::new("wrong");
    let reading = making(&name, &["reader", &name, "-n", "2", "--verify", "zero"]);
    done(writer(&name, &["-n", "2", "-s", "10"]));
    ended(reading).failed(1, "2 of 2 frames are wrong");
}

#[test]
fn metadata_comes_from_the_command_line_or_a_file() {
    let (folder, name) = (Folder::new(), Name::new("meta"));
    let file = folder.write("meta", &noise(4088));
    let reading = reader(&name, &["-n", "1"]);
    assert_eq!(done(writer(&name, &["-n1", "--metadata-file", &file]))["metadata_size"], 4088);
    assert_eq!(done(ended(reading))["metadata_size"], 4088);

    let reading = reader(&name, &["-n", "1", "--metadata-size", "64", "--timeout-ms", "30000"]);
    for file in [&*file, "/dev/zero"] {
        let said = failed(&writer(&name, &["--metadata-file", file]), 9, "too_large");
        let message = said["error"]["message"].as_str().unwrap();
        assert!(message.contains("metadata of") && message.contains(&*name), "{message}");
    }
    kill(reading.id(), "INT");
    ended(reading);
    writer(&name, &["--metadata-file", &folder.path("none")]).json();
    run(&["writer", &name, "--metadata-file", &folder.path("none")]).failed(8, "none");
}

#[test]
fn frames_are_held_in_batches_and_the_writer_waits_for_their_space() {
    let name = Name::new("batch");
    let options = ["-n", "500", "--batch-size", "7", "--buffer-size", "4KiB"];
    let reading = reader(&name, &[&options[..], &["--verify", "sequential"]].concat());
    done(writer(&name, &["-n", "500", "-s", "1000"]));
    done(ended(reading));
}

#[test]
fn a_writer_pauses_between_batches() {
    let name = Name::new("delay");
    for (batch, least) in [("1", 400), ("2", 200), ("5", 0)] {
        let reading = reader(&name, &["-n", "5"]);
        let start = Instant::now();
        done(writer(&name, &["-n", "5", "--delay-ms", "100", "--batch-size", batch]));
        let took = start.elapsed().as_millis();
        assert!(took >= least && took < least + 5000, "batches of {batch}: {took} ms");
        done(ended(reading));
    }
}

#[test]
fn a_reader_takes_all_that_comes_if_asked_for() {
    for frames in ["0", "-1"] {
        let name = Name::new("all");
        let reading = reader(&name, &["--frames", frames]);
        done(writer(&name, &["-n", "17"]));
        assert_eq!(done(ended(reading))["frames_read"], 17);
    }
}

#[test]
fn a_writer_that_leaves_early_is_told_with_the_count() {
    let name = Name::new("early");
    let reading = reader(&name, &["-n", "20"]);
    done(writer(&name, &["-n", "17"]));
    let said = failed(&ended(reading), 4, "peer_closed");
    assert_eq!(said["frames_read"], 17);
    assert!(said["errors"].to_string().contains("17 of 20 frames have come"), "{said}");
}

#[test]
fn nobody_on_the_other_side_is_3_and_no_frame_is_6() {
    let name = Name::new("nobody");
    let short = ["--timeout-ms", "150"];
    let start = Instant::now();
    failed(&writer(&name, &short), 3, "not_running");
    assert!(start.elapsed() >= Duration::from_millis(150));
    failed(&run(&["reader", &name, "--json", "--timeout-ms", "150"]), 3, "not_connected_yet");
    run(&["writer", &name, "--timeout-ms", "1"]).failed(3, "hint: `zerobuffer reader");

    let reading = reader(&name, &["-n", "2", "--timeout-ms", "300"]);
    let mut slow =
        zerobuffer(&["writer", &name, "-n", "2", "--delay-ms", "60000"]).spawn().unwrap();
    failed(&ended(reading), 6, "timeout");
    kill(slow.id(), "INT");
    wait(&mut slow);
}

#[test]
fn no_room_in_time_is_6_and_a_frame_that_is_too_large_is_9() {
    let name = Name::new("room");
    let reading = reader(&name, &["--buffer-size", "4KiB", "--timeout-ms", "0"]);
    failed(&writer(&name, &["--size", "4081"]), 9, "too_large");
    kill(reading.id(), "STOP");
    let said = failed(&writer(&name, &["--timeout-ms", "200"]), 6, "full");
    let written = said["frames_written"].as_u64().unwrap();
    assert!((3..1000).contains(&written), "{written}");
    kill(reading.id(), "CONT");
    // The writer has left after its deadline.
    failed(&ended(reading), 4, "peer_closed");
}

#[test]
fn one_buffer_has_one_reader_and_one_writer() {
    let name = Name::new("roles");
    let reading = reader(&name, &["-n", "2", "--timeout-ms", "30000"]);
    failed(&run(&["reader", &name, "--json"]), 5, "already_running");
    let slow = ["writer", &name, "-n", "2", "--delay-ms", "1000"];
    let slow = zerobuffer(&slow).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    failed(&writer(&name, &["--timeout-ms", "1"]), 5, "busy");
    ended(slow).ok();
    done(ended(reading));
}

#[test]
fn ctrl_c_ends_each_of_them_in_order() {
    for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let name = Name::new("signal");
        let reading = reader(&name, &["--timeout-ms", "0"]);
        let more = ["writer", &name, "--json", "--delay-ms", "100000"];
        let writing = zerobuffer(&more).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(200));
        kill(writing.id(), signal);
        assert_eq!(failed(&ended(writing), code, "interrupted")["frames_written"], 1);
        failed(&ended(reading), 4, "peer_closed");

        let reading = reader(&name, &["--timeout-ms", "0"]);
        kill(reading.id(), signal);
        failed(&ended(reading), code, "interrupted");
        // A reader that takes all that comes gets everything.
        let reading = reader(&name, &["-n0", "--timeout-ms", "0"]);
        kill(reading.id(), signal);
        done(ended(reading));
    }
}

#[test]
fn a_killed_reader_ends_the_writer_and_its_successor_clears_up() {
    let name = Name::new("killread");
    let mut reading = reader(&name, &["-n", "0"]);
    let writing = ["writer", &name, "--json", "-n", "1000000000"];
    let writing = zerobuffer(&writing).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    kill(reading.id(), "KILL");
    wait(&mut reading);
    let said = ended(writing);
    assert_eq!(said.code, Some(4), "{}", said.text());
    assert!(!in_shm(&name).is_empty());
    let reading = reader(&name, &["-n", "3", "--verify", "sequential"]);
    done(writer(&name, &["-n", "3"]));
    done(ended(reading));
}

#[test]
fn a_killed_writer_ends_the_reader_after_its_last_frame() {
    let name = Name::new("killwrite");
    let reading = reader(&name, &["-n", "20", "--verify", "random"]);
    let writing =
        ["writer", &name, "--pattern", "random", "--batch-size", "11", "--delay-ms", "60000"];
    let mut writing = zerobuffer(&writing).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    kill(writing.id(), "KILL");
    wait(&mut writing);
    let said = failed(&ended(reading), 4, "peer_died");
    assert_eq!((&said["frames_read"], &said["verification_errors"]), (&11.into(), &0.into()));
}

/// A writer's frames through a relay with these options, and what each of the three said.
fn relayed(written: &[&str], options: &[&str], verify: &str) -> (Value, Value) {
    let (input, output) = (Name::new("in"), Name::new("out"));
    let reading = reader(&output, &["-n", "0", "--verify", verify]);
    let relaying = making(&input, &[&["relay", &input, &output, "--json"], options].concat());
    done(writer(&input, &[&["-n", "200", "-s", "777"], written].concat()));
    let relay = done(ended(relaying));
    assert_eq!(
        (&relay["input_buffer"], &relay["output_buffer"]),
        (&(*input).into(), &(*output).into())
    );
    (relay, done(ended(reading)))
}

#[test]
fn a_relay_transforms_as_asked() {
    let cases: [(&str, &[&str], &str); 6] = [
        ("sequential", &[], "sequential"),
        ("random", &["--transform", "none"], "random"),
        ("zero", &["--transform", "invert"], "ones"),
        ("zero", &["--transform", "xor"], "ones"),
        ("ones", &["--transform", "xor", "--xor-key", "ffffff"], "zero"),
        ("ones", &["--transform", "xor", "--xor-key", "00"], "ones"),
    ];
    for (pattern, options, verify) in cases {
        let (relay, read) = relayed(&["--pattern", pattern, "-m", "meta"], options, verify);
        assert_eq!(relay["operation"], "relay");
        assert_eq!((&relay["frames_relayed"], &read["frames_read"]), (&200.into(), &200.into()));
        assert_eq!(relay["total_bytes"], 200 * 777);
        assert_eq!(
            (&relay["metadata_relayed"], &relay["metadata_size"]),
            (&true.into(), &4.into())
        );
        assert_eq!(read["metadata_size"], 4);
        assert_eq!(relay["output_created"], false);
    }
    let (relay, read) = relayed(&[], &[], "none");
    assert_eq!((&relay["metadata_relayed"], &read["metadata_size"]), (&false.into(), &0.into()));
}

#[test]
fn a_key_repeats_over_the_frame() {
    let (input, output) = (Name::new("in"), Name::new("out"));
    let reading = reader(&output, &["-n", "1", "--checksum"]);
    let key = ["--transform", "xor", "--xor-key", "0102", "-n", "1", "--json"];
    let relaying = making(&input, &[&["relay", &input, &output], &key[..]].concat());
    done(writer(&input, &["-n", "1", "-s", "3", "--pattern", "zero"]));
    assert_eq!(done(ended(relaying))["frames_relayed"], 1);
    // printf '\x01\x02\x01' | md5sum
    assert_eq!(
        done(ended(reading))["checksums"][0]["checksum"],
        "d6ba17ecfd6d576a0ed2a5f244169283"
    );
}

#[test]
fn a_relay_makes_and_reads_its_output_if_asked_for() {
    let (input, output) = (Name::new("in"), Name::new("out"));
    let options = ["--create-output", "--buffer-size", "64KiB", "--json"];
    let relaying = making(&output, &[&["relay", &input, &output], &options[..]].concat());
    let size = |name: &str| std::fs::metadata(format!("/dev/shm/{name}")).unwrap().len();
    assert_eq!([size(&input), size(&output)], [128 + 4096 + 65_536; 2]);
    done(writer(&input, &["-n", "1000", "-s", "30000", "-m", "x"]));
    let said = done(ended(relaying));
    assert_eq!((&said["output_created"], &said["frames_relayed"]), (&true.into(), &1000.into()));

    // Not if it is there.
    let reading = reader(&output, &["-n", "3"]);
    let relaying = making(&input, &[&["relay", &input, &output], &options[..]].concat());
    done(writer(&input, &["-n", "3", "-s", "100"]));
    assert_eq!(done(ended(relaying))["output_created"], false);
    done(ended(reading));
}

#[test]
fn a_relay_says_on_which_side_it_failed() {
    let (input, output) = (Name::new("in"), Name::new("out"));
    let relay = ["relay", &input, &output, "--json", "--timeout-ms"];
    let said = failed(&run(&[&relay[..], &["100"]].concat()), 3, "not_running");
    assert!(said["errors"].to_string().contains(&*output), "{said}");
    // Its reader is there, but no writer comes.
    let mut reading = reader(&output, &["--timeout-ms", "0"]);
    failed(&run(&[&relay[..], &["100"]].concat()), 3, "not_connected_yet");
    wait(&mut reading);
    run(&["relay", &input, &input]).failed(2, "the same buffer");
    run(&["relay", &input, &output, "--xor-key", "ff"]).failed(2, "--transform xor");
}

#[test]
fn a_writer_that_drains_stays_until_the_reader_has_taken_all() {
    let name = Name::new("drain");
    // Reads two frames and then holds still.
    let reading = reader(&name, &["-n", "0", "--timeout-ms", "60000"]);
    kill(reading.id(), "STOP");
    // Without it the writer is done at once.
    done(writer(&name, &["-n", "3", "-s", "100"]));
    let drains = ["-n", "3", "-s", "100", "--drain"];
    let said =
        failed(&writer(&name, &[&drains[..], &["--timeout-ms", "300"]].concat()), 6, "timeout");
    assert_eq!(said["frames_written"], 3);
    assert!(said["errors"].to_string().contains("not all were taken"), "{said}");

    let all = [&["writer", &name, "--json", "--timeout-ms", "60000"], &drains[..]].concat();
    let mut waiting = zerobuffer(&all).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(waiting.try_wait().unwrap().is_none(), "it left before its frames were taken");
    kill(reading.id(), "CONT");
    done(ended(waiting));
    done(ended(reading));
}

#[test]
fn a_writer_that_drains_is_told_that_its_reader_left_frames() {
    let name = Name::new("left");
    let mut reading = reader(&name, &["-n", "0", "--timeout-ms", "60000"]);
    kill(reading.id(), "STOP");
    let args = ["writer", &name, "--json", "--timeout-ms", "60000", "-n", "3", "--drain"];
    let waiting = zerobuffer(&args).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(200));
    kill(reading.id(), "KILL");
    wait(&mut reading);
    failed(&ended(waiting), 4, "peer_died");
    // The next reader clears up.
    failed(&run(&["reader", &name, "--json", "--timeout-ms", "1"]), 3, "not_connected_yet");
}

#[test]
fn each_death_around_a_relay_ends_it_and_its_own_ends_both_sides() {
    for killed in ["writer", "relay", "reader"] {
        let (input, output) = (Name::new("in"), Name::new("out"));
        let mut reading = reader(&output, &["--timeout-ms", "0"]);
        let mut relaying =
            making(&input, &["relay", &input, &output, "--json", "--timeout-ms", "0"]);
        let writing = ["writer", &input, "--json", "--batch-size", "3", "--delay-ms", "1000"];
        let mut writing = zerobuffer(&writing).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(300));
        let victim = match killed {
            "writer" => &mut writing,
            "relay" => &mut relaying,
            _ => &mut reading,
        };
        kill(victim.id(), "KILL");
        wait(victim);
        for (command, child) in [("writer", writing), ("relay", relaying), ("reader", reading)] {
            let expected = if command == killed { None } else { Some(4) };
            let ended = ended(child);
            assert_eq!(ended.code, expected, "{killed} killed: {command} {}", ended.text());
        }
        // The next reader clears up.
        for name in [&input, &output] {
            failed(&run(&["reader", name, "--json", "--timeout-ms", "1"]), 3, "not_connected_yet");
        }
    }
}
