//! Clients that leave at any moment, and clients that read slowly, or not at all.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::Download;
use crate::chaos::bystander::Bystander;
use crate::chaos::daemon::{Daemon, Launch};
use crate::chaos::fault::{Fault, Inject, Kind, outcome};
use crate::chaos::harm::{Column, Harm, Outcome, Survived, harness};
use crate::chaos::oracle::{Order, shapes};
use crate::chaos::readers::{Language, Reading};
use crate::http;

pub(super) fn kind() -> Kind {
    Kind {
        name: "leavers",
        title: "leavers and slow readers",
        times: 60,
        few: 4,
        at_once: 1,
        open: || Ok(Box::new(Stage::open()?)),
    }
}

struct Stage {
    /// Another takes its place when it has died.
    server: std::sync::Mutex<Option<Daemon>>,
    sockets: tempfile::TempDir,
    dataset: pba_datasets::Dataset,
    launch: Launch,
}

impl Stage {
    fn open() -> Result<Stage, Harm> {
        let sockets = tempfile::tempdir().map_err(|error| harness!("{error}"))?;
        let socket = sockets.path().join("server").display().to_string();
        let launch = Launch::new(&["--socket", &socket, "--stall-seconds", "2", "--threads", "1"]);
        let dataset = shapes(launch.data.path());
        Ok(Stage { server: std::sync::Mutex::new(None), sockets, dataset, launch })
    }

    fn descriptors(server: &Daemon) -> usize {
        let folder = format!("/proc/{}/fd", server.process.id());
        std::fs::read_dir(folder).map_or(0, Iterator::count)
    }
}

impl Inject for Stage {
    fn inject(&self, fault: Fault) -> Outcome {
        let mut dice = fault.dice();
        let way = dice.below(7);
        let ways = [
            "leaves after some bytes",
            "leaves with a reset after some bytes",
            "leaves before the answer",
            "asks for shared memory and leaves with a batch in its hands",
            "reads a little and then nothing, and stays",
            "reads a few bytes now and then",
            "sends half a request, and stays",
        ];
        let count = dice.between(1, 8) as usize;
        let bytes = dice.scaled(1, 2_000_000) as usize;
        let size = dice.pick(&[1, 128, 2000, 10_000]);
        let what = ways[way as usize];
        outcome(format!("{count} of whom each {what} ({bytes} bytes, batches of {size})"), || {
            let mut stage = self.server.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let mut server = match stage.take() {
                Some(server) => server,
                None => self.launch.start()?,
            };
            let small = format!("split=test&seed={}&shard=0/20&base=flip", dice.below(1000));
            let order = Order::new(&self.dataset, 0, &small)?;
            let whole = Reading::of(Language::Rust, [server.url()]);
            whole.read_whole(&order)?;
            let before = Stage::descriptors(&server);
            let bystander = Bystander::of(&server.url(), &order);
            let target = format!(
                "/v1/datasets/shapes/epochs/0/batches?schedule=cifar10-pba&batch_size={size}&seed={}",
                dice.below(1000)
            );
            let open = || {
                Download::open_narrow(server.address, &target)
                    .map_err(|error| Harm::new(Column::Dead, format!("no answer: {error}")))
            };
            let mut staying: Vec<Box<dyn Read>> = Vec::new();
            let mut raw: Vec<TcpStream> = Vec::new();
            for number in 0..count {
                match way {
                    0 | 1 => {
                        let mut download = open()?;
                        // An answer that is shorter, or a refusal, is read to its end.
                        let mut some = (&mut download).take((bytes / (number + 1)) as u64);
                        let _ = std::io::copy(&mut some, &mut std::io::sink());
                        if way == 1 {
                            download.reset();
                        }
                    }
                    2 => {
                        let mut socket = connect(&server)?;
                        let head = format!("GET {target} HTTP/1.1\r\nhost: {}\r\n\r\n", server.address);
                        let _ = socket.write_all(head.as_bytes());
                    }
                    3 => {
                        let url = format!("unix:{}", self.sockets.path().join("server").display());
                        leave_with_a_batch(&url, size as u32)?;
                    }
                    4 | 5 => staying.push(Box::new(open()?)),
                    _ => {
                        let mut socket = connect(&server)?;
                        let head = format!("GET {target} HTTP/1.1\r\nhost: {}\r\nx-", server.address);
                        let _ = socket.write_all(&head.as_bytes()[..head.len().min(bytes)]);
                        raw.push(socket);
                    }
                }
            }
            for _ in 0..3 {
                let mut few = [0; 16];
                if way == 5 {
                    staying.iter_mut().for_each(|slow| drop(slow.read(&mut few)));
                    std::thread::sleep(Duration::from_millis(300));
                }
                bystander.goes_on()?;
            }
            drop((staying, raw));
            bystander.goes_on()?;
            drop(bystander);
            server.healthy()?;
            // Nothing of theirs is kept. Another connection may be ending yet.
            crate::chaos::daemon::wait("the descriptors to be closed", || {
                Stage::descriptors(&server) <= before + 1
            })?;
            whole.read_whole(&order)?;
            *stage = Some(server);
            Ok(Survived::Unnoticed)
        })
    }
}

fn connect(server: &Daemon) -> Result<TcpStream, Harm> {
    http::connect(server.address).map_err(|error| Harm::new(Column::Dead, format!("not accepted: {error}")))
}

/// A client on the Unix socket that takes one batch, and leaves.
pub(crate) fn leave_with_a_batch(url: &str, batch_size: u32) -> Result<(), Harm> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be made").block_on(async {
        let client = pba_client::Client::new([url]).map_err(|error| harness!("{error}"))?;
        let request = pba_client::EpochRequest { batch_size, ..Default::default() };
        // A refusal, as of a batch too large for the memory, is the server's right.
        if let Ok(mut stream) = client.epoch("shapes", 0, request).await {
            let batch = stream.next().await;
            drop(stream);
            drop(batch);
        }
        Ok(())
    })
}
