//! Power losses: what the disk holds if everything that was not synced is lost.
//!
//! A process runs under `strace`, which writes down each of its calls that changes files ([`Trace::command`],
//! [`Trace::read`]). From these, [`Trace::crashes`] makes the folder as a power failure after any of them may have
//! left it ([`Crash::write`]): a file has the content of its last `fsync`, and a folder the names of its
//! own. Every change that was acknowledged by then must be there; what was sent is in the trace, too
//! ([`Crash::sent`]).
//!
//! ```no_run
//! use pba_tests::power_loss::{Loss, Trace};
//! # let (data, command, elsewhere) = (std::path::Path::new("/data"), std::process::Command::new("pba"), std::path::Path::new("/x"));
//! let trace = std::path::Path::new("/tmp/trace");
//! let before = Trace::begin(data, &["datasets"]);
//! let traced = Trace::command(&command, trace); // run it, use it, end it
//! let trace = before.read(trace);
//! trace.check(data); // the model agrees with what is there
//! for crash in trace.crashes() {
//!     crash.write(elsewhere, Loss::Everything);
//!     // start a server there
//! }
//! ```
//!
//! The model is that of POSIX and no file system's: a name lasts once its folder is synced, whatever is known of the
//! file. Files are taken to be written from beginning to end, which [`Trace::check`] confirms.

mod call;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::power_loss::call::{Call, has_ended};
use crate::skipped::skip;
use crate::wait_for;

/// The calls that change files, and those that send.
const CALLS: &str = "open,openat,creat,write,writev,pwrite64,ftruncate,truncate,fsync,fdatasync,rename,renameat,\
                     renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,link,linkat,sendto,sendmsg";
/// Longest data of a call that is written down whole.
const DATA_BYTES_MAX: usize = 1 << 26;

/// Whether processes can be traced here; if not, the test is skipped.
#[track_caller]
pub fn is_possible() -> bool {
    let traced = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).output();
    let is_possible = traced.is_ok_and(|traced| traced.status.success());
    if !is_possible {
        skip("strace is not there, or may not trace");
    }
    is_possible
}

/// How much a power failure takes of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// All of it: contents and names.
    Everything,
    /// Contents, in whose place there are zeroes. Names and lengths are as they were.
    Contents,
}

type Node = usize;

/// A file or folder.
#[derive(Clone, Debug, Default)]
struct Inode {
    /// The names in it, if it is a folder.
    names: Option<BTreeMap<String, Node>>,
    content: Arc<Vec<u8>>,
    synced_names: BTreeMap<String, Node>,
    synced_content: Arc<Vec<u8>>,
}

/// The files under a folder, as they are and as they were last synced.
#[derive(Clone, Debug)]
struct Files {
    root: PathBuf,
    ignored: Vec<String>,
    inodes: Vec<Inode>,
}

/// The calls of a process and its children, in the order in which they ended.
pub struct Trace {
    before: Files,
    steps: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    /// A call that has ended well.
    Ended(Call),
    /// A sync that has begun, and ends later.
    Syncing { process: u32, path: String },
    /// Data on its way to a socket.
    Sent(Vec<u8>),
}

/// The folder at a power failure.
pub struct Crash<'a> {
    /// Calls before it.
    pub step: usize,
    /// What the last of them was, in words.
    pub after: String,
    files: Files,
    trace: &'a Trace,
}

impl Trace {
    /// What is in a folder before a process runs: all of it is on disk. `ignored` are names in it that do not matter.
    ///
    /// # Panics
    /// When the folder cannot be read.
    pub fn begin(root: &Path, ignored: &[&str]) -> Trace {
        let ignored = ignored.iter().map(|&name| name.to_owned()).collect();
        let root = root.canonicalize().expect("the folder is there");
        let mut files = Files { root: root.clone(), ignored, inodes: vec![Inode::default()] };
        files.add(0, &root);
        Trace { before: files, steps: Vec::new() }
    }

