//! What each language offers, against the tables of `docs/api.md`: every name that stands there is in
//! its sources, and what Rust and C have stands there.

use crate::run::root;
use anyhow::{Context, Result, bail, ensure};
use regex::Regex;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const TABLES: &str = "docs/api.md";
const RUST: &str = "crates/zerobuffer/src";
const ERRORS: &str = "crates/zerobuffer/src/error/table.rs";
const HEADER: &str = "crates/zerobuffer-ffi/include/zerobuffer.h";
const CPP: &str = "bindings/cpp/include/zerobuffer";
const CSHARP: &str = "bindings/csharp/ZeroBuffer";
const PYTHON: &str = "crates/zerobuffer-python/python/zerobuffer/_native.pyi";
const PYTHON_ERRORS: &str = "crates/zerobuffer-python/python/zerobuffer/exceptions.py";
const PYTHON_ASYNC: &str = "crates/zerobuffer-python/python/zerobuffer/aio.py";
const PYTHON_TYPES: &str = "crates/zerobuffer-python/python/zerobuffer/types.py";

/// Public types of Rust whose methods must all stand in the tables.
const RUST_TYPES: [&str; 23] = [
    "Closer",
    "Client",
    "SharedClient",
    "EventLoopClient",
    "tokio::Client",
    "CallHandle",
    "RequestBuffer",
    "OwnedRequestBuffer",
    "Response",
    "OwnedResponse",
    "Server",
    "Service",
    "Frame",
    "Request",
    "OwnedRequest",
    "DuplexChannelFactory",
    "v1::DuplexServer",
    "v1::RequestView",
    "v1::Reply",
    "v1::Reader",
    "v1::FrameView",
    "v1::Writer",
    "v1::FrameBuffer",
];

/// Names by type, as one language's sources have them.
type Offer = BTreeMap<String, BTreeSet<String>>;

pub(crate) fn check() -> Result<()> {
    println!("\n=== what each language offers");
    let text = read(TABLES)?;
    let (tables, only_rust) = text.split_once("## Why a dash").context("no section of reasons")?;
    let rust = rust_offer()?;
    let header = read(HEADER)?;
    let mut listed = names_in(only_rust);
    let mut missing = Vec::new();
    let mut count = 0;
    let languages = languages(&rust, &header)?;
    for row in rows(tables) {
        let cells = row.iter().skip(1).zip(&languages);
        for (cell, Language { name, has }) in cells {
            ensure!(!cell.trim().is_empty(), "{TABLES}: {name} is not filled in: {row:?}");
            for item in names_in(cell) {
                count += 1;
                if !has(&item) {
                    missing.push(format!("{name} has no {item}"));
                }
                listed.insert(item);
            }
        }
    }
    for item in names_in(only_rust).iter().filter(|item| !offers(&rust, item, "::")) {
        missing.push(format!("Rust has no {item}"));
    }
    missing.extend(unlisted(&rust, &header, &listed)?);
    missing.extend(errors(&header)?);
    ensure!(missing.is_empty(), "{TABLES} and the sources disagree:\n  {}", missing.join("\n  "));
    println!("{TABLES} and the sources agree on {count} names");
    if !root().join(PYTHON).exists() {
        println!("not run: the names of Python, of which there is no {PYTHON}");
    }
    Ok(())
}

/// One column of the tables.
struct Language<'a> {
    name: &'static str,
    has: Box<dyn Fn(&str) -> bool + 'a>,
}

fn languages<'a>(rust: &'a Offer, header: &'a str) -> Result<Vec<Language<'a>>> {
    let cpp = blocks(&sources(CPP, "hpp")?, r"\b(?:class|struct) (\w+)[^;{]*\{")?;
    let csharp = blocks(&sources(CSHARP, "cs")?, r"\b(?:class|interface) (\w+)[^;{]*\{")?;
    let python = match root().join(PYTHON).exists() {
        true => Some(python_offer(&(read(PYTHON)? + &read(PYTHON_TYPES)? + &read(PYTHON_ASYNC)?))?),
        false => None,
    };
    let c = move |item: &str| has_word(header, item);
    Ok(vec![
        Language { name: "Rust", has: Box::new(|item| offers(rust, item, "::")) },
        Language { name: "C", has: Box::new(c) },
        Language {
            name: "C++",
            has: Box::new(move |item| in_block(&cpp, item.trim_start_matches("v1::"), "::")),
        },
        Language { name: "C#", has: Box::new(move |item| in_block(&csharp, item, ".")) },
        Language {
            name: "Python",
            has: Box::new(move |item| python.as_ref().is_none_or(|offer| offers(offer, item, "."))),
        },
    ])
}

