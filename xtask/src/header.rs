//! The C header, made by cbindgen from the sources of the C interface and kept in the repository, so
//! that nobody needs Rust to read or include it.

use anyhow::{Context, Result, anyhow, ensure};
use std::path::{Path, PathBuf};

const HEADER: &str = "include/zerobuffer.h";

/// Writes the header again.
pub(crate) fn write() -> Result<()> {
    let path = folder()?.join(HEADER);
    std::fs::write(&path, generate()?).with_context(|| format!("cannot write {}", path.display()))
}

/// Fails if the header in the repository is not what the sources make.
pub(crate) fn check() -> Result<()> {
    println!("\n=== C header");
    let path = folder()?.join(HEADER);
    let found = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let made = generate()?;
    let differs = |(_, (found, made)): &(usize, (&str, &str))| found != made;
    let first = found.lines().zip(made.lines()).enumerate().find(differs);
    ensure!(
        found == made,
        "{} is not what the sources make (first at line {}); run `cargo xtask header`",
        path.display(),
        first.map_or(found.lines().count().min(made.lines().count()), |(line, _)| line + 1),
    );
    println!("{HEADER} is what the sources make");
    Ok(())
}

fn generate() -> Result<String> {
    let folder = folder()?;
    let config = cbindgen::Config::from_file(folder.join("cbindgen.toml"))
        .map_err(|error| anyhow!("cbindgen.toml: {error}"))?;
    let bindings = cbindgen::Builder::new().with_crate(&folder).with_config(config).generate();
    let mut header = Vec::new();
    bindings.context("cbindgen")?.write(&mut header);
    String::from_utf8(header).context("the header is not UTF-8")
}

fn folder() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask has a parent")?;
    Ok(root.join("crates/zerobuffer-ffi"))
}
