//! The C# binding: built and packed with the .NET SDK, and tested on .NET.

use crate::dotnet;
use crate::python;
use crate::run::{cargo, root, step};
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) const LIBRARY: &str = "bindings/csharp/ZeroBuffer/ZeroBuffer.csproj";
const TESTS: &str = "bindings/csharp/ZeroBuffer.Tests/ZeroBuffer.Tests.csproj";
pub(crate) const HOSTING: &str =
    "bindings/csharp/ZeroBuffer.Extensions.Hosting/ZeroBuffer.Extensions.Hosting.csproj";
const HOSTING_TESTS: &str = "bindings/csharp/ZeroBuffer.Extensions.Hosting.Tests/ZeroBuffer.Extensions.Hosting.Tests.csproj";
pub(crate) const WEB: &str = "bindings/csharp/Web/Web.csproj";
const PEER: &str = "tests/interop/csharp/InteropPeer.csproj";

/// A program of the existing package of version 1, and what is on the other side of it in Python.
const EXISTING: &str = "bindings/csharp/Existing/Existing.csproj";
const EXISTING_PYTHON: &str = "bindings/csharp/Existing/peer.py";

const PROJECTS: [&str; 7] = [LIBRARY, HOSTING, TESTS, HOSTING_TESTS, WEB, PEER, EXISTING];

/// Where the documents show this program word for word, or what its main function holds.
pub(crate) const EXAMPLE: &str = "bindings/csharp/Example.cs";
pub(crate) const TWO_PROCESSES: &str = "bindings/csharp/TwoProcesses.cs";
pub(crate) const MENDING: &str = "bindings/csharp/Mending.cs";
pub(crate) const ASYNC_HANDLER: &str = "bindings/csharp/AsyncHandler.cs";
pub(crate) const CLIENTS: &str = "bindings/csharp/Clients.cs";
pub(crate) const WEB_PROGRAM: &str = "bindings/csharp/Web/Program.cs";

/// The collector runs all the time, and methods are compiled for speed at once: what nothing refers to any more goes
/// as early as it ever may. Memory that is freed is overwritten.
const HARD: [(&str, &str); 3] = [
    ("COMPlus_GCgen0size", "40000"),
    ("COMPlus_TieredCompilation", "0"),
    ("MALLOC_PERTURB_", "165"),
];

/// Builds everything, and runs the tests and the examples.
pub(crate) fn test() -> Result<()> {
    prepare()?;
    for project in PROJECTS {
        build(project)?;
    }
    annotated()?;
    for folder in ["bindings", "crates", "tests"] {
        every_project_is_built(Path::new(folder))?;
    }
    let header = root().join("crates/zerobuffer-ffi/include/zerobuffer.h");
    let tests = || {
        let mut tests = Command::new("env");
        tests.args(dotnet::runtime()).env("ZEROBUFFER_HEADER", &header);
        tests
    };
    step("C# binding", tests().arg(output(TESTS)))?;
    let assembly = format!("{}.dll", output(TESTS).display());
    let mut hard = tests();
    hard.envs(HARD).arg(dotnet::program()).arg(assembly);
    step("C# binding, collected all the time", hard)?;
    step("C# in a host", tests().arg(output(HOSTING_TESTS)))?;
    existing()?;
    advice_without_native_library()?;
    documents()?;
    dotnet::tidy();
    Ok(())
}

/// Builds the peer of the matrix, and returns the command that starts it.
pub(crate) fn peer() -> Result<String> {
    prepare()?;
    build(PEER)?;
    dotnet::tidy();
    let [place, quiet] = dotnet::runtime();
    Ok(format!("env '{place}' '{quiet}' '{}'", output(PEER).display()))
}

/// The SDK, and the native library, which goes to where the assembly is.
fn prepare() -> Result<()> {
    dotnet::install()?;
    step("native library", cargo("build --release -p zerobuffer-ffi"))
}

fn build(project: &str) -> Result<()> {
    let mut build = dotnet::sdk();
    build.args(["build", "-c", "Release", "-nologo", "-warnaserror"]).arg(root().join(project));
    step(project, build)
}

