//! Wrong input is refused before the first byte, by name, and does no harm.

use pba_tests::{Answer, Server};
use pba_wire::Problem;

/// Checks a refusal: its status, and that it names parameter, value and what is allowed.
#[track_caller]
fn refused(answer: &Answer, status: u16, parameter: &str, value: &str, allowed: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    let problem = answer.problem();
    assert_eq!(problem.parameter.as_deref(), Some(parameter), "{problem:?}");
    assert_eq!(problem.value.as_deref(), Some(value), "{problem:?}");
    let found = problem.allowed.as_deref().unwrap_or_default();
    assert!(!allowed.is_empty() && found.contains(allowed), "{problem:?} does not allow {allowed:?}");
    assert!(
        problem.detail.contains(parameter) && problem.detail.contains(&format!("{value:?}")),
        "{problem:?}"
    );
}

/// Checks a refusal that is about no parameter.
#[track_caller]
fn answered(answer: &Answer, status: u16, says: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    let problem = answer.problem();
    assert!(problem.detail.contains(says), "{problem:?} does not say {says:?}");
}

#[test]
fn parameters_of_the_stream() {
    let server = Server::start(&[]);
    #[rustfmt::skip]
    let cases = [
        // Out of range, at both ends, and just past what the type holds.
        ("batch_size=0", "batch_size", "0", "1..=65536"),
        ("batch_size=65537", "batch_size", "65537", "1..=65536"),
        ("batch_size=-1", "batch_size", "-1", "1..=65536"),
        ("batch_size=99999999999999999999", "batch_size", "99999999999999999999", "1..=65536"),
        ("seed=-1", "seed", "-1", "0..=18446744073709551615"),
        ("seed=18446744073709551616", "seed", "18446744073709551616", "0..=18446744073709551615"),
        ("epochs=0", "epochs", "0", "1..="),
        ("epochs=4294967296", "epochs", "4294967296", "1..="),
        ("start=80", "start", "80", "0..=79"),
        ("start=18446744073709551615", "start", "18446744073709551615", "0..=79"),
        ("skip=10001", "skip", "10001", "0..=10000"),
        ("skip=-1", "skip", "-1", "0..="),
        ("step=0", "step", "0", "1..="),
        ("shard=1/1", "shard", "1/1", "i/n"),
        ("shard=0/0", "shard", "0/0", "i/n"),
        ("shard=0/4294967296", "shard", "0/4294967296", "i/n"),
        // Of the wrong type.
        ("batch_size=many", "batch_size", "many", "1..=65536"),
        ("batch_size=", "batch_size", "", "1..=65536"),
        ("batch_size=1.5", "batch_size", "1.5", "1..=65536"),
        ("batch_size=1e3", "batch_size", "1e3", "1..=65536"),
        ("batch_size=0x80", "batch_size", "0x80", "1..=65536"),
        ("batch_size=%D9%A1", "batch_size", "\u{661}", "1..=65536"),
        ("batch_size=128%00", "batch_size", "128\0", "1..=65536"),
        ("seed=pi", "seed", "pi", "0..="),
        ("epochs=all", "epochs", "all", "1..="),
        ("start=first", "start", "first", "0..="),
        ("step=two", "step", "two", "1..="),
        ("shuffle=yes", "shuffle", "yes", "true or false"),
        ("shuffle=True", "shuffle", "True", "true or false"),
        ("drop_last=1", "drop_last", "1", "true or false"),
        ("shard=0", "shard", "0", "i/n"),
        ("shard=a/b", "shard", "a/b", "i/n"),
        ("shard=-1/2", "shard", "-1/2", "i/n"),
        ("shard=0/2/4", "shard", "0/2/4", "i/n"),
        ("split=training", "split", "training", "train, val or test"),
        ("split=", "split", "", "train, val or test"),
        // Misspelt, and given twice.
        ("batchsize=5", "batchsize", "5", "batch_size"),
        ("Seed=5", "Seed", "5", "seed"),
        ("shards=0/2", "shards", "0/2", "shard"),
        ("n=5", "n", "5", "batch_size"),
        ("=5", "", "5", "batch_size"),
        ("seed=1&seed=2", "seed", "1 and 2", "once"),
        ("seed=1&batch_size=2&seed=1", "seed", "1 and 1", "once"),
        // Things that do not go together.
        ("ablation=flatten", "ablation", "flatten", "schedule"),
        ("ablation=final&schedule=none", "ablation", "final", "schedule"),
        ("ablation=final&schedule=identity", "ablation", "final", "schedule"),
        ("ablation=upside-down&schedule=cifar10-pba", "ablation", "upside-down", "flatten"),
        ("schedule=identity&base=flip", "base", "flip", "identity"),
        // A policy of wrong length, range, type.
        ("policy=1,2,3", "policy", "1,2,3", "60"),
        ("policy=", "policy", "", "60"),
        // The base augmentation's own language.
        ("base=flop", "base", "flop", "pad_crop:N"),
        ("base=", "base", "", "pad_crop:N"),
        ("base=pad_crop", "base", "pad_crop", "pad_crop:N"),
        ("base=pad_crop:0", "base", "pad_crop:0", "pad_crop:N"),
        ("base=pad_crop:-4", "base", "pad_crop:-4", "pad_crop:N"),
        ("base=pad_crop:4294967297", "base", "pad_crop:4294967297", "pad_crop:N"),
        ("base=cutout:x", "base", "cutout:x", "cutout:N"),
        ("base=flip:2", "base", "flip:2", "flip"),
        ("base=flip,flip", "base", "flip,flip", "flip"),
        ("base=flip,pad_crop:4", "base", "flip,pad_crop:4", "in this order"),
        ("base=identity,flip", "base", "identity,flip", "identity"),
        ("base=flip,", "base", "flip,", "flip"),
    ];
    for (query, parameter, value, allowed) in cases {
        let answer = server.get(&format!("/v1/datasets/shapes/epochs/0/batches?{query}"));
        refused(&answer, 400, parameter, value, allowed);
    }
    let policies = [vec!["1"; 59], vec!["1"; 61], [vec!["11"], vec!["1"; 59]].concat()];
    let wrong = [vec!["1", "10"], vec!["1"; 58]].concat();
    for policy in policies.into_iter().chain([wrong, vec!["x"; 60], vec!["-1"; 60], vec!["256"; 60]]) {
        let policy = policy.join(",");
        let answer = server.get(&format!("/v1/datasets/shapes/epochs/0/batches?policy={policy}"));
        refused(&answer, 400, "policy", &policy, "60 comma-separated integers");
    }
    let zeros = vec!["0"; 60].join(",");
    let both = format!("/v1/datasets/shapes/epochs/0/batches?policy={zeros}&schedule=cifar10-pba");
    refused(&server.get(&both), 400, "policy", &zeros, "either policy or schedule");
    let ablated = format!("/v1/datasets/shapes/epochs/0/batches?policy={zeros}&ablation=final");
    refused(&server.get(&ablated), 400, "ablation", "final", "schedule");
    assert_eq!(server.metric("pba_images_augmented_total{dataset=\"shapes\"}"), 0.0, "nothing was begun");
    server.assert_healthy();
}

