//! Golden digests: what an epoch holds, pinned for ever.
//!
//! `PBA_GOLDEN=print cargo test -p pba-tests --test golden -- --nocapture` prints the table anew.

use pba_tests::Server;

/// Request, relative to `/v1/datasets/`, and SHA-256 of the epoch ([`pba_tests::Epoch::digest`]).
const GOLDEN: &[(&str, &str)] = &[
    ("shapes/epochs/0/batches", "d3dee8622e19b519b12fc0ae2a93158dc8e42e6771964dde1128ab8b5f02b6ad"),
    (
        "shapes/epochs/7/batches?seed=18446744073709551615",
        "ec546c47fab40117c5ef44c683cc81c0d0db2051c4eac1708601d5dc4f8497ad",
    ),
    (
        "shapes/epochs/0/batches?schedule=identity",
        "e32c730826d48103a05e887c7a0a658343ecb42d7667d7da02327eb5ee264d6b",
    ),
    (
        "shapes/epochs/3/batches?schedule=identity&seed=1",
        "0c4aad4d7de847b0cb59dd03a17917a2501c566f9b9e619d240269481c02db3d",
    ),
    (
        "shapes/epochs/0/batches?split=test",
        "a70a1a6f0a605c0e62b4a9ad866bd9bf2626bcfd5ec963cb7ddddb09aae00951",
    ),
    (
        "shapes/epochs/0/batches?schedule=cifar10-pba",
        "d3dee8622e19b519b12fc0ae2a93158dc8e42e6771964dde1128ab8b5f02b6ad",
    ),
    (
        "shapes/epochs/20/batches?schedule=cifar10-pba",
        "cff57de380c44a34eddbdf9b96929507dc0f02df435f5980ca6b3d91f34bc3b0",
    ),
    (
        "shapes/epochs/100/batches?schedule=cifar10-pba",
        "7d34387456bac723fc0c4ea135267a1b57c21eb3fd828fbf46168d6e43edfdde",
    ),
    (
        "shapes/epochs/150/batches?schedule=cifar10-pba",
        "8cd886f89386366d4ff471f8f8b5afb6eeeb05ba62d7ea2f3663baec58a7cb4c",
    ),
    (
        "shapes/epochs/199/batches?schedule=cifar10-pba",
        "5af92e61a1cbcc0076a0e3d2b1e57956e0c24b197363969e6a37f3eee21fc62e",
    ),
    (
        "shapes/epochs/0/batches?schedule=svhn-pba",
        "d3dee8622e19b519b12fc0ae2a93158dc8e42e6771964dde1128ab8b5f02b6ad",
    ),
    (
        "shapes/epochs/40/batches?schedule=svhn-pba",
        "254166713851205060eb7804615fd841047e908255d44e2dc51a561aa5a9a50f",
    ),
    (
        "shapes/epochs/80/batches?schedule=svhn-pba",
        "3d99788d40a831f1ff7638190bd57faaae3f4777dafec2c4047b9c450451dc81",
    ),
    (
        "shapes/epochs/159/batches?schedule=svhn-pba",
        "32ddbab65a278824360d6fc26ac69932e24bef8fe56d35727b71244a7d90a8a5",
    ),
    (
        "shapes/epochs/100/batches?schedule=cifar10-pba&ablation=flatten",
        "0a9dd9eb25c8ba35e8e5156476f99788416a678ced206b9bbc5e5e306f391f46",
    ),
    (
        "shapes/epochs/7/batches?schedule=svhn-pba&ablation=flatten&seed=3",
        "c5b890ea76f0f74721d7468efeb77431e6c893ee3e3dbabaabe32f92ec099632",
    ),
    (
        "shapes/epochs/100/batches?schedule=cifar10-pba&ablation=shuffled",
        "4577088985a80b994485849a687519feeb442df2d4e88f4703b14266bf2f0b17",
    ),
    (
        "shapes/epochs/7/batches?schedule=svhn-pba&ablation=shuffled&seed=3",
        "30ca0d2091a3dce6c9f9eda2c2ab57a22a56b97ea58b0ca5cbead6e2493d1313",
    ),
    (
        "shapes/epochs/100/batches?schedule=cifar10-pba&ablation=final",
        "71c975f27ab97ae0c19bd2830bbf544239561623f2adada0bb4d50e2672678b2",
    ),
    (
        "shapes/epochs/7/batches?schedule=svhn-pba&ablation=final&seed=3",
        "d8ca64b2b4e05498321d1ffac83a2e2eb673b8a23a53476301d50054d06034fc",
    ),
    (
        "shapes/epochs/1234/batches?schedule=cifar10-pba&epochs=1800&seed=42",
        "49bfc2a87a67e1598ea78ed8c203cf3ac01186d21769cb4c73ecf562c31896bc",
    ),
    (
        "shapes/epochs/5/batches?split=test&shuffle=true&shard=1/3&batch_size=7&policy=10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9",
        "5e6f5a0c361aaddc56038dd5f6e6a73f6e39d9b0f8bdd01944303ba0ea6b5618",
    ),
    (
        "shapes/epochs/5/batches?base=cutout:9&schedule=cifar10-pba",
        "5768c33e7e3330b687ec02cee9976cf73eb9e9fb861a48f00f619870b1714bef",
    ),
];

const CHANGED: &str = "\
Epochs hold other images than before. Every training run that is under way, or that somebody wants
to repeat, breaks with it. If a change of the draws, the ops, the order or the built-in pictures is
truly wanted, say so in CHANGELOG.md, and put the new table into this test:
    PBA_GOLDEN=print cargo test -p pba-tests --test golden -- --nocapture";

fn print() -> bool {
    std::env::var("PBA_GOLDEN").is_ok_and(|value| value == "print")
}

#[test]
fn epochs_are_what_they_always_were() {
    let server = Server::start(&[]);
    let mut changed = Vec::new();
    for (request, expected) in GOLDEN {
        let digest = server.epoch(request).digest();
        if print() {
            println!("    (\n        \"{request}\",\n        \"{digest}\",\n    ),");
        } else if digest != *expected {
            changed.push(format!("{request}\n    expected {expected}\n    found    {digest}"));
        }
    }
    assert!(changed.is_empty(), "{CHANGED}\n{}", changed.join("\n"));
}

#[test]
fn schedules_and_datasets_are_what_they_always_were() {
    let server = Server::start(&[]);
    for (path, pointer, expected) in DIGESTS {
        let page = server.get(path).json();
        let found = page.pointer(pointer).and_then(|digest| digest.as_str()).unwrap_or_default();
        if print() {
            println!("    (\"{path}\", \"{pointer}\", \"{found}\"),");
        } else {
            assert_eq!(found, *expected, "{path} {pointer}: {CHANGED}");
        }
    }
}

/// Page, place in it, digest.
const DIGESTS: &[(&str, &str, &str)] = &[
    (
        "/v1/schedules",
        "/schedules/0/digest",
        "90150340fbf1f7e10242152deab5b5b17488e9de635fca019222f66e4a225970",
    ),
    (
        "/v1/schedules",
        "/schedules/1/digest",
        "f85dc0140238fa9596f2b3b53ec6a0c3296a134483da5677ad967c380986b939",
    ),
    (
        "/v1/datasets/shapes",
        "/splits/train/digest",
        "c09dd0d8c9c44040492de39f1a5875ff46de3dfbe978930048f43866aeaa7210",
    ),
    (
        "/v1/datasets/shapes",
        "/splits/test/digest",
        "fc5a1fc6b1684859d76464939809ee519d6668a3588864492414bfc0b377147f",
    ),
];
