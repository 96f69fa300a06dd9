//! The house as its sources have it: floors, absences, and no circles of imports (ARCHITECTURE.md).
#![cfg(target_os = "linux")]

mod imports;

use imports::{Imports, Sources};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The library's files from the bottom up. A file imports from floors below, and from what bears the same
/// name on its own: neighbours on one floor do not know each other.
const FLOORS: &[&[&str]] = &[
    &["error", "atomics.rs", "debug.rs", "trace.rs", "handler.rs", "faults.rs"],
    &["name.rs", "seats.rs", "tenure.rs"],
    &["sys/"],
    &["failpoint.rs", "closer.rs", "memory/"],
    &["wait/", "object.rs"],
    &["ready_threads.rs"],
    &["v2/layout.rs"],
    &["config.rs"],
    &["v1/", "v2/"],
    &["link/"],
    &["client/", "server/"],
    &["factory.rs", "tokio.rs"],
    &["lib.rs"],
];

/// What does not know what, where the floors alone would allow it.
const ABSENCES: &[(&str, &str)] = &[("v1/", "v2/")];

/// Files outside of `sys/` that know error numbers of the system.
const ERRNO: &[(&str, &str)] = &[
    ("error/text.rs", "what helps against a number, in the message; `sys` imports errors"),
    ("faults.rs", "the errors that a build for tests makes system calls fail with"),
];

/// Circles of imports: the crate, its files, and why they stay.
const CIRCLES: &[(&str, &[&str], &str)] = &[
    (
        "crates/zerobuffer",
        &["error.rs", "error/table.rs", "error/text.rs"],
        "one type, with its table and its words in files of their own",
    ),
    (
        "crates/zerobuffer",
        &["sys/kernel.rs", "sys/mod.rs"],
        "the door of the fence and its only call",
    ),
    (
        "crates/zerobuffer",
        &[
            "sys/linux/fork.rs",
            "sys/linux/lockfile.rs",
            "sys/linux/process.rs",
            "sys/linux/shm.rs",
            "sys/linux/wake_fd.rs",
            "sys/linux/watch.rs",
        ],
        "a fork must know everything that its child may not inherit",
    ),
    ("crates/zerobuffer", &["memory/heap.rs", "memory/view.rs"], "heap memory is viewed, too"),
    ("crates/zerobuffer", &["client/channel.rs", "client/seal.rs"], "a seal is one of its channel"),
    (
        "crates/zerobuffer",
        &[
            "client/completer.rs",
            "client/completions.rs",
            "client/guards.rs",
            "client/reconnect.rs",
            "client/shared.rs",
        ],
        "guards settle with their client",
    ),
    (
        "crates/zerobuffer",
        &["v1/duplex/server.rs", "v1/duplex/worker.rs"],
        "the worker serves through its server's parts",
    ),
];

/// The crates without circles.
const CRATES: &[&str] = &[
    "crates/zerobuffer",
    "crates/zerobuffer-bench",
    "crates/zerobuffer-cli",
    "crates/zerobuffer-ffi",
    "crates/zerobuffer-python",
    "tests/soak",
    "tests/support",
    "xtask",
];

/// Crates that use the library as any other program does.
const USERS: &[&str] =
    &["crates/zerobuffer-cli", "crates/zerobuffer-ffi", "crates/zerobuffer-python"];

fn folder(of: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(of)
}

fn sources(of: &str) -> Sources {
    Sources::read(&folder(of).join("src"))
}

/// The floor of a file, and the name on it that is the longest start of the file's.
fn place(file: &str) -> Option<(usize, &'static str)> {
    let floors = FLOORS.iter().enumerate();
    let names = floors.flat_map(|(floor, names)| names.iter().map(move |name| (floor, *name)));
    names.filter(|(_, name)| file.starts_with(name)).max_by_key(|(_, name)| name.len())
}

/// What breaks the rule of the floors.
fn upwards(imports: &Imports) -> Vec<String> {
    let mut found = Vec::new();
    for (file, targets) in imports {
        let Some((floor, name)) = place(file) else {
            found.push(format!("{file} is on no floor"));
            continue;
        };
        for target in targets {
            let below = place(target).is_some_and(|(its, other)| its < floor || other == name);
            if !below {
                found.push(format!("{file} imports from {target}"));
            }
        }
    }
    found
}

/// Which files know what they must not know.
fn present(imports: &Imports, absences: &[(&str, &str)]) -> Vec<String> {
    let pairs = imports.iter().flat_map(|(file, to)| to.iter().map(move |to| (file, to)));
    pairs
        .filter(|(file, to)| absences.iter().any(|(a, b)| file.starts_with(a) && to.starts_with(b)))
        .map(|(file, to)| format!("{file} imports from {to}"))
        .collect()
}

/// Files of which each one imports from the next, and the last from the first: all that hang together.
fn circles(imports: &Imports) -> Vec<BTreeSet<&str>> {
    let reached = |from: &str| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(file) = open.pop() {
            for next in imports.get(file).into_iter().flatten() {
                if seen.insert(next.as_str()) {
                    open.push(next);
                }
            }
        }
        seen
    };
    let mut circles: Vec<BTreeSet<&str>> = Vec::new();
    for file in imports.keys().map(String::as_str) {
        let known = circles.iter().any(|circle| circle.contains(file));
        let to = reached(file);
        if !known && to.contains(file) {
            circles.push(to.into_iter().filter(|other| reached(other).contains(file)).collect());
        }
    }
    circles
}

