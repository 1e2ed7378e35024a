//! How much memory the server may use, unless it is told.

use std::path::Path;

/// Half of the memory of this machine or of the process's control group, whichever is less, but 4 GiB at most:
/// more than 1,000 streams of usual batches need. Without an answer from the system, 1 GiB.
pub(super) fn memory_share() -> u64 {
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let read = |path: &str| std::fs::read_to_string(path).ok();
    // What limits a container is seen at the root, from within; what limits a service, in its own group or in
    // one that holds that. Each version of control groups has its own tree and file.
    let own = read("/proc/self/cgroup").unwrap_or_default();
    let files = |controllers: &str, root: &str, file: &str| -> Vec<String> {
        let of = |line: &str| {
            let (found, path) = line.split_once(':')?.1.split_once(":/")?;
            found.split(',').any(|controller| controller == controllers).then(|| path.to_owned())
        };
        let group = own.lines().find_map(of).unwrap_or_default();
        Path::new(&group).ancestors().map(|group| format!("{root}/{}/{file}", group.display())).collect()
    };
    let groups = [
        files("", "/sys/fs/cgroup", "memory.max"),
        files("memory", "/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
    ];
    let groups = groups.into_iter().flatten();
    let groups: Vec<u64> = groups.filter_map(|path| number(&read(&path)?)).collect();
    let machine = read("/proc/meminfo").and_then(|text| {
        let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        Some(number(total.trim().strip_suffix("kB")?)? << 10)
    });
    let bytes = groups.into_iter().chain(machine).min().unwrap_or(2 << 30);
    (bytes / 2).clamp(64 << 20, 4 << 30)
}
