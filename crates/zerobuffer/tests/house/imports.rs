//! Who imports what: the `use` items and the written out paths of a crate's sources, down to files. Tests
//! among them are left out; they may know what they like.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use syn::visit::{self, Visit};
use syn::{Attribute, Item, UseTree, Visibility};

/// A module, by the names that lead to it from the crate's root.
type Module = Vec<String>;

/// The sources of one crate.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    modules: BTreeMap<Module, Contents>,
}

/// What one module says.
#[derive(Debug, Default)]
struct Contents {
    /// Below the crate's `src`.
    file: String,
    /// Every path as it is written, without those that `hands_on` has.
    paths: BTreeSet<Module>,
    /// What is passed on: the name it has here, and where it comes from; `*` for everything.
    hands_on: Vec<(String, Module)>,
}

/// One file imports from another one, or several names of the outside.
pub(crate) type Imports = BTreeMap<String, BTreeSet<String>>;

impl Sources {
    /// Everything below `folder`, which holds a `lib.rs` or a `main.rs`.
    pub(crate) fn read(folder: &Path) -> Self {
        let mut sources = Self::default();
        for root in ["lib.rs", "main.rs"].map(|name| folder.join(name)) {
            if root.is_file() {
                sources.add_file(folder, &root, folder, Vec::new());
            }
        }
        assert!(!sources.modules.is_empty(), "no sources in {}", folder.display());
        sources
    }

    /// `folder` is that of the crate's sources, `path` that of the file, `below` that of its child modules.
    fn add_file(&mut self, folder: &Path, path: &Path, below: &Path, module: Module) {
        let text = std::fs::read_to_string(path).unwrap();
        let file = syn::parse_file(&text).unwrap();
        let name = path.strip_prefix(folder).unwrap().to_string_lossy().into_owned();
        self.add_items(folder, (&name, below), &file.items, module);
    }

    fn add_items(&mut self, folder: &Path, place: (&str, &Path), items: &[Item], module: Module) {
        let (file, below) = place;
        let mut seen = Seen { contents: Contents { file: file.to_owned(), ..Contents::default() } };
        for item in items {
            match item {
                item if is_test(attributes(item)) => {}
                Item::Mod(child) => {
                    let name = child.ident.to_string();
                    let path = [module.as_slice(), std::slice::from_ref(&name)].concat();
                    let inside = below.join(&name);
                    match &child.content {
                        Some((_, items)) => self.add_items(folder, (file, &inside), items, path),
                        // One of several for different systems: the first is Linux.
                        None if self.modules.contains_key(&path) => {}
                        None => self.add_child(folder, below, child, path),
                    }
                }
                item => seen.visit_item(item),
            }
        }
        self.modules.insert(module, seen.contents);
    }

