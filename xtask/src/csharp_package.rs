//! The C# packages: made, looked into, and used as users would.

use crate::csharp::{
    ASYNC_HANDLER, CLIENTS, EXAMPLE, HOSTING, LIBRARY, MENDING, TWO_PROCESSES, WEB, WEB_PROGRAM,
};
use crate::dotnet;
use crate::run::{root, step};
use anyhow::{Context, Result, bail, ensure};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Of both packages.
const VERSION: &str = "0.1.0";

/// Handlers that the compiler must refuse.
const REFUSED: &str = "bindings/csharp/Refused.cs";
const REFUSED_IN_HOST: &str = "bindings/csharp/RefusedInHost.cs";

/// What the package has besides the assembly.
const FILES: [&str; 6] = [
    "PACKAGE.md",
    "icon.png",
    "runtimes/linux-x64/native/libzerobuffer.so",
    "runtimes/linux-arm64/native/libzerobuffer.so",
    "build/ZeroBuffer.targets",
    "buildTransitive/ZeroBuffer.targets",
];

/// Where it runs, and some of those where it does not.
const PLATFORMS: [(&str, bool); 7] = [
    ("linux-x64", true),
    ("debian.12-arm64", true),
    ("linux-musl-x64", false),
    ("alpine.3.19-x64", false),
    ("linux-arm", false),
    ("osx-arm64", false),
    ("win-x64", false),
];

/// As a user would: packages in a folder, new projects that have them, the examples pasted into them.
pub(crate) fn test() -> Result<()> {
    let folder = root().join("target/csharp/package");
    let _ = std::fs::remove_dir_all(&folder);
    pack(LIBRARY, "ZeroBuffer", &folder, &FILES)?;
    pack(HOSTING, "ZeroBuffer.Extensions.Hosting", &folder, &FILES[..2])?;
    console(&folder)?;
    web(&folder)?;
    dotnet::tidy();
    Ok(())
}

/// Makes a package, and sees that it has these files, its documentation and its symbols.
fn pack(project: &str, name: &str, folder: &Path, files: &[&str]) -> Result<()> {
    // The layout of both architectures, with the one library that there is.
    let library = root().join("target/release/libzerobuffer.so");
    let mut pack = dotnet::sdk();
    pack.args(["pack", "-c", "Release", "-nologo", "-o"]).arg(folder).arg(root().join(project));
    step("C# package", pack.arg(format!("-p:NativeLibraryArm64={}", library.display())))?;
    let package = |extension| folder.join(format!("{name}.{VERSION}.{extension}"));
    let listed = [list(&package("nupkg"))?, list(&package("snupkg"))?].concat();
    let parts = ["dll", "xml", "pdb"].map(|extension| format!("/{name}.{extension}"));
    for file in files.iter().copied().chain(parts.iter().map(String::as_str)) {
        ensure!(listed.contains(file), "{name} is without {file}: {listed}");
    }
    Ok(())
}

/// The names of the files in a package.
fn list(package: &Path) -> Result<String> {
    let listed = Command::new("python3").args(["-m", "zipfile", "-l"]).arg(package).output()?;
    ensure!(listed.status.success(), "{}: {listed:?}", package.display());
    Ok(String::from_utf8(listed.stdout)?)
}

fn console(folder: &Path) -> Result<()> {
    let console = Project(folder.join("Console"));
    std::fs::create_dir_all(&console.0)?;
    console.run(&["new", "console"])?;
    console.run(&["add", "package", "ZeroBuffer", "--source", &folder.display().to_string()])?;
    for (example, says) in [
        (EXAMPLE, "3\n"),
        (MENDING, "olleh\nniaga\n"),
        (CLIENTS, "client 2\n2\n"),
        (ASYNC_HANDLER, "3\nnothing to do\nnothing to do\n"),
    ] {
        console.paste(example)?;
        let said = console.run(&["run"])?;
        ensure!(said == says, "{example}: {said}");
    }
    console.two_processes()?;
    console.refused(REFUSED)?;
    console.platforms()?;
    println!("the C# examples work with the package in a new console project");
    Ok(())
}

/// The project of the site, with the package in the place of the other project.
fn web(folder: &Path) -> Result<()> {
    let web = Project(folder.join("Web"));
    std::fs::create_dir_all(&web.0)?;
    web.paste(WEB_PROGRAM)?;
    let project = std::fs::read_to_string(root().join(WEB))?.replace(
        "<ProjectReference Include=\"../ZeroBuffer.Extensions.Hosting/ZeroBuffer.Extensions.Hosting.csproj\" />",
        "<PackageReference Include=\"ZeroBuffer.Extensions.Hosting\" Version=\"0.1.0\" />",
    );
    ensure!(project.contains("PackageReference"), "{WEB} has another reference: {project}");
    std::fs::write(web.0.join("Web.csproj"), project)?;
    let sources = format!("-p:RestoreAdditionalProjectSources={}", folder.display());
    let said = web.run(&["build", "-nologo", &sources])?;
    ensure!(said.contains("0 Warning(s)"), "the site with the package: {said}");
    web.site()?;
    web.refused(REFUSED_IN_HOST)?;
    println!("the site of docs/csharp-web.md is built with the package, and answers");
    Ok(())
}