/// Files outside of the fence with error numbers of the system.
fn errno(sources: &Sources) -> BTreeSet<String> {
    let is_number = |name: &String| {
        name.starts_with('E') && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'2')
    };
    let knows = sources.outside("libc").into_iter();
    let knows =
        knows.filter(|(file, names)| !file.starts_with("sys/") && names.iter().any(is_number));
    knows.map(|(file, _)| file).collect()
}

#[test]
fn each_file_of_the_library_imports_from_floors_below_only() {
    let found = upwards(&sources("crates/zerobuffer").imports());
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn version_1_knows_nothing_of_version_2() {
    let found = present(&sources("crates/zerobuffer").imports(), ABSENCES);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn error_numbers_of_the_system_stay_inside_of_the_fence() {
    let found = errno(&sources("crates/zerobuffer"));
    let excepted: BTreeSet<_> = ERRNO.iter().map(|(file, _)| (*file).to_owned()).collect();
    assert_eq!(
        found, excepted,
        "left: who knows errno; right: the exceptions, which go when they can"
    );
}

#[test]
fn files_do_not_import_from_each_other_in_circles() {
    let mut unused: BTreeSet<_> = (0..CIRCLES.len()).collect();
    let mut found = Vec::new();
    for name in CRATES {
        let imports = sources(name).imports();
        for circle in circles(&imports) {
            let excepted = CIRCLES.iter().position(|(of, files, _)| {
                of == name && circle.iter().all(|file| files.contains(file))
            });
            match excepted {
                Some(number) => _ = unused.remove(&number),
                None => found.push(format!("{name}: {circle:?}")),
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
    assert!(unused.is_empty(), "open now, take them out of the list: {unused:?}");
}

#[test]
fn bindings_and_the_command_are_built_without_what_serves_tests_alone() {
    for user in USERS {
        let manifest = std::fs::read_to_string(folder(user).join("Cargo.toml")).unwrap();
        for feature in ["faults", "failpoints"] {
            assert!(!manifest.contains(feature), "{user} has the library's feature {feature}");
        }
        let hidden = sources(user).outside("zerobuffer");
        let hidden = hidden
            .values()
            .flatten()
            .find(|name| ["faults", "failpoints"].contains(&name.as_str()));
        assert_eq!(hidden, None, "{user}");
    }
}

/// What the tests above would say of a house that is built wrongly.
mod of_a_wrong_house {
    use super::*;

    /// Sources of these files.
    fn house(name: &str, files: &[(&str, &str)]) -> Sources {
        let folder = std::env::temp_dir().join(format!("house-{}-{name}", std::process::id()));
        for (file, text) in files {
            let path = folder.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let sources = Sources::read(&folder);
        std::fs::remove_dir_all(folder).unwrap();
        sources
    }

    #[test]
    fn imports_upwards_are_found_however_they_are_written() {
        let lib = "mod client; mod error; mod server; mod v1; mod v2; pub use client::Client;";
        for text in [
            "use crate::client::Client;",
            "use crate::{client::Client as Caller};",
            "use super::client::*;",
            "use crate::Client;",
            "fn f() -> crate::Client { todo() }",
            "fn f() { let _ = crate::client::Client::default(); }",
            "fn f() { assert!(crate::client::IS) }",
            "impl super::Client {}",
            "mod inner { fn f() { super::super::client::g() } }",
            "use crate::v2::Client;",
        ] {
            let house = house(
                "upwards",
                &[
                    ("lib.rs", lib),
                    (
                        "client/mod.rs",
                        "pub struct Client; #[cfg(test)] mod tests { use crate::lib; }",
                    ),
                    ("error.rs", "#[cfg(test)] mod tests { use crate::client::Client; }"),
                    ("server/mod.rs", text),
                    ("v1/mod.rs", text),
                    ("v2/mod.rs", "pub(crate) use crate::client::Client;"),
                ],
            );
            let mut found = upwards(&house.imports());
            found.sort();
            let expected = ["server/mod.rs", "v1/mod.rs", "v2/mod.rs"];
            assert_eq!(
                found,
                expected.map(|file| format!("{file} imports from client/mod.rs")),
                "{text}"
            );
        }
    }

    #[test]
    fn a_file_on_no_floor_and_a_version_that_knows_the_other_are_found() {
        let house = house(
            "floors",
            &[
                ("lib.rs", "mod cellar; mod v1; mod v2;"),
                ("cellar.rs", ""),
                ("v1/mod.rs", "use crate::v2::layout;"),
                ("v2/mod.rs", "pub mod layout; use crate::v1;"),
                ("v2/layout.rs", ""),
            ],
        );
        let imports = house.imports();
        assert_eq!(
            upwards(&imports),
            ["cellar.rs is on no floor", "v2/mod.rs imports from v1/mod.rs"]
        );
        assert_eq!(present(&imports, ABSENCES), ["v1/mod.rs imports from v2/layout.rs"]);
    }

    #[test]
    fn circles_and_error_numbers_are_found() {
        let house = house(
            "circles",
            &[
                ("main.rs", "mod a; mod b; mod c; mod d; mod sys;"),
                ("a.rs", "use crate::b;"),
                ("b.rs", "fn f() { crate::c::f(); matches!(n, libc::ENOENT) }"),
                ("c.rs", "use super::a::f; use libc::{EEXIST, c_int};"),
                ("d.rs", "use crate::a; use libc::c_int;"),
                ("sys/mod.rs", "use libc::EINTR;"),
            ],
        );
        let imports = house.imports();
        assert_eq!(circles(&imports), [BTreeSet::from(["a.rs", "b.rs", "c.rs"])]);
        assert_eq!(errno(&house), BTreeSet::from(["b.rs".to_owned(), "c.rs".to_owned()]));
    }
}