/// The references of later frameworks say what may be null, those of `netstandard2.1` do not: newer SDKs build for both.
fn annotated() -> Result<()> {
    let mut build = dotnet::sdk();
    build.args(["build", "-c", "Release", "-nologo", "-warnaserror"]).arg(root().join(HOSTING));
    build.args(["-p:TargetFrameworks=netcoreapp3.1", "-p:ZeroBufferVariant=annotated/"]);
    step("the packages for a framework that says what may be null", build)
}

/// What nobody builds is wrong sooner or later.
fn every_project_is_built(folder: &Path) -> Result<()> {
    for entry in root().join(folder).read_dir().with_context(|| folder.display().to_string())? {
        let path = folder.join(entry?.file_name());
        if root().join(&path).is_dir() {
            every_project_is_built(&path)?;
        } else if path.extension().is_some_and(|extension| extension == "csproj") {
            let is_built = PROJECTS.iter().any(|built| path == Path::new(built));
            ensure!(is_built, "{} is built nowhere", path.display());
        }
    }
    Ok(())
}

/// The program that a project makes.
fn output(project: &str) -> PathBuf {
    let name = Path::new(project).file_stem().unwrap_or_default();
    root().join("target/csharp").join(name).join("bin/Release/netcoreapp3.1").join(name)
}

/// A program of the existing package runs with ours, alone and in two processes, also where the other one has the
/// existing Python package.
fn existing() -> Result<()> {
    let mut ours = Command::new("env");
    ours.args(dotnet::runtime()).arg(output(EXISTING));
    let mut python = Command::new(python::v1_venv()?);
    python.arg(root().join(EXISTING_PYTHON));
    step("a program of the existing C# package", again(&ours).arg("all"))?;
    for (server, client) in [(&ours, &ours), (&ours, &python), (&python, &ours)] {
        let name = format!("zbxcs{}", std::process::id());
        let mut server = again(server).args(["serve", &name]).spawn().context("the server")?;
        let called = step("a client of the existing kind", again(client).args(["call", &name]));
        let ended = server.wait()?;
        // The existing Python package leaves these.
        for left in ["r", "w"].iter().flat_map(|of| [(of, "request"), (of, "response")]) {
            let _ = std::fs::remove_file(format!("/dev/shm/sem.sem-{}-{name}_{}", left.0, left.1));
        }
        called?;
        ensure!(ended.success(), "the server of the existing kind: {ended}");
    }
    Ok(())
}

/// The same command once more.
fn again(command: &Command) -> Command {
    let mut again = Command::new(command.get_program());
    again.args(command.get_args());
    again
}

/// Who has not built the native library is told so, and nothing else before.
fn advice_without_native_library() -> Result<()> {
    for task in ["build", "pack"] {
        let mut dotnet = dotnet::sdk();
        dotnet.args([task, "-c", "Release", "-nologo", "-p:NativeLibrary=/nowhere.so"]);
        let output = dotnet.arg(root().join(LIBRARY)).output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        let first = said.lines().find(|line| line.contains("error")).unwrap_or_default();
        ensure!(
            !output.status.success() && first.contains("cargo build --release -p zerobuffer-ffi"),
            "without a native library dotnet {task} says: {said}"
        );
    }
    Ok(())
}

/// The examples of the documents are these, word for word.
fn documents() -> Result<()> {
    let read = |file: &str| std::fs::read_to_string(root().join(file)).context(file.to_owned());
    let manual = "docs/csharp.md";
    for (document, example) in [
        (manual, EXAMPLE),
        (manual, TWO_PROCESSES),
        (manual, MENDING),
        (manual, CLIENTS),
        (manual, ASYNC_HANDLER),
        ("docs/csharp-web.md", WEB_PROGRAM),
    ] {
        ensure!(
            read(document)?.contains(&read(example)?),
            "{document} does not have the example {example}"
        );
    }
    let example = read(EXAMPLE)?;
    let body: Vec<&str> =
        example.lines().skip_while(|line| !line.contains("using (var service")).collect();
    let body = body.iter().take_while(|line| **line != "    }");
    let body: Vec<&str> = body.map(|line| line.strip_prefix("        ").unwrap_or(line)).collect();
    ensure!(
        read("README.md")?.contains(&body.join("\n")),
        "README.md does not have what the main function of {EXAMPLE} holds"
    );
    Ok(())
}
