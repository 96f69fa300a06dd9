//! What the documents show is run: which test runs the examples of each document, and what a new user
//! does first.

use crate::run::{cargo, root, step};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Who runs the examples in this language of this document.
const RUN_BY: [(&str, &str, &str); 25] = [
    ("README.md", "rust", "the library's documentation tests"),
    ("README.md", "cpp", "cargo xtask native"),
    ("README.md", "csharp", "cargo xtask csharp"),
    ("README.md", "python", "cargo xtask python"),
    ("README.md", "sh", "the first commands: this module; the example: the command's tests"),
    ("docs/c.md", "c", "cargo xtask native"),
    ("docs/c.md", "sh", "cargo xtask native"),
    ("docs/command.md", "sh", "the command's tests"),
    ("docs/command.md", "json", "the command's tests"),
    ("docs/containers.md", "sh", "the command's tests"),
    ("docs/containers.md", "yaml", "nobody, as the page says"),
    ("docs/containers.md", "ini", "nobody, as the page says"),
    ("docs/cpp.md", "cpp", "cargo xtask native"),
    ("docs/cpp.md", "cmake", "cargo xtask native"),
    ("docs/cpp.md", "sh", "cargo xtask native"),
    ("docs/csharp.md", "csharp", "cargo xtask csharp"),
    ("docs/csharp.md", "sh", "cargo xtask csharp"),
    ("docs/csharp.md", "text", "nobody: it needs .NET 6"),
    ("docs/csharp-web.md", "csharp", "cargo xtask csharp"),
    ("docs/performance.md", "sh", "cargo xtask bench, for a short time"),
    ("docs/protocol-v2.md", "c", "cargo xtask native"),
    ("docs/protocol-v2.md", "mermaid", "a drawing"),
    ("docs/python.md", "python", "cargo xtask python"),
    ("docs/python.md", "sh", "cargo xtask python"),
    ("CONTRIBUTING.md", "sh", "parts of cargo xtask test"),
];

/// Everything of this module.
pub(crate) fn test() -> Result<()> {
    every_example_has_a_test()?;
    first_command()?;
    new_project()
}

fn every_example_has_a_test() -> Result<()> {
    let known: BTreeSet<_> = RUN_BY.iter().map(|(file, language, _)| (*file, *language)).collect();
    let mut shown = BTreeSet::new();
    for file in documents()? {
        let text = std::fs::read_to_string(root().join(&file)).context(file.clone())?;
        let languages = text.lines().filter_map(|line| line.trim_start().strip_prefix("```"));
        let languages = languages.filter(|language| !language.is_empty());
        shown.extend(languages.map(|language| (file.clone(), language.to_owned())));
    }
    let shown: BTreeSet<_> =
        shown.iter().map(|(file, what)| (file.as_str(), what.as_str())).collect();
    let new: Vec<_> = shown.difference(&known).collect();
    ensure!(new.is_empty(), "no test is known to run these examples: {new:?}");
    let gone: Vec<_> = known.difference(&shown).collect();
    ensure!(gone.is_empty(), "these examples are in no document any more: {gone:?}");
    Ok(())
}

/// The documents that users read, from the repository's folder.
fn documents() -> Result<Vec<String>> {
    let mut files = vec!["README.md".to_owned(), "CONTRIBUTING.md".to_owned()];
    for entry in root().join("docs").read_dir()? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".md") {
            files.push(format!("docs/{name}"));
        }
    }
    Ok(files)
}

/// The first command that README.md shows, in a folder of its own.
fn first_command() -> Result<()> {
    let folder = clean("target/documents/demo")?;
    let mut demo = cargo("run --release --quiet --manifest-path");
    demo.arg(root().join("Cargo.toml")).args(["--", "demo"]).current_dir(&folder);
    step("the demo", demo)?;
    let picture = folder.join("zerobuffer-demo/after.png");
    ensure!(picture.exists(), "the demo has not left {}", picture.display());
    Ok(())
}

/// A new project that depends on the library as README.md says, with README.md's example in it; the
/// repository's address is this folder.
fn new_project() -> Result<()> {
    let readme = std::fs::read_to_string(root().join("README.md"))?;
    let address = "https://github.com/zerobuffer/zerobuffer";
    let line = format!("`cargo add --git {address} zerobuffer`");
    ensure!(readme.contains(&line), "README.md does not say {line}");
    let (_, example) = readme.split_once("```rust\n").context("README.md has no example")?;
    let (example, _) = example.split_once("```").context("README.md's example has no end")?;

    let folder = clean("target/documents/project")?;
    std::fs::write(
        folder.join("Cargo.toml"),
        "[workspace]\n[package]\nname = \"user\"\nedition = \"2024\"\n",
    )?;
    std::fs::create_dir(folder.join("src"))?;
    std::fs::write(folder.join("src/main.rs"), example)?;
    let here = format!("file://{}", root().display());
    let mut add = cargo("add --quiet --git");
    let home = cargo_home()?;
    add.arg(here).arg("zerobuffer").current_dir(&folder).env("CARGO_HOME", &home);
    step("depend on the library", add)?;
    let mut run = cargo("run --quiet");
    // A warning is what a user sees first.
    run.current_dir(&folder).env("RUSTFLAGS", "-D warnings").env_remove("CARGO_TARGET_DIR");
    run.env("CARGO_HOME", &home).env("ZEROBUFFER_DIR", folder.join("runtime"));
    step("the first example in a new project", run)
}

/// A home for cargo that takes the checkout of this folder, which would stay in the user's; with the user's
/// settings and downloads.
fn cargo_home() -> Result<PathBuf> {
    let home = clean("target/documents/cargo-home")?;
    let own = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let own = own.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cargo")));
    let own = own.context("neither CARGO_HOME nor HOME is set")?;
    for shared in ["registry", "config.toml"].map(|name| (own.join(name), home.join(name))) {
        if shared.0.exists() {
            std::os::unix::fs::symlink(&shared.0, &shared.1)?;
        }
    }
    Ok(home)
}

/// An empty folder of this name.
fn clean(name: &str) -> Result<PathBuf> {
    let folder = root().join(Path::new(name));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}
