//! The pages about C and C++, and what other documents have in these languages: every snippet is compiled
//! and run as it is printed.
//!
//! A snippet in C or C++ with a `main` is a program. Any other has a comment before it,
//! `<!-- in FILE -->`: that program of `bindings/cpp/tests/around` has a line `SNIPPET` for it. A CMake snippet
//! is a whole `CMakeLists.txt`, and commands for the shell are run in a fresh clone.

use crate::native_tools::{compiler, folder, pkg_config};
use crate::run::{root, step};
use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const C: &str = "docs/c.md";
const CPP: &str = "docs/cpp.md";
/// They have other languages as well, which others run.
const OTHERS: [&str; 2] = ["README.md", "docs/protocol-v2.md"];

/// Where the pages say that this repository is.
const REPOSITORY: &str = "https://github.com/zerobuffer/zerobuffer";

#[derive(Debug, PartialEq)]
struct Snippet {
    document: &'static str,
    line: usize,
    language: String,
    /// The program that it is a part of.
    around: Option<String>,
    text: String,
}

/// Runs all of them; `prefix` is where the library is installed.
pub(crate) fn test(prefix: &Path) -> Result<()> {
    let mut snippets = Vec::new();
    for document in OTHERS.into_iter().chain([C, CPP]) {
        let text = std::fs::read_to_string(root().join(document)).context(document)?;
        snippets.extend(snippets_of(document, &text)?);
    }
    snippets.retain(|snippet| snippet.is_code() || !OTHERS.contains(&snippet.document));
    for snippet in snippets.iter().filter(|snippet| snippet.is_code()) {
        snippet.compile_and_run(prefix)?;
    }
    let clone = fetched(&snippets, prefix)?;
    for snippet in snippets.iter().filter(|snippet| snippet.language == "sh") {
        snippet.run_in_shell(&clone)?;
    }
    Ok(())
}

/// What stands between lines of three backticks.
fn snippets_of(document: &'static str, text: &str) -> Result<Vec<Snippet>> {
    let mut found = Vec::new();
    let mut around = None;
    let mut open: Option<Snippet> = None;
    for (index, line) in text.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (Some(_), Some(_)) => found.extend(open.take()),
            (Some(snippet), None) => {
                snippet.text.push_str(line);
                snippet.text.push('\n');
            }
            (None, Some(language)) => {
                let (line, language) = (index + 1, language.to_owned());
                let (around, text) = (around.take(), String::new());
                open = Some(Snippet { document, line, language, around, text });
            }
            (None, None) => {
                let comment =
                    line.strip_prefix("<!-- in ").and_then(|rest| rest.split_once(" -->"));
                if !line.is_empty() {
                    around = comment.map(|(file, _)| file.to_owned());
                }
            }
        }
    }
    ensure!(open.is_none(), "{document}: the last snippet has no end");
    for Snippet { line, language, .. } in &found {
        let known =
            OTHERS.contains(&document) || matches!(&**language, "c" | "cpp" | "cmake" | "sh");
        ensure!(known, "{document}:{line}: nobody runs snippets in {language:?}");
    }
    Ok(found)
}

impl Snippet {
    fn place(&self) -> String {
        format!("{}:{}", self.document, self.line)
    }

    fn is_code(&self) -> bool {
        matches!(&*self.language, "c" | "cpp")
    }

    fn is_program(&self) -> bool {
        self.text.contains("int main(")
    }

    /// The whole program.
    fn program(&self) -> Result<String> {
        let Some(around) = &self.around else {
            ensure!(self.is_program(), "{}: neither a program nor a part of one", self.place());
            return Ok(self.text.clone());
        };
        let path = root().join("bindings/cpp/tests/around").join(around);
        let around = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let parts = around.split_once("SNIPPET\n");
        let (before, after) = parts.with_context(|| format!("no place in {}", path.display()))?;
        Ok(format!("{before}{}{after}", self.text))
    }

    fn compile_and_run(&self, prefix: &Path) -> Result<()> {
        let name = self.place().replace(['/', ':', '.'], "-");
        let source = folder("documents")?.join(format!("{name}.{}", self.language));
        let program = source.with_extension("");
        let text = self.program()?;
        std::fs::write(&source, &text)?;
        let mut command = compiler(&self.language);
        command.arg("-Werror").arg(&source).arg("-o").arg(&program).args(pkg_config(prefix)?);
        if text.contains("<opencv2/") {
            command.args(["-isystem", "/usr/include/opencv4", "-lopencv_core", "-lopencv_imgproc"]);
        }
        step(&format!("compile {}", self.place()), command)?;
        // Without LD_LIBRARY_PATH: what pkg-config says is enough.
        match text.contains("usage: program serve | program call") {
            true => two_processes(&self.place(), &program),
            false => step(&self.place(), in_runtime(Command::new(&program))?),
        }
    }

    /// In a clone of this repository, whose user has an empty home.
    fn run_in_shell(&self, clone: &Path) -> Result<()> {
        let home = folder("documents/home")?;
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", &self.text]).current_dir(clone).env("HOME", home);
        let real = PathBuf::from(std::env::var_os("HOME").context("there is no HOME")?);
        for (variable, usual) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
            let found = std::env::var_os(variable).map_or_else(|| real.join(usual), PathBuf::from);
            bash.env(variable, found);
        }
        step(&self.place(), in_runtime(bash)?)
    }
}