    /// The same command, traced into a file.
    pub fn command(command: &Command, trace: &Path) -> Command {
        let mut traced = Command::new("strace");
        // The tracer is no parent of the process, which is killed and waited for as if there were none.
        traced.args([
            "-D",
            "-f",
            "--seccomp-bpf",
            "-y",
            "--quiet=attach,personality",
            "-e",
            "signal=kill,term,pipe",
        ]);
        traced.args(["-s", &DATA_BYTES_MAX.to_string(), "-e", &format!("trace={CALLS}"), "-o"]).arg(trace);
        traced.arg(command.get_program()).args(command.get_args());
        if let Some(directory) = command.get_current_dir() {
            traced.current_dir(directory);
        }
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => traced.env(key, value),
                None => traced.env_remove(key),
            };
        }
        traced
    }

    /// Reads what was traced, once the process has ended. Those that it started must have ended by then, or leave the
    /// folder alone.
    ///
    /// # Panics
    /// When it does not end, or the trace cannot be read.
    pub fn read(mut self, trace: &Path) -> Trace {
        let text = wait_for("the end of the process that is traced", || {
            fs::read(trace).ok().filter(|text| has_ended(text))
        });
        let mut begun = HashMap::<u32, Vec<u8>>::new();
        for line in text.split(|&byte| byte == b'\n') {
            let Some(space) = line.iter().position(|&byte| byte == b' ') else { continue };
            let Some(process) = std::str::from_utf8(&line[..space]).ok().and_then(|id| id.parse().ok())
            else {
                continue;
            };
            let line = line[space..].trim_ascii_start();
            if let Some(start) = line.strip_suffix(b"<unfinished ...>") {
                begun.insert(process, start.to_vec());
                let call = Call::read(process, start);
                match call.name.as_str() {
                    "fsync" | "fdatasync" => {
                        let path = call.paths.first().cloned().unwrap_or_default();
                        self.steps.push(Step::Syncing { process, path });
                    }
                    _ if call.is_sending() => self.steps.push(Step::Sent(call.texts.concat())),
                    _ => {}
                }
                continue;
            }
            let (line, was_begun) = match line.strip_prefix(b"<... ") {
                None => (line.to_vec(), false),
                Some(rest) => {
                    let Some(start) = begun.remove(&process) else { continue };
                    let resumed = b" resumed>";
                    let at = rest.windows(resumed.len()).position(|part| part == resumed);
                    let at = at.expect("a call is resumed") + resumed.len();
                    ([&start[..], &rest[at..]].concat(), true)
                }
            };
            let call = Call::read(process, &line);
            if call.is_sending() {
                if !was_begun {
                    self.steps.push(Step::Sent(call.texts.concat()));
                }
            } else if call.result >= 0 && !call.name.is_empty() {
                self.steps.push(Step::Ended(call));
            }
        }
        self
    }

    /// Every power failure: one before the first call, and one after each that changes something on disk.
    pub fn crashes(&self) -> impl Iterator<Item = Crash<'_>> {
        let (mut files, mut syncing) = (self.before.clone(), HashMap::new());
        let first = Crash { step: 0, after: "nothing".to_owned(), files: files.clone(), trace: self };
        let after = self.steps.iter().enumerate().filter_map(move |(at, step)| {
            let after = files.take(step, &mut syncing)?;
            Some(Crash { step: at + 1, after, files: files.clone(), trace: self })
        });
        std::iter::once(first).chain(after)
    }

    /// Checks that the files as the calls made them are those that are there.
    ///
    /// # Panics
    /// When they are not: then the model is wrong.
    pub fn check(&self, folder: &Path) {
        let last = self.crashes().last().expect("there is a first");
        let mut modelled = BTreeMap::new();
        last.files.collect(0, Path::new(""), &mut modelled, &|inode| {
            (inode.names.clone(), (*inode.content).clone())
        });
        let there = Trace::begin(folder, &self.before.ignored.iter().map(String::as_str).collect::<Vec<_>>());
        let mut found = BTreeMap::new();
        there
            .before
            .collect(0, Path::new(""), &mut found, &|inode| (inode.names.clone(), (*inode.content).clone()));
        let names = |files: &BTreeMap<PathBuf, Option<Vec<u8>>>| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&modelled), names(&found));
        for (path, content) in &found {
            assert!(modelled[path] == *content, "{}: the model has another content", path.display());
        }
    }
}

impl Crash<'_> {
    /// Whether some text had been sent by then, as that of an answer.
    pub fn sent(&self, text: &str) -> bool {
        let holds = |data: &[u8]| data.windows(text.len()).any(|part| part == text.as_bytes());
        self.trace.steps[..self.step].iter().any(|step| matches!(step, Step::Sent(data) if holds(data)))
    }

    /// Writes what is left into an empty folder.
    ///
    /// # Panics
    /// When that fails.
    pub fn write(&self, folder: &Path, loss: Loss) {
        for (path, content) in self.left(loss) {
            let path = folder.join(path);
            match content {
                None => fs::create_dir_all(path).expect("a folder can be made"),
                Some(content) => fs::write(path, content).expect("a file can be written"),
            }
        }
    }

    /// What is left: folders have no content.
    pub fn left(&self, loss: Loss) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
        let mut left = BTreeMap::new();
        self.files.collect(0, Path::new(""), &mut left, &|inode| match loss {
            Loss::Everything => {
                (inode.names.as_ref().map(|_| inode.synced_names.clone()), (*inode.synced_content).clone())
            }
            Loss::Contents => {
                let mut content = (*inode.synced_content).clone();
                content.resize(inode.content.len(), 0);
                (inode.names.clone(), content)
            }
        });
        left
    }
}

