//! The steps of the protocol at which tests kill and stop processes: that they are all tested, and that
//! a release holds none of them.

use crate::run::{cargo, cargo_test, root, step};
use anyhow::{Context, Result, ensure};
use std::path::Path;

const MARK: &str = "failpoint!(\"";

/// Everything of this module.
pub(crate) fn test() -> Result<()> {
    let steps = steps_in(&root().join("crates/zerobuffer/src"))?;
    all_are_tested(&steps)?;
    a_release_holds_none(&steps)?;
    for (what, tests) in [
        ("kills and stops at every step of a channel", "--test integration faults::"),
        ("kills and stops at every step of a service", "--test service steps::"),
    ] {
        step(what, cargo_test(&format!("--features zerobuffer/failpoints {tests}")))?;
    }
    Ok(())
}

/// The names of all steps in the library's source.
fn steps_in(folder: &Path) -> Result<Vec<String>> {
    let mut steps = Vec::new();
    for source in sources(folder)? {
        for call in source.split(MARK).skip(1) {
            let (name, _) = call.split_once('"').context("a step has no end")?;
            steps.push(name.to_owned());
        }
    }
    steps.sort();
    steps.dedup();
    ensure!(steps.len() > 40, "only {} steps were found in {}", steps.len(), folder.display());
    Ok(steps)
}

/// All Rust files below `folder`.
fn sources(folder: &Path) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    for entry in folder.read_dir().with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            texts.extend(self::sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            texts.push(std::fs::read_to_string(path)?);
        }
    }
    Ok(texts)
}

fn all_are_tested(steps: &[String]) -> Result<()> {
    let folders = ["integration/faults", "service/steps"].map(|folder| {
        sources(&root().join("crates/zerobuffer/tests").join(folder)).map(|texts| texts.concat())
    });
    let tests = folders.into_iter().collect::<Result<String>>()?;
    let missing: Vec<_> =
        steps.iter().filter(|step| !tests.contains(&format!("\"{step}\""))).collect();
    ensure!(missing.is_empty(), "no test kills or stops a process at {missing:?}");
    Ok(())
}

/// Looks for the steps' names in the shared library, once as a control with the feature, once without.
fn a_release_holds_none(steps: &[String]) -> Result<()> {
    let build = "build --release -p zerobuffer-ffi";
    // Where others that run at the same time do not take it for the release.
    let control =
        format!("{build} --features zerobuffer/failpoints --target-dir target/failpoints");
    step("release with failpoints, as a control", cargo(&control))?;
    let found = found(steps, "target/failpoints")?;
    ensure!(found.len() == steps.len(), "of {steps:?} the control holds only {found:?}");
    step("release", cargo(build))?;
    let left = self::found(steps, "target")?;
    ensure!(left.is_empty(), "the release holds {left:?}");
    println!("a release holds none of the {} steps, the control all", steps.len());
    Ok(())
}

/// The steps that the library below this folder holds.
fn found<'s>(steps: &'s [String], target: &str) -> Result<Vec<&'s String>> {
    let library = root().join(target).join("release/libzerobuffer.so");
    let bytes = std::fs::read(&library).with_context(|| library.display().to_string())?;
    let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    Ok(steps.iter().filter(|step| holds(&format!("failpoint {step}"))).collect())
}
