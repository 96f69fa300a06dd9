//! Lines of code: without comments, blanks and tests.

use anyhow::{Context, Result};
use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};
use std::collections::BTreeSet;
use std::path::Path;
use syn::visit::{self, Visit};

/// A function that is longer than it should be, and everything else that is counted of a file.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    /// Lines with code, outside of tests.
    pub(crate) code: usize,
    /// Each function's name, first line, and lines with code.
    pub(crate) functions: Vec<(String, usize, usize)>,
}

/// Counts a file by the language that its name tells; `None` for what is no code.
pub(crate) fn count(path: &Path, text: &str) -> Result<Option<Counted>> {
    let kind = path.extension().and_then(|kind| kind.to_str()).unwrap_or_default();
    Ok(match kind {
        "rs" => Some(rust(text).with_context(|| path.display().to_string())?),
        "c" | "h" | "cpp" | "hpp" | "cs" => {
            Some(Counted { code: c_like(text), ..Counted::default() })
        }
        "py" | "pyi" => Some(Counted { code: python(text), ..Counted::default() }),
        _ => None,
    })
}

/// Rust, as its own parser reads it.
fn rust(text: &str) -> Result<Counted> {
    let tokens: TokenStream = text.parse().map_err(|error| anyhow::anyhow!("{error}"))?;
    let (mut lines, mut all) = (BTreeSet::new(), BTreeSet::new());
    lines_of(tokens.clone(), &mut lines, true);
    lines_of(tokens, &mut all, false);
    let mut functions = Functions { lines: &all, found: Vec::new() };
    functions.visit_file(&syn::parse_file(text)?);
    Ok(Counted { code: lines.len(), functions: functions.found })
}

/// The lines with tokens; comments are none, and documentation is left out.
fn lines_of(tokens: TokenStream, lines: &mut BTreeSet<usize>, without_tests: bool) {
    let tokens: Vec<_> = tokens.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        if let Some((attribute, name, inside)) = attribute(&tokens[at..]) {
            if without_tests && name == "cfg" && is_test(&inside) {
                at = end_of_item(&tokens, at + attribute);
                continue;
            }
            if name == "doc" {
                at += attribute;
                continue;
            }
        }
        match &tokens[at] {
            TokenTree::Group(group) => {
                for span in [group.span_open(), group.span_close()] {
                    if group.delimiter() != Delimiter::None {
                        lines.insert(span.start().line);
                    }
                }
                lines_of(group.stream(), lines, without_tests);
            }
            token => lines.extend(token.span().start().line..=token.span().end().line),
        }
        at += 1;
    }
}

/// If an attribute begins here: how many tokens it has, its name, and what stands behind that.
fn attribute(tokens: &[TokenTree]) -> Option<(usize, String, String)> {
    let is = |token: Option<&TokenTree>, wanted| matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == wanted);
    let bang = usize::from(is(tokens.get(1), '!'));
    let Some(TokenTree::Group(group)) = tokens.get(1 + bang).filter(|_| is(tokens.first(), '#'))
    else {
        return None;
    };
    let mut inside = group.stream().into_iter();
    let name = inside.next()?.to_string();
    Some((2 + bang, name, inside.collect::<TokenStream>().to_string().replace(' ', "")))
}

fn is_test(condition: &str) -> bool {
    condition == "(test)" || condition.starts_with("(all(test,")
}

/// Behind the item that begins at `at`: its braces or its semicolon.
fn end_of_item(tokens: &[TokenTree], at: usize) -> usize {
    let ends = |token: &TokenTree| match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        TokenTree::Punct(punct) => punct.as_char() == ';' && punct.spacing() == Spacing::Alone,
        _ => false,
    };
    tokens[at..].iter().position(ends).map_or(tokens.len(), |found| at + found + 1)
}

struct Functions<'l> {
    lines: &'l BTreeSet<usize>,
    found: Vec<(String, usize, usize)>,
}

impl Functions<'_> {
    fn add(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let first = signature.fn_token.span.start().line;
        let last = block.brace_token.span.close().end().line;
        let code = self.lines.range(first..=last).count();
        self.found.push((signature.ident.to_string(), first, code));
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.add(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.add(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.add(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }
}

/// C, C++ and C#: without `//` to the end of the line and what stands between `/*` and `*/`.
fn c_like(text: &str) -> usize {
    let mut in_comment = false;
    let mut has_code = |line: &str| {
        let (mut code, mut rest) = (false, line.trim());
        while !rest.is_empty() {
            if in_comment {
                let Some((_, behind)) = rest.split_once("*/") else { return code };
                (in_comment, rest) = (false, behind.trim_start());
            } else if rest.starts_with("//") {
                return code;
            } else if let Some(behind) = rest.strip_prefix("/*") {
                (in_comment, rest) = (true, behind);
            } else {
                code = true;
                // Neither begins in a string that this repository has, other than an address's.
                let next = rest.find("/*").unwrap_or(rest.len()).max(1);
                rest = &rest[next..];
            }
        }
        code
    };
    text.lines().filter(|line| has_code(line)).count()
}

/// Python: without `#` comments and strings that stand alone, which are documentation.
fn python(text: &str) -> usize {
    let mut until: Option<&str> = None;
    let mut has_code = |line: &str| {
        let line = line.trim();
        if let Some(quotes) = until {
            if line.ends_with(quotes) {
                until = None;
            }
            return false;
        }
        let quotes = ["\"\"\"", "'''"].into_iter().find(|quotes| line.starts_with(quotes));
        if let Some(quotes) = quotes {
            if line.len() < 6 || !line.ends_with(quotes) {
                until = Some(quotes);
            }
            return false;
        }
        !line.is_empty() && !line.starts_with('#')
    };
    text.lines().filter(|line| has_code(line)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_blanks_documentation_and_tests_are_no_code() {
        let text = "//! Module.\n\n/// A.\n#[derive(Debug)]\npub struct A; // b\n\n/* c\n d */\nfn f() {\n    \
                    // e\n    g(\"a\n    b\");\n}\n#[cfg(test)]\n#[allow(x)]\nmod tests {\n    fn t() {}\n}\n\
                    #[cfg(all(test, not(loom)))]\nmod more;\nconst B: u8 = 1;\n";
        let counted = rust(text).unwrap();
        assert_eq!(counted.code, 7);
        assert_eq!(counted.functions, [("f".to_owned(), 9, 4), ("t".to_owned(), 17, 1)]);
    }

    #[test]
    fn the_other_languages_are_counted_likewise() {
        assert_eq!(
            c_like("/* a\n * b\n */\nint x; /* c */\n\n// d\n/* e */ int y;\nint z; // f\n"),
            3
        );
        assert_eq!(
            python("\"\"\"A.\n\nB.\n\"\"\"\nx = 1\n# c\n'''D.'''\n\ndef f():\n    return 2\n"),
            3
        );
    }
}
