//! AutoAugment, RandAugment and TrivialAugment, by name: streams, the registry and jobs.

use pba_tests::search::{Script, evaluation, spec, trainer};
use pba_tests::{Epoch, Server};
use serde_json::json;

/// Names, and SHA-256 of the first twentieth of epoch 7 of the training split ([`Epoch::digest`]). A change
/// here is a change of every epoch that anyone trained on.
const GOLDEN: [(&str, &str); 7] = [
    ("autoaugment-cifar10", "36f3e5e1bbdf5a255b2b94098c21b5326fe7cef9fe3b9714006bf3bafde7249e"),
    ("autoaugment-svhn", "b898de605aec34a8b88f86c68f21ca7f7c9475c262b18d0eac857cdd1a8c6855"),
    ("autoaugment-imagenet", "2cc3f94b707ed4210ec3a672eeaa82000ba6726dfd9807b3da93b8914d3d7375"),
    ("randaugment:2:9", "6e6a86a1b6c9611a0ea8dda8886e7088a39c421b83e626422fe22d7319270e7e"),
    ("randaugment:1:0", "956afa65d87e4aa34895f0553038821ecc8c6e4dbe9b1a3af4174bc822f2dd44"),
    ("randaugment:8:30", "8e065dc60888b458188d208b014c749f9c7c7586a47a3a8fca8cc368d77df92a"),
    ("trivial-augment-wide", "d51d83a25bb77a3d397b320c05e05397d7a6f43686a5ee9ccda770038aeaffa4"),
];

fn epoch(server: &Server, number: u32, name: &str, more: &str) -> Epoch {
    server.epoch(&format!("shapes/epochs/{number}/batches?schedule={name}&shard=0/20{more}"))
}

#[test]
fn every_name_streams() {
    let server = Server::start(&[]);
    let mut changed = Vec::new();
    for (name, expected) in GOLDEN {
        let whole = epoch(&server, 7, name, "");
        if whole.digest() != expected {
            changed.push(format!("    (\"{name}\", \"{}\"),", whole.digest()));
        }
        let tag = server.get(&format!("/v1/schedules/{name}"));
        assert_eq!(tag.header("etag").unwrap(), format!("\"{}\"", whole.metadata["pba.schedule"]), "{name}");
        // However it is cut; and a policy that never changes is within any run, under any ablation.
        let by_three = epoch(&server, 7, name, "&batch_size=3");
        assert!(by_three.by_index() == whole.by_index(), "{name}");
        for more in
            ["&epochs=8", "&epochs=1800", "&ablation=flatten", "&ablation=shuffled", "&ablation=final"]
        {
            assert_eq!(epoch(&server, 7, name, more).digest(), whole.digest(), "{name}{more}");
        }
        assert_ne!(epoch(&server, 999_999, name, "").digest(), whole.digest(), "{name}");
        assert_ne!(epoch(&server, 7, name, "&seed=1").digest(), whole.digest(), "{name}");
    }
    assert!(changed.is_empty(), "other images than before:\n{}", changed.join("\n"));
    let plain = epoch(&server, 7, "none", "");
    let by_name = epoch(&server, 7, "randaugment:1:0", "");
    assert_ne!(plain.digest(), by_name.digest());
    server.assert_healthy();
}

/// Padding and flips are what they are without a policy: a policy that does nothing shows it.
#[test]
fn crop_and_flip_are_those_of_the_base() {
    let server = Server::start(&[]);
    // At magnitude 0 only Solarize (at 255), AutoContrast and Equalize do anything.
    let [plain, policy] = ["none", "randaugment:1:0"].map(|name| epoch(&server, 3, name, ""));
    let (plain, policy) = (plain.by_index(), policy.by_index());
    let same = plain.iter().filter(|(index, sample)| policy[*index] == **sample).count();
    let share = same as f64 / plain.len() as f64;
    assert!((0.7..0.95).contains(&share), "{share} of the images are as without a policy");
}