/// The cells of every table's rows, without the heads.
fn rows(tables: &str) -> Vec<Vec<&str>> {
    let is_row = |line: &&str| line.starts_with("| ") && !line.starts_with("| | ");
    let rows = tables.lines().filter(is_row);
    rows.map(|line| line.trim_matches('|').split('|').collect()).collect()
}

/// What stands between backticks and looks like a name.
fn names_in(text: &str) -> BTreeSet<String> {
    let quoted = text.split('`').skip(1).step_by(2);
    let is_name = |name: &&str| name.contains("::") || name.contains('.') || name.contains('_');
    quoted.filter(is_name).map(str::to_owned).collect()
}

fn offers(offer: &Offer, item: &str, separator: &str) -> bool {
    item.rsplit_once(separator)
        .is_some_and(|(of, name)| offer.get(of).is_some_and(|names| names.contains(name)))
}

fn in_block(blocks: &BTreeMap<String, String>, item: &str, separator: &str) -> bool {
    item.rsplit_once(separator)
        .is_some_and(|(of, name)| blocks.get(of).is_some_and(|block| has_word(block, name)))
}

fn has_word(text: &str, word: &str) -> bool {
    Regex::new(&format!(r"\b{}\b", regex::escape(word))).is_ok_and(|word| word.is_match(text))
}

/// What Rust and C offer and the tables leave out.
fn unlisted(rust: &Offer, header: &str, listed: &BTreeSet<String>) -> Result<Vec<String>> {
    let mut left = Vec::new();
    for of in RUST_TYPES {
        let names = rust.get(of).with_context(|| format!("Rust has no type {of}"))?;
        let items = names.iter().map(|name| format!("{of}::{name}"));
        left.extend(items.filter(|item| !listed.contains(item)));
    }
    let function = Regex::new(r"\b(zb_\w+)\(")?;
    left.extend(
        function
            .captures_iter(header)
            .map(|found| found[1].to_owned())
            .filter(|name| !listed.contains(name)),
    );
    Ok(left.into_iter().map(|item| format!("{item} is not listed")).collect())
}

/// Kinds of errors: each row of the library's table has its constant or class in every language.
fn errors(header: &str) -> Result<Vec<String>> {
    let table = read(ERRORS)?;
    let cpp = read(&format!("{CPP}/error.hpp"))?;
    let csharp = sources(CSHARP, "cs")?.concat();
    let python = read(PYTHON_ERRORS)?;
    missing_errors(&table, header, &cpp, &csharp, &python)
}

fn missing_errors(
    table: &str,
    header: &str,
    cpp: &str,
    csharp: &str,
    python: &str,
) -> Result<Vec<String>> {
    let row = Regex::new(r"(?m)^    (\w+) = (\d+) \{")?;
    let mut wrong = Vec::new();
    let mut kinds = 0;
    for found in row.captures_iter(table) {
        kinds += 1;
        let (name, number) = (&found[1], &found[2]);
        let constant = format!("ZB_{}", upper_snake(name));
        if !header.contains(&format!("#define {constant} {number}\n")) {
            wrong.push(format!("the header does not have {constant} {number}"));
        }
        if !cpp.contains(&format!("    X({name}, {constant}, ")) {
            wrong.push(format!("C++ does not have {name} with {constant}"));
        }
        if !csharp.contains(&format!("        {name} = {number},")) {
            wrong.push(format!("C# does not have {name} = {number}"));
        }
        if !csharp.contains(&format!("case ErrorKind.{name}: return new ")) {
            wrong.push(format!("C# has no exception for {name}"));
        }
        let class = match name {
            "SequenceGap" => "SequenceError",
            "MetadataAlreadyWritten" => "MetadataAlreadyWrittenException",
            name => name,
        };
        if !python.contains(&format!("\nclass {class}(")) {
            wrong.push(format!("Python has no class {class} for {name}"));
        }
    }
    ensure!(kinds >= 30, "only {kinds} kinds of errors are found in {ERRORS}");
    Ok(wrong)
}

fn upper_snake(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_uppercase());
    }
    snake
}

