//! What filters make of bytes and pictures, and what `call` says of it.

use crate::reference::{Sides, blurred, grayed, redacted};
use crate::support::{Folder, Name, Served, noise, run, run_with_input, zerobuffer};
use image::{DynamicImage, ImageFormat};
use std::process::Stdio;

/// A picture of noise, with soft shapes in it.
fn picture(width: u32, height: u32, channels: u32) -> DynamicImage {
    let len = (width * height * channels) as usize;
    let data = noise(len).iter().zip(0..).map(|(byte, n)| byte / 4 + (n / 7 % 190) as u8).collect();
    match channels {
        1 => image::GrayImage::from_raw(width, height, data).unwrap().into(),
        3 => image::RgbImage::from_raw(width, height, data).unwrap().into(),
        _ => image::RgbaImage::from_raw(width, height, data).unwrap().into(),
    }
}

pub(crate) fn sides(image: &DynamicImage) -> Sides {
    let channels = image.color().channel_count().into();
    [image.width() as usize, image.height() as usize, channels]
}

#[test]
fn byte_filters_edit_0_and_1_and_1000003_bytes() {
    let folder = Folder::new();
    let key = [0x5a, 0x01, 0xff];
    for (filter, edit) in [
        ("echo", (|byte, _| byte) as fn(u8, u8) -> u8),
        ("invert", |byte, _| 255 - byte),
        ("xor", |byte, key| byte ^ key),
    ] {
        let name = Name::new(filter);
        let server = Served::start(&name, &["--filter", filter, "--key", "5a01ff"]);
        for len in [0, 1, 1_000_003] {
            let data = noise(len);
            let (input, output) = (folder.write("in", &data), folder.path("out"));
            run(&["call", &name, "--raw", &input, "--out", &output]).ok();
            let expected: Vec<u8> =
                data.iter().zip(key.iter().cycle()).map(|(byte, key)| edit(*byte, *key)).collect();
            assert!(std::fs::read(&output).unwrap() == expected, "{filter} of {len} bytes");
        }
        server.stop();
    }
}

#[test]
fn image_filters_edit_gray_and_rgb_and_rgba_pictures() {
    type Expect = fn(&[u8], Sides) -> Vec<u8>;
    let cases: [(&[&str], Expect); 6] = [
        (&["--filter", "blur"], |data, sides| blurred(data, sides, 1)),
        (&["--filter", "blur", "--radius", "7"], |data, sides| blurred(data, sides, 7)),
        (&["--filter", "grayscale"], grayed),
        (&["--filter", "redact"], |data, sides| redacted(data, sides, [28, 41, 39, 8])),
        (&["--filter", "redact", "--box", "90,60,50,50"], |data, sides| {
            redacted(data, sides, [90, 60, 50, 50])
        }),
        (&["--filter", "blur,redact", "--box", "1,2,3,4", "--workers", "2"], |data, sides| {
            redacted(&blurred(data, sides, 1), sides, [1, 2, 3, 4])
        }),
    ];
    let folder = Folder::new();
    for (args, expect) in cases {
        let name = Name::new("image");
        let server = Served::start(&name, args);
        for channels in [1, 3, 4] {
            let image = picture(96, 67, channels);
            let (input, output) = (folder.path("in.png"), folder.path("out.png"));
            image.save(&input).unwrap();
            run(&["call", &name, "--image", &input, "--out", &output]).ok();
            let answer = image::open(&output).unwrap();
            assert_eq!(answer.color(), image.color());
            assert_eq!((answer.width(), answer.height()), (96, 67));
            assert!(
                answer.as_bytes() == expect(image.as_bytes(), sides(&image)),
                "{args:?} on {channels} channels"
            );
            assert!(channels == 1 || answer.as_bytes() != image.as_bytes(), "{args:?}");
        }
        server.stop();
    }
}

#[test]
fn jpeg_comes_in_and_goes_out_even_from_a_picture_with_alpha() {
    let (folder, name) = (Folder::new(), Name::new("jpeg"));
    let server = Served::start(&name, &["--filter", "grayscale"]);
    let jpeg = folder.path("in.jpg");
    picture(40, 30, 3).save_with_format(&jpeg, ImageFormat::Jpeg).unwrap();
    let rgba = folder.path("in.png");
    picture(40, 30, 4).save(&rgba).unwrap();
    for input in [&jpeg, &rgba] {
        let output = folder.path("out.jpg");
        run(&["call", &name, "--image", input, "--out", &output]).ok();
        let answer = image::open(&output).unwrap();
        assert_eq!((answer.width(), answer.height()), (40, 30));
    }
    server.stop();
}

#[test]
fn a_request_is_repeated_and_measured() {
    let (folder, name) = (Folder::new(), Name::new("repeat"));
    let server = Served::start(&name, &["--filter", "invert"]);
    let (input, output) = (folder.write("in", &noise(5000)), folder.path("out"));
    let args = ["call", &name, "--raw", &input, "--out", &output, "--repeat", "300"];
    let text = run(&args).ok();
    assert!(text.contains("300 requests: round trip p50"), "{text}");
    let said = run(&[&args[..], &["--json"]].concat()).json();
    assert_eq!(said["ok"], true);
    assert_eq!((&said["requests"], &said["differing_answers"]), (&300.into(), &0.into()));
    assert_eq!((&said["request_bytes"], &said["answer_bytes"]), (&5000.into(), &5000.into()));
    let times =
        ["min", "p50", "p99", "max"].map(|key| said["round_trip_us"][key].as_f64().unwrap());
    assert!(times[0] > 0.0 && times.is_sorted(), "{times:?}");
    let (code, farewell) = server.stop_by("TERM");
    assert_eq!((code, &farewell["frames"]), (Some(0), &600.into()));
}

