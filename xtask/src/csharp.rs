//! The C# binding: built and packed with the .NET SDK, and tested on .NET.

use crate::dotnet;
use crate::python;
use crate::run::{cargo, root, step};
use anyhow::{Context, Result, ensure};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const LIBRARY: &str = "bindings/csharp/ZeroBuffer/ZeroBuffer.csproj";
const TESTS: &str = "bindings/csharp/ZeroBuffer.Tests/ZeroBuffer.Tests.csproj";
const PEER: &str = "tests/interop/csharp/InteropPeer.csproj";

/// A program of the existing package of version 1, and what is on the other side of it in Python.
const EXISTING: &str = "bindings/csharp/Existing/Existing.csproj";
const EXISTING_PYTHON: &str = "bindings/csharp/Existing/peer.py";

const PROJECTS: [&str; 4] = [LIBRARY, TESTS, PEER, EXISTING];

/// Where the documents show this program word for word, or what its main function holds.
const EXAMPLE: &str = "bindings/csharp/Example.cs";
const TWO_PROCESSES: &str = "bindings/csharp/TwoProcesses.cs";

/// Handlers that the compiler must refuse.
const REFUSED: &str = "bindings/csharp/Refused.cs";

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
    existing()?;
    advice_without_native_library()?;
    documents()?;
    package()?;
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
    for example in [EXAMPLE, TWO_PROCESSES] {
        ensure!(
            read("docs/csharp.md")?.contains(&read(example)?),
            "docs/csharp.md does not have the example {example}"
        );
    }
    let example = read(EXAMPLE)?;
    let body: Vec<&str> =
        example.lines().skip_while(|line| !line.contains("using (var server")).collect();
    let body = body.iter().take_while(|line| **line != "    }");
    let body: Vec<&str> = body.map(|line| line.strip_prefix("        ").unwrap_or(line)).collect();
    ensure!(
        read("README.md")?.contains(&body.join("\n")),
        "README.md does not have what the main function of {EXAMPLE} holds"
    );
    Ok(())
}

/// As a user would: a package in a folder, a new console project that has it, the examples pasted into it.
fn package() -> Result<()> {
    let folder = root().join("target/csharp/package");
    let _ = std::fs::remove_dir_all(&folder);
    // Otherwise the package of an earlier run is taken, which has the same version.
    let _ = std::fs::remove_dir_all(dotnet::home().join(".nuget/packages/zerobuffer"));
    let mut pack = dotnet::sdk();
    pack.args(["pack", "-c", "Release", "-nologo", "-o"]).arg(&folder).arg(root().join(LIBRARY));
    step("C# package", pack)?;

    let console = Console(folder.join("Console"));
    std::fs::create_dir_all(&console.0)?;
    console.run(&["new", "console"])?;
    console.run(&["add", "package", "ZeroBuffer", "--source", &folder.display().to_string()])?;
    console.paste(EXAMPLE)?;
    let said = console.run(&["run"])?;
    ensure!(said == "3\n", "the C# example: {said}");
    console.two_processes()?;
    console.refused()?;
    println!("the C# examples work with the package in a new console project");
    Ok(())
}

/// A console project that uses the package.
struct Console(PathBuf);

impl Console {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut dotnet = dotnet::sdk();
        dotnet.args(arguments).current_dir(&self.0);
        dotnet
    }

    /// What a command prints, which must succeed.
    fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command(arguments).output()?;
        ensure!(output.status.success(), "dotnet {arguments:?}: {output:?}");
        Ok(String::from_utf8(output.stdout)?)
    }

    fn paste(&self, program: &str) -> Result<()> {
        std::fs::copy(root().join(program), self.0.join("Program.cs"))
            .context(program.to_owned())?;
        Ok(())
    }

    fn two_processes(&self) -> Result<()> {
        self.paste(TWO_PROCESSES)?;
        self.run(&["build"])?;
        let mut server = self.command(&["run", "--no-build", "--", "serve"]);
        let mut server = server.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut said = String::new();
        let stdout = server.stdout.take().context("the server's output is piped")?;
        let read = BufReader::new(stdout).read_line(&mut said);
        let called = self.run(&["run", "--no-build", "--", "call"]);
        // The end of its input tells the server to stop.
        drop(server.stdin.take());
        let ended = server.wait()?;
        read?;
        ensure!(said.starts_with("serving") && ended.success(), "the server: {said:?}, {ended}");
        let called = called?;
        ensure!(called == "upper case\nHELLO\n", "the client: {called:?}");
        Ok(())
    }

    /// The compiler refuses handlers that do not do what they seem to, and no others.
    fn refused(&self) -> Result<()> {
        self.paste(REFUSED)?;
        let output = self.command(&["build", "-nologo"]).output()?;
        let said = String::from_utf8(output.stdout)?;
        let program = std::fs::read_to_string(root().join(REFUSED))?;
        for (line, number) in program.lines().zip(1..) {
            let is_refused = said.contains(&format!("Program.cs({number},"));
            ensure!(
                is_refused == line.ends_with("// refused"),
                "line {number} of {REFUSED}, {line:?}: {said}"
            );
        }
        ensure!(said.contains("CS0619"), "the handlers are refused for another reason: {said}");
        Ok(())
    }
}