impl Files {
    /// Takes a file or folder for what is at `path` on disk.
    fn add(&mut self, node: Node, path: &Path) {
        if !path.is_dir() {
            let content = Arc::new(fs::read(path).unwrap_or_default());
            (self.inodes[node].synced_content, self.inodes[node].content) = (Arc::clone(&content), content);
            return;
        }
        let mut names = BTreeMap::new();
        for entry in fs::read_dir(path).expect("a folder can be read").map(|entry| entry.expect("likewise")) {
            let name = entry.file_name().into_string().expect("names are text");
            if node == 0 && self.ignored.contains(&name) {
                continue;
            }
            let inner = self.new_inode(false);
            self.add(inner, &entry.path());
            names.insert(name, inner);
        }
        self.inodes[node].synced_names.clone_from(&names);
        self.inodes[node].names = Some(names);
    }

    fn new_inode(&mut self, is_folder: bool) -> Node {
        self.inodes.push(Inode { names: is_folder.then(BTreeMap::new), ..Inode::default() });
        self.inodes.len() - 1
    }

    /// The names on the way to a path, from the root; none for paths that are not in it or do not matter.
    fn names_to(&self, path: &str) -> Option<Vec<String>> {
        let inner = Path::new(path).strip_prefix(&self.root).ok()?;
        let name = |part: Component<'_>| Some(part.as_os_str().to_str()?.to_owned());
        let names = inner.components().map(name).collect::<Option<Vec<_>>>()?;
        (!names.first().is_some_and(|first| self.ignored.contains(first))).then_some(names)
    }

    fn find(&self, path: &str) -> Option<Node> {
        let step = |node: Node, name: &String| self.inodes[node].names.as_ref()?.get(name).copied();
        self.names_to(path)?.iter().try_fold(0, step)
    }

    /// The folder of a path, and its name there.
    fn place(&self, path: &str) -> Option<(Node, String)> {
        let name = self.names_to(path)?.pop()?;
        let folder = Path::new(path).parent()?.to_str()?;
        Some((self.find(folder)?, name))
    }

    fn names(&mut self, node: Node) -> &mut BTreeMap<String, Node> {
        self.inodes[node].names.get_or_insert_default()
    }

    /// Does what a call did; says what that was, if it was something.
    fn take(&mut self, step: &Step, syncing: &mut HashMap<u32, (Node, Inode)>) -> Option<String> {
        let call = match step {
            Step::Sent(_) => return None,
            Step::Syncing { process, path } => {
                if let Some(node) = self.find(path) {
                    syncing.insert(*process, (node, self.inodes[node].clone()));
                }
                return None;
            }
            Step::Ended(call) => call,
        };
        let text = |at: usize| call.texts.get(at).map(|text| String::from_utf8_lossy(text).into_owned());
        let (path, at_folder) =
            (call.paths.first().cloned().unwrap_or_default(), text(0).unwrap_or_default());
        match call.name.as_str() {
            "open" | "openat" | "creat" => {
                let path = call.opened.clone()?;
                let has = |flag: &str| call.words.iter().any(|word| word.contains(flag));
                match self.find(&path) {
                    Some(node) if has("O_TRUNC") => self.inodes[node].content = Arc::default(),
                    None if has("O_CREAT") => {
                        let (folder, name) = self.place(&path)?;
                        let file = self.new_inode(false);
                        self.names(folder).insert(name, file);
                    }
                    _ => return None,
                }
            }
            "write" | "writev" | "pwrite64" => {
                let node = self.find(&path)?;
                let data = call.texts.concat();
                let data = &data[..data.len().min(call.result as usize)];
                let content = Arc::make_mut(&mut self.inodes[node].content);
                let at = match call.name.as_str() {
                    "pwrite64" => call.words.last()?.trim().parse().ok()?,
                    _ => content.len(),
                };
                content.resize(content.len().max(at + data.len()), 0);
                content[at..at + data.len()].copy_from_slice(data);
            }
            "ftruncate" | "truncate" => {
                let node = self.find(if path.is_empty() { &at_folder } else { &path })?;
                let length = call.words.last()?.trim().parse().ok()?;
                Arc::make_mut(&mut self.inodes[node].content).resize(length, 0);
            }
            "fsync" | "fdatasync" => {
                // What was written while it synced is not known to be on disk.
                let then = syncing.remove(&call.process);
                let node = self.find(&path).or(then.as_ref().map(|(node, _)| *node))?;
                let then = then.map_or_else(|| self.inodes[node].clone(), |(_, then)| then);
                let inode = &mut self.inodes[node];
                (inode.synced_content, inode.synced_names) = (then.content, then.names.unwrap_or_default());
            }
            "rename" | "renameat" | "renameat2" => {
                let (from, to) = (self.place(&at_folder), text(1).and_then(|to| self.place(&to)));
                let moved = from.and_then(|(folder, name)| self.names(folder).remove(&name))?;
                if let Some((folder, name)) = to {
                    self.names(folder).insert(name, moved);
                }
            }
            "link" | "linkat" => {
                let linked = self.find(&at_folder)?;
                let (folder, name) = text(1).and_then(|to| self.place(&to))?;
                self.names(folder).insert(name, linked);
            }
            "unlink" | "unlinkat" | "rmdir" => {
                // To remove a whole folder names what is in it only.
                let path = match Path::new(&at_folder).is_absolute() {
                    true => at_folder,
                    false => format!("{path}/{at_folder}"),
                };
                let (folder, name) = self.place(&path)?;
                self.names(folder).remove(&name)?;
            }
            "mkdir" | "mkdirat" => {
                let (folder, name) = self.place(&at_folder)?;
                let made = self.new_inode(true);
                self.names(folder).insert(name, made);
            }
            _ => return None,
        }
        let shown = call.opened.clone().unwrap_or(if path.is_empty() { text(0)? } else { path });
        Some(format!("{} {shown}", call.name))
    }

