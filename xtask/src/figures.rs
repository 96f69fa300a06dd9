//! How long things are: functions, files, the parts of the house. A part that is longer than it should be
//! is said; a function or a file that is, fails.

use crate::count::{Counted, count};
use crate::run::root;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use syn::{Item, UseTree, Visibility};

/// Lines of code of a function.
const FUNCTION: usize = 70;
/// Lines of code of a file.
const FILE: usize = 500;
/// Lines of a file of tests, with all that is in it.
const TESTS: usize = 800;

/// A part of the house: its name, where it lies, what of that is none of it, and how much it should be.
struct Part {
    name: &'static str,
    folders: &'static [&'static str],
    without: &'static [&'static str],
    most: usize,
}

const LIBRARY: &str = "crates/zerobuffer/src/";

const PARTS: &[Part] = &[
    Part {
        name: "version 2, links, clients and servers",
        folders: &[
            "crates/zerobuffer/src/v2/",
            "crates/zerobuffer/src/link/",
            "crates/zerobuffer/src/client/",
            "crates/zerobuffer/src/server/",
        ],
        without: &[],
        most: 4000,
    },
    Part { name: "version 1", folders: &["crates/zerobuffer/src/v1/"], without: &[], most: 2900 },
    Part {
        name: "below both",
        folders: &[LIBRARY],
        without: &[
            "v1/",
            "v2/",
            "link/",
            "client/",
            "server/",
            "factory.rs",
            "lib.rs",
            "faults.rs",
        ],
        most: 2800,
    },
    Part {
        name: "C interface",
        folders: &["crates/zerobuffer-ffi/src/"],
        without: &[],
        most: 1650,
    },
    Part {
        name: "Python, in Rust and Python",
        folders: &["crates/zerobuffer-python/src/", "crates/zerobuffer-python/python/"],
        without: &[],
        most: 2900,
    },
    Part { name: "C#", folders: &["bindings/csharp/ZeroBuffer/"], without: &[], most: 2200 },
    Part { name: "C++", folders: &["bindings/cpp/include/"], without: &[], most: 900 },
];

/// Documents at the root and in docs/.
const DOCUMENTS: usize = 14;
/// Types that users of the library can name.
const TYPES: usize = 43;

/// What is longer than it should be, and why it stays.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("crates/zerobuffer/src/client/shared.rs", "until what threads share is divided"),
    ("crates/zerobuffer/src/client/channel.rs", "until the connection is one for both links"),
    (
        "crates/zerobuffer/src/v2/ring/client.rs",
        "one algorithm, each step of which needs the others",
    ),
    (
        "crates/zerobuffer/tests/integration/fork.rs:check_handles",
        "one story, before a fork and after",
    ),
    ("crates/zerobuffer/tests/integration/peer.rs:converse", "a table of commands"),
];

/// Prints the table, and fails if something is too long.
pub(crate) fn check() -> Result<()> {
    println!("\n=== figures: lines of code without comments, blanks and tests");
    let files = files()?;
    for Part { name, folders, without, most } in PARTS {
        let is_part = |file: &&File| {
            !file.is_test()
                && folders.iter().any(|folder| {
                    let rest = file.name.strip_prefix(folder);
                    rest.is_some_and(|rest| !without.iter().any(|start| rest.starts_with(start)))
                })
        };
        let code = files.iter().filter(is_part).map(|file| file.counted.code).sum();
        say(name, code, *most);
    }
    say("public types of the library", public_types()?.len(), TYPES);
    say("documents", documents()?, DOCUMENTS);
    let found: Vec<_> = files.iter().flat_map(too_long).collect();
    let excepted = |what: &String| EXCEPTIONS.iter().any(|(start, _)| what.starts_with(start));
    for (start, _) in EXCEPTIONS {
        if !found.iter().any(|what| what.starts_with(start)) {
            println!("no exception any more, take it out of the list: {start}");
        }
    }
    for what in found.iter().filter(|what| excepted(what)) {
        println!("stays: {what}");
    }
    let wrong: Vec<_> = found.into_iter().filter(|what| !excepted(what)).collect();
    ensure!(wrong.is_empty(), "too long:\n  {}", wrong.join("\n  "));
    Ok(())
}

fn say(name: &str, found: usize, most: usize) {
    let over = if found > most { "  over" } else { "" };
    println!("{name:40} {found:>6}, at most {most:>5}{over}");
}