/// The public methods of Rust's types, those that macros make included.
fn rust_offer() -> Result<Offer> {
    let implementation = Regex::new(r"^\s*impl(?:<[^>]*>)? (?:\$\(<\$lifetime>\)\? )?(\$?\w+)")?;
    let method = Regex::new(r"^\s*(?:#\[[^\]]*\] )?pub (?:unsafe |async )?fn (\w+)")?;
    let definition = Regex::new(r"^macro_rules! (\w+)")?;
    let use_of_macro = Regex::new(r"^(\w+)!\((?:\[[^\]]*\] )?(\w+)")?;
    let mut offer = Offer::new();
    for file in files(RUST, "rs")? {
        let is_in = |name: &str| file.components().any(|part| part.as_os_str() == name);
        let module = match () {
            () if is_in("v1") => "v1::",
            () if is_in("tokio.rs") => "tokio::",
            () => "",
        };
        let text = std::fs::read_to_string(&file)?;
        let text = text.split("#[cfg(all(test").next().unwrap_or_default();
        let (mut of, mut macro_name) = (String::new(), String::new());
        let mut made = Offer::new();
        for line in text.lines() {
            if let Some(found) = definition.captures(line) {
                macro_name = found[1].to_owned();
            } else if let Some(found) = implementation.captures(line) {
                of = found[1].to_owned();
            } else if let Some(found) = method.captures(line) {
                let of_macro = of.starts_with('$');
                let of = if of_macro { macro_name.clone() } else { format!("{module}{of}") };
                let offer = if of_macro { &mut made } else { &mut offer };
                offer.entry(of).or_default().insert(found[1].to_owned());
            } else if let Some(found) = use_of_macro.captures(line) {
                let names = made.get(&found[1]).cloned().unwrap_or_default();
                offer.entry(format!("{module}{}", &found[2])).or_default().extend(names);
            }
        }
    }
    Ok(offer)
}

/// Methods and properties of the classes in a stub, with those of the class that they are built on.
fn python_offer(stub: &str) -> Result<Offer> {
    let class = Regex::new(r"^class (\w+)(?:\((\w+)\))?")?;
    let method = Regex::new(r"^    (?:async )?def (\w+)")?;
    let (mut offer, mut of) = (Offer::new(), String::new());
    for line in stub.lines() {
        if let Some(found) = class.captures(line) {
            of = found[1].to_owned();
            let base = found.get(2).and_then(|base| offer.get(base.as_str()));
            let inherited = base.cloned().unwrap_or_default();
            offer.entry(of.clone()).or_default().extend(inherited);
        } else if let Some(found) = method.captures(line) {
            offer.entry(of.clone()).or_default().insert(found[1].to_owned());
        }
    }
    Ok(offer)
}

/// The bodies of types, with those of partial ones together.
fn blocks(texts: &[String], opening: &str) -> Result<BTreeMap<String, String>> {
    let opening = Regex::new(opening)?;
    let mut blocks: BTreeMap<String, String> = BTreeMap::new();
    for text in texts {
        for found in opening.captures_iter(text) {
            let body = &text[found.get(0).context("the match itself")?.end()..];
            let mut depth = 1;
            let end = body.find(|letter| {
                depth += i32::from(letter == '{') - i32::from(letter == '}');
                depth == 0
            });
            let end = end.with_context(|| format!("the body of {} has no end", &found[1]))?;
            blocks.entry(found[1].to_owned()).or_default().push_str(&body[..end]);
        }
    }
    Ok(blocks)
}

fn sources(folder: &str, extension: &str) -> Result<Vec<String>> {
    files(folder, extension)?.iter().map(|file| Ok(std::fs::read_to_string(file)?)).collect()
}

/// All files of a folder and the folders in it.
fn files(folder: &str, extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let entries = folder.read_dir().with_context(|| folder.display().to_string())?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension() == Some(extension.as_ref()) {
                found.push(path);
            }
        }
    }
    if found.is_empty() {
        bail!("no .{extension} in {folder}");
    }
    found.sort();
    Ok(found)
}

fn read(file: &str) -> Result<String> {
    let path: &Path = &root().join(file);
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_that_a_language_lacks_is_told_for_each_language() {
        let table = read(ERRORS).unwrap() + "    Unheard = 999 {} => (\"\");\n";
        let missing = missing_errors(&table, "", "", "", "").unwrap();
        let about_it: Vec<_> = missing.iter().filter(|text| text.contains("Unheard")).collect();
        assert_eq!(about_it.len(), 4, "{about_it:?}");
        assert!(missing.contains(&"the header does not have ZB_UNHEARD 999".to_owned()));
    }
}
