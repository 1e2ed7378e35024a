//! The command line, as people and scripts use it.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use arrow_array::RecordBatch;
use arrow_ipc::reader::StreamReader;
use pba_schedules::{Schedule, formats, library};
use pba_tests::server::data_folder;
use pba_tests::{Pba, Server, binary, epoch, pba, repository};
use serde_json::Value;

/// An address where no server listens: port 1 needs privileges and has no service.
const NOBODY: &str = "http://127.0.0.1:1";

/// Each published schedule, the log that it was converted from, its epochs and segments.
fn published() -> [(Schedule, &'static str, u32, usize); 2] {
    [
        (library::cifar10_pba(), "rcifar10_16_wrn.txt", 200, 17),
        (library::svhn_pba(), "rsvhn_16_wrn.txt", 160, 14),
    ]
}

fn log_path(file: &str) -> String {
    repository("schedules/library/source").join(file).display().to_string()
}

/// A schedule's policies by epoch, read from the lineage log by other code than the server's: each
/// line `[target, clone, _, epoch, before, after]` says which policy holds from which epoch on.
fn policies_of_log(file: &str, epochs: usize) -> Vec<Value> {
    let text = std::fs::read_to_string(log_path(file)).unwrap().replace('\'', "\"");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut kept = vec![lines.last().unwrap()];
    for line in lines.iter().rev().skip(1) {
        // Backwards from the winner: a line belongs to it while it made the member it came from.
        if line[0] != kept.last().unwrap()[1] {
            break;
        }
        kept.push(line);
    }
    kept.reverse();
    let mut policies = vec![kept[0][4].clone(); epochs];
    for line in kept {
        policies[line[3].as_u64().unwrap() as usize..].fill(line[5].clone());
    }
    policies
}

#[test]
fn published_schedules_are_the_logs() {
    let server = Server::start(&[]);
    for (schedule, log, epochs, segments) in published() {
        let name = schedule.name();
        let shown = server.pba(&["schedule", "show", name]).ok();
        assert!(shown.contains(&format!("{name}: {segments} segments over {epochs} epochs")), "{shown}");
        assert!(shown.contains(&schedule.digest().to_string()), "{shown}");
        let rows = shown.lines().filter(|line| line.contains("..=")).count();
        assert_eq!(rows, segments, "{shown}");
        assert!(shown.contains(&format!("..={}", epochs - 1)), "{shown}");

        let export = server.pba(&["schedule", "export", name]).json();
        let mut by_epoch: Vec<Value> = Vec::new();
        for segment in export["segments"].as_array().unwrap() {
            let levels = segment["policy"].as_array().unwrap().iter();
            let flat: Vec<Value> = levels.flat_map(|pair| pair.as_array().unwrap().clone()).collect();
            let count = segment["epochs"].as_u64().unwrap() as usize;
            by_epoch.extend(std::iter::repeat_n(Value::from(flat), count));
        }
        assert_eq!(by_epoch, policies_of_log(log, epochs as usize), "{name}");
    }
}

#[test]
fn a_log_is_imported_through_the_api_and_the_command_line() {
    let server = Server::start(&[]);
    for (schedule, log, epochs, segments) in published() {
        let digest = schedule.digest().to_string();
        let body = std::fs::read(log_path(log)).unwrap();
        let answer = server.send("PUT", &format!("/v1/schedules/api-{epochs}?epochs={epochs}"), &body);
        assert_eq!(answer.status, 201, "{}", answer.text());
        assert_eq!(answer.json()["digest"], digest.as_str());

        let (name, epochs) = (format!("cli-{epochs}"), epochs.to_string());
        let import = ["schedule", "import", &log_path(log), "--name", &name, "--epochs", &epochs];
        let text = server.pba(&import).ok();
        assert!(text.contains(&digest), "{text}");
        let again = server.pba(&[&import[..], &["--json"]].concat()).json();
        assert_eq!((&again["digest"], &again["segments"]), (&digest.as_str().into(), &segments.into()));
        assert_eq!(
            server.get(&format!("/v1/schedules/{name}")).header("etag"),
            Some(&*format!("\"{digest}\""))
        );
        server.pba(&["schedule", "delete", &name]).ok();
        server.pba(&["schedule", "show", &name]).refused(1, &["there is no schedule", &name]);
    }
}

#[test]
fn an_export_is_imported_as_the_same() {
    let server = Server::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine.json").display().to_string();
    server.pba(&["schedule", "export", "svhn-pba", "--out", &file]).ok();
    let read = formats::read(&std::fs::read_to_string(&file).unwrap(), None, None, None).unwrap();
    assert_eq!(read, library::svhn_pba());
    server.pba(&["schedule", "import", &file, "--name", "mine"]).ok();
    server.pba(&["schedule", "import", &file, "--name", "cifar10-pba"]).refused(1, &["409", "cifar10-pba"]);
    let stretched = ["schedule", "import", &file, "--name", "mine", "--epochs", "7"];
    server.pba(&stretched).refused(1, &["already states the epochs", "--epochs is for logs"]);
    let svg = server.pba(&["schedule", "plot", "mine"]).ok();
    assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>") && svg.contains(">mine<"));
    assert!(svg.contains("Rotate"));
}

#[test]
fn published_schedules_are_shown_without_a_server() {
    // No server was named, and none runs at the usual place, unless this machine is being worked on.
    if std::net::TcpStream::connect("127.0.0.1:8080").is_err() {
        let list = pba(&["schedule", "list", "--json"]).json();
        assert_eq!(list["schedules"].as_array().unwrap().len(), library::all().len());
        assert!(pba(&["schedule", "show", "svhn-pba"]).ok().contains("14 segments"));
    }
    pba(&["schedule", "list", "--server", NOBODY]).refused(1, &["cannot reach", NOBODY]);
    pba(&["schedule", "show", "svhn-pba", "--server", NOBODY]).refused(1, &["cannot reach", NOBODY]);
    pba(&["schedule", "show", "mine", "--server", NOBODY]).refused(1, &["cannot reach", NOBODY]);
    pba(&["dataset", "list", "--server", NOBODY]).refused(1, &["cannot reach", NOBODY]);
    pba(&["stream", NOBODY]).refused(1, &["cannot reach", NOBODY]);
}

#[test]
fn every_command_has_json() {
    let server = Server::start(&[]);
    let url = server.url();
    let log = log_path("rsvhn_16_wrn.txt");
    let commands: Vec<Vec<&str>> = vec![
        vec!["schedule", "list"],
        vec!["schedule", "show", "cifar10-pba"],
        vec!["schedule", "import", &log, "--name", "mine", "--epochs", "160"],
        vec!["schedule", "delete", "mine"],
        vec!["dataset", "list"],
        vec!["dataset", "show", "shapes"],
        vec!["dataset", "preview", "shapes", "-n", "4"],
        vec!["stream", &url, "--split", "test"],
        vec!["schedule", "export", "svhn-pba"],
    ];
    for command in commands {
        let value = server.pba(&[&command[..], &["--json"]].concat()).json();
        assert!(value.is_object(), "{command:?}: {value}");
        // Without the flag the same works, and is not empty.
        if !command.contains(&"delete") {
            assert!(!server.pba(&command).ok().trim().is_empty(), "{command:?}");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file").display().to_string();
    for command in [["schedule", "plot"], ["schedule", "export"]] {
        let out = server.pba(&[&command[..], &["svhn-pba", "--out", &file, "--json"]].concat());
        assert_eq!(out.code, Some(0), "{out:?}");
    }
    let preview = server.pba(&["dataset", "preview", "shapes", "--out", &file, "--json"]).json();
    assert_eq!(preview["out"], file.as_str());
    assert!(std::fs::read(&file).unwrap().starts_with(b"\x89PNG"));
    let check = pba(&["serve", "--check"]).json();
    assert_eq!(check["listen"], "127.0.0.1:8080");
}

#[test]
fn a_stream_to_a_file() {
    let server = Server::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("epoch.arrows");
    let url = server.url();
    let out = file.display().to_string();
    let flags = [
        "--schedule",
        "cifar10-pba",
        "--epoch",
        "150",
        "--split",
        "test",
        "--shuffle",
        "true",
        "--batch-size",
        "100",
        "--shard",
        "1/2",
        "--seed",
        "9",
        "--start",
        "1",
        "--step",
        "2",
    ];
    let result = server.pba(&[&["stream", &url, "--out", &out, "--json"], &flags[..]].concat()).json();
    let expected = server.epoch(
        "shapes/epochs/150/batches?schedule=cifar10-pba&split=test&shuffle=true&batch_size=100&shard=1/2&seed=9&start=1&step=2",
    );
    assert_eq!(result["images"], 500);
    assert_eq!(result["batches"], 5);
    assert_eq!(result["out"], out.as_str());
    let reader = StreamReader::try_new(File::open(&file).unwrap(), None).unwrap();
    assert_eq!(reader.schema().metadata()["pba.epoch"], "150");
    let batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
    assert_eq!(epoch::digest(&batches), expected.digest());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside the file");
    let text = server.pba(&["stream", &url, "--split", "test"]).ok();
    for says in ["2000 images in 16 batches", "images/s", "the client waited", "the server for the client"] {
        assert!(text.contains(says), "{text}");
    }
}

#[test]
fn servers_of_a_stream() {
    let server = Server::start(&[]);
    let url = server.url();
    let reads = |arguments: &[&str]| {
        let text = server.pba(&[&["stream", "--split", "test"], arguments].concat()).ok();
        assert!(text.contains("2000 images in 16 batches"), "{arguments:?}: {text}");
    };
    reads(&[]); // PBA_SERVER
    reads(&[&url]);
    reads(&["--server", &url]);
    // Replicas: the first one is down.
    reads(&[NOBODY, &url]);
    reads(&["--server", NOBODY, "--server", &url]);
    // What is said on the command line wins over the variable.
    server.pba(&["stream", "--server", NOBODY]).refused(1, &["cannot reach", NOBODY]);
    server.pba(&["stream", NOBODY]).refused(1, &["cannot reach", NOBODY]);
    server.pba(&["stream", &url, "--server", &url]).refused(2, &["--server", "cannot be used with", "[URL]"]);
    // Several in the variable, as for the Python client; in an argument a comma divides nothing.
    let folder = tempfile::tempdir().unwrap();
    let with = |servers: &str, arguments: &[&str]| {
        let mut command = binary::command(folder.path(), arguments);
        Pba::from(command.env("PBA_SERVER", servers).output().unwrap())
    };
    for servers in [format!("{NOBODY}, {url}"), format!("{url},{NOBODY}"), format!("{url}, ")] {
        assert!(with(&servers, &["dataset", "list"]).ok().contains("shapes"));
        assert!(with(&servers, &["stream", "--split", "test"]).ok().contains("2000 images in 16 batches"));
    }
    for command in [&["schedule", "list"][..], &["stream"]] {
        with(&format!("{url},,{url}"), command).refused(
            1,
            &[
                "PBA_SERVER in the environment: \"\" is not a server's URL",
                "or several with commas between them",
            ],
        );
        with("unix:/a,b", &[command, &["--server", "unix:/no/a,b.sock"]].concat())
            .refused(1, &["cannot reach unix:/no/a,b.sock"]);
    }
    let help = pba(&["stream", "--help"]).ok();
    assert!(help.contains("--server <URL>") && help.contains("PBA_SERVER"), "{help}");
}

#[test]
fn an_empty_preview_says_that_it_is() {
    let server = Server::start(&[]);
    let png = server.get("/v1/datasets/shapes/epochs/0/preview.png?start=79").body;
    let mut picture = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
    let mut pixels = vec![0; picture.output_buffer_size().unwrap()];
    picture.next_frame(&mut pixels).unwrap();
    let (width, height) = picture.info().size();
    assert_eq!(height, 56, "a header and one line");
    let line = &pixels[44 * 3 * width as usize..];
    let letters = line.chunks_exact(3).filter(|&pixel| pixel != &line[..3]).count();
    assert!(letters > 40, "{letters} pixels of letters");
}

#[test]
fn a_preview_takes_every_parameter_of_the_stream() {
    let server = Server::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let sheet = |flags: &[&str]| {
        let out = folder.path().join("sheet.png").display().to_string();
        server.pba(&[&["dataset", "preview", "shapes", "-n", "9", "--out", &out], flags].concat()).ok();
        std::fs::read(out).unwrap()
    };
    let zeros = vec!["0"; 60].join(",");
    let plain = sheet(&[]);
    assert_eq!(plain, server.get("/v1/datasets/shapes/epochs/0/preview.png?n=9").body);
    // Each flag beside the query that means the same; most of them change the sheet.
    for (flags, query, changes) in [
        (&["--split", "test"][..], "split=test", true),
        (&["--schedule", "identity"], "schedule=identity", true),
        (&["--policy", &zeros], &format!("policy={zeros}"), true),
        (&["--seed", "7"], "seed=7", true),
        (&["--shuffle", "false"], "shuffle=false", true),
        (&["--shard", "1/2"], "shard=1/2", true),
        (&["--start", "2"], "start=2", true),
        (&["--batch-size", "2", "--step", "3"], "batch_size=2&step=3", true),
        (&["--base", "identity"], "base=identity", true),
        (&["--drop-last", "true"], "drop_last=true", false),
        (&["--epochs", "5"], "epochs=5", false),
    ] {
        let shown = sheet(flags);
        assert!(shown == server.get(&format!("/v1/datasets/shapes/epochs/0/preview.png?n=9&{query}")).body);
        assert_eq!(shown != plain, changes, "{query}");
    }
    let ablated = ["--epoch", "150", "--schedule", "cifar10-pba", "--ablation"];
    let scheduled = sheet(&[&ablated[..], &["scheduled"]].concat());
    assert_ne!(sheet(&[&ablated[..], &["flatten"]].concat()), scheduled);
    // What is wrong is said in the words of the stream.
    for flags in [
        &["--batch-size", "0"][..],
        &["--seed", "-1"],
        &["--shard", "2/2"],
        &["--split", "training"],
        &["--split", "val"],
        &["--schedule", "cifar10_pba"],
        &["--schedule", "cifar10-pba", "--epoch", "200"],
        &["--ablation", "final"],
        &["--base", "flop"],
        &["--policy", "1,2"],
        &["--start", "80"],
        &["--batchsize", "5"],
    ] {
        let refused = server.pba(&[&["dataset", "preview", "shapes"], flags].concat());
        let stream = server.pba(&[&["stream"], flags].concat());
        assert!(refused.code != Some(0) && refused.stdout.is_empty(), "{refused:?}");
        let (preview_says, stream_says) = (refused.stderr.lines().next(), stream.stderr.lines().next());
        assert_eq!((refused.code, preview_says), (stream.code, stream_says), "{flags:?}");
    }
}

#[test]
fn a_stream_that_is_refused_leaves_no_file() {
    let server = Server::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("epoch.arrows").display().to_string();
    let url = server.url();
    let stream = |flags: &[&str]| server.pba(&[&["stream", &url, "--out", &out], flags].concat());
    stream(&["--schedule", "cifar10_pba"]).refused(1, &["did you mean \"cifar10-pba\"", "404"]);
    stream(&["--batch-size", "0"]).refused(1, &["batch_size", "1..=65536"]);
    stream(&["--dataset", "shape"]).refused(1, &["did you mean \"shapes\""]);
    stream(&["--epoch", "-1"]).refused(2, &["-1"]);
    stream(&["--batchsize", "5"]).refused(2, &["--batchsize", "--batch-size"]);
    server.pba(&["stream", &url, "--out", "/nowhere/epoch.arrows"]).refused(1, &["/nowhere"]);
    server.pba(&["stream", "ftp://127.0.0.1"]).refused(1, &["http://HOST:PORT"]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    server.assert_healthy();
}

/// What `serve --check` says with a configuration file, environment and flags.
fn check(file: &str, environment: &[(&str, &str)], flags: &[&str]) -> Pba {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("pba.toml"), file).unwrap();
    for dataset in ["here", "there"] {
        let class = folder.path().join(dataset).join("class");
        std::fs::create_dir_all(&class).unwrap();
        // Looked at, and not read.
        std::fs::write(class.join("image.png"), "").unwrap();
    }
    std::fs::create_dir(folder.path().join("empty")).unwrap();
    assert!(Command::new("mkfifo").arg(folder.path().join("pipe")).status().unwrap().success());
    let mut command = binary::command(folder.path(), &[&["serve", "--check"], flags].concat());
    command.envs(environment.iter().copied()).output().unwrap().into()
}

#[test]
fn flags_over_environment_over_file_over_defaults() {
    let file = "threads = 2\nstreams_max = 20\nbatches_ahead = 5\ndrain_seconds = 7\n\
                [datasets.mine]\npath = \"here\"\nbase = \"flip\"\n";
    let environment = [("PBA_STREAMS_MAX", "30"), ("PBA_BATCHES_AHEAD", "6")];
    let config = check(file, &environment, &["--batches-ahead", "9", "--dataset", "other=there"]).json();
    for (key, expected) in [
        ("threads", 2),
        ("streams_max", 30),
        ("batches_ahead", 9),
        ("drain_seconds", 7),
        ("body_bytes_max", 16 << 20),
    ] {
        assert_eq!(config[key], expected, "{key}: {config}");
    }
    assert_eq!(config["datasets"]["mine"]["base"], "flip");
    // It is the same wherever it is read from.
    let path = Path::new(config["datasets"]["other"]["path"].as_str().unwrap());
    assert!(path.is_absolute() && path.ends_with("there"), "{}", path.display());
    let formats = ["mine", "other", "shapes"].map(|name| config["datasets"][name]["format"].clone());
    assert_eq!(formats, ["folder", "folder", "shapes"]);
    assert_eq!(check("", &[("PBA_LISTEN", "127.0.0.1:9")], &[]).json()["listen"], "127.0.0.1:9");
    // No port, said in each of the places.
    let socket = ["--socket", "pba.sock"];
    assert_eq!(check("listen = \"none\"", &[], &socket).json()["listen"], "none");
    assert_eq!(check("", &[("PBA_LISTEN", "none")], &socket).json()["listen"], "none");
    let config = check("listen = \"127.0.0.1:9\"", &[], &["--listen=none", "--socket=pba.sock"]).json();
    assert_eq!([&config["listen"], &config["socket"]], ["none", "pba.sock"]);
}

#[test]
fn wrong_configurations() {
    check("thread = 2", &[], &[]).refused(1, &["pba.toml", "thread"]);
    check("[datasets.a]\npath = \"x\"\nbas = \"flip\"", &[], &[]).refused(1, &["pba.toml", "bas"]);
    check("threads = \"two\"", &[], &[]).refused(1, &["pba.toml", "threads"]);
    check("threads = ", &[], &[]).refused(1, &["pba.toml"]);
    check("[datasets]\nmine = \"here\"", &[], &[]).refused(1, &["pba.toml", "here", "a table with a path"]);
    check("threads = 0", &[], &[]).refused(1, &["threads: 0", "1..=1024"]);
    check("", &[], &["--dataset", "mine=nowhere"]).refused(1, &["mine", "nowhere"]);
    for nothing in ["empty", "pipe", "pba.toml"] {
        let flag = format!("mine={nothing}");
        check("", &[], &["--dataset", &flag]).refused(1, &["\"mine\"", nothing, "looked for packed splits"]);
    }
    for file in ["pba.toml", "pba.toml/data", ""] {
        check(&format!("data_dir = {file:?}"), &[], &[]).refused(1, &["data_dir", file, "is not a folder"]);
    }
    for socket in ["", "here", "nowhere/s"] {
        check(&format!("socket = {socket:?}"), &[], &[]).refused(1, &["socket", socket]);
    }
    check("", &[], &["--dataset", "shapes=here"]).refused(1, &["shapes", "built-in"]);
    check("", &[("PBA_THREADS", "two")], &[]).refused(2, &["invalid value 'two' for 'PBA_THREADS'"]);
    for flags in [&["--threads", "two"][..], &["--threads=two"]] {
        check("", &[("PBA_THREADS", "two")], flags).refused(2, &["invalid value 'two' for '--threads <N>'"]);
    }
    check("", &[("PBA_INSECURE", "perhaps")], &[]).refused(2, &["perhaps", "PBA_INSECURE"]);
    check("", &[("PBA_STREAMS_MAX", "0")], &[]).refused(1, &["streams_max: 0", "1..="]);
    check("", &[], &["--config", "missing.toml"]).refused(1, &["cannot read missing.toml"]);
    check("", &[], &["--listen", "localhost"]).refused(1, &["localhost", "127.0.0.1:8080", "or none"]);
    let says = ["listen: \"none\" leaves no way", "--socket PATH", "such as 127.0.0.1:8080"];
    check("", &[], &["--listen", "none"]).refused(1, &says);
    check("", &[("PBA_LISTEN", "none")], &[]).refused(1, &says);
    check("listen = \"none\"", &[], &[]).refused(1, &says);
    pba(&["serve", "--listen", "none"]).refused(1, &says);
    pba(&["demo", "--listen", "none"]).refused(1, &says);
    check("", &[], &["--listen", "0.0.0.0:8080"]).refused(1, &["0.0.0.0:8080", "--insecure"]);
    check("", &[], &["--listen", "[::]:8080"]).refused(1, &["--insecure"]);
    assert_eq!(check("", &[], &["--listen", "0.0.0.0:8080", "--insecure"]).code, Some(0));
    for yes in ["true", "1", "yes"] {
        assert_eq!(check("", &[("PBA_INSECURE", yes)], &["--listen", "0.0.0.0:8080"]).code, Some(0));
    }
    check("", &[], &["--dataset", "a=x", "--dataset", "a=y"]).refused(1, &["\"a\"", "twice"]);
}

#[test]
fn a_trainer_that_cannot_be() {
    let expected = "expected the path of the pba-trainer program";
    for (trainer, says) in [
        ("/nowhere/pba-trainer", "No such file"),
        ("./here", "is a directory"),
        ("./pba.toml", "is not executable"),
        ("no-such-trainer", "is not in PATH"),
    ] {
        let says = [&format!("trainer: {trainer} "), says, expected];
        check("", &[], &["--trainer", trainer]).refused(1, &says);
        check("", &[("PBA_TRAINER", trainer)], &[]).refused(1, &says);
        check(&format!("trainer = {trainer:?}"), &[], &[]).refused(1, &says);
    }
    for trainer in ["/bin/sh", "sh"] {
        assert_eq!(check("", &[], &["--trainer", trainer]).json()["trainer"], trainer);
    }
}

#[test]
fn empty_variables_are_not_set() {
    let settings = ["PBA_THREADS", "PBA_INSECURE", "PBA_CONFIG", "PBA_TRAINER", "PBA_DATA_DIR", "PBA_SOCKET"];
    let empty = settings.map(|name| (name, ""));
    assert_eq!(check("", &empty, &[]).json(), check("", &[], &[]).json());
    let folder = tempfile::tempdir().unwrap();
    for arguments in [&["dataset", "list"][..], &["stream"]] {
        let mut command = binary::command(folder.path(), arguments);
        let output = command.envs([("PBA_TOKEN", ""), ("PBA_CA", ""), ("PBA_SERVER", "")]).output().unwrap();
        // A server may run there if this machine is being worked on.
        let output = Pba::from(output);
        assert!(output.code == Some(0) || output.stderr.contains("http://127.0.0.1:8080: "), "{output:?}");
    }
}

#[test]
fn misspelt_variables() {
    let says = ["error: PBA_STREAM_MAX is not a setting; did you mean PBA_STREAMS_MAX?"];
    let misspelt = [("PBA_STREAM_MAX", "4")];
    check("", &misspelt, &[]).refused(1, &says);
    let folder = tempfile::tempdir().unwrap();
    for command in [&["serve", "--listen", "127.0.0.1:0"][..], &["demo", "--once", "--listen", "127.0.0.1:0"]]
    {
        let output = binary::command(folder.path(), command).envs(misspelt).output().unwrap();
        Pba::from(output).refused(1, &says);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was begun");
    // Two mistakes, and one that is like nothing.
    let misspelt = [("PBA_DATADIR", "x"), ("PBA_PORT", "8080")];
    check("", &misspelt, &[])
        .refused(1, &["did you mean PBA_DATA_DIR?", "PBA_PORT is not a setting; the settings are: "]);

    let others = [
        ("PBA_LOG_FORMAT", "json"),
        ("PBA_SERVER", "http://127.0.0.1:1"),
        ("PBA_TOKEN", "secret"),
        ("PBA_CA", "/etc/ca.pem"),
        ("PBA_TEST_DATA", "/data"),
        ("PBA_BIN", "pba"),
        ("PBA_CACHE", "/data/packed"),
        // From Kubernetes, beside services "pba" and "pba-server".
        ("PBA_SERVICE_HOST", "10.0.0.1"),
        ("PBA_SERVICE_PORT", "8080"),
        ("PBA_SERVICE_PORT_HTTP", "8080"),
        ("PBA_PORT", "tcp://10.0.0.1:8080"),
        ("PBA_PORT_8080_TCP_PROTO", "tcp"),
        ("PBA_SERVER_SERVICE_HOST", "10.0.0.1"),
        ("PBA_SERVER_PORT", "tcp://10.0.0.1:8080"),
        ("PBA_SERVER_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("PBA_SERVER_PORT_8080_TCP_ADDR", "10.0.0.1"),
    ];
    assert_eq!(check("", &others, &[]).code, Some(0));
    // Who only asks a server may have a shell full of them, and is told of what looks like a mistake.
    let server = Server::start(&[]);
    let mut command = binary::command(folder.path(), &["dataset", "list", "--server", &server.url()]);
    let output = command.envs([("PBA_SEVRER", "x"), ("PBA_WEATHER", "fair")]).output().unwrap();
    let output = Pba::from(output);
    assert!(
        output.stderr.ends_with("WARN PBA_SEVRER is not a setting; did you mean PBA_SERVER?\n"),
        "{output:?}"
    );
    assert_eq!((output.code, output.stderr.lines().count()), (Some(0), 1), "{output:?}");
}

#[test]
fn checking_touches_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let command = binary::command(folder.path(), &["serve", "--check"]).output().unwrap();
    assert!(command.status.success());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn wrong_command_lines() {
    pba(&["sevre"]).refused(2, &["sevre", "serve"]);
    pba(&["serve", "--thread", "2"]).refused(2, &["--thread", "--threads"]);
    pba(&["serve", "--threads", "two"]).refused(2, &["two", "--threads"]);
    pba(&["schedule"]).refused(2, &["Usage"]);
    pba(&["schedule", "import", "/nowhere.json"]).refused(1, &["cannot read /nowhere.json"]);
    pba(&["schedule", "show", "../x"]).refused(1, &["../x"]);
    pba(&["dataset", "show", "../x"]).refused(1, &["../x"]);
    let log = log_path("rsvhn_16_wrn.txt");
    pba(&["schedule", "import", &log, "--name", "x"]).refused(1, &["rsvhn_16_wrn.txt", "epochs"]);
    let help = pba(&["serve", "--help"]).ok();
    let words: Vec<&str> = help.split_whitespace().collect();
    assert!(words.join(" ").contains("none takes no port"), "{help}");
    let help = pba(&["--help"]).ok();
    for command in ["serve", "stream", "demo", "schedule", "dataset"] {
        assert!(help.contains(command), "{help}");
    }
}

#[test]
fn a_data_directory_that_cannot_be() {
    let data = data_folder();
    let file = data.path().join("file");
    std::fs::write(&file, "").unwrap();
    let path = |path: &Path| path.display().to_string();
    pba(&["serve", "--listen", "127.0.0.1:0", "--data-dir", &path(&file)]).refused(1, &["file"]);
    pba(&["serve", "--listen", "127.0.0.1:0", "--data-dir", "/proc/nothing"]).refused(1, &["/proc/nothing"]);
}
