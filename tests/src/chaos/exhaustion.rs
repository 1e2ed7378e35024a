//! Machines that have too little: descriptors, memory, threads, slots.

use std::io::Write;
use std::net::TcpStream;

use crate::Download;
use crate::chaos::daemon::{Daemon, Launch};
use crate::chaos::dice::Dice;
use crate::chaos::fault::{Fault, Inject, Kind, outcome};
use crate::chaos::group::Group;
use crate::chaos::harm::{Column, Harm, Outcome, Survived, harness};
use crate::chaos::ledger::Ledger;
use crate::chaos::oracle::{Order, shapes};
use crate::chaos::readers::{Language, Reading};
use crate::chaos::strace;
use crate::chaos::strace::Tracer;

pub(super) fn kind() -> Kind {
    Kind {
        name: "exhaustion",
        title: "exhaustion (descriptors, memory, threads, slots)",
        times: 60,
        few: 4,
        at_once: 1,
        open: || Ok(Box::new(Stage)),
    }
}

struct Stage;

impl Inject for Stage {
    fn inject(&self, fault: Fault) -> Outcome {
        let mut dice = fault.dice();
        match fault.index % 4 {
            0 => descriptors(&mut dice),
            1 => memory(&mut dice),
            2 => threads(&mut dice),
            _ => slots(&mut dice),
        }
    }
}

/// All of the test split, and a small part of it.
fn orders(server: &Daemon, dice: &mut Dice) -> Result<(Order, Order), Harm> {
    let dataset = shapes(server.data.path());
    let seed = dice.below(1 << 40);
    let query = format!("split=test&shuffle=true&schedule=cifar10-pba&seed={seed}&batch_size=100&base=flip");
    Ok((Order::new(&dataset, 150, &query)?, Order::new(&dataset, 150, &format!("{query}&shard=1/20"))?))
}

fn descriptors(dice: &mut Dice) -> Outcome {
    let limit = dice.between(24, 120);
    let more = dice.between(10, 100);
    outcome(format!("{limit} descriptors, and {more} connections more than that"), || {
        let mut launch = Launch::new(&[]);
        let limited = format!("--nofile={limit}:{limit}");
        launch.wrapper = vec!["prlimit".to_owned(), limited];
        let mut server = launch.start()?;
        let (whole, small) = orders(&server, dice)?;
        let mut crowd: Vec<TcpStream> = Vec::new();
        let reading = Reading::any(dice, [server.url()]);
        // One stream is there before the crowd comes, and goes on.
        let address = server.address;
        reading.read_whole_with(&whole, &mut |received| {
            if received == 1 {
                for number in 0..limit + more {
                    let Ok(mut socket) = TcpStream::connect(address) else { break };
                    if number % 2 == 0 {
                        let _ = socket.write_all(b"GET /livez HTTP/1.1\r\n");
                    }
                    crowd.push(socket);
                }
            }
        })?;
        server.alive()?;
        drop(crowd);
        server.ready()?;
        reading.read_whole(&small)?;
        let mut ledger = Ledger::default();
        if !ledger.change(server.address) {
            return Err(Harm::new(Column::Dead, "no change is taken when the crowd has left"));
        }
        ledger.check(&server)?;
        server.healthy()?;
        Ok(Survived::Unnoticed)
    })
}