#[test]
fn wrong_names_are_refused() {
    let server = Server::start(&[]);
    let ranges = "randaugment:N:M with N in 1..=8 and M in 0..=30";
    for name in [
        "randaugment",
        "randaugment:2",
        "randaugment:0:9",
        "randaugment:9:9",
        "randaugment:2:31",
        "randaugment:2:9:1",
    ] {
        for target in
            [format!("datasets/shapes/epochs/0/batches?schedule={name}"), format!("schedules/{name}")]
        {
            let answer = server.get(&format!("/v1/{target}"));
            assert_eq!(answer.status, 400, "{target}: {}", answer.text());
            let problem = answer.problem();
            assert_eq!(problem.parameter.as_deref(), Some("schedule"), "{problem:?}");
            assert_eq!(problem.value.as_deref(), Some(name), "{problem:?}");
            assert_eq!(problem.allowed.as_deref(), Some(ranges), "{problem:?}");
        }
    }
    for (name, nearest) in
        [("autoaugment-cifar", "autoaugment-cifar10"), ("trivialaugment-wide", "trivial-augment-wide")]
    {
        let answer = server.get(&format!("/v1/datasets/shapes/epochs/0/batches?schedule={name}"));
        assert_eq!(answer.status, 404, "{}", answer.text());
        assert!(answer.text().contains(&format!("did you mean \\\"{nearest}\\\"")), "{}", answer.text());
    }
    let answer = server.get("/v1/datasets/shapes/epochs/7/batches?schedule=randaugment:2:9&epochs=7");
    assert_eq!((answer.status, answer.problem().parameter.as_deref()), (400, Some("epoch")));
}

#[test]
fn the_names_are_taken() {
    let idle = Script::idles();
    let server = Server::with_trainer(idle.path());
    let other = server.get("/v1/schedules/svhn-pba").body;
    let listed = server.get("/v1/schedules").json();
    for (name, _) in GOLDEN {
        let path = format!("/v1/schedules/{name}");
        let refused = if name.contains(':') { 400 } else { 409 };
        assert_eq!(server.send("PUT", &path, &other).status, refused, "{name}");
        assert_eq!(server.send("DELETE", &path, b"").status, 409, "{name}");
        let search = spec(json!({ "name": name })).to_string();
        let answer = server.send("POST", "/v1/searches", search.as_bytes());
        assert_eq!(answer.status, refused, "{name}: {}", answer.text());
    }
    assert_eq!(server.get("/v1/schedules").json(), listed);
}

#[test]
fn pictures_and_commands() {
    let server = Server::start(&[]);
    for (name, op) in [
        ("autoaugment-imagenet", "Posterize"),
        ("randaugment:8:30", "Solarize"),
        ("randaugment:3:4", "ShearX"),
        ("trivial-augment-wide", "Sharpness"),
    ] {
        let sheet = server.get(&format!("/v1/datasets/shapes/epochs/5/preview.png?n=9&schedule={name}"));
        assert_eq!(sheet.header("content-type"), Some("image/png"), "{name}");
        let plot = server.get(&format!("/v1/schedules/{name}/plot.svg")).text();
        assert!(plot.contains(&format!(">{op}</text>")) && plot.contains(name), "{name}");
        let shown = server.pba(&["schedule", "show", name]).ok();
        assert!(shown.contains("one policy throughout"), "{shown}");
        let command = [
            "stream",
            "--dataset",
            "shapes",
            "--epoch",
            "300",
            "--split",
            "test",
            "--schedule",
            name,
            "--json",
        ];
        let streamed = server.pba(&command).json();
        assert_eq!(streamed["images"], 2000, "{streamed}");
    }
    server.pba(&["schedule", "show", "randaugment:9:1"]).refused(1, &["randaugment:N:M", "1..=8"]);
}

/// What was exported reads back, under another name.
#[test]
fn policies_are_exported_and_imported() {
    let server = Server::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.json").display().to_string();
    for (number, name) in
        ["autoaugment-svhn", "randaugment:3:4", "trivial-augment-wide"].into_iter().enumerate()
    {
        server.pba(&["schedule", "export", name, "--out", &file]).ok();
        let mine = format!("mine-{number}");
        server.pba(&["schedule", "import", &file, "--name", &mine]).ok();
        let [one, other] = [name, &mine].map(|name| epoch(&server, 40, name, ""));
        assert!(one.bytes == other.bytes, "{name}");
    }
}

#[test]
fn evaluations_train_with_policies() {
    let Some(trainer) = trainer() else { return };
    let server = Server::with_trainer(&trainer);
    let mut losses = Vec::new();
    for name in ["none", "autoaugment-cifar10", "randaugment:2:9", "randaugment:2:10", "trivial-augment-wide"]
    {
        let id = format!("with-{}", name.replace(':', "-"));
        let asked = evaluation(json!({ "name": id, "schedule": name, "epochs": 2 }));
        server.start_job("evaluations", &asked);
        let done = server.wait_for_job("evaluations", &id, "done");
        assert_eq!(done["schedule"], name);
        assert!(done["train_loss"].is_f64() && !losses.contains(&done["train_loss"]), "{done}");
        losses.push(done["train_loss"].clone());
    }
    let wrong = evaluation(json!({ "schedule": "randaugment:2:90" })).to_string();
    let answer = server.send("POST", "/v1/evaluations", wrong.as_bytes());
    assert_eq!((answer.status, answer.problem().parameter.as_deref()), (400, Some("schedule")));
}