    /// Collects the files and folders below a folder, by path, as `seen` shows them.
    fn collect(
        &self,
        node: Node,
        path: &Path,
        all: &mut BTreeMap<PathBuf, Option<Vec<u8>>>,
        seen: &impl Fn(&Inode) -> (Option<BTreeMap<String, Node>>, Vec<u8>),
    ) {
        let (names, content) = seen(&self.inodes[node]);
        let Some(names) = names else {
            all.insert(path.to_owned(), Some(content));
            return;
        };
        all.insert(path.to_owned(), None);
        for (name, &inner) in &names {
            self.collect(inner, &path.join(name), all, seen);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a shell under the tracer in an empty folder.
    fn traced(script: &str) -> (tempfile::TempDir, Trace) {
        let folders = tempfile::tempdir().unwrap();
        let (root, file) = (folders.path().join("root"), folders.path().join("trace"));
        fs::create_dir(&root).unwrap();
        fs::write(root.join("there"), "old").unwrap();
        let before = Trace::begin(&root, &[]);
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(&root).env("ROOT", root.canonicalize().unwrap());
        assert!(Trace::command(&command, &file).status().unwrap().success());
        let trace = before.read(&file);
        trace.check(&root);
        (folders, trace)
    }

    fn left(crash: &Crash<'_>, loss: Loss) -> BTreeMap<String, String> {
        let text = |(path, content): (PathBuf, Option<Vec<u8>>)| {
            Some((path.display().to_string(), String::from_utf8(content?).unwrap()))
        };
        crash.left(loss).into_iter().filter_map(text).collect()
    }

    #[test]
    fn only_what_was_synced_is_left() {
        if !is_possible() {
            return;
        }
        let script = r#"echo new > $ROOT/part; sync $ROOT/part; echo more >> $ROOT/part
            mv $ROOT/part $ROOT/there; sync $ROOT; rm $ROOT/there"#;
        let (_folders, trace) = traced(script);
        let lefts: Vec<_> = trace.crashes().map(|crash| left(&crash, Loss::Everything)).collect();
        let is = |name: &str, content: &str| BTreeMap::from([(name.to_owned(), content.to_owned())]);
        assert_eq!(lefts.first().unwrap(), &is("there", "old"));
        // The folder was synced after the move, and not after the removal; the second line of the file never was.
        assert_eq!(lefts.last().unwrap(), &is("there", "new\n"));
        let mut kinds = lefts.clone();
        kinds.dedup();
        assert_eq!(kinds, [is("there", "old"), is("there", "new\n")]);
        let zeroed = trace.crashes().map(|crash| left(&crash, Loss::Contents));
        assert!(zeroed.into_iter().any(|left| left == is("there", "new\n\0\0\0\0\0")));
    }
}
