//! Two replicas that are restarted one after the other under clients in the middle of an epoch.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::scope;

use arrow_array::RecordBatch;
use pba_client::{Client, EpochRequest, Query as _};
use pba_tests::server::data_folder;
use pba_tests::{Server, binary, epoch, wait_for};
use tempfile::TempDir;

const CLIENTS: usize = 16;
const EPOCH: u32 = 150;
/// 10,000 images in 100 batches, all of them augmented: 31 MB, several times what sockets buffer.
const REQUEST: &str = "schedule=cifar10-pba&batch_size=100";
const IMAGES: u64 = 10_000;
/// After so many batches each client waits for the first restart, and for the second.
const PAUSES: [usize; 2] = [20, 50];

fn replica(data: &Arc<TempDir>, address: &str) -> Server {
    let data_dir = data.path().to_str().unwrap();
    let delays = ["--drain-delay-seconds", "4", "--drain-seconds", "3"];
    let arguments = [&["serve", "--listen", address, "--data-dir", data_dir][..], &delays].concat();
    Server::run(binary::command(data.path(), &arguments), Arc::clone(data))
}

/// Where the clients are.
#[derive(Default)]
struct Progress {
    /// Clients that wait for each restart, or did.
    waiting: [AtomicUsize; 2],
    /// Restarts so far.
    restarts: AtomicUsize,
}

/// What came in a batch: which images, and the digest of all that it holds.
#[derive(Debug, PartialEq)]
struct Came {
    indices: Vec<u64>,
    digest: String,
}

impl Came {
    fn in_batch(batch: &RecordBatch) -> Came {
        let indices = epoch::samples(batch).map(|sample| sample.index).collect();
        Came { indices, digest: epoch::digest(std::slice::from_ref(batch)) }
    }
}

/// Reads the epoch through our client, with a pause at each restart: what came, and how often it resumed.
fn read(urls: &[String], progress: &Progress) -> (Vec<Came>, u32) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let request = EpochRequest::from_query(REQUEST).unwrap();
        let mut stream = Client::new(urls).unwrap().epoch("shapes", EPOCH, request).await.unwrap();
        let mut batches = Vec::new();
        while let Some(batch) = stream.next().await.unwrap() {
            batches.push(Came::in_batch(&batch));
            if let Some(restart) = PAUSES.iter().position(|pause| *pause == batches.len()) {
                progress.waiting[restart].fetch_add(1, Ordering::SeqCst);
                let is_over = || progress.restarts.load(Ordering::SeqCst) > restart;
                wait_for("the restart", || is_over().then_some(()));
            }
        }
        (batches, stream.stats().resumes)
    })
}

/// Restarts a replica as a rolling update does: told to stop, it is not ready, takes streams until load balancers have
/// noticed, refuses them, and ends.
fn restarted(mut server: Server, address: SocketAddr) -> Server {
    let target = format!("/v1/datasets/shapes/epochs/{EPOCH}/batches?{REQUEST}&shard=0/20");
    server.process.signal("TERM");
    wait_for("the replica to be unready", || (server.get("/readyz").status == 503).then_some(()));
    let answer = server.get(&target);
    assert_eq!((answer.status, answer.complete), (200, true), "{}", answer.text());
    wait_for("new streams to be refused", || (server.get(&target).status == 503).then_some(()));
    assert_eq!(server.process.wait().code(), Some(0), "{}", server.process.stderr());
    let data = server.data();
    drop(server);
    replica(&data, &address.to_string())
}

#[test]
fn nothing_is_lost_and_nothing_comes_twice() {
    let data = data_folder();
    let mut replicas = [(); 2].map(|()| Some(replica(&data, "127.0.0.1:0")));
    let addresses = [0, 1].map(|at| replicas[at].as_ref().unwrap().address());
    let target = format!("shapes/epochs/{EPOCH}/batches?{REQUEST}");
    let whole = replicas[0].as_ref().unwrap().epoch(&target);
    let expected: Vec<Came> = whole.batches.iter().map(Came::in_batch).collect();
    let (urls, progress) = (addresses.map(|address| format!("http://{address}")), Progress::default());
    let (urls, progress) = (&urls, &progress);
    scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let urls = [urls[client % 2].clone(), urls[(client + 1) % 2].clone()];
                scope.spawn(move || read(&urls, progress))
            })
            .collect();
        for at in 0..2 {
            let waiting = || progress.waiting[at].load(Ordering::SeqCst);
            wait_for("all clients in mid-epoch", || (waiting() == CLIENTS).then_some(()));
            let server = replicas[at].take().unwrap();
            replicas[at] = Some(restarted(server, addresses[at]));
            progress.restarts.fetch_add(1, Ordering::SeqCst);
        }
        let mut resumes = 0;
        for (client, reading) in clients.into_iter().enumerate() {
            let (batches, resumed) = reading.join().unwrap();
            let mut indices: Vec<u64> = batches.iter().flat_map(|batch| &batch.indices).copied().collect();
            indices.sort_unstable();
            assert!(indices.into_iter().eq(0..IMAGES), "client {client} got other images than each one once");
            assert!(batches == expected, "client {client} got other pixels");
            resumes += resumed;
        }
        // Streams that were in mid-epoch at a replica that ended went on at the other one.
        assert!(resumes >= CLIENTS as u32, "{resumes}");
    });
    for replica in replicas.into_iter().flatten() {
        replica.assert_healthy();
    }
}