#[test]
fn epochs_of_the_stream() {
    let server = Server::start(&[]);
    #[rustfmt::skip]
    let cases = [
        ("-1", "", "-1", "0..="),
        ("1.0", "", "1.0", "0..="),
        ("first", "", "first", "0..="),
        ("4294967296", "", "4294967296", "0..="),
        ("1000000", "", "1000000", "0..=999999"),
        ("200", "schedule=cifar10-pba", "200", "0..=199"),
        ("160", "schedule=svhn-pba&ablation=shuffled", "160", "0..=159"),
        ("160", "schedule=svhn-pba&ablation=final", "160", "0..=159"),
        ("160", "schedule=svhn-pba&ablation=flatten", "160", "0..=159"),
        ("10", "epochs=10", "10", "0..=9"),
        ("10", "epochs=10&schedule=cifar10-pba", "10", "0..=9"),
        ("10", "epochs=10&schedule=identity", "10", "0..=9"),
    ];
    for (epoch, query, value, allowed) in cases {
        let answer = server.get(&format!("/v1/datasets/shapes/epochs/{epoch}/batches?{query}"));
        refused(&answer, 400, "epoch", value, allowed);
    }
    server.assert_healthy();
}

#[test]
fn names_are_helped() {
    let server = Server::start(&[]);
    #[rustfmt::skip]
    let cases = [
        ("shape/epochs/0/batches", "dataset", "shape", "shapes", true),
        ("Shapes/epochs/0/batches", "dataset", "Shapes", "shapes", true),
        ("imagenet/epochs/0/batches", "dataset", "imagenet", "shapes", false),
        ("..%2F..%2Fetc/epochs/0/batches", "dataset", "../../etc", "shapes", false),
        ("shapes/epochs/0/batches?split=val", "split", "val", "train, test", false),
        ("shapes/epochs/0/batches?schedule=cifar10_pba", "schedule", "cifar10_pba", "cifar10-pba", true),
        ("shapes/epochs/0/batches?schedule=SVHN-PBA", "schedule", "SVHN-PBA", "svhn-pba", true),
        ("shapes/epochs/0/batches?schedule=", "schedule", "", "cifar10-pba", false),
        ("shapes/epochs/0/batches?schedule=..%2Fsecret", "schedule", "../secret", "cifar10-pba", false),
    ];
    for (target, what, value, known, is_near) in cases {
        let answer = server.get(&format!("/v1/datasets/{target}"));
        assert_eq!(answer.status, 404, "{}", answer.text());
        let problem = answer.problem();
        assert_eq!((problem.parameter.as_deref(), problem.value.as_deref()), (Some(what), Some(value)));
        assert!(problem.allowed.as_deref().is_some_and(|allowed| allowed.contains(known)), "{problem:?}");
        let hint = format!("did you mean {known:?}?");
        assert_eq!(problem.detail.contains(&hint), is_near, "{problem:?}");
    }
    // The words for no augmentation are told, and never suggested.
    for name in ["nome", "non", "None", "nonne", "identiy", "identity%20", "Identity", "idenitty"] {
        let answer = server.get(&format!("/v1/datasets/shapes/epochs/0/batches?schedule={name}"));
        assert_eq!(answer.status, 404, "{}", answer.text());
        let problem = answer.problem();
        assert!(!problem.detail.contains("did you mean"), "{problem:?}");
        let known = "cifar10-pba, svhn-pba, autoaugment-cifar10, autoaugment-imagenet, autoaugment-svhn, \
                     randaugment:2:9, trivial-augment-wide, none, identity";
        assert!(problem.detail.ends_with(&format!("there are: {known}")), "{problem:?}");
        assert_eq!(problem.allowed.as_deref(), Some(known));
    }
    let digest = "0".repeat(64);
    let answer = server.get(&format!("/v1/datasets/shapes/epochs/0/batches?schedule={digest}"));
    assert_eq!((answer.status, answer.problem().value), (404, Some(digest)));
    server.assert_healthy();
}

