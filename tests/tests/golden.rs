//! Golden digests: what an epoch holds, pinned for ever.
//!
//! `PBA_GOLDEN=print cargo test -p pba-tests --test golden -- --nocapture` prints the table anew.

use pba_tests::Server;

/// Request, relative to `/v1/datasets/`, and SHA-256 of the epoch ([`pba_tests::Epoch::digest`]).
const GOLDEN: &[(&str, &str)] = &[
    ("shapes/epochs/0/batches", "0e1ca963445b36fa0749244612b05ed9259031eb9b5a60f730dedd0f78219a24"),
    (
        "shapes/epochs/7/batches?seed=18446744073709551615",
        "cb8b2f55bbc73238d3b7f3c87f7015f0590fe21ee58863af7a250bb6a23d41c1",
    ),
    (
        "shapes/epochs/0/batches?schedule=identity",
        "0fce3785f7216743aacd9c855403a03413bfaccd4c5b5f5d0ce70555d9d2c7e0",
    ),
    (
        "shapes/epochs/3/batches?schedule=identity&seed=1",
        "59a8ed8882114c2b70d05d47fc9484c6d868ee4a4f516d5b8d2b01254177caa3",
    ),
    (
        "shapes/epochs/0/batches?split=test",
        "37df95d4d7e4fe985c9e226d5cd026aeea90461e0188972659c743b250e11616",
    ),
    (
        "shapes/epochs/0/batches?schedule=cifar10-pba",
        "0e1ca963445b36fa0749244612b05ed9259031eb9b5a60f730dedd0f78219a24",
    ),
    (
        "shapes/epochs/20/batches?schedule=cifar10-pba",
        "599bd569eed1287b93bcdfd335fee8f8506815a254eb3ce707c0e9fbf7f2b6be",
    ),
    (
        "shapes/epochs/100/batches?schedule=cifar10-pba",
        "f2ceafc82094746b2570427de829b89c1a13c701c69a4b64a431001a9146fff8",
    ),
    (
        "shapes/epochs/150/batches?schedule=cifar10-pba",
        "c8242b68e209880f7484fdef68c558cd12ddf62e796eaf46f7d9385b322d0dcd",
    ),
    (
        "shapes/epochs/199/batches?schedule=cifar10-pba",
        "03880cc7862de4cfa2e3cfad4b1bb678e253f49cc6aca91a5c3dc561cf887ad1",
    ),
    (
        "shapes/epochs/0/batches?schedule=svhn-pba",
        "0e1ca963445b36fa0749244612b05ed9259031eb9b5a60f730dedd0f78219a24",
    ),
    (
        "shapes/epochs/40/batches?schedule=svhn-pba",
        "c29960d06f8242c6fb709a83f84df507440b53fa8a7daddd923e252445535f33",
    ),
    (
        "shapes/epochs/80/batches?schedule=svhn-pba",
        "9a18cb681604c149df13f1b763eaedd5b6f00ee9ef33a7d54c384bd06174e6af",
    ),
    (
        "shapes/epochs/159/batches?schedule=svhn-pba",
        "c7bee225ddc110371be651e8847a12c221931394f5f4b06f41fe0361c89a0baf",
    ),
    (
        "shapes/epochs/100/batches?schedule=cifar10-pba&ablation=flatten",
        "be0794c9abce0f2807dc415f150de6af8c41ef5cf245c05e734212224c8418bf",
    ),
    (
        "shapes/epochs/7/batches?schedule=svhn-pba&ablation=flatten&seed=3",
        "a54142a9f44ed6cbb2ca835a5fccac45553e161956c35c6887982c537cc37c58",
    ),
    (
        "shapes/epochs/100/batches?schedule=cifar10-pba&ablation=shuffled",
        "e445261323ce1e56ec199b4e940f9d71e8c5fc541782e5f6cb43ddda69878f0c",
    ),
    (
        "shapes/epochs/7/batches?schedule=svhn-pba&ablation=shuffled&seed=3",
        "a5e903e1157970bbefe443b0b21e18ac1d8357579a0804b5d2fd0af2cc6fd690",
    ),
    (
        "shapes/epochs/100/batches?schedule=cifar10-pba&ablation=final",
        "f03ffbc2c2c40133a25d3a5d53b496168317608c4f17e2fdb5f80e60bc144039",
    ),
    (
        "shapes/epochs/7/batches?schedule=svhn-pba&ablation=final&seed=3",
        "1b8458fef8be02d06d8cde2555bc46509b6f14e56aac44d531478ec06f5e2a44",
    ),
    (
        "shapes/epochs/1234/batches?schedule=cifar10-pba&epochs=1800&seed=42",
        "5f207b9efb6c6324bf357380a95b5fe5a0a92e6be5b3665eeb003792d2ec1c09",
    ),
    (
        "shapes/epochs/5/batches?split=test&shuffle=true&shard=1/3&batch_size=7&policy=10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9,10,9",
        "6c0bd900a9f7840d65cb64a031ee3a78a827a16ad9f4ffe1cda2f00675db2c22",
    ),
    (
        "shapes/epochs/5/batches?base=cutout:9&schedule=cifar10-pba",
        "aa082cc3aaee48d58a701f5628298e23d861ac02b1dfe661e6de4b593a8506f8",
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
        "47f64e0e8a47c12a0cdce9652c7057e3e56734cb7b9d9545cbfab1c89b7942a5",
    ),
    (
        "/v1/datasets/shapes",
        "/splits/test/digest",
        "e839f99f53626adf7013acd38fc0aec3d585f1f080c737163b8f4d60b34664eb",
    ),
];
