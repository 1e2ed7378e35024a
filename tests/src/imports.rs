//! Which file of a crate uses which: what its paths lead to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Attribute, Item, UseTree, Visibility};

/// A module: the names that lead to it from the root of its crate.
type Module = Vec<String>;

/// The files of a crate, and which file uses which. Tests do not count.
pub struct Imports {
    /// Edges between files, relative to the crate's `src`.
    pub edges: BTreeMap<PathBuf, BTreeSet<PathBuf>>,
}

struct Source {
    file: PathBuf,
    /// The code without tests.
    items: Vec<Item>,
    /// What the module names of others by `use`: the path behind each name.
    names: BTreeMap<String, Module>,
}

impl Imports {
    /// Reads every file below a crate's `src`.
    ///
    /// # Panics
    /// When one cannot be read or parsed.
    pub fn of(src: &Path) -> Imports {
        let mut sources = BTreeMap::new();
        read(src, src, &mut sources);
        let mut edges = BTreeMap::new();
        for (module, source) in &sources {
            let mut paths = Vec::new();
            for item in &source.items {
                // What is only passed on is looked through where it is used.
                if !matches!(item, Item::Use(item) if !matches!(item.vis, Visibility::Inherited)) {
                    collect(item.to_token_stream(), module, &source.names, &mut paths);
                }
            }
            let used = paths.into_iter().filter_map(|path| find(&sources, path, 0));
            let used = used.filter(|file| *file != source.file).collect();
            edges.insert(source.file.clone(), used);
        }
        Imports { edges }
    }

    /// The groups of files that use each other in a circle.
    pub fn circles(&self) -> Vec<Vec<PathBuf>> {
        circles(&self.edges)
    }
}

/// The sets of nodes that can be reached from each other.
pub fn circles<T: Ord + Clone>(edges: &BTreeMap<T, BTreeSet<T>>) -> Vec<Vec<T>> {
    let reached = |start: &T| {
        let (mut reached, mut open) = (BTreeSet::new(), vec![start.clone()]);
        while let Some(node) = open.pop() {
            for next in edges.get(&node).into_iter().flatten() {
                if reached.insert(next.clone()) {
                    open.push(next.clone());
                }
            }
        }
        reached
    };
    let reached: BTreeMap<&T, BTreeSet<T>> = edges.keys().map(|node| (node, reached(node))).collect();
    let mut found = BTreeSet::new();
    for (node, nodes) in &reached {
        let back = |other: &&T| reached.get(*other).is_some_and(|back| back.contains(*node));
        let circle: Vec<T> = nodes.iter().filter(back).cloned().collect();
        if !circle.is_empty() {
            found.insert(circle);
        }
    }
    found.into_iter().collect()
}

