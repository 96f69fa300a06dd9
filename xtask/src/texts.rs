//! What holds for every text of the repository, code and documents alike: a reference to a section of a protocol
//! names one that exists, a link leads somewhere, and some words stay away.

use crate::run::root;
use anyhow::{Context, Result, ensure};
use regex::Regex;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// The protocols, whose sections are referred to.
const PROTOCOLS: &str = "docs/protocol-";

const KINDS: [&str; 13] =
    ["rs", "md", "c", "h", "hpp", "cpp", "cs", "py", "pyi", "toml", "txt", "in", "yml"];

/// Words that must not come back, as patterns that do not match themselves, and what to write instead.
const WORDS: [(&str, &str); 9] = [
    (r"(?:giv(?:e|es|en|ing)|gave)[ _](?:(?:it|them|this|that|one)[ _])?up", "cancel, drop, stop"),
    (r"(?:giv(?:e|es|en|ing)|gave)[ _](?:(?:it|them|this|that|one)[ _])?back", "release"),
    (r"who(?:m|so)?ever", "the caller, any thread that"),
    (r"new[s]", "a change, new data"),
    (r"in good orde[r]", "cleanly"),
    (r"to be ha[d]", "available"),
    (r"deploye[d]", "existing v1 programs"),
    (r"(?:is|are|was|were|has|have|had|be)[ _]gone(?: (?:on|round|through|to))?", "has ended"),
    (r"is as it wa[s]", "is unchanged"),
];

pub(crate) fn check() -> Result<()> {
    println!("\n=== texts");
    let texts = texts()?;
    let protocols = texts.iter().filter(|(file, _)| file.starts_with(PROTOCOLS));
    let sections: BTreeMap<_, _> = protocols
        .map(|(file, text)| Ok((file.as_str(), sections(text)?)))
        .collect::<Result<_>>()?;
    ensure!(sections.len() >= 2, "only {} protocols are found in docs/", sections.len());
    let mut wrong = Vec::new();
    for (file, text) in &texts {
        let found = wrong_references(file, text, &sections)?;
        wrong.extend(found.into_iter().map(|what| format!("{file}: {what}")));
        wrong.extend(wrong_words(text)?.into_iter().map(|what| format!("{file}: {what}")));
        if file.ends_with(".md") {
            let found = wrong_links(file, text, &texts)?;
            wrong.extend(found.into_iter().map(|what| format!("{file}: {what}")));
        }
    }
    ensure!(wrong.is_empty(), "{} texts are wrong:\n  {}", wrong.len(), wrong.join("\n  "));
    println!("{} texts are right", texts.len());
    Ok(())
}

/// Every text that git knows, by its path.
fn texts() -> Result<BTreeMap<String, String>> {
    let listed = Command::new("git").arg("ls-files").current_dir(root()).output()?;
    ensure!(listed.status.success(), "git ls-files: {}", listed.status);
    let listed = String::from_utf8(listed.stdout)?;
    let is_text = |file: &&str| {
        let kind = Path::new(file).extension().and_then(|kind| kind.to_str());
        // This file's own tests are full of wrong references.
        *file != file!()
            && kind.is_some_and(|kind| KINDS.contains(&kind))
            && root().join(file).exists()
    };
    let read = |file: &str| {
        let text = std::fs::read_to_string(root().join(file)).with_context(|| file.to_owned())?;
        Ok((file.to_owned(), text))
    };
    listed.lines().filter(is_text).map(read).collect()
}

type Sections = BTreeMap<String, String>;

/// The numbered titles of a document.
fn sections(text: &str) -> Result<Sections> {
    let title = Regex::new(r"(?m)^#+ ([0-9]+(?:\.[0-9]+)*)\.? (.+)$")?;
    let titles = title.captures_iter(text);
    Ok(titles.map(|found| (found[1].to_owned(), found[2].replace('"', ""))).collect())
}

