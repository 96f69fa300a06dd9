//! The C interface and the C++ binding: built, installed, and tested as their users have them.

use crate::native_tools::{compiler, folder, pkg_config};
use crate::packages::apt_install;
use crate::run::{cargo, root, step};
use crate::{native_documents, python};
use anyhow::{Context, Result, ensure};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What shows that a package is there, and its name.
const PACKAGES: [(&str, &str); 6] = [
    ("bin/g++", "g++"),
    ("bin/cmake", "cmake"),
    ("bin/valgrind", "valgrind"),
    ("bin/pkg-config", "pkg-config"),
    ("include/doctest/doctest.h", "doctest-dev"),
    ("include/opencv4/opencv2/imgproc.hpp", "libopencv-imgproc-dev"),
];

/// What the static library needs of the system, as `cargo rustc -- --print native-static-libs` says.
const SYSTEM: [&str; 6] = ["-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl"];

/// The C programs.
const C_TESTS: [&str; 3] = ["test", "async", "service"];

const PYTHON_PACKAGES: [&str; 2] = ["cffi==2.1.1", "numpy>=1.26"];

/// The C programs under AddressSanitizer and valgrind, and all that there is for C++.
pub(crate) fn test() -> Result<()> {
    prepare()?;
    let prefix = install()?;
    test_c(&prefix)?;
    let mut ctest = Command::new("ctest");
    ctest.arg("--test-dir").arg(folder("build")?).args(["--output-on-failure", "-j2"]);
    step("C++ under AddressSanitizer", ctest)?;
    thread_sanitizer(&prefix)?;
    refuses_older_languages(&prefix)?;
    example(&prefix)?;
    native_documents::test(&prefix)
}

/// The command of the C++ peer of the matrix.
pub(crate) fn cpp_peer() -> Result<String> {
    prepare()?;
    let build = folder("peer")?;
    configure(&root().join("tests/interop/cpp"), &build, &["-DCMAKE_BUILD_TYPE=Release"])?;
    Ok(format!("'{}'", build.join("interop_peer").display()))
}

/// The command of the peer on the C interface by Python's cffi.
pub(crate) fn cffi_peer() -> Result<String> {
    step("C interface", cargo("build --release -p zerobuffer-ffi"))?;
    let imports = "import cffi, numpy";
    let python = python::venv("target/venv-cffi", &PYTHON_PACKAGES, imports)?;
    let peer = root().join("tests/interop/cffi/peer.py");
    Ok(format!("'{}' '{}'", python.display(), peer.display()))
}

/// The C++ program whose instructions are counted.
pub(crate) fn step_program() -> Result<PathBuf> {
    prepare()?;
    step("C interface", cargo("build --release -p zerobuffer-ffi"))?;
    let program = folder("step")?.join("step");
    let mut gxx = compiler("cpp");
    gxx.args(["-O2", "-Wpedantic", "-Werror"]);
    for headers in ["bindings/cpp/include", "crates/zerobuffer-ffi/include"] {
        gxx.arg("-I").arg(root().join(headers));
    }
    gxx.arg(root().join("bindings/cpp/tests/step.cpp")).arg("-o").arg(&program);
    gxx.arg(root().join("target/release/libzerobuffer.a")).args(SYSTEM);
    step("compile the C++ round trips", gxx)?;
    Ok(program)
}

fn prepare() -> Result<()> {
    let is_missing = |there: &str| !Path::new("/usr").join(there).exists();
    let missing = || PACKAGES.iter().filter(|(there, _)| is_missing(there));
    let packages: Vec<_> = missing().map(|(_, package)| *package).collect();
    if !packages.is_empty() {
        apt_install(&packages)?;
    }
    let left: Vec<_> = missing().map(|(there, _)| format!("/usr/{there}")).collect();
    ensure!(left.is_empty(), "after installing {packages:?} there is no {}", left.join(", "));
    Ok(())
}

/// Configures and builds a CMake project.
fn configure(source: &Path, build: &Path, options: &[&str]) -> Result<()> {
    let name = source.file_name().unwrap_or_default().to_string_lossy();
    let mut cmake = Command::new("cmake");
    cmake.arg("-S").arg(source).arg("-B").arg(build).args(options);
    step(&format!("configure {name}"), cmake)?;
    let mut cmake = Command::new("cmake");
    step(&format!("build {name}"), cmake.arg("--build").arg(build).arg("-j2"))
}

/// Builds the binding with its tests, and installs it for the tests that use the installed one.
fn install() -> Result<PathBuf> {
    let (build, prefix) = (folder("build")?, folder("prefix")?);
    let options = [
        "-DZEROBUFFER_TESTS=ON",
        "-DCMAKE_BUILD_TYPE=Debug",
        "-DCMAKE_CXX_FLAGS=-fsanitize=address,undefined -fno-sanitize-recover=undefined",
        "-DCMAKE_INSTALL_LIBDIR=lib",
        // What is tested is what the sources say, whatever this folder was last configured for.
        "-DZEROBUFFER_LIBRARY=",
    ];
    configure(&root().join("bindings/cpp"), &build, &options)?;
    let mut cmake = Command::new("cmake");
    cmake.arg("--install").arg(&build).arg("--prefix").arg(&prefix);
    step("install C++", &mut cmake)?;
    Ok(prefix)
}

