//! The C# binding: built with Debian's mono, tested with it.

use crate::packages::apt_install;
use crate::steps::{cargo, root, step};
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is built goes to this folder.
const FOLDER: &str = "target/csharp";
const PACKAGES: [&str; 2] = ["mono-mcs", "mono-runtime"];

/// How mono stops threads for the collector: by signals, which makes calls between managed and native
/// code cheaper than its default does.
const QUICK: (&str, &str) = ("MONO_THREADS_SUSPEND", "preemptive");

/// Builds everything, and runs the tests and the example.
pub(crate) fn test() -> Result<()> {
    build_library()?;
    compile("bindings/csharp/ZeroBuffer.Tests", "ZeroBuffer.Tests.exe")?;
    let tests = || {
        let mut tests = mono("ZeroBuffer.Tests.exe");
        tests.env("ZEROBUFFER_HEADER", root().join("crates/zerobuffer-ffi/include/zerobuffer.h"));
        tests
    };
    step("C# binding", tests())?;
    let mut quick = tests();
    quick.env(QUICK.0, QUICK.1);
    step("C# binding, threads stopped by signals", quick)?;
    example()
}

/// Builds the peer of the matrix, and returns the command that starts it.
pub(crate) fn peer() -> Result<String> {
    build_library()?;
    compile("tests/interop/csharp", "InteropPeer.exe")?;
    let program = folder().join("InteropPeer.exe");
    Ok(format!("env {}={} mono '{}'", QUICK.0, QUICK.1, program.display()))
}

/// `ZeroBuffer.dll`, with the native library next to it, where mono looks for it.
fn build_library() -> Result<()> {
    install()?;
    step("native library", cargo("build --release -p zerobuffer-ffi"))?;
    std::fs::create_dir_all(folder()).context(FOLDER)?;
    let native = "libzerobuffer.so";
    std::fs::copy(root().join("target/release").join(native), folder().join(native))
        .context("copy the native library")?;
    let mut compiler = mcs("ZeroBuffer.dll");
    compiler.arg("-target:library").arg(option("-doc:", &folder().join("ZeroBuffer.xml")));
    compiler.args(sources("bindings/csharp/ZeroBuffer")?);
    step("ZeroBuffer.dll", compiler)
}

/// Makes sure that there is a compiler and a runtime.
fn install() -> Result<()> {
    let runs = |program: &str| {
        let output = Command::new(program).arg("--version").output();
        output.is_ok_and(|output| output.status.success())
    };
    if !runs("mcs") || !runs("mono") {
        apt_install(&PACKAGES)?;
        ensure!(
            runs("mcs") && runs("mono"),
            "mcs or mono does not run after installing {PACKAGES:?}"
        );
    }
    Ok(())
}

/// A program of all the C# files in a folder.
fn compile(source_folder: &str, program: &str) -> Result<()> {
    let mut compiler = mcs(program);
    compiler.arg(option("-r:", &folder().join("ZeroBuffer.dll")));
    compiler.args(sources(source_folder)?);
    step(program, compiler)
}

/// The example of the README, which must be this one word for word.
fn example() -> Result<()> {
    let text = std::fs::read_to_string(root().join("bindings/csharp/Example.cs"))?;
    let body: Vec<&str> = text.lines().skip_while(|line| !line.contains("factory")).collect();
    let body = body.iter().take_while(|line| **line != "    }");
    let body: Vec<&str> = body.map(|line| line.strip_prefix("        ").unwrap_or(line)).collect();
    for document in ["README.md", "docs/csharp.md"] {
        let found = std::fs::read_to_string(root().join(document))?.contains(&body.join("\n"));
        ensure!(found, "{document} does not have the example of bindings/csharp/Example.cs");
    }
    let mut compiler = mcs("Example.exe");
    compiler.arg(option("-r:", &folder().join("ZeroBuffer.dll")));
    compiler.arg(root().join("bindings/csharp/Example.cs"));
    step("C# example", compiler)?;
    let output = mono("Example.exe").output().context("run the example")?;
    ensure!(output.status.success() && output.stdout == b"3\n", "the C# example: {output:?}");
    Ok(())
}

fn mcs(output: &str) -> Command {
    let mut compiler = Command::new("mcs");
    compiler.args(["-unsafe", "-optimize+", "-langversion:7", "-warn:4", "-warnaserror"]);
    compiler.arg(option("-out:", &folder().join(output)));
    compiler
}

fn mono(program: &str) -> Command {
    let mut command = Command::new("mono");
    // Should it crash, it writes a report to where it runs.
    command.current_dir(folder()).arg(folder().join(program));
    command
}

fn folder() -> PathBuf {
    root().join(FOLDER)
}

fn sources(folder: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in root().join(folder).read_dir().context(folder.to_owned())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "cs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn option(name: &str, path: &Path) -> String {
    format!("{name}{}", path.display())
}
