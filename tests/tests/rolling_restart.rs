//! Two replicas that are restarted one after the other under clients in the middle of an epoch.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{scope, sleep};
use std::time::Duration;

use arrow_array::RecordBatch;
use pba_client::{Client, EpochRequest, Query as _};
use pba_tests::server::data_folder;
use pba_tests::{Server, binary, epoch, wait_for};
use tempfile::TempDir;

const CLIENTS: usize = 16;
const EPOCH: u32 = 150;
/// 2,000 images in 100 batches, all of them augmented.
const REQUEST: &str =
    "split=test&shuffle=true&schedule=cifar10-pba&batch_size=20&base=pad_crop:4,flip,cutout:16";
/// After so many batches each client waits for the first restart, and for the second.
const PAUSES: [usize; 2] = [30, 65];

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

/// Reads the epoch through our client, with a pause at each restart: its batches, and how often it resumed.
fn read(urls: &[String], progress: &Progress) -> (Vec<RecordBatch>, u32) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let request = EpochRequest::from_query(REQUEST).unwrap();
        let mut stream = Client::new(urls).unwrap().epoch("shapes", EPOCH, request).await.unwrap();
        let mut batches = Vec::new();
        while let Some(batch) = stream.next().await.unwrap() {
            batches.push(batch);
            if let Some(restart) = PAUSES.iter().position(|pause| *pause == batches.len()) {
                progress.waiting[restart].fetch_add(1, Ordering::SeqCst);
                while progress.restarts.load(Ordering::SeqCst) <= restart {
                    sleep(Duration::from_millis(5));
                }
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
    let expected = replicas[0].as_ref().unwrap().epoch(&target).digest();
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
            let mut indices: Vec<u64> =
                batches.iter().flat_map(epoch::samples).map(|sample| sample.index).collect();
            indices.sort_unstable();
            assert!(indices.into_iter().eq(0..2000), "client {client} got other samples than each one once");
            assert_eq!(epoch::digest(&batches), expected, "client {client}");
            resumes += resumed;
        }
        // Streams that were in mid-epoch at a replica that ended went on at the other one.
        assert!(resumes >= CLIENTS as u32, "{resumes}");
    });
    for replica in replicas.into_iter().flatten() {
        replica.assert_healthy();
    }
}