/// A file with code.
struct File {
    name: String,
    lines: usize,
    counted: Counted,
}

impl File {
    /// Whether it holds tests and nothing else.
    fn is_test(&self) -> bool {
        let (name, last) = (&self.name, self.name.rsplit('/').next().unwrap_or_default());
        let folders = ["/tests/", ".Tests/", "/existing/"].iter().any(|part| name.contains(part));
        // What several tests share is no test.
        let is_program =
            ["tests/soak/src", "tests/support/src", "tests/fuzz/src", "tests/trust/src"];
        let below =
            name.starts_with("tests/") && !is_program.iter().any(|part| name.starts_with(part));
        folders || below || ["tests.rs", "models.rs"].contains(&last)
    }
}

/// Every file with code that git knows.
fn files() -> Result<Vec<File>> {
    let listed = Command::new("git").arg("ls-files").current_dir(root()).output()?;
    ensure!(listed.status.success(), "git ls-files: {}", listed.status);
    let listed = String::from_utf8(listed.stdout)?;
    let mut files = Vec::new();
    for name in listed.lines().filter(|name| root().join(name).is_file()) {
        let path = root().join(name);
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        if let Some(counted) = count(&path, &text)? {
            files.push(File { name: name.to_owned(), lines: text.lines().count(), counted });
        }
    }
    ensure!(files.len() > 100, "only {} files are found", files.len());
    Ok(files)
}

/// What is too long in a file. The C header is made from the sources.
fn too_long(file: &File) -> Vec<String> {
    let name = &file.name;
    let functions = file.counted.functions.iter().filter(|(_, _, code)| *code > FUNCTION);
    let mut found: Vec<_> = functions
        .map(|(function, line, code)| format!("{name}:{function} ({code} lines, at line {line})"))
        .collect();
    if file.is_test() {
        if file.lines > TESTS {
            found.push(format!("{name} has {} lines of tests", file.lines));
        }
    } else if file.counted.code > FILE && !name.ends_with("zerobuffer.h") {
        found.push(format!("{name} has {} lines of code", file.counted.code));
    }
    found
}

fn documents() -> Result<usize> {
    let mut count = 0;
    for folder in [root().to_owned(), root().join("docs")] {
        for entry in folder.read_dir()? {
            count += usize::from(entry?.path().extension().is_some_and(|kind| kind == "md"));
        }
    }
    Ok(count)
}

/// The names of all types that are public in the library's root and its public modules.
fn public_types() -> Result<BTreeSet<String>> {
    let mut types = BTreeSet::new();
    let source = root().join(LIBRARY);
    for (module, file) in [("", "lib.rs"), ("v1::", "v1/mod.rs"), ("memory::", "memory/mod.rs")] {
        let path = source.join(file);
        for item in &parse(&path)?.items {
            let (visibility, name) = match item {
                Item::Use(item) => {
                    if is_public(&item.vis) {
                        let mut names = Vec::new();
                        leaves(&item.tree, &mut names);
                        let is_type = |name: &String| {
                            name.starts_with(char::is_uppercase)
                                && name.contains(char::is_lowercase)
                        };
                        types.extend(
                            names.into_iter().filter(is_type).map(|name| format!("{module}{name}")),
                        );
                    }
                    continue;
                }
                Item::Struct(item) => (&item.vis, &item.ident),
                Item::Enum(item) => (&item.vis, &item.ident),
                Item::Trait(item) => (&item.vis, &item.ident),
                Item::Type(item) => (&item.vis, &item.ident),
                _ => continue,
            };
            if is_public(visibility) {
                types.insert(format!("{module}{name}"));
            }
        }
    }
    ensure!(types.len() > 20, "only {} public types are found", types.len());
    Ok(types)
}

fn parse(path: &Path) -> Result<syn::File> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    syn::parse_file(&text).with_context(|| path.display().to_string())
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

/// The names that a `use` brings.
fn leaves(tree: &UseTree, names: &mut Vec<String>) {
    match tree {
        UseTree::Path(path) => leaves(&path.tree, names),
        UseTree::Group(group) => group.items.iter().for_each(|tree| leaves(tree, names)),
        UseTree::Name(name) => names.push(name.ident.to_string()),
        UseTree::Rename(rename) => names.push(rename.rename.to_string()),
        UseTree::Glob(_) => {}
    }
}