/// The C programs, each twice. AddressSanitizer sees C's own memory, and what the library allocates and does
/// not free; it has the static library. valgrind sees every access of both; it has the shared one, as
/// pkg-config says.
fn test_c(prefix: &Path) -> Result<()> {
    let folder = folder("c")?;
    for test in C_TESTS {
        let compile = |program: &Path| {
            let sources = root().join("crates/zerobuffer-ffi/tests/c");
            let mut gcc = compiler("c");
            gcc.args(["-D_GNU_SOURCE", "-Wpedantic", "-Werror", "-g", "-O1"]);
            gcc.arg(sources.join(test).with_extension("c")).arg("-o").arg(program);
            gcc
        };

        let sanitized = folder.join(format!("{test}-asan"));
        let mut gcc = compile(&sanitized);
        gcc.args(["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]);
        gcc.arg("-I").arg(prefix.join("include"));
        gcc.arg(prefix.join("lib/libzerobuffer.a")).args(SYSTEM);
        step(&format!("compile {test}.c for AddressSanitizer"), &mut gcc)?;
        step(&format!("{test}.c under AddressSanitizer"), &mut Command::new(&sanitized))?;

        let plain = folder.join(test);
        let mut gcc = compile(&plain);
        gcc.args(pkg_config(prefix)?).arg("-lpthread");
        step(&format!("compile {test}.c for valgrind"), &mut gcc)?;
        let log = folder.join("valgrind.log");
        let mut valgrind = Command::new("valgrind");
        // The threads take fair turns, since some of them spin. What it does not know is a system call
        // that it then refuses, which the library can do without.
        valgrind.args(["--quiet", "--error-exitcode=99", "--leak-check=full", "--fair-sched=yes"]);
        // Not those of kind `possible`: Rust's own handle of each thread is only pointed into.
        valgrind.arg("--errors-for-leak-kinds=definite");
        valgrind.arg(format!("--log-file={}", log.display())).arg(&plain);
        step(&format!("{test}.c under valgrind"), &mut valgrind).inspect_err(|_| {
            println!("{}", std::fs::read_to_string(&log).unwrap_or_default());
        })?;
    }
    Ok(())
}

/// The C++ tests with several threads, in a program that ThreadSanitizer has nothing against.
fn thread_sanitizer(prefix: &Path) -> Result<()> {
    let program = folder("tsan")?.join("test");
    let mut gxx = compiler("cpp");
    // With a sanitizer gcc 12 takes what std::optional holds for uninitialized.
    gxx.args(["-g", "-O1", "-fsanitize=thread", "-Werror", "-Wno-maybe-uninitialized"]);
    gxx.arg("-o").arg(&program);
    for source in ["main", "calls", "closing", "in_place", "lives"] {
        gxx.arg(root().join("bindings/cpp/tests").join(source).with_extension("cpp"));
    }
    step("compile the C++ tests for ThreadSanitizer", gxx.args(pkg_config(prefix)?))?;
    let mut test = Command::new(&program);
    let suppressions = prefix.join("share/zerobuffer/tsan.supp");
    test.env("TSAN_OPTIONS", format!("halt_on_error=1 suppressions={}", suppressions.display()));
    step("C++ under ThreadSanitizer", test)
}

/// One error, and not one for each thing that C++17 does not have.
fn refuses_older_languages(prefix: &Path) -> Result<()> {
    let source = folder("cpp17")?.join("program.cpp");
    std::fs::write(&source, "#include <zerobuffer/zerobuffer.hpp>\n")?;
    let mut gxx = Command::new("g++");
    gxx.args(["-std=c++17", "-fsyntax-only"]).arg(&source).args(pkg_config(prefix)?);
    let output = gxx.output().context("g++ cannot be started")?;
    let text = String::from_utf8_lossy(&output.stderr);
    let errors: Vec<_> = text.lines().filter(|line| line.contains("error:")).collect();
    ensure!(
        errors.len() == 1 && errors[0].contains("zerobuffer needs C++20"),
        "compiled as C++17:\n{text}"
    );
    Ok(())
}

/// The example project, which finds the installed package, as two processes.
fn example(prefix: &Path) -> Result<()> {
    let build = folder("example")?;
    let option = format!("-DCMAKE_PREFIX_PATH={}", prefix.display());
    configure(&root().join("bindings/cpp/example"), &build, &[&option])?;
    let runtime = folder("example/runtime")?;
    let invert = |role: &str| {
        let mut command = Command::new(build.join("invert"));
        command.args([role, "cpp-example"]).env("ZEROBUFFER_DIR", &runtime);
        command
    };
    let mut server = invert("serve")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("start the example's server")?;
    let mut said = String::new();
    let stdout = server.stdout.take().context("its output is a pipe")?;
    BufReader::new(stdout).read_line(&mut said)?;
    let called = step("C++ example", &mut invert("call"));
    // Its end of input tells the server to stop.
    drop(server.stdin.take().map(|mut stdin| stdin.flush()));
    let ended = server.wait()?;
    called?;
    ensure!(said == "serving\n" && ended.success(), "the example's server: {said:?}, {ended}");
    Ok(())
}