#[test]
fn the_codec_of_the_stream() {
    let server = Server::start(&[]);
    let accept = "application/vnd.apache.arrow.stream; codecs=\"gzip\"";
    let target = "/v1/datasets/shapes/epochs/0/batches";
    let headers = [("accept", accept)];
    let answer = pba_tests::Download::open(server.address(), "GET", target, &headers, b"").unwrap().finish();
    refused(&answer, 400, "codecs", "gzip", "zstd, lz4");
    // Batches of 69 MB are sent, but not compressed, which is done in one step.
    let target = format!("{target}?batch_size=22&base=resize:1024,center_crop:1024&step=10000");
    for (accept, status) in [("*/*", 200), ("application/vnd.apache.arrow.stream; codecs=\"zstd\"", 400)] {
        let headers = [("accept", accept)];
        let answer = pba_tests::Download::open(server.address(), "GET", &target, &headers, b"").unwrap();
        assert_eq!(answer.status, status);
        if status == 400 {
            refused(&answer.finish(), 400, "batch_size", "22", "1..=21 for images of 1024x1024");
        }
    }
}

#[test]
fn a_batch_over_the_servers_bound() {
    let server = Server::start(&["--batch-bytes-max", "1000000"]);
    let answer = server.get("/v1/datasets/shapes/epochs/0/batches?batch_size=1000");
    refused(&answer, 400, "batch_size", "1000", "1..=323 for images of 32x32");
    assert_eq!(server.epoch("shapes/epochs/0/batches?batch_size=323&split=test").indices().len(), 2000);
    // What counts is what would be sent.
    assert_eq!(server.epoch("shapes/epochs/0/batches?batch_size=1000&shard=0/100").indices().len(), 100);
}

