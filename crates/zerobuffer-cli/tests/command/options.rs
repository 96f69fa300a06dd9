//! What the command line takes and refuses.

use crate::support::{run, zerobuffer};
use std::process::Stdio;

#[test]
fn bad_options_end_with_2_and_say_which() {
    let raw = ["--raw", "/dev/null", "--out", "/dev/null"];
    let call = |more: &[&'static str]| [&["call", "x"], &raw[..], more].concat();
    let cases: [(Vec<&str>, &str); 32] = [
        (vec![], "Usage"),
        (vec!["fly"], "fly"),
        (vec!["demo", "--size", "12"], "1280x720"),
        (vec!["demo", "--size", "0x5"], "from 1 to"),
        (vec!["demo", "--frames", "0"], "--frames"),
        (vec!["demo", "--box", "1,2,3"], "100,80,320,200"),
        (vec!["demo", "--radius", "0"], "--radius"),
        (vec!["serve", "x"], "--filter"),
        (vec!["serve", "x", "--filter", "sharpen"], "grayscale"),
        (vec!["serve", "x", "--filter", "xor"], "--key"),
        (vec!["serve", "x", "--filter", "xor", "--key", "xyz"], "hexadecimal"),
        (vec!["serve", "x", "--filter", "echo", "--payload", "many"], "64MiB"),
        (vec!["serve", "x", "--filter", "echo", "--payload", "0"], "ring is 0"),
        (
            vec!["serve", "x", "--filter", "echo", "--payload", "0", "--channel"],
            "payload size is 0",
        ),
        (vec!["serve", "x", "--filter", "echo", "--processes", "0"], "--processes"),
        (vec!["serve", "x", "--filter", "echo", "--processes", "2", "--channel"], "--channel"),
        (vec!["serve", "x", "--filter", "echo", "--max-clients", "0"], "max_clients is 0"),
        (vec!["serve", "x", "--filter", "echo", "--mode", "660"], "--channel"),
        (vec!["serve", "x", "--filter", "echo", "--workers", "0"], "--workers"),
        (vec!["call", "x", "--out", "y"], "--image"),
        (call(&["--image", "y"]), "cannot be used with"),
        (call(&["--wait=-1"]), "--wait"),
        (vec!["call", "x", "--image", "a.png", "--out", "b.gif"], "b.gif"),
        (vec!["writer", "x", "--size", "0"], "at least one byte"),
        (vec!["writer", "x", "--pattern", "stripes"], "sequential"),
        (vec!["writer", "x", "--batch-size", "0"], "--batch-size"),
        (vec!["writer", "x", "--delay-ms", "soon"], "milliseconds"),
        (vec!["writer", "x", "-m", "a", "--metadata-file", "b"], "cannot be used with"),
        (vec!["reader", "x", "--verify", "all"], "sequential"),
        (vec!["reader", "x", "--buffer-size", "0"], "payload size is 0"),
        (vec!["relay", "x"], "OUTPUT"),
        (vec!["relay", "x", "y", "--transform", "reverse"], "invert"),
    ];
    for (args, words) in cases {
        run(&args).failed(2, words);
    }
}

#[test]
fn bad_names_are_refused_with_the_rule() {
    for name in ["", ".hidden", "a/b", "../x", "a b", "ä", &"x".repeat(201)] {
        for args in [
            &["serve", name, "--filter", "echo"][..],
            &["call", name, "--raw", "/dev/null", "--out", "/dev/null"],
        ] {
            run(args).failed(2, "bad name");
        }
    }
}

#[test]
fn bad_buffer_names_are_refused_with_the_rule() {
    for name in ["", "a/b", "../x", ".", "..", &"x".repeat(246)] {
        for command in ["reader", "writer"] {
            run(&[command, name]).failed(2, "1 to 245 bytes without /");
        }
    }
}

#[test]
fn every_command_has_help_with_examples() {
    for command in ["demo", "serve", "call", "writer", "reader", "relay", "completions"] {
        let help = run(&[command, "--help"]).ok();
        assert!(help.contains(&format!("Examples:\n  zerobuffer {command}")), "{help}");
        assert!(!help.contains("--spoil"), "{help}");
    }
    let help = run(&["--help"]).ok();
    assert!(help.contains("Exit codes:"), "{help}");
    assert!(run(&["--version"]).ok().starts_with("zerobuffer "));
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completions", shell]).ok();
        assert!(script.contains("serve") && script.contains("stop-on-eof"), "{shell}");
    }
    run(&["completions", "abacus"]).failed(2, "bash");
}

#[test]
fn completions_survive_a_closed_pipe() {
    let mut child = zerobuffer(&["completions", "bash"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
