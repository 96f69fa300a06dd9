//! Pictures in files: what is sent is what a viewer shows, and what is written is there whole or not at all.

use crate::support::{Ended, Folder, Name, RUNTIME, Served, noise, run, zerobuffer};
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::{PngDecoder, PngEncoder};
use image::{DynamicImage, ExtendedColorType, ImageDecoder, ImageEncoder, RgbImage};
use std::os::unix::fs::PermissionsExt;

const WIDTH: u32 = 5;
const HEIGHT: u32 = 3;

fn call(name: &str, input: &str, output: &str) -> Ended {
    run(&["call", name, "--image", input, "--out", output])
}

/// A picture in which no two pixels are equal.
fn picture() -> RgbImage {
    RgbImage::from_fn(WIDTH, HEIGHT, |x, y| image::Rgb([x as u8 * 40, y as u8 * 60, 99]))
}

/// EXIF with an orientation and nothing else.
fn exif(orientation: u8) -> Vec<u8> {
    let mut exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
    exif
}

/// Where the upright picture has the pixel of the file's column `x` and row `y` (EXIF 2.32, 4.6.4: what row 0 and column 0
/// of the file are), and how wide and high it is.
fn upright(orientation: u8, x: u32, y: u32) -> ((u32, u32), (u32, u32)) {
    let (right, bottom) = (WIDTH - 1 - x, HEIGHT - 1 - y);
    let at = match orientation {
        1 => (x, y),
        2 => (right, y),
        3 => (right, bottom),
        4 => (x, bottom),
        5 => (y, x),
        6 => (bottom, x),
        7 => (bottom, right),
        _ => (y, right),
    };
    (at, if orientation < 5 { (WIDTH, HEIGHT) } else { (HEIGHT, WIDTH) })
}

#[test]
fn a_picture_is_sent_and_written_as_its_viewer_shows_it() {
    let (folder, name) = (Folder::new(), Name::new("exif"));
    let server = Served::start(&name, &["--filter", "echo"]);
    for orientation in 1..=8 {
        let pixels = picture();
        let (mut png, mut jpeg) = (Vec::new(), Vec::new());
        let mut encoder = PngEncoder::new(&mut png);
        encoder.set_exif_metadata(exif(orientation)).unwrap();
        encoder.write_image(&pixels, WIDTH, HEIGHT, ExtendedColorType::Rgb8).unwrap();
        let mut encoder = JpegEncoder::new_with_quality(&mut jpeg, 100);
        encoder.set_exif_metadata(exif(orientation)).unwrap();
        encoder.write_image(&pixels, WIDTH, HEIGHT, ExtendedColorType::Rgb8).unwrap();
        for (file, bytes) in [("in.png", png), ("in.jpg", jpeg)] {
            let (input, output) = (folder.write(file, &bytes), folder.path("out.png"));
            // As it lies in the file.
            let stored = image::load_from_memory(&bytes).unwrap().into_rgb8();
            call(&name, &input, &output).ok();
            let shown = image::open(&output).unwrap().into_rgb8();
            for (x, y, pixel) in stored.enumerate_pixels() {
                let ((right, down), sides) = upright(orientation, x, y);
                assert_eq!(shown.dimensions(), sides, "{file}, orientation {orientation}");
                assert_eq!(
                    shown[(right, down)],
                    *pixel,
                    "{file}, orientation {orientation}: {x} {y}"
                );
            }
        }
    }
    server.stop();
}

#[test]
fn a_redaction_hides_what_the_viewer_shows_there() {
    let (folder, name) = (Folder::new(), Name::new("hide"));
    let server = Served::start(&name, &["--filter", "redact", "--box", "0,0,1,1"]);
    let mut png = Vec::new();
    let mut encoder = PngEncoder::new(&mut png);
    encoder.set_exif_metadata(exif(6)).unwrap();
    encoder.write_image(&[200; 15], WIDTH, HEIGHT, ExtendedColorType::L8).unwrap();
    let output = folder.path("out.png");
    call(&name, &folder.write("in.png", &png), &output).ok();
    let shown = image::open(&output).unwrap().into_luma8();
    assert_eq!(shown.dimensions(), (HEIGHT, WIDTH));
    assert!(shown.enumerate_pixels().all(|(x, y, pixel)| (pixel[0] == 0) == (x == 0 && y == 0)));
    server.stop();
}

