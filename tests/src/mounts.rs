//! Servers whose data directories lie on file systems of their own.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;

use crate::server::Server;
use crate::skipped::skip;

/// Mounts the data directory read-only.
pub const READ_ONLY: &str = "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\"";
/// Mounts an empty disk of 100 MB in its place.
pub const SMALL: &str = "mount -t tmpfs -o size=100m none \"$0\"";

/// Whether users may mount something here; if not, the test is skipped.
#[track_caller]
pub fn may_mount() -> bool {
    let tried = Command::new("unshare").args(["-rm", "true"]).status();
    let may_mount = tried.is_ok_and(|status| status.success());
    if !may_mount {
        skip("this machine does not let its users mount anything");
    }
    may_mount
}

/// A server that sees its data directory as a shell script mounts it, at `$0`, before it becomes the server; none
/// where users may mount nothing.
///
/// # Panics
/// When it does not start.
#[track_caller]
pub fn mounted(mount: &str, data: &Arc<TempDir>, flags: &[&str]) -> Option<Server> {
    if !may_mount() {
        return None;
    }
    let server = Server::command(data.path(), flags);
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-c", &format!("{mount} && exec \"$@\"")]).arg(data.path());
    command.arg(server.get_program()).args(server.get_args()).current_dir("/");
    // As a command of its own is shielded.
    command.env("PBA_DRAIN_DELAY_SECONDS", "0");
    Some(Server::run(command, Arc::clone(data)))
}

/// A file in the data directory of such a server, as the server sees it.
pub fn seen(server: &Server, name: &str) -> PathBuf {
    format!("/proc/{}/root{}/{name}", server.process.id(), server.data().path().display()).into()
}

/// Writes zeros to a file until its disk is full.
///
/// # Panics
/// When the file cannot be created.
pub fn fill(path: &std::path::Path) {
    let mut file = File::create(path).expect("the disk has room for a name");
    while file.write(&[0; 1 << 12]).is_ok() {}
}