#[test]
fn answers_that_differ_are_wrong() {
    let (folder, name) = (Folder::new(), Name::new("differ"));
    let server = Served::start(&name, &["--filter", "echo", "--spoil", "10"]);
    let input = folder.write("in", &noise(64));
    let args = ["call", &name, "--raw", &input, "--out", "/dev/null", "--repeat", "30", "--json"];
    let ended = run(&args);
    assert_eq!((ended.code, &ended.json()["differing_answers"]), (Some(1), &3.into()));
    assert_eq!(ended.json()["ok"], false);
    server.stop();
}

#[test]
fn a_dash_is_standard_input_and_output_and_words_go_to_standard_error() {
    let name = Name::new("dash");
    let server = Served::start(&name, &["--filter", "invert"]);
    for len in [0, 1, 200_000] {
        let data = noise(len);
        let ended = run_with_input(&["call", &name, "--raw", "-", "--out", "-", "--json"], &data);
        assert!(ended.stdout.iter().map(|byte| !byte).eq(data), "{}", ended.stderr);
        let said: serde_json::Value = serde_json::from_str(&ended.stderr).unwrap();
        assert_eq!(said["answer_bytes"], len);
    }
    server.stop();
}

#[test]
fn a_reader_that_closes_its_end_is_no_error() {
    let name = Name::new("sigpipe");
    let server = Served::start(&name, &["--filter", "echo"]);
    let folder = Folder::new();
    let input = folder.write("in", &noise(1_000_000));
    let mut call = zerobuffer(&["call", &name, "--raw", &input, "--out", "-"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(call.stdout.take());
    let output = call.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    server.stop();
}

#[test]
fn a_refused_frame_tells_the_whole_reason_and_the_server_goes_on() {
    let (folder, name) = (Folder::new(), Name::new("refused"));
    let server = Served::start(&name, &["--filter", "blur"]);
    let input = folder.write("in", b"tiny");
    let ended = run(&["call", &name, "--raw", &input, "--out", "/dev/null"]);
    ended.failed(7, "blur needs the picture's size in the metadata: it has 0 bytes, not 16");
    ended.failed(7, "--size WxHxC");
    let image = folder.path("in.png");
    picture(20, 20, 3).save(&image).unwrap();
    run(&["call", &name, "--image", &image, "--out", &folder.path("out.png")]).ok();
    let (_, farewell) = server.stop_by("TERM");
    assert_eq!((&farewell["frames"], &farewell["refused_frames"]), (&2.into(), &1.into()));
}

#[test]
fn what_does_not_fit_the_server_says_which_option_helps() {
    let (folder, name) = (Folder::new(), Name::new("fit"));
    let server = Served::start(
        &name,
        &["--filter", "echo", "--payload", "4KiB", "--metadata", "0", "--channel"],
    );
    let input = folder.write("in", &noise(5000));
    let ended = run(&["call", &name, "--raw", &input, "--out", "/dev/null"]);
    ended.failed(9, "--payload");
    let image = folder.path("in.png");
    picture(4, 4, 1).save(&image).unwrap();
    let ended = run(&["call", &name, "--image", &image, "--out", &folder.path("out.png")]);
    ended.failed(9, "--metadata");
    // As much as fits exactly.
    let input = folder.write("in", &noise(4096 - 64));
    run(&["call", &name, "--raw", &input, "--out", "/dev/null", "--repeat", "3"]).ok();
    server.stop();
}

#[test]
fn every_failure_of_a_call_names_the_server_and_what_was_too_large() {
    let folder = Folder::new();
    let input = folder.write("in", &noise(40_000));
    let image = folder.path("in.png");
    picture(9, 9, 1).save(&image).unwrap();
    let cases: [(&[&str], &[&str], i32, &str); 6] = [
        (&["--filter", "echo", "--payload", "4KiB"], &[], 9, "a request of 40000 bytes"),
        (&["--filter", "echo", "--metadata", "0", "--channel"], &["--image"], 9, "metadata of 16"),
        (&["--filter", "blur"], &[], 7, "blur needs"),
        (&["--filter", "blur", "--two-buffers"], &[], 4, "closed"),
        (&["--filter", "echo", "--payload", "4KiB", "--two-buffers"], &[], 9, "a request of 40000"),
        (&["--filter", "echo", "--metadata", "0", "--two-buffers"], &["--image"], 9, "metadata of"),
    ];
    for (serve, call, code, words) in cases {
        let name = Name::new("named");
        let server = Served::start(&name, serve);
        let output = folder.path("out.png");
        let input = if call.is_empty() { ["--raw", &input] } else { ["--image", &image] };
        let args = [&["call", &name, "--out", &output], &input[..]].concat();
        let ended = run(&args);
        ended.failed(code, words);
        assert!(ended.stderr.contains(&format!("\"{}\"", &*name)), "{}", ended.stderr);
        server.stop();
    }
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let (folder, name) = (Folder::new(), Name::new("files"));
    let missing = folder.path("missing");
    run(&["call", &name, "--raw", &missing, "--out", "x"]).failed(8, "missing");
    let text = folder.write("text.png", b"no picture");
    run(&["call", &name, "--image", &text, "--out", "x.png"]).failed(8, "text.png");
    let server = Served::start(&name, &["--filter", "echo"]);
    let out = folder.path("no/such/folder");
    run(&["call", &name, "--raw", &text, "--out", &out]).failed(8, "no/such/folder");
    server.stop();
}