    fn add_child(&mut self, folder: &Path, below: &Path, child: &syn::ItemMod, module: Module) {
        let name = child.ident.to_string();
        let given = child.attrs.iter().find(|attribute| attribute.path().is_ident("path"));
        if let Some(given) = given {
            let syn::Meta::NameValue(value) = &given.meta else { panic!("a path") };
            let syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(path), .. }) = &value.value else {
                panic!("a path is a string")
            };
            let path = below.join(path.value());
            return self.add_file(folder, &path, path.parent().unwrap(), module);
        }
        let file = below.join(&name).with_extension("rs");
        match file.is_file() {
            true => self.add_file(folder, &file, &below.join(&name), module),
            false => {
                self.add_file(folder, &below.join(&name).join("mod.rs"), &below.join(&name), module)
            }
        }
    }

    /// For each file the files that it imports from.
    pub(crate) fn imports(&self) -> Imports {
        let mut imports = Imports::new();
        for (module, contents) in &self.modules {
            let found = imports.entry(contents.file.clone()).or_default();
            let elsewhere = contents.hands_on.iter().map(|(_, path)| path);
            // What a module hands on from below itself is its table of contents.
            let elsewhere = elsewhere.filter(|path| {
                self.find(module, path, 0).is_some_and(|found| !found.starts_with(module))
            });
            for path in contents.paths.iter().chain(elsewhere) {
                if let Some(target) = self.find(module, path, 0) {
                    found.insert(self.modules[&target].file.clone());
                }
            }
            found.remove(&contents.file);
        }
        imports
    }

    /// For each file the names of `libc` that it uses, and of others outside.
    pub(crate) fn outside(&self, prefix: &str) -> Imports {
        let mut found = Imports::new();
        for contents in self.modules.values() {
            for path in &contents.paths {
                if let [first, name, ..] = path.as_slice()
                    && first == prefix
                {
                    found.entry(contents.file.clone()).or_default().insert(name.clone());
                }
            }
        }
        found
    }

    /// The module that a path leads to from `module`, through what others hand on.
    fn find(&self, module: &[String], path: &[String], depth: usize) -> Option<Module> {
        let (first, mut rest) = path.split_first()?;
        let mut at = match first.as_str() {
            "crate" => Vec::new(),
            "self" => module.to_vec(),
            "super" => module[..module.len().checked_sub(1)?].to_vec(),
            name => {
                let child = [module, &[name.to_owned()]].concat();
                self.modules.contains_key(&child).then_some(child)?
            }
        };
        while let Some((name, further)) = rest.split_first() {
            let child = [at.as_slice(), std::slice::from_ref(name)].concat();
            if name == "super" {
                at.pop();
            } else if self.modules.contains_key(&child) {
                at = child;
            } else {
                return Some(self.handed_on(&at, name, depth).unwrap_or(at));
            }
            rest = further;
        }
        Some(at)
    }

    /// Where `module` has `name` from, if it is not its own.
    fn handed_on(&self, module: &Module, name: &str, depth: usize) -> Option<Module> {
        assert!(depth < 20, "{module:?} hands {name} on in a circle");
        let (_, path) =
            self.modules[module].hands_on.iter().find(|(own, _)| own == name || name == "*")?;
        self.find(module, path, depth + 1)
    }
}

/// Collects the paths of one module.
struct Seen {
    contents: Contents,
}

impl Seen {
    fn add(&mut self, path: Module) {
        self.contents.paths.insert(path);
    }

    fn add_tree(&mut self, tree: &UseTree, before: &[String], passed_on: bool) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        let (path, name) = match tree {
            UseTree::Path(path) => return self.add_tree(&path.tree, &with(&path.ident), passed_on),
            UseTree::Group(group) => {
                return group.items.iter().for_each(|tree| self.add_tree(tree, before, passed_on));
            }
            UseTree::Name(name) if name.ident == "self" => {
                (before.to_vec(), before.last().cloned().unwrap_or_default())
            }
            UseTree::Name(name) => (with(&name.ident), name.ident.to_string()),
            UseTree::Rename(rename) => (with(&rename.ident), rename.rename.to_string()),
            UseTree::Glob(_) => (before.to_vec(), "*".to_owned()),
        };
        match passed_on {
            true => self.contents.hands_on.push((name, path)),
            false => self.add(path),
        }
    }

    /// What macros are given is no syntax yet: paths in it are found by their first word.
    fn add_tokens(&mut self, tokens: proc_macro2::TokenStream) {
        use proc_macro2::TokenTree::{Group, Ident, Punct};
        let tokens: Vec<_> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                Group(group) => self.add_tokens(group.stream()),
                Ident(first) => {
                    let mut path = vec![first.to_string()];
                    while let [Punct(colon), Punct(_), Ident(next), ..] = &tokens[at + 1..]
                        && colon.as_char() == ':'
                    {
                        path.push(next.to_string());
                        at += 3;
                    }
                    if path.len() > 1 {
                        self.add(path);
                    }
                }
                _ => {}
            }
            at += 1;
        }
    }
}

impl<'ast> Visit<'ast> for Seen {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_test(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let passed_on = !matches!(item.vis, Visibility::Inherited);
        self.add_tree(&item.tree, &[], passed_on);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Module = path.segments.iter().map(|part| part.ident.to_string()).collect();
        if names.len() > 1 {
            self.add(names);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        self.visit_path(&called.path);
        self.add_tokens(called.tokens.clone());
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Whether it is compiled for tests only.
fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let syn::Meta::List(list) = &attribute.meta else { return false };
        let condition = list.tokens.to_string();
        list.path.is_ident("cfg")
            && (condition == "test" || condition.replace(' ', "").starts_with("all(test,"))
    })
}