#[test]
fn a_file_that_was_cut_off_is_refused_and_the_result_of_before_stays() {
    let (folder, name) = (Folder::new(), Name::new("cut"));
    let server = Served::start(&name, &["--filter", "echo"]);
    let image = RgbImage::from_raw(64, 48, noise(64 * 48 * 3)).unwrap();
    for file in ["in.jpg", "in.png"] {
        let input = folder.path(file);
        image.save(&input).unwrap();
        let whole = std::fs::read(&input).unwrap();
        let output = folder.write("out.png", b"the result of before");
        let end = whole.len() - 1;
        // The last 12 bytes of a PNG file are its end chunk, behind all of the picture.
        let last = if file == "in.png" { end - 12 } else { end };
        for len in [20, end / 3, end / 2, end * 9 / 10, last] {
            folder.write(file, &whole[..len]);
            call(&name, &input, &output).failed(8, file);
            assert_eq!(std::fs::read(&output).unwrap(), b"the result of before", "{file} {len}");
        }
    }
    let (_, farewell) = server.stop_by("TERM");
    assert_eq!(farewell["frames"], 0);
}

#[test]
fn what_is_sent_otherwise_than_it_is_in_the_file_is_said() {
    let (folder, name) = (Folder::new(), Name::new("notes"));
    let server = Served::start(&name, &["--filter", "echo"]);
    let cases: [(DynamicImage, &str, &str); 7] = [
        (DynamicImage::new_luma8(4, 4), "out.png", ""),
        (DynamicImage::new_rgb8(4, 4), "out.jpg", ""),
        (DynamicImage::new_rgba8(4, 4), "out.png", ""),
        (DynamicImage::new_rgba8(4, 4), "out.jpg", "no alpha channel"),
        (DynamicImage::new_luma16(4, 4), "out.png", "8-bit gray"),
        (DynamicImage::new_rgb16(4, 4), "out.png", "8-bit RGB"),
        (DynamicImage::new_luma_a8(4, 4), "out.png", "gray with alpha is sent as RGBA"),
    ];
    for (image, output, words) in cases {
        let (input, output) = (folder.path("in.png"), folder.path(output));
        image.save(&input).unwrap();
        let ended = call(&name, &input, &output);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!(ended.stderr.contains(words), "{:?} {words:?}", ended.stderr);
        assert_eq!(ended.stderr.is_empty(), words.is_empty(), "{:?}", ended.stderr);
        let said = run(&["call", &name, "--image", &input, "--out", &output, "--json"]).json();
        let notes = said["notes"].as_array().unwrap();
        assert_eq!(notes.len(), usize::from(!words.is_empty()), "{said}");
        assert!(notes.iter().all(|note| note.as_str().unwrap().contains(words)), "{said}");
    }
    server.stop();
}

#[test]
fn a_colour_profile_goes_with_the_picture_if_it_is_one_for_it() {
    let (folder, name) = (Folder::new(), Name::new("icc"));
    let server = Served::start(&name, &["--filter", "invert"]);
    for (space, stays) in [(b"RGB ", true), (b"CMYK", false)] {
        let mut profile = vec![7; 200];
        profile[16..20].copy_from_slice(space);
        let mut png = Vec::new();
        let mut encoder = PngEncoder::new(&mut png);
        encoder.set_icc_profile(profile.clone()).unwrap();
        encoder.write_image(&picture(), WIDTH, HEIGHT, ExtendedColorType::Rgb8).unwrap();
        let output = folder.path("out.png");
        let ended = call(&name, &folder.write("in.png", &png), &output);
        assert_eq!(ended.stderr.contains("profile"), !stays, "{}", ended.stderr);
        let file = std::io::BufReader::new(std::fs::File::open(&output).unwrap());
        let found = PngDecoder::new(file).unwrap().icc_profile().unwrap();
        assert_eq!(found, stays.then_some(profile));
    }
    server.stop();
}

/// A PNG file with this header and no pixels.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut chunk = b"IHDR".to_vec();
    chunk.extend([width.to_be_bytes(), height.to_be_bytes()].concat());
    chunk.extend([8, 2, 0, 0, 0]);
    let mut file = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
    file.extend_from_slice(&chunk);
    file.extend(crc32fast::hash(&chunk).to_be_bytes());
    file.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e");
    file
}

#[test]
fn a_picture_beyond_the_limit_is_told_with_its_size_and_the_limit() {
    let folder = Folder::new();
    let input = folder.write("huge.png", &png_header(40_000, 40_000));
    let ended = call("nobody", &input, &folder.path("out.png"));
    ended.failed(8, "40000 x 40000 pixels take 4800000000 bytes; the most is 2147483648");
    assert!(!ended.stderr.contains("neither"), "{}", ended.stderr);
}