#[test]
fn pages_methods_and_long_queries() {
    let server = Server::start(&[]);
    for path in [
        "/v2/datasets",
        "/v1",
        "/v1/",
        "/v1/datasets/",
        "/v1/dataset",
        "//",
        "/v1/datasets/shapes/epochs/0",
        "/v1/datasets/shapes/epochs/0/preview",
        "/metrics/",
        "/favicon.png",
        "/../etc/passwd",
        "/%00",
    ] {
        assert_eq!(server.get(path).problem().status, 404, "{path}");
    }
    answered(&server.get("/v1/datasets/%ff"), 400, "UTF-8");
    for (method, path) in [
        ("POST", "/v1/datasets"),
        ("DELETE", "/v1/datasets/shapes/epochs/0/batches"),
        ("GET", "/v1/apply"),
        ("POST", "/metrics"),
        ("PATCH", "/v1/schedules/svhn-pba"),
        ("PUT", "/v1/schedules"),
        ("BREW", "/"),
    ] {
        let answer = server.send(method, path, b"");
        answered(&answer, 405, method);
        assert!(
            answer.header("allow").is_some(),
            "{method} {path}: RFC 9110 wants Allow: {:?}",
            answer.headers
        );
    }
    for path in ["/v1/datasets/shapes/epochs/0/batches", "/", "/v1/datasets", "/v1/apply", "/nowhere"] {
        answered(&server.get(&format!("{path}?seed={}", "1".repeat(9000))), 413, "8192");
    }
    let longest = format!("/v1/datasets/shapes/epochs/0/batches?seed={}", "1".repeat(8192 - 5));
    assert_eq!(server.get(&longest).status, 400);
    for path in [
        "/v1/datasets?x=1",
        "/v1/datasets/shapes?x=1",
        "/v1/schedules?x=1",
        "/v1/schedules/svhn-pba?x=1",
        "/v1/schedules/svhn-pba/plot.svg?x=1",
    ] {
        refused(&server.get(path), 400, "x", "1", "no parameter");
    }
    server.assert_healthy();
}