/// Ends it as an administrator would, which must be in order.
fn end(mut host: Child) -> Result<()> {
    Command::new("kill").arg(host.id().to_string()).status()?;
    let ended = host.wait()?;
    ensure!(ended.success(), "a host that was terminated ends: {ended}");
    Ok(())
}

/// What the site at that address answers, with everything before its body.
fn post(address: &str, path: &str, body: &[u8]) -> Result<Vec<u8>> {
    let mut site = TcpStream::connect(address).context("the site")?;
    write!(site, "POST {path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n", body.len())?;
    site.write_all(body)?;
    let mut answer = Vec::new();
    site.read_to_end(&mut answer)?;
    Ok(answer)
}

/// A project that uses a package.
struct Project(PathBuf);

impl Project {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut dotnet = dotnet::sdk();
        dotnet.args(arguments).current_dir(&self.0);
        // Services leave their directory.
        dotnet.env("ZEROBUFFER_DIR", self.0.join("obj"));
        // From the one of the SDK it would take the package of an earlier run, which has the same version.
        dotnet.env("NUGET_PACKAGES", self.0.join("cache"));
        dotnet
    }

    /// What a command prints, which must succeed.
    fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command(arguments).output()?;
        ensure!(output.status.success(), "dotnet {arguments:?}: {output:?}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The filter and the site, as the document has them: what a user sends comes back inverted.
    fn site(&self) -> Result<()> {
        let (filter, _) = self.started(&["filter"])?;
        // Any port that is free; the site says which.
        let answer = self.started(&["web", "http://127.0.0.1:0"]).and_then(|(web, said)| {
            let address = said.lines().find_map(|line| line.split("listening on: http://").nth(1));
            let answer = address
                .context("the site does not say where it is")
                .and_then(|address| post(address, "/invert", &[1, 2, 3]));
            end(web)?;
            answer
        });
        end(filter)?;
        let answer = answer?;
        ensure!(
            answer.starts_with(b"HTTP/1.1 200 ") && answer.ends_with(&[254, 253, 252]),
            "the site answers {:?}",
            String::from_utf8_lossy(&answer)
        );
        Ok(())
    }

    /// A host in a role, once it has started, with what it has said by then.
    fn started(&self, role: &[&str]) -> Result<(Child, String)> {
        let mut host = Command::new("env");
        host.args(dotnet::runtime()).arg(self.0.join("bin/Debug/netcoreapp3.1/Web")).args(role);
        host.current_dir(&self.0).stdout(Stdio::piped());
        let mut host = host
            .env("DOTNET_SYSTEM_GLOBALIZATION_INVARIANT", "1")
            // Services leave their directory.
            .env("ZEROBUFFER_DIR", self.0.join("obj"))
            .spawn()?;
        let output = BufReader::new(host.stdout.take().context("the output is piped")?);
        let mut said = String::new();
        for line in output.lines().map_while(Result::ok) {
            said += &format!("{line}\n");
            if line.contains("Application started") {
                return Ok((host, said));
            }
        }
        bail!("{role:?} does not start, and ends: {}", host.wait()?)
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
    fn refused(&self, handlers: &str) -> Result<()> {
        self.paste(handlers)?;
        let output = self.command(&["build", "-nologo"]).output()?;
        let said = String::from_utf8(output.stdout)?;
        let program = std::fs::read_to_string(root().join(handlers))?;
        for (line, number) in program.lines().zip(1..) {
            let is_refused = said.contains(&format!("Program.cs({number},"));
            ensure!(
                is_refused == line.ends_with("// refused"),
                "line {number} of {handlers}, {line:?}: {said}"
            );
        }
        ensure!(said.contains("CS0619"), "the handlers are refused for another reason: {said}");
        Ok(())
    }

    /// Programs for other platforms are told at once where this one runs.
    fn platforms(&self) -> Result<()> {
        self.paste(EXAMPLE)?;
        for (platform, runs) in PLATFORMS {
            let arguments = [
                "build",
                "-nologo",
                "-p:UseAppHost=false",
                "-p:SelfContained=false",
                "-r",
                platform,
            ];
            let output = self.command(&arguments).output()?;
            let said = String::from_utf8(output.stdout)?;
            let refused = format!(
                "ZB0001: ZeroBuffer runs on linux-x64 and linux-arm64 with glibc, not on {platform}"
            );
            ensure!(
                said.contains(&refused) != runs && output.status.success() == runs,
                "{platform}: {said}"
            );
        }
        Ok(())
    }
}