#[test]
fn a_picture_that_does_not_fit_the_ring_is_not_even_decoded() {
    let (folder, name) = (Folder::new(), Name::new("fit"));
    let server = Served::start(&name, &["--filter", "echo", "--payload", "1MiB"]);
    // Decoding it would fail: it has no pixels.
    let input = folder.write("large.png", &png_header(1000, 1000));
    let ended = call(&name, &input, &folder.path("out.png"));
    ended.failed(9, "a request of 3000000 bytes is too large");
    assert!(ended.stderr.contains(&format!("\"{}\"", &*name)), "{}", ended.stderr);
    server.stop();
}

fn files(folder: &Folder) -> Vec<String> {
    let mut files: Vec<String> = std::fs::read_dir(folder.path(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    files
}

#[test]
fn a_result_that_cannot_be_written_leaves_the_one_of_before() {
    let (folder, name) = (Folder::new(), Name::new("before"));
    let server = Served::start(&name, &["--filter", "echo"]);
    // More than the 65535 pixels that a side of a JPEG picture can have.
    let wide = folder.path("wide.png");
    image::GrayImage::new(65_536, 1).save(&wide).unwrap();
    let output = folder.write("out.jpg", b"before");
    call(&name, &wide, &output).failed(8, "out.jpg");
    assert_eq!(std::fs::read(&output).unwrap(), b"before");

    // A disk that is full after a few bytes.
    let (input, output) = (folder.write("in", &noise(100_000)), folder.write("out", b"before"));
    let ended: Ended = std::process::Command::new("sh")
        .args([
            "-c",
            "trap '' XFSZ; ulimit -f 16; exec \"$0\" \"$@\"",
            env!("CARGO_BIN_EXE_zerobuffer"),
        ])
        .args(["call", &name, "--raw", &input, "--out", &output])
        .env("ZEROBUFFER_DIR", RUNTIME)
        .output()
        .unwrap()
        .into();
    ended.failed(8, "out");
    assert_eq!(std::fs::read(&output).unwrap(), b"before");
    assert_eq!(files(&folder), ["in", "out", "out.jpg", "wide.png"]);
    server.stop();
}

#[test]
fn a_result_keeps_the_mode_and_the_links_of_the_file_whose_place_it_takes() {
    let (folder, name) = (Folder::new(), Name::new("links"));
    let server = Served::start(&name, &["--filter", "echo"]);
    let input = folder.write("in", b"new");
    let output = folder.write("out", b"before");
    std::fs::set_permissions(&output, std::fs::Permissions::from_mode(0o640)).unwrap();
    let link = folder.path("link");
    std::os::unix::fs::symlink(&output, &link).unwrap();
    let dangling = folder.path("dangling");
    std::os::unix::fs::symlink(folder.path("made"), &dangling).unwrap();
    for to in [&link, &dangling, "/dev/null"] {
        run(&["call", &name, "--raw", &input, "--out", to]).ok();
    }
    assert_eq!(std::fs::read(&output).unwrap(), b"new");
    assert_eq!(std::fs::metadata(&output).unwrap().permissions().mode() & 0o7777, 0o640);
    assert!(
        std::path::Path::new(&link).is_symlink() && std::path::Path::new(&dangling).is_symlink()
    );
    assert_eq!(std::fs::read(folder.path("made")).unwrap(), b"new");
    assert_eq!(files(&folder), ["dangling", "in", "link", "made", "out"]);
    server.stop();
}

#[test]
fn a_signal_in_the_middle_of_many_frames_leaves_the_result_of_before() {
    let (folder, name) = (Folder::new(), Name::new("signal"));
    let server = Served::start(&name, &["--filter", "echo"]);
    let output = folder.write("out", b"before");
    let args = ["call", &name, "--raw", "-", "--size", "10x10x1", "--out", &output];
    let mut child = zerobuffer(&args).stdin(std::process::Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, &noise(100)).unwrap();
    crate::support::until("the first frame", || files(&folder).len() == 2);
    crate::support::kill(child.id(), "TERM");
    let ended: Ended = child.wait_with_output().unwrap().into();
    assert_eq!(ended.code, None);
    assert_eq!(std::fs::read(&output).unwrap(), b"before");
    assert_eq!(files(&folder), ["out"]);
    server.stop();
}