/// What a service leaves, an empty directory, is left in this one.
fn in_runtime(mut command: Command) -> Result<Command> {
    command.env("ZEROBUFFER_DIR", folder("documents/runtime")?);
    Ok(command)
}

/// Runs a program that is a server or a client by its argument, and serves until its input ends.
fn two_processes(place: &str, program: &Path) -> Result<()> {
    println!("\n=== {place}: two processes");
    let mut serve = in_runtime(Command::new(program))?;
    let mut server = serve.arg("serve").stdin(Stdio::piped()).spawn().context("serve")?;
    let text = "hello from another process";
    let called = in_runtime(Command::new(program))?.args(["call", text]).output();
    drop(server.stdin.take());
    let ended = server.wait()?;
    let called = called.context("call")?;
    let said = String::from_utf8_lossy(&called.stdout);
    let right = said.trim() == text.to_uppercase() && called.status.success() && ended.success();
    ensure!(right, "{place}: the client said {said:?} ({}), the server: {ended}", called.status);
    Ok(())
}

/// Builds and runs the CMake projects, and leaves their programs in the clone that one of them has fetched.
fn fetched(snippets: &[Snippet], prefix: &Path) -> Result<PathBuf> {
    let example = |language: &str, document: &str| {
        let is_it = |snippet: &&Snippet| {
            (&*snippet.language, snippet.document) == (language, document) && snippet.is_program()
        };
        snippets.iter().find(is_it).with_context(|| format!("{document} has no example"))
    };
    let (c, cpp) = (&example("c", C)?.text, &example("cpp", CPP)?.text);
    let origin = snapshot()?;
    let mut clone = None;
    for snippet in snippets.iter().filter(|snippet| snippet.language == "cmake") {
        let project = empty_folder(&format!("documents/cmake-{}", snippet.line))?;
        std::fs::write(project.join("CMakeLists.txt"), &snippet.text)?;
        std::fs::write(project.join("program.cpp"), cpp)?;
        let build = project.join("build");
        let mut cmake = Command::new("cmake");
        cmake.arg("-S").arg(&project).arg("-B").arg(&build);
        cmake.arg(format!("-DCMAKE_PREFIX_PATH={}", prefix.display()));
        cmake.env("GIT_CONFIG_COUNT", "1").env("GIT_CONFIG_VALUE_0", REPOSITORY);
        cmake.env("GIT_CONFIG_KEY_0", format!("url.file://{}.insteadOf", origin.display()));
        step(&format!("configure {}", snippet.place()), cmake)?;
        let mut cmake = Command::new("cmake");
        step(&format!("build {}", snippet.place()), cmake.arg("--build").arg(&build))?;
        step(&snippet.place(), in_runtime(Command::new(build.join("program")))?)?;
        let source = build.join("_deps/zerobuffer-src");
        if source.exists() {
            clone = Some(source);
        }
    }
    let Some(clone) = clone else { bail!("no snippet fetches the repository") };
    std::fs::write(clone.join("program.c"), c)?;
    std::fs::write(clone.join("program.cpp"), cpp)?;
    Ok(clone)
}

/// A repository whose branch `main` is what lies in this folder now, committed or not.
fn snapshot() -> Result<PathBuf> {
    let origin = empty_folder("documents/origin.git")?;
    let index = folder("documents")?.join("index");
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.arg("-C").arg(root()).args(arguments).env("GIT_INDEX_FILE", &index);
        for who in ["AUTHOR", "COMMITTER"] {
            git.env(format!("GIT_{who}_NAME"), "test").env(format!("GIT_{who}_EMAIL"), "test");
        }
        let output = git.output().context("git cannot be started")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "git {}: {errors}", arguments.join(" "));
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let origin_path = origin.to_str().context("the path is not UTF-8")?;
    git(&["init", "--quiet", "--bare", origin_path])?;
    git(&["add", "--all"])?;
    let tree = git(&["write-tree"])?;
    let commit = git(&["commit-tree", "-m", "snapshot", &tree])?;
    git(&["push", "--quiet", origin_path, &format!("{commit}:refs/heads/main")])?;
    std::fs::remove_file(&index)?;
    Ok(origin)
}

/// A folder of ours with nothing in it.
fn empty_folder(name: &str) -> Result<PathBuf> {
    let path = folder(name)?;
    std::fs::remove_dir_all(&path)?;
    folder(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snippets_are_found_with_what_is_around_them() {
        let text = "# A\n\n```c\nint main(void) {}\n```\nand\n\n<!-- in errors.cpp -->\n\n```cpp\na();\n\nb();\n```\n";
        let found = snippets_of(C, text).unwrap();
        assert_eq!((&*found[0].text, found[0].line), ("int main(void) {}\n", 3));
        assert_eq!((found[0].around.as_deref(), found[0].is_program()), (None, true));
        assert_eq!((&*found[1].text, found[1].line), ("a();\n\nb();\n", 10));
        assert_eq!(found[1].around.as_deref(), Some("errors.cpp"));
    }

    #[test]
    fn a_snippet_that_nobody_would_run_is_refused() {
        assert!(snippets_of(C, "```rust\n```\n").is_err());
        assert!(snippets_of(C, "```c\nno end\n").is_err());
        let fragment = snippets_of(C, "```c\nf();\n```\n").unwrap();
        assert!(fragment[0].program().is_err());
    }
}