/// References to sections that do not exist, or without the title that shows that the right one is meant. A
/// protocol refers to its own sections by the number alone.
fn wrong_references(
    file: &str,
    text: &str,
    protocols: &BTreeMap<&str, Sections>,
) -> Result<Vec<String>> {
    let text = in_one_line(text)?;
    let first = Regex::new(r"\b[Ss]ections? ")?;
    let number =
        Regex::new(r#"^(?:(?:,|,? and|,? or|,? to) )?([0-9]+(?:\.[0-9]+)*)(?: "([^"]+)")?"#)?;
    let mut wrong = Vec::new();
    for found in first.find_iter(&text) {
        let mut rest = &text[found.end()..];
        while let Some(found) = number.captures(rest) {
            rest = &rest[found[0].len()..];
            let title = found.get(2).map(|title| title.as_str());
            let exists = match (title, protocols.get(file)) {
                (None, Some(own)) => own.contains_key(&found[1]),
                (None, None) => false,
                (title, _) => protocols
                    .values()
                    .any(|protocol| protocol.get(&found[1]).map(String::as_str) == title),
            };
            if !exists {
                wrong.push(format!(
                    "no protocol has a section {}{}; write section NUMBER \"TITLE\"",
                    &found[1],
                    title.map(|title| format!(" \"{title}\"")).unwrap_or_default()
                ));
            }
        }
    }
    Ok(wrong)
}

/// A sentence may go on in the next line of a comment.
fn in_one_line(text: &str) -> Result<String> {
    let end = Regex::new(r"\s*\n\s*(?://!|///?|\*|#)?\s*")?;
    Ok(end.replace_all(text, " ").into_owned())
}

/// Words of the list, in texts and in names.
fn wrong_words(text: &str) -> Result<Vec<String>> {
    let text = in_one_line(text)?;
    let mut wrong = Vec::new();
    for (word, instead) in WORDS {
        let word = Regex::new(&format!(r"(?i)(?:\b|_){word}(?:\b|_)"))?;
        let found = word.find_iter(&text).map(|found| found.as_str());
        // To sleep, for example: that is another word.
        let is_meant =
            |found: &&str| !["on", "round", "through", "to"].iter().any(|end| found.ends_with(end));
        wrong.extend(found.filter(is_meant).map(|found| format!("{found:?}; write {instead}")));
    }
    Ok(wrong)
}

/// Links of a document to files, or to titles in them, that do not exist.
fn wrong_links(file: &str, text: &str, texts: &BTreeMap<String, String>) -> Result<Vec<String>> {
    let link = Regex::new(r"\]\(([^)\s]+)\)")?;
    let folder = Path::new(file).parent().context("a file without a folder")?;
    let mut wrong = Vec::new();
    for found in link.captures_iter(&without_code(text)) {
        let target = &found[1];
        if target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
        let path = if path.is_empty() { file.to_owned() } else { joined(folder, path) };
        if !texts.contains_key(&path) && !root().join(&path).exists() {
            wrong.push(format!("the link to {target} leads nowhere"));
        } else if !anchor.is_empty() {
            let there = texts.get(&path).map(|text| anchors(text)).unwrap_or_default();
            if !there.iter().any(|there| there == anchor) {
                wrong.push(format!("{path} has no title for the link to #{anchor}"));
            }
        }
    }
    Ok(wrong)
}

/// A path in the repository, from a folder of it.
fn joined(folder: &Path, path: &str) -> String {
    let mut parts: Vec<_> = folder.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    for part in path.split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()),
            part => parts.push(part.to_owned()),
        }
    }
    parts.join("/")
}

/// The anchors of a document's titles, as GitHub makes them.
fn anchors(text: &str) -> Vec<String> {
    let titles = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |title: &str| {
        let title = title.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.collect::<String>().replace(' ', "-")
    };
    titles.map(anchor).collect()
}

/// The text without its blocks of code.
fn without_code(text: &str) -> String {
    text.split("```").step_by(2).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn protocols() -> BTreeMap<&'static str, Sections> {
        let text = "# A protocol\n## 3. Names\n### 3.1 Grammar\n";
        BTreeMap::from([("docs/protocol-v9.md", sections(text).unwrap())])
    }

    /// What is checked here is no reference of this file.
    fn real(text: &str) -> String {
        text.replace("SECTION", "section")
    }

    #[test]
    fn a_reference_needs_a_section_that_exists_and_its_title() {
        for right in [
            "/// (protocol v9, SECTION 3.1 \"Grammar\")",
            "/// see SECTION 3\n    /// \"Names\".",
            "//! see SECTION 3.1\n//! \"Grammar\".",
            "// SECTIONs 3 \"Names\" and 3.1 \"Grammar\"",
            "section headers of an ELF file",
        ] {
            let wrong = wrong_references("a.rs", &real(right), &protocols()).unwrap();
            assert!(wrong.is_empty(), "{right}: {wrong:?}");
        }
        for bad in [
            "// (protocol v9, SECTION 2)",
            "// SECTION 3",
            "// SECTION 3 \"Grammar\"",
            "// SECTION 3.2 \"Grammar\"",
            "// SECTIONs 3 \"Names\" and 3.1",
            "// SECTION\n// 4 \"Names\"",
        ] {
            let wrong = wrong_references("a.rs", &real(bad), &protocols()).unwrap();
            assert_eq!(wrong.len(), 1, "{bad}: {wrong:?}");
        }
    }

    #[test]
    fn a_protocol_refers_to_itself_by_number() {
        let references = "as SECTION 3.1 says; SECTION 4 does not exist";
        let wrong =
            wrong_references("docs/protocol-v9.md", &real(references), &protocols()).unwrap();
        assert_eq!(wrong.len(), 1, "{wrong:?}");
    }

    #[test]
    fn words_of_the_list_are_found_in_texts_and_names() {
        let join = |words: &[&str]| words.concat();
        for bad in [
            join(&["// Gives ", "it up."]),
            join(&["/// Who", "ever sends"]),
            join(&["let is_given", "_up = 1;"]),
            join(&["// the server is\n// go", "ne."]),
        ] {
            assert_eq!(wrong_words(&bad).unwrap().len(), 1, "{bad}");
        }
        for right in
            ["// It has gone to sleep.", "// It releases the slot and is known.", "newsletter"]
        {
            assert_eq!(wrong_words(right).unwrap(), Vec::<String>::new(), "{right}");
        }
    }

    #[test]
    fn a_link_needs_a_file_and_a_title() {
        let here =
            "# A title: with `code`\n[a](#a-title-with-code) [b](../README.md)\n```\n[c](no)\n```";
        let texts = BTreeMap::from([("docs/a.md".to_owned(), here.to_owned())]);
        assert_eq!(wrong_links("docs/a.md", here, &texts).unwrap(), Vec::<String>::new());
        for bad in ["[a](#no-title)", "[b](no.md)", "[c](../docs/no.md#title)"] {
            assert_eq!(wrong_links("docs/a.md", bad, &texts).unwrap().len(), 1, "{bad}");
        }
    }
}
