//! Control groups of the kernel's, to bound the memory of a server, and to see all of it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A control group of its own, which is removed when it is dropped.
pub(crate) struct Group(PathBuf);

impl Group {
    /// One whose processes may have so much memory together, if there is a limit.
    ///
    /// # Errors
    /// When the system has no control groups, or lets this process make none.
    pub(crate) fn new(bytes_max: Option<u64>) -> Result<Group, String> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let text = std::fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
        let of = |controller: &str| {
            text.lines().find_map(|line| {
                let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
                (controllers == controller).then(|| path.trim_start_matches('/').to_owned())
            })
        };
        let (root, path, file) = match (of("memory"), of("")) {
            (Some(path), _) => ("/sys/fs/cgroup/memory", path, "memory.limit_in_bytes"),
            (None, Some(path)) => ("/sys/fs/cgroup", path, "memory.max"),
            _ => return Err("no control groups here".to_owned()),
        };
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let name = format!("pba-chaos-{}-{number}", std::process::id());
        let group = Path::new(root).join(path).join(name);
        std::fs::create_dir(&group).map_err(|error| format!("no control group: {error}"))?;
        let group = Group(group);
        if let Some(bytes) = bytes_max {
            std::fs::write(group.0.join(file), bytes.to_string())
                .map_err(|error| format!("no limit: {error}"))?;
        }
        Ok(group)
    }

    /// A command that runs another one in this group.
    pub(crate) fn wrapper(&self) -> Vec<String> {
        let run = format!("echo $$ > '{}/cgroup.procs' && exec \"$@\"", self.0.display());
        ["sh", "-c", &run, "sh"].map(str::to_owned).into()
    }

    /// Bytes that its processes take, those in the kernel included, besides the file cache, which gives way.
    pub(crate) fn unreclaimed(&self) -> Option<u64> {
        let number = |file: &str| std::fs::read_to_string(self.0.join(file)).ok()?.trim().parse::<u64>().ok();
        let used = number("memory.usage_in_bytes").or_else(|| number("memory.current"))?;
        let stat = std::fs::read_to_string(self.0.join("memory.stat")).ok()?;
        let of = |name: &str| {
            stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse::<u64>().ok())
        };
        let files = of("inactive_file").unwrap_or(0) + of("active_file").unwrap_or(0);
        Some(used.saturating_sub(files))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // What was in it may be ending yet.
        for _ in 0..100 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}