#[test]
fn garbage_instead_of_http() {
    let server = Server::start(&[]);
    let noise: Vec<u8> = (0..5000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let head = |rest: &str| format!("GET /livez HTTP/1.1\r\n{rest}\r\n\r\n").into_bytes();
    let huge = head(&format!("x: {}", "y".repeat(1 << 20)));
    let many = head(&(0..1000).map(|i| format!("x{i}: y")).collect::<Vec<_>>().join("\r\n"));
    let cases: Vec<Vec<u8>> = vec![
        noise,
        b"\r\n\r\n\r\n".to_vec(),
        b"GET".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        vec![0; 100_000],
        huge,
        many,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"GET /\xff\xfe HTTP/1.1\r\n\r\n".to_vec(),
        head("content-length: -1"),
        head("content-length: 1\r\ncontent-length: 2"),
        head("transfer-encoding: chunked\r\n\r\nzz"),
        b"CONNECT x:1 HTTP/1.1\r\n\r\n".to_vec(),
    ];
    for bytes in &cases {
        let answer = String::from_utf8_lossy(&server.raw(bytes)).into_owned();
        let status = answer.lines().next().unwrap_or_default();
        assert!(
            !status.contains(" 500 "),
            "{status} for {:?}",
            String::from_utf8_lossy(&bytes[..bytes.len().min(60)])
        );
    }
    // An old protocol, an absolute target and a request in small pieces are no garbage.
    assert!(server.raw_open(&[b"GET /livez HTTP/1.0\r\n\r\n"]).starts_with(b"HTTP/1.0 200"));
    let absolute = b"GET http://localhost/livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    assert!(server.raw_open(&[absolute]).starts_with(b"HTTP/1.1 200"));
    let pieces: Vec<&[u8]> = absolute.chunks(1).collect();
    assert!(server.raw_open(&pieces).starts_with(b"HTTP/1.1 200"));
    server.assert_healthy();
}

#[test]
fn previews() {
    let server = Server::start(&[]);
    let preview = |query: &str| server.get(&format!("/v1/datasets/shapes/epochs/0/preview.png?{query}"));
    refused(&preview("n=0"), 400, "n", "0", "1..=1024");
    refused(&preview("n=1025"), 400, "n", "1025", "1..=1024");
    refused(&preview("n=some"), 400, "n", "some", "1..=1024");
    refused(&preview("n=1&n=2"), 400, "n", "1 and 2", "once");
    refused(&preview("m=5"), 400, "m", "5", "n, split");
    refused(&preview("seed=x"), 400, "seed", "x", "0..=");
    refused(&preview("schedule=cifar10_pba"), 404, "schedule", "cifar10_pba", "cifar10-pba");
    refused(
        &server.get("/v1/datasets/shapes/epochs/200/preview.png?schedule=cifar10-pba"),
        400,
        "epoch",
        "200",
        "0..=199",
    );
    refused(&server.get("/v1/datasets/nothing/epochs/0/preview.png"), 404, "dataset", "nothing", "shapes");
    // Fewer images than asked for, down to none, are a sheet all the same.
    for query in [
        "",
        "n=1",
        "n=1024",
        "n=64&split=test&shard=1999/2000",
        "shard=3000/4000&split=test",
        "n=7&schedule=svhn-pba&drop_last=true",
        "batch_size=1",
        "start=79",
    ] {
        let answer = preview(query);
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some("image/png")),
            "{query}: {}",
            answer.text()
        );
        let mut reader = png::Decoder::new(std::io::Cursor::new(&answer.body)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        assert!(pixels.windows(2).any(|pair| pair[0] != pair[1]), "{query}: an empty picture");
    }
    server.assert_healthy();
}

