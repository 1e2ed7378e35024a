//! Our Rust client on a Unix socket: batches come through memory that the server shares, with the same
//! bytes and the same rules as over TCP. (The Python client's tests of the same are beside it.)
#![cfg(target_os = "linux")]

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use arrow_array::RecordBatch;
use pba_client::{Client, ClientError, ClientOptions, EpochRequest, EpochStream, Query};
use pba_tests::{Server, epoch, wait_for};
use pba_wire::shared_memory::Record;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tempfile::TempDir;

const ACTIVE: &str = "pba_streams_active";
const SHARED: &str = "pba_shared_memory_bytes";

/// A folder for a socket.
struct Socket(TempDir);

impl Socket {
    fn new() -> Socket {
        Socket(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("s")
    }

    fn url(&self) -> String {
        format!("unix:{}", self.path().display())
    }

    fn client(&self) -> Client {
        Client::new([self.url()]).unwrap()
    }

    fn serve(&self, flags: &[&str]) -> Server {
        let path = self.path().display().to_string();
        Server::start(&[&["--socket", &path], flags].concat())
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// 2,000 images in 20 batches, all augmented.
fn request() -> EpochRequest {
    EpochRequest::from_query("split=test&shuffle=true&schedule=cifar10-pba&batch_size=100").unwrap()
}

fn target() -> String {
    format!("shapes/epochs/150/batches?{}", request().to_query())
}

async fn open(client: &Client) -> EpochStream {
    client.epoch("shapes", 150, request()).await.unwrap()
}

async fn rest(stream: &mut EpochStream) -> Vec<RecordBatch> {
    let mut batches = Vec::new();
    while let Some(batch) = stream.next().await.unwrap() {
        batches.push(batch);
    }
    batches
}

/// Whether the pixels lie in memory that a server shares.
fn is_shared(batch: &RecordBatch) -> bool {
    let address = batch.column(0).to_data().child_data()[0].buffers()[0].as_ptr() as usize;
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mapping = maps.lines().find(|line| {
        let (first, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [first, end] = [first, end].map(|number| usize::from_str_radix(number, 16).unwrap());
        (first..end).contains(&address)
    });
    mapping.expect("it lies somewhere").contains("memfd:pba-batches")
}

#[test]
fn the_same_batches_without_a_copy() {
    let socket = Socket::new();
    let server = socket.serve(&[]);
    let expected = server.epoch(&target()).digest();
    run(async {
        let mut stream = open(&socket.client()).await;
        assert!(stream.stats().shares_memory);
        assert_eq!((stream.batches(), stream.rows()), (20, 2000));
        let mut batches = Vec::new();
        while let Some(batch) = stream.next().await.unwrap() {
            assert!(is_shared(&batch), "batch {} is a copy", batches.len());
            // Kept as a copy, so that its slot is used again.
            batches.push(copy(&batch));
        }
        assert_eq!((epoch::digest(&batches), stream.stats().resumes), (expected.clone(), 0));
        drop(stream);

        let mut stream = open(&socket.client().without_shared_memory()).await;
        assert!(!stream.stats().shares_memory);
        let batches = rest(&mut stream).await;
        assert!(!is_shared(&batches[0]));
        assert_eq!(epoch::digest(&batches), expected);
        // TCP has none, whatever the client can do.
        let mut stream = open(&Client::new([server.url()]).unwrap()).await;
        assert!(!stream.stats().shares_memory);
        assert_eq!(epoch::digest(&rest(&mut stream).await), expected);
    });
    wait_for("the memory to be given back", || (server.metric(SHARED) == 0.0).then_some(()));
    server.assert_healthy();
}

/// The batch in memory of its own, through Arrow's writer and reader.
fn copy(batch: &RecordBatch) -> RecordBatch {
    let mut writer = arrow_ipc::writer::StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(batch).unwrap();
    let bytes = writer.into_inner().unwrap();
    arrow_ipc::reader::StreamReader::try_new(&bytes[..], None).unwrap().next().unwrap().unwrap()
}

#[test]
fn whoever_keeps_batches_keeps_them_as_they_are() {
    let socket = Socket::new();
    let server = socket.serve(&[]);
    let expected = server.epoch(&target()).digest();
    run(async {
        let mut stream = open(&socket.client()).await;
        let batches = rest(&mut stream).await;
        let shared = batches.iter().filter(|batch| is_shared(batch)).count();
        assert!((1..20).contains(&shared), "{shared} of 20 are shared");
        assert_eq!(epoch::digest(&batches), expected);
        // Neither the end of the stream nor that of the server takes anything away.
        drop(stream);
        drop(server);
        assert_eq!(epoch::digest(&batches), expected);
    });
}

#[test]
fn a_client_that_leaves_while_it_looks_at_a_batch() {
    let socket = Socket::new();
    let server = socket.serve(&[]);
    let expected = epoch::digest(&server.epoch(&target()).batches[..1]);
    let batch = run(async {
        let mut stream = open(&socket.client()).await;
        assert!(server.metric(SHARED) > 0.0);
        stream.next().await.unwrap().unwrap()
    });
    wait_for("the stream to end", || (server.metric(ACTIVE) == 0.0).then_some(()));
    wait_for("the memory to be given back", || (server.metric(SHARED) == 0.0).then_some(()));
    assert_eq!(epoch::digest(&[batch]), expected);
    server.assert_healthy();
}

#[test]
fn a_server_killed_in_the_middle_of_an_epoch() {
    let socket = Socket::new();
    let mut server = socket.serve(&[]);
    let expected = server.epoch(&target()).digest();
    let (batches, resumes) = run(async {
        let mut stream = open(&socket.client()).await;
        let mut batches = vec![stream.next().await.unwrap().unwrap()];
        server.process.signal("KILL");
        server.process.wait();
        server = socket.serve(&[]);
        batches.extend(rest(&mut stream).await);
        assert!(stream.stats().shares_memory, "it goes on in memory");
        (batches, stream.stats().resumes)
    });
    assert!(resumes >= 1);
    assert_eq!(epoch::digest(&batches), expected);
    server.assert_healthy();
}

#[test]
fn a_server_that_may_share_too_little() {
    let socket = Socket::new();
    let server = socket.serve(&["--shared-memory-bytes-max", "0"]);
    run(async {
        let mut stream = open(&socket.client()).await;
        assert!(!stream.stats().shares_memory);
        assert_eq!(epoch::digest(&rest(&mut stream).await), server.epoch(&target()).digest());
    });
    assert_eq!(server.metric("pba_shared_memory_refused_total"), 1.0);
}

#[test]
fn a_stream_in_memory_is_a_connection_until_its_client_leaves() {
    let socket = Socket::new();
    let server = socket.serve(&["--connections-max", "2"]);
    run(async {
        // The client that asked before has left.
        wait_for("a place", || (server.get("/v1/datasets").status == 200).then_some(()));
        let client = socket.client();
        let mut streams = vec![open(&client).await, open(&client).await];
        assert!(streams.iter().all(|stream| stream.stats().shares_memory));
        // Whether a connection that was upgraded has ended is known a moment after its answer.
        for _ in 0..20 {
            assert_eq!(server.get("/v1/datasets").status, 503, "two connections are open");
        }
        streams.pop();
        wait_for("a place", || (server.get("/v1/datasets").status == 200).then_some(()));
        assert_eq!(rest(&mut streams[0]).await.len(), 20);
        drop(streams);
    });
    server.assert_healthy();
}

#[test]
fn what_is_refused_is_refused_as_over_tcp() {
    let socket = Socket::new();
    let server = socket.serve(&[]);
    let refusal = |url: String| {
        run(async {
            match Client::new([url]).unwrap().epoch("shape", 0, request()).await {
                Err(ClientError::Refused(problem)) => (problem.status, problem.detail),
                Err(error) => panic!("{error}"),
                Ok(_) => panic!("there is no such dataset"),
            }
        })
    };
    let (status, detail) = refusal(socket.url());
    assert_eq!(status, 404);
    assert_eq!((status, detail), refusal(server.url()));
}

#[test]
fn nobody_is_there() {
    let socket = Socket::new();
    let error = run(socket.client().epoch("shapes", 0, request())).err().expect("no server answers");
    assert!(matches!(&error, ClientError::Unreachable { url, .. } if *url == socket.url()), "{error}");
}

/// How a server answers that wants to be believed.
enum Lie {
    /// The memory can be cut off under its reader.
    Unsealed,
    /// Fewer bytes than it says.
    Short,
    NoMemory,
    SchemaBeyondTheMemory,
    NoRecord,
    /// Nothing but the head of an answer.
    Leave,
}

fn tell(lie: &Lie, mut connection: UnixStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        connection.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let answer = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: pba-memory/1\r\n\r\n";
    connection.write_all(answer.as_bytes()).unwrap();
    let mut ready = [0; 4];
    connection.read_exact(&mut ready).unwrap();
    let memory = memfd_create("lies", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&memory, if matches!(lie, Lie::Short) { 4096 } else { 8192 }).unwrap();
    if !matches!(lie, Lie::Unsealed) {
        fcntl_add_seals(&memory, SealFlags::SHRINK).unwrap();
    }
    let schema_bytes = if matches!(lie, Lie::SchemaBeyondTheMemory) { 8193 } else { 100 };
    let open = Record::Open { batches: 3, bytes: 8192, schema_bytes }.to_bytes();
    match lie {
        Lie::Leave => {}
        Lie::NoMemory => connection.write_all(&open).unwrap(),
        Lie::NoRecord => send(&connection, &[9; 24], memory),
        _ => send(&connection, &open, memory),
    }
}

fn send(connection: &UnixStream, record: &[u8], memory: OwnedFd) {
    let descriptors = [memory.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
    sendmsg(connection, &[IoSlice::new(record)], &mut ancillary, SendFlags::NOSIGNAL).unwrap();
}

#[test]
fn a_server_that_lies_is_not_believed() {
    let lies = [
        (Lie::Unsealed, "truncated"),
        (Lie::Short, "truncated"),
        (Lie::NoMemory, "shares no memory"),
        (Lie::SchemaBeyondTheMemory, "shorter than its schema"),
        (Lie::NoRecord, "shares no memory"),
        (Lie::Leave, "unexpected end"),
    ];
    for (lie, says) in lies {
        let socket = Socket::new();
        let listener = UnixListener::bind(socket.path()).unwrap();
        let liar = std::thread::spawn(move || tell(&lie, listener.accept().unwrap().0));
        // It answers once.
        let options = ClientOptions { retries: 0, ..ClientOptions::default() };
        let client = Client::with_options([socket.url()], &options).unwrap();
        let error = run(client.epoch("shapes", 0, request())).err().expect("it lies");
        assert!(error.to_string().contains(says), "{says}: {error}");
        liar.join().unwrap();
    }
}