fn read(src: &Path, folder: &Path, sources: &mut BTreeMap<Module, Source>) {
    for entry in std::fs::read_dir(folder).expect("a folder of sources can be listed") {
        let path = entry.expect("a folder of sources can be listed").path();
        if path.is_dir() {
            read(src, &path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let file = path.strip_prefix(src).expect("it is below").to_owned();
            let mut module: Module =
                file.with_extension("").iter().map(|name| name.to_string_lossy().into_owned()).collect();
            if module.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
                module.pop();
            }
            let text = std::fs::read_to_string(&path).expect("a source can be read");
            let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let items: Vec<Item> =
                parsed.items.into_iter().filter(|item| !is_test(attributes(item))).collect();
            let mut names = BTreeMap::new();
            for item in &items {
                if let Item::Use(item) = item {
                    flatten(&item.tree, &module, &[], &mut names);
                }
            }
            // A binary and a library beside it are two crates; the library is the one with modules.
            if !(file.ends_with("main.rs") && src.join("lib.rs").exists()) {
                sources.insert(module, Source { file, items, names });
            }
        }
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Mod(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Const(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        _ => &[],
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let text = attribute.to_token_stream().to_string().replace(' ', "");
        text == "#[cfg(test)]" || text.starts_with("#[cfg(all(test")
    })
}

/// The absolute path of one that is written in a module; none when it leaves the crate.
fn absolute(path: &[String], module: &Module, names: &BTreeMap<String, Module>) -> Option<Module> {
    let (first, rest) = path.split_first()?;
    // As in `pub(super)`.
    if rest.is_empty() && ["crate", "self", "super"].contains(&first.as_str()) {
        return None;
    }
    let mut base = match first.as_str() {
        "crate" => Vec::new(),
        "self" => module.clone(),
        "super" => module[..module.len().checked_sub(1)?].to_vec(),
        name => names.get(name)?.clone(),
    };
    let mut rest = rest;
    while let Some((next, after)) = rest.split_first()
        && next == "super"
    {
        base.pop()?;
        rest = after;
    }
    base.extend_from_slice(rest);
    Some(base)
}

/// Notes what each name of a `use` stands for.
fn flatten(tree: &UseTree, module: &Module, before: &[String], names: &mut BTreeMap<String, Module>) {
    let joined = |name: String| [before, &[name]].concat();
    match tree {
        UseTree::Path(path) => flatten(&path.tree, module, &joined(path.ident.to_string()), names),
        UseTree::Group(group) => {
            group.items.iter().for_each(|tree| flatten(tree, module, before, names));
        }
        UseTree::Name(name) if name.ident == "self" => {
            if let (Some(last), Some(path)) = (before.last(), absolute(before, module, &BTreeMap::new())) {
                names.insert(last.clone(), path);
            }
        }
        UseTree::Name(name) => {
            if let Some(path) = absolute(&joined(name.ident.to_string()), module, &BTreeMap::new()) {
                names.insert(name.ident.to_string(), path);
            }
        }
        UseTree::Rename(rename) => {
            if let Some(path) = absolute(&joined(rename.ident.to_string()), module, &BTreeMap::new()) {
                names.insert(rename.rename.to_string(), path);
            }
        }
        UseTree::Glob(_) => {}
    }
}

/// Every path in some code that stays in the crate.
fn collect(code: TokenStream, module: &Module, names: &BTreeMap<String, Module>, paths: &mut Vec<Module>) {
    let tokens: Vec<TokenTree> = code.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Group(group) => collect(group.stream(), module, names, paths),
            TokenTree::Ident(_) => {
                let (path, next, group) = path_at(&tokens, at);
                if let Some(group) = group {
                    collect_group(group, &path, module, names, paths);
                }
                paths.extend(absolute(&path, module, names));
                at = next;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
}

/// The path that begins at a token, what comes after it, and the group that it ends in, as
/// `use crate::a::{b, c}` does.
fn path_at(tokens: &[TokenTree], start: usize) -> (Module, usize, Option<TokenStream>) {
    let mut path = vec![tokens[start].to_string()];
    let mut at = start + 1;
    let is_colon =
        |at: usize| matches!(tokens.get(at), Some(TokenTree::Punct(mark)) if mark.as_char() == ':');
    while is_colon(at) && is_colon(at + 1) {
        match tokens.get(at + 2) {
            Some(TokenTree::Ident(name)) => path.push(name.to_string()),
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                return (path, at + 3, Some(group.stream()));
            }
            _ => return (path, at + 2, None),
        }
        at += 3;
    }
    (path, at, None)
}

fn collect_group(
    group: TokenStream,
    before: &[String],
    module: &Module,
    names: &BTreeMap<String, Module>,
    paths: &mut Vec<Module>,
) {
    let tokens: Vec<TokenTree> = group.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        if let TokenTree::Ident(_) = &tokens[at] {
            let (path, next, group) = path_at(&tokens, at);
            let path = [before, &path].concat();
            if let Some(group) = group {
                collect_group(group, &path, module, names, paths);
            }
            paths.extend(absolute(&path, module, names));
            at = next;
        } else {
            at += 1;
        }
    }
}

/// The file in which a path's item is defined: that of the longest module in it, or of whatever that
/// module passes on.
fn find(sources: &BTreeMap<Module, Source>, path: Module, depth: usize) -> Option<PathBuf> {
    let length = (0..=path.len()).rev().find(|&length| sources.contains_key(&path[..length]))?;
    let source = &sources[&path[..length]];
    if let Some(name) = path.get(length)
        && depth < 8
        && let Some(behind) = source.names.get(name)
    {
        let passed_on = [behind.as_slice(), &path[length + 1..]].concat();
        return find(sources, passed_on, depth + 1);
    }
    Some(source.file.clone())
}