#[test]
fn applying_ops() {
    let server = Server::start(&["--body-bytes-max", "100000"]);
    let png = pba_tests::parquet_files::png(20, 10, 1);
    let apply = |query: &str, body: &[u8]| server.send("POST", &format!("/v1/apply?{query}"), body);
    #[rustfmt::skip]
    let cases = [
        ("op=Rotat", "op", "Rotat", "Rotate"),
        ("op=rotate%20", "op", "rotate ", "Rotate"),
        ("op=Rotate&magnitude=10", "magnitude", "10", "0..=9"),
        ("op=Rotate&magnitude=-1", "magnitude", "-1", "0..=9"),
        ("op=Rotate&magnitude=5.0", "magnitude", "5.0", "0..=9"),
        ("op=Rotate&sign=2", "sign", "2", "1 or -1"),
        ("op=Rotate&sign=0", "sign", "0", "1 or -1"),
        ("op=Rotate&level=5", "level", "5", "magnitude"),
        ("op=Cutout&x=20", "x", "20", "0..=19"),
        ("op=Cutout&y=10", "y", "10", "0..=9"),
        ("op=Cutout&x=-1", "x", "-1", "0..="),
        ("ops=Rotate:1,Nothing", "ops", "Nothing", "Rotate"),
        ("ops=Rotate:1:1:1", "ops", "Rotate:1:1:1", "NAME:MAGNITUDE:SIGN"),
        ("ops=Rotate:12", "ops", "12", "0..=9"),
        ("ops=", "ops", "", "Rotate"),
        ("op=Invert&ops=Invert", "op", "Invert", "either"),
    ];
    for (query, parameter, value, allowed) in cases {
        let answer = apply(query, &png);
        assert_eq!(answer.status, 400, "{query}: {}", answer.text());
        let problem = answer.problem();
        assert_eq!(
            (problem.parameter.as_deref(), problem.value.as_deref()),
            (Some(parameter), Some(value)),
            "{query}"
        );
        assert!(
            allowed == "either" || problem.allowed.as_deref().is_some_and(|a| a.contains(allowed)),
            "{problem:?}"
        );
    }
    assert_eq!(apply("", &png).problem().parameter.as_deref(), Some("op"));
    let many = vec!["Invert"; 31].join(",");
    refused(&apply(&format!("ops={many}"), &png), 400, "ops", &many, "30");
    // A body that is no picture, or half of one, or a lying one.
    let mut lying = png.clone();
    lying[16..20].copy_from_slice(&u32::MAX.to_be_bytes());
    for body in
        [&b""[..], b"GIF89a", &png[..png.len() / 2], &png[..20], &lying, &[0xff, 0xd8, 0xff, 0xe0, 0, 16]]
    {
        let answer = apply("op=Invert", body);
        assert_eq!(answer.problem().status, 415, "{:?}", answer.text());
    }
    answered(&apply("op=Invert", &vec![0; 100_001]), 413, "100000");
    for query in
        ["op=Rotate&magnitude=5&sign=-1", "op=Rotate&sign=+1", "ops=Rotate:5:-1,Invert,Cutout:9&x=0&y=9"]
    {
        let answer = apply(query, &png);
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some("image/png")),
            "{}",
            answer.text()
        );
    }
    server.assert_healthy();
}