fn memory(dice: &mut Dice) -> Outcome {
    let streams = dice.between(4, 20);
    let bodies = dice.between(4, 60);
    let side = dice.pick(&[32, 256, 1024]);
    let what = format!("{streams} unread streams of images of {side}x{side}, {bodies} unfinished bodies");
    outcome(format!("{what}, in 1.5 GiB"), || {
        let group = match Group::new(Some(3 << 29)) {
            Ok(group) => group,
            Err(why) => return Ok(Survived::NotInjected(why)),
        };
        let mut launch = Launch::new(&[]);
        launch.wrapper = group.wrapper();
        let mut server = launch.start()?;
        let (_, small) = orders(&server, dice)?;
        // As large as a batch may be.
        let size = (255u64 << 20) / (side * side * 3 + 16);
        let target = format!(
            "/v1/datasets/shapes/epochs/0/batches?batch_size={}&base=random_resized_crop:{side}",
            size.clamp(1, 10_000)
        );
        let unread: Vec<_> = (0..streams).map(|_| Download::open_narrow(server.address, &target)).collect();
        let mut unfinished = Vec::new();
        for _ in 0..bodies {
            let Ok(mut socket) = crate::http::connect(server.address) else { continue };
            let head = format!(
                "PUT /v1/schedules/x HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
                 content-length: 16777216\r\n\r\n",
                server.address
            );
            let _ = socket.set_write_timeout(Some(std::time::Duration::from_secs(2)));
            let _ = socket.write_all(head.as_bytes());
            let _ = socket.write_all(&vec![b' '; 16_777_000]);
            unfinished.push(socket);
        }
        let refused = unread
            .iter()
            .filter(|opened| opened.as_ref().is_ok_and(|download| download.status == 429))
            .count();
        server.blamed(|server| {
            // A client that asks for little may be told to come again, and gets it when there is room.
            let reading = Reading::any(dice, [server.url()]);
            reading.read(&small)?;
            server.alive()?;
            drop((unread, unfinished));
            reading.read_whole(&small)?;
            server.healthy()
        })?;
        server.kill();
        drop(group);
        Ok(match refused {
            0 => Survived::Unnoticed,
            _ => Survived::Refused(format!("{refused} of {streams} streams")),
        })
    })
}

fn threads(dice: &mut Dice) -> Outcome {
    let when = dice.scaled(1, 4);
    outcome(format!("no thread from the one numbered {when} on"), || {
        if let Some(missing) = strace::missing() {
            return Ok(Survived::NotInjected(missing));
        }
        let launch = Launch::new(&["--trainer", "/bin/false"]);
        let mut server = launch.start()?;
        let (_, small) = orders(&server, dice)?;
        let log = tempfile::NamedTempFile::new().map_err(|error| harness!("{error}"))?;
        let fault = format!("inject=clone,clone3,fork,vfork:error=EAGAIN:when={when}+");
        let tracer = Tracer::attach(server.process.id(), &[fault], log.path())?;
        let mut ledger = Ledger::default();
        let reading = Reading::of(Language::Rust, [server.url()]);
        for _ in 0..4 {
            // Each may be refused.
            ledger.change(server.address);
            let body = crate::chaos::searching::plain("never").to_string();
            let _ = server.send("POST", "/v1/searches", body.as_bytes());
            reading.read_whole(&small)?;
            let _ = server.get("/v1/datasets/shapes/epochs/0/preview.png?n=4");
        }
        let injected = tracer.detach();
        if !ledger.change(server.address) {
            return Err(Harm::new(Column::Dead, "no change is taken when there are threads again"));
        }
        ledger.check(&server)?;
        reading.read_whole(&small)?;
        server.healthy()?;
        match injected {
            0 => Ok(Survived::NotInjected("the server started fewer threads".to_owned())),
            _ => Ok(Survived::Unnoticed),
        }
    })
}

fn slots(dice: &mut Dice) -> Outcome {
    let (slots, clients) = (dice.between(1, 3), dice.between(4, 8) as usize);
    outcome(format!("{slots} slots for {clients} clients"), || {
        let mut server = Launch::new(&["--streams-max", &slots.to_string()]).start()?;
        let (_, small) = orders(&server, dice)?;
        let readings: Vec<Reading> = (0..clients).map(|_| Reading::any(dice, [server.url()])).collect();
        let results: Vec<Result<Survived, Harm>> = std::thread::scope(|scope| {
            let readers: Vec<_> =
                readings.iter().map(|reading| scope.spawn(|| reading.read(&small))).collect();
            let joined = readers.into_iter().map(|reader| reader.join());
            joined.map(|read| read.unwrap_or_else(|_| Err(harness!("a reader panicked")))).collect()
        });
        let mut refused = 0;
        for result in results {
            refused += usize::from(matches!(result?, Survived::Refused(_)));
        }
        readings[0].read_whole(&small)?;
        server.healthy()?;
        Ok(match refused {
            0 => Survived::Unnoticed,
            _ => Survived::Refused(format!("{refused} of {clients} clients")),
        })
    })
}
