//! A server that only its Unix socket leads to: `--listen none`.

use std::collections::BTreeSet;
use std::path::Path;

use pba_tests::search::Script;
use pba_tests::server::{Process, data_folder, empty_data_folder};
use pba_tests::{Server, binary, pba, wait_for};

/// The TCP addresses on which a process listens, as the system shows them.
fn listens(process: &Process) -> BTreeSet<String> {
    let of_process = Path::new("/proc").join(process.id().to_string());
    let descriptors = std::fs::read_dir(of_process.join("fd")).unwrap();
    let targets = descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    let sockets: BTreeSet<String> = targets
        .filter_map(|target| Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    assert!(!sockets.is_empty(), "not even a Unix socket is seen");
    let tables = ["net/tcp", "net/tcp6"].map(|table| of_process.join(table));
    // A machine without IPv6 lacks the second one.
    let tables = tables.iter().enumerate().filter(|(number, table)| *number == 0 || table.exists());
    let lines = tables.map(|(_, table)| std::fs::read_to_string(table).unwrap()).collect::<String>();
    let listening = lines.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (address, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        (*state == "0A" && sockets.contains(*inode)).then(|| (*address).to_owned())
    });
    listening.collect()
}

/// A server on a socket in a data directory, and the URL of that.
fn start(data: &Path, flags: &[&str]) -> (Process, String) {
    let socket = data.join("pba.sock").into_os_string().into_string().unwrap();
    let fixed = ["serve", "--data-dir", data.to_str().unwrap(), "--socket", &socket];
    (Process::start(data, &[&fixed, flags].concat()), format!("unix:{socket}"))
}

#[test]
fn a_server_without_a_port_serves_on_its_socket() {
    let (data, trainer) = (data_folder(), Script::idles());
    let (mut process, url) = start(data.path(), &["--listen", "none", "--trainer", trainer.path()]);
    assert_eq!(process.line(), Some(format!("listening on {url}")), "{}", process.stderr());
    let ask = |arguments: &[&str]| pba(&[arguments, &["--server", &url]].concat());
    let file = |name: &str| data.path().join(name).into_os_string().into_string().unwrap();
    let stream = ["stream", "--schedule", "cifar10-pba", "--epoch", "3", "--out"];
    ask(&[&stream[..], &[&file("here")]].concat()).ok();
    let search =
        ["search", "start", "--name", "first", "--model", "tiny", "--epochs", "12", "--device", "cpu"];
    ask(&[&search[..], &["--population", "4", "--train-size", "128", "--val-size", "128"]].concat()).ok();
    let state = || ask(&["search", "show", "first", "--json"]).json()["state"].clone();
    wait_for("the search to run", || (state() == "running").then_some(()));
    assert_eq!(listens(&process), BTreeSet::new());
    process.signal("TERM");
    assert_eq!(process.wait().code(), Some(0), "{}", process.stderr());
    assert_eq!(process.line(), None, "it says nothing else");

    let usual = Server::start(&[]);
    usual.pba(&[&stream[..], &[&file("there")]].concat()).ok();
    let [here, there] = ["here", "there"].map(|name| std::fs::read(file(name)).unwrap());
    assert!(here == there && here.len() > 10_000 * 32 * 32 * 3, "{} and {} bytes", here.len(), there.len());
}

#[test]
fn a_port_beside_a_socket_is_announced_first() {
    let data = data_folder();
    let (process, url) = start(data.path(), &["--listen", "127.0.0.1:0"]);
    let first = process.line().unwrap();
    let port = first.strip_prefix("listening on http://127.0.0.1:").unwrap().parse::<u16>().unwrap();
    assert_eq!(process.line(), Some(format!("listening on {url}")));
    assert_eq!(listens(&process), BTreeSet::from([format!("0100007F:{port:04X}")]));
}

#[test]
fn one_without_a_port_takes_over() {
    let data = data_folder();
    let mut writer = Server::start_on(data.clone(), &[]);
    let (process, url) = start(data.path(), &["--listen", "none"]);
    assert_eq!(process.line(), Some(format!("listening on {url}")), "{}", process.stderr());
    writer.process.signal("KILL");
    writer.process.wait();
    wait_for("the replica to write", || {
        process.stderr().contains("this one is the writer now").then_some(())
    });
    let schedules = ["schedule", "delete", "none-such", "--server", &url];
    pba(&schedules).refused(1, &["404", "none-such"]);
    assert_eq!(listens(&process), BTreeSet::new());
}

#[test]
fn a_socket_in_use_is_told_of_without_a_port() {
    let data = data_folder();
    let (process, url) = start(data.path(), &["--listen", "none"]);
    process.line().unwrap();
    let other = empty_data_folder();
    let arguments = ["serve", "--listen", "none", "--data-dir", other.path().to_str().unwrap(), "--socket"];
    let socket = url.strip_prefix("unix:").unwrap();
    pba(&[&arguments[..], &[socket]].concat())
        .refused(1, &["cannot listen on unix:", socket, "choose another --socket PATH"]);
}

#[test]
fn the_demo_runs_without_a_port() {
    let data = data_folder();
    let socket = data.path().join("pba.sock").into_os_string().into_string().unwrap();
    let mut command = binary::command(data.path(), &["demo", "--data-dir", data.path().to_str().unwrap()]);
    command.env("PBA_LISTEN", "none").env("PBA_SOCKET", &socket);
    let mut demo = Process::run(command);
    assert_eq!(demo.line(), Some(format!("listening on unix:{socket}")), "{}", demo.stderr());
    let mut lines: Vec<String> = Vec::new();
    while !lines.last().is_some_and(|line| line.contains("dashboard")) {
        lines.push(demo.line().unwrap_or_else(|| panic!("{lines:?}, {}", demo.stderr())));
    }
    assert!(lines.iter().any(|line| line.contains("10000 images")), "{lines:?}");
    assert_eq!(
        lines.last().unwrap(),
        "no dashboard: the server has no port; it has one with --listen 127.0.0.1:0"
    );
    assert_eq!(listens(&demo), BTreeSet::new());
    demo.signal("TERM");
    assert_eq!(demo.wait().code(), Some(0));
}