#[test]
fn names_of_jobs_that_are_not_there_or_taken() {
    let server = Server::start(&[]);
    let none = server.get("/v1/searches/nothing");
    assert_eq!((none.status, none.problem().parameter.as_deref()), (404, Some("search")));
    assert_eq!(none.problem().detail, "there is no search \"nothing\"; there is none");
    let taken = server.send("POST", "/v1/searches", br#"{"name": "svhn-pba"}"#);
    let problem = taken.problem();
    assert_eq!((taken.status, problem.parameter.as_deref()), (409, Some("name")), "{problem:?}");
    assert_eq!(problem.value.as_deref(), Some("svhn-pba"));
}

#[test]
fn schedules() {
    let server = Server::start(&["--body-bytes-max", "200000"]);
    let export = server.get("/v1/schedules/svhn-pba").body;
    let put = |name: &str, body: &[u8]| server.send("PUT", &format!("/v1/schedules/{name}"), body);
    answered(&put("cifar10-pba", &export), 409, "cifar10-pba");
    assert_eq!(put("svhn-pba", &export).status, 200, "the same content under its name is no conflict");
    assert_eq!(put("mine", &export).status, 201);
    assert_eq!(put("mine", &export).status, 200);
    answered(&put("mine", &server.get("/v1/schedules/cifar10-pba").body), 409, "names are immutable");
    for name in ["%20", "a%2Fb", "..%2Fx", "-x", "x%00", &"x".repeat(65), "none%0A", "%C3%A4"] {
        let answer = put(name, &export);
        assert_eq!((answer.status, answer.problem().parameter.as_deref()), (400, Some("schedule")), "{name}");
    }
    // Names that mean something else in a request could never be streamed.
    for name in ["none", "identity"] {
        assert_eq!(put(name, &export).status, 400, "{name} is taken by the request's own words");
    }
    let text = String::from_utf8(export).unwrap();
    for (body, says) in [
        (String::new(), "the body is empty; expected a pba-schedule"),
        ("{".to_owned(), ""),
        ("[]".to_owned(), ""),
        ("{}".to_owned(), "format"),
        (text.replace("pba-schedule/1", "pba-schedule/2"), "pba-schedule"),
        (text.replace("\"epochs\"", "\"epoch\""), "epoch"),
        (text.replace("160", "161"), "161"),
        (text.replace("\"Rotate\"", "\"Rotata\""), "Rotata"),
        (text.replace("\"segments\"", "\"segment\""), "segment"),
    ] {
        answered(&put("wrong", body.as_bytes()), 400, says);
    }
    answered(&put("wrong", b"\xff\xfe\x00"), 415, "UTF-8");
    answered(&put("wrong", &vec![b' '; 200_001]), 413, "200000");
    refused(&put("wrong?epochs=0", b""), 400, "epochs", "0", "1..=");
    refused(&put("wrong?epochs=5", text.as_bytes()), 400, "epochs", "5", "lineage log");
    refused(&put("wrong?epoch=5", b""), 400, "epoch", "5", "epochs");
    let log = std::fs::read(pba_tests::repository("schedules/library/source/rsvhn_16_wrn.txt")).unwrap();
    answered(&put("wrong", &log), 400, "epochs");
    answered(&put("wrong?epochs=100", &log), 400, "100");
    assert_eq!(server.get("/v1/schedules/wrong").status, 404, "nothing wrong was kept");
    let delete = |name: &str| server.send("DELETE", &format!("/v1/schedules/{name}"), b"");
    answered(&delete("svhn-pba"), 409, "svhn-pba");
    assert_eq!(delete("wrong").problem().status, 404);
    assert_eq!(delete("..%2F..%2Fx").problem().status, 404);
    assert_eq!(delete("mine").status, 204);
    assert_eq!(delete("mine").status, 404);
    assert_eq!(server.get("/v1/schedules/nothing/plot.svg").problem().status, 404);
    server.assert_healthy();
}

/// Whatever is wrong with it, there is room for what would be right.
#[test]
fn long_texts_are_repeated_in_part() {
    let server = Server::start(&[]);
    let long = "a".repeat(1900);
    for target in [
        format!("schedules/{long}"),
        format!("datasets/{long}"),
        format!("datasets/shapes/epochs/0/batches?schedule={long}"),
        format!("datasets/shapes/epochs/0/batches?split={long}"),
        format!("datasets/shapes/epochs/0/batches?{long}=1"),
    ] {
        let problem = server.get(&format!("/v1/{target}")).problem();
        let Problem { detail, .. } = &problem;
        assert!(detail.contains("... (1900 bytes in total)"), "{detail}");
        assert!(detail.contains("there are: ") || detail.contains("allowed: "), "{detail}");
        assert!(detail.len() < 1200, "{} bytes: {detail}", detail.len());
    }
    let spec = serde_json::json!({ "model": "tiny", "dataset": "a".repeat(60_000) }).to_string();
    let problem = server.send("POST", "/v1/searches", spec.as_bytes()).problem();
    assert!(problem.detail.len() < 1200 && problem.detail.contains("bytes in total"), "{}", problem.detail);
}
