//! Every command line that documents and help texts show, run against files that exist.
//!
//! Only this is changed: channel names get a number, so that nobody else's are touched, and a demo without a size gets
//! a small one.

use crate::stream::making;
use crate::support::{
    Ended, Folder, RUNTIME, Served, directory_of, kill, noise, run, sockets, until, wait,
};
use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

const COMMANDS: [&str; 9] =
    ["demo", "serve", "call", "status", "clean", "writer", "reader", "relay", "completions"];
const CHANNELS: [&str; 10] = [
    "thumbs", "cameras", "secret", "legacy", "echo", "images", "camera", "screen", "end", "photos",
];

fn document(path: &str) -> String {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    std::fs::read_to_string(format!("{root}/{path}")).unwrap()
}

/// The lines of all examples for a shell.
fn shell_blocks(document: &str) -> Vec<String> {
    let parts = document.split("```sh\n").skip(1);
    parts.map(|part| part.split("```").next().unwrap().to_owned()).collect()
}

/// The examples of the help texts.
fn help_examples() -> Vec<String> {
    let example_part = |command: &str| {
        let help = run(&[command, "--help"]).ok();
        let (_, examples) = help.split_once("Examples:\n").unwrap();
        examples.split("\n\n").next().unwrap().to_owned()
    };
    COMMANDS.map(example_part).into()
}

/// One string for each command line, however many lines it takes.
fn command_lines(block: &str) -> Vec<String> {
    let joined = block.replace("|\n", "| ");
    joined.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
}

/// What the examples need: the files, a home, and this build's command in the search path.
struct Stage {
    folder: Folder,
    number: u32,
}

impl Stage {
    fn new() -> Self {
        let stage = Self { folder: Folder::new(), number: std::process::id() };
        let holiday = stage.folder.path("holiday.jpg");
        image::RgbImage::from_raw(48, 32, noise(48 * 32 * 3)).unwrap().save(holiday).unwrap();
        stage.folder.write("letter.txt", b"A letter.\n");
        stage.folder.write("frame.bin", &noise(5000));
        stage.folder.write("in.mp4", &noise(3 * 1920 * 1080 * 3));
        std::fs::create_dir_all(stage.folder.path(".config/fish/completions")).unwrap();
        // In place of the real one, which not every machine has: its input and output are raw here.
        let ffmpeg = stage.folder.write("bin", b"");
        std::fs::remove_file(&ffmpeg).unwrap();
        std::fs::create_dir(&ffmpeg).unwrap();
        let script = "#!/bin/sh\nif [ \"$2\" = in.mp4 ]; then cat in.mp4; else cat > out.mp4; fi\n";
        let ffmpeg = stage.folder.write("bin/ffmpeg", script.as_bytes());
        assert!(Command::new("chmod").args(["+x", &ffmpeg]).status().unwrap().success());
        stage
    }

    fn name(&self, channel: &str) -> String {
        format!("{channel}-{}", self.number)
    }

    /// The line with names of this test's own.
    fn own(&self, line: &str) -> String {
        let words = line.split(' ').scan("", |before, word| {
            let is_name = CHANNELS.contains(&word)
                && (COMMANDS.contains(before) || CHANNELS.contains(before));
            *before = word;
            Some(if is_name { self.name(word) } else { word.to_owned() })
        });
        words.collect::<Vec<_>>().join(" ")
    }

    fn shell(&self, script: &str) -> Command {
        let built = std::path::Path::new(env!("CARGO_BIN_EXE_zerobuffer")).parent().unwrap();
        let path = std::env::var("PATH").unwrap();
        let mut shell = Command::new("bash");
        shell
            .args(["-e", "-o", "pipefail", "-c", script])
            .current_dir(self.folder.path(""))
            .env("PATH", format!("{}:{}:{path}", self.folder.path("bin"), built.display()))
            .env("HOME", self.folder.path(""))
            .env("ZEROBUFFER_DIR", RUNTIME)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        shell
    }

    fn start(&self, line: &str) -> Child {
        self.shell(&format!("exec {line}")).spawn().unwrap()
    }

    fn run(&self, line: &str) {
        let ended: Ended = self.shell(line).output().unwrap().into();
        assert_eq!(ended.code, Some(0), "{line}\n{}{}", ended.text(), ended.stderr);
    }
}

fn good_end(line: &str, child: Child) {
    let ended: Ended = child.wait_with_output().unwrap().into();
    assert_eq!(ended.code, Some(0), "{line}\n{}{}", ended.text(), ended.stderr);
}

/// The value of an option, by any of its names.
fn option<'l>(words: &[&'l str], names: &[&str]) -> Option<&'l str> {
    let at = words.iter().position(|word| names.contains(word))?;
    Some(words[at + 1])
}

/// Runs one example together with what it needs on the other side.
fn run_example(stage: &Stage, example: &str) {
    let line = stage.own(example);
    let words: Vec<&str> = line.split(' ').collect();
    let Some(at) = words.iter().position(|word| *word == "zerobuffer") else {
        return stage.run(&line);
    };
    let name = words.get(at + 2).copied().unwrap_or_default();
    match words[at + 1] {
        "demo" if line.contains("--image") => stage.run(&line),
        "demo" => stage.run(
            &line.replace("demo", "demo --size 64x36 --frames 8").replace("--size 3840x2160", ""),
        ),
        "completions" | "clean" => stage.run(&line),
        "status" => {
            let server = Served::start(name, &["--filter", "echo"]);
            stage.run(&line);
            server.stop();
        }
        "serve" => serve(stage, &line),
        "call" => {
            let filter = if example.contains("cameras") { "redact" } else { "echo" };
            let server = Served::start(name, &["--filter", filter]);
            stage.run(&line);
            server.stop();
        }
        "writer" => {
            let reading = making(name, &["reader", name, "-n", "0", "--timeout-ms", "60000"]);
            stage.run(&line);
            good_end(&line, reading);
        }
        "reader" => {
            let reading = stage.start(&line);
            write(name, &words);
            good_end(&line, reading);
        }
        "relay" => {
            let output = words[at + 3];
            let is_end = line.contains("--create-output");
            let reading = (!is_end)
                .then(|| making(output, &["reader", output, "-n", "0", "--timeout-ms", "60000"]));
            let relaying = stage.start(&line);
            write(name, &words);
            good_end(&line, relaying);
            reading.into_iter().for_each(|reading| good_end(&line, reading));
        }
        other => panic!("no command {other:?}: {line}"),
    }
}

/// Writes as many frames as a reader or relay with these options waits for, and of that kind.
fn write(name: &str, words: &[&str]) {
    let frames = option(words, &["-n", "--frames"]).unwrap_or("1000");
    let frames = if frames == "0" { "120" } else { frames };
    let size = option(words, &["-s", "--size"]).unwrap_or("1024");
    let pattern = option(words, &["--verify"]).unwrap_or("sequential");
    let args = ["writer", name, "--frames", frames, "--size", size, "--pattern", pattern];
    run(&[&args[..], &["--drain", "--timeout-ms", "60000"]].concat()).ok();
}

/// A server says that it serves, and stops when it is told to.
fn serve(stage: &Stage, line: &str) {
    let mut server = stage.start(line);
    let mut said = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert!(said.starts_with("serving "), "{line}: {said}");
    kill(server.id(), "TERM");
    assert_eq!(wait(&mut server), Some(0), "{line}");
}

#[test]
fn every_command_line_of_the_reference_and_of_the_help_texts_works() {
    let stage = Stage::new();
    let reference = shell_blocks(&document("docs/command.md"));
    let mut lines: Vec<String> = [reference, help_examples()]
        .concat()
        .iter()
        .flat_map(|block| command_lines(block))
        .collect();
    let mut seen = HashSet::new();
    lines.retain(|line| seen.insert(line.clone()));
    assert!(lines.len() > 20, "{lines:#?}");
    for command in COMMANDS {
        let shown = format!("zerobuffer {command}");
        assert!(lines.iter().any(|line| line.contains(&shown)), "no example of {shown}");
    }
    for line in &lines {
        run_example(&stage, line);
    }
    for channel in CHANNELS {
        let name = stage.name(channel);
        assert_eq!(sockets(&name), [""; 0]);
        let _ = std::fs::remove_dir(directory_of(&name));
    }
    let video = std::fs::read(stage.folder.path("out.mp4")).unwrap();
    assert_eq!(video.len(), 3 * 1920 * 1080 * 3);
}

/// Each name of each option, and its default, if it is one word.
type Options = BTreeMap<String, Option<String>>;

/// The names in this text, as in `-n, --frames <N> [alias: --count]`.
fn names(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-');
    words.filter(|word| word.starts_with('-') && word.len() > 1).map(str::to_owned)
}

fn one_word(default: &str) -> Option<String> {
    Some(default.replace('`', "")).filter(|word| !word.is_empty() && !word.contains(' '))
}

/// The options of a command as its help has them, without those of all commands.
fn options_in_help(command: &str) -> Options {
    let help = run(&[command, "--help"]).ok();
    let (_, options) = help.split_once("Options:\n").unwrap();
    let options = options.split("Examples:").next().unwrap();
    let mut entries: Vec<String> = vec![];
    for line in options.lines() {
        // Descriptions are further in.
        match line.find('-') {
            Some(2..=6) if line.trim_start().starts_with('-') => entries.push(line.to_owned()),
            _ => entries.last_mut().unwrap().push_str(line),
        }
    }
    let mut found = Options::new();
    for entry in entries {
        let entry = entry.split_whitespace().collect::<Vec<_>>().join(" ");
        let part =
            |start: &str| entry.split_once(start).and_then(|(_, rest)| rest.split(']').next());
        let head = entry.split(" <").next().unwrap();
        let head = head.split_inclusive(' ').take_while(|word| word.starts_with('-'));
        let default = part("[default: ").and_then(one_word);
        for name in names(&head.collect::<String>()).chain(names(part("[alias: ").unwrap_or(""))) {
            found.insert(name, default.clone());
        }
    }
    for common in ["--json", "--json-output", "-v", "--verbose", "-h", "--help"] {
        assert!(found.remove(common).is_some(), "{common}: {found:?}");
    }
    found
}

/// The options of a command as its table in the reference has them.
fn options_in_reference(reference: &str, command: &str) -> Options {
    let (_, section) = reference.split_once(&format!("\n## {command}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap().split("\n### ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `-"));
    let row = |row: &str| {
        let cells: Vec<&str> = row.split(" | ").collect();
        let default = one_word(cells[1].trim());
        names(cells[0]).map(|name| (name, default.clone())).collect::<Vec<_>>()
    };
    rows.flat_map(row).collect()
}

#[test]
fn the_reference_has_the_options_of_the_help_texts_and_their_defaults() {
    let reference = document("docs/command.md");
    for command in COMMANDS {
        let (help, told) = (options_in_help(command), options_in_reference(&reference, command));
        assert!(help.keys().eq(told.keys()), "{command}: {help:?}\n{told:?}");
        for (name, default) in help.iter().filter(|(_, default)| default.is_some()) {
            assert_eq!(&told[name], default, "{command} {name}");
        }
    }
}

#[test]
fn the_example_of_a_rolling_restart_works_line_by_line() {
    let blocks = shell_blocks(&document("docs/containers.md"));
    let [example] = &blocks[..] else { panic!("not one example: {blocks:?}") };
    let stage = Stage::new();
    let own: Vec<String> = example.lines().map(|line| stage.own(line)).collect();
    stage.run(&own.join("\n"));
    let picture = |file: &str| image::open(stage.folder.path(file)).unwrap().to_rgb8();
    assert!(picture("before.png") == picture("between.png"));
    assert!(picture("before.png") == picture("after.png"));
    let name = stage.name("photos");
    until("the server to stop", || sockets(&name).is_empty());
    std::fs::remove_dir(directory_of(&name)).unwrap();
}

#[test]
fn the_example_for_a_shell_on_the_first_page_works_line_by_line() {
    let readme = document("README.md");
    let blocks = shell_blocks(&readme);
    let example = blocks.iter().find(|block| block.contains("zerobuffer call")).unwrap();
    let stage = Stage::new();
    let own: Vec<String> = example.lines().map(|line| stage.own(line)).collect();
    let script = own.join("\n").replace("zerobuffer demo ", "zerobuffer demo --size 160x90 ");
    // With jobs, as in the shell of a person.
    stage.run(&format!("set -m\n{script}"));
    let before = image::open(stage.folder.path("zerobuffer-demo/before.png")).unwrap();
    let after = image::open(stage.folder.path("blurred.png")).unwrap();
    assert_eq!((after.width(), after.height()), (before.width(), before.height()));
    assert!(after.as_bytes() != before.as_bytes());
    let name = stage.name("images");
    until("the server to stop", || sockets(&name).is_empty());
    std::fs::remove_dir(directory_of(&name)).unwrap();
}
