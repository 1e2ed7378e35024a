//! Input that wants to do harm: JPEG, PNG, Parquet, HTTP, JSON and Arrow, made of valid ones by mutation.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pba_augment::{OpCall, Rgba, Scratch, Sign};
use pba_schedules::Op;

use crate::Download;
use crate::chaos::bystander::Bystander;
use crate::chaos::daemon::{Daemon, Launch};
use crate::chaos::dice::Dice;
use crate::chaos::fault::{Fault, Inject, Kind, outcome};
use crate::chaos::harm::{Column, Harm, Outcome, Survived, harness};
use crate::chaos::oracle::{Order, shapes};
use crate::chaos::pictures::{self, Pictures};
use crate::chaos::readers::{Language, Reading};
use crate::parquet_files;
use crate::search::{Script, comparison, evaluation, spec};

pub(super) fn kind() -> Kind {
    Kind {
        name: "hostile",
        title: "hostile input (JPEG, PNG, Parquet, HTTP, JSON, Arrow)",
        times: 120,
        few: 12,
        at_once: 2,
        open: || Ok(Box::new(Stage::open()?)),
    }
}

struct Stage {
    script: Script,
    /// With a client that streams meanwhile. Another takes its place when it has died.
    attacked: Mutex<Option<(Bystander, Daemon)>>,
    /// Whose streams are mutated on their way to clients.
    honest: Daemon,
    dataset: pba_datasets::Dataset,
}

impl Stage {
    fn open() -> Result<Stage, Harm> {
        let honest = Launch::new(&[]).start()?;
        let dataset = shapes(honest.data.path());
        Ok(Stage { script: Script::idles(), attacked: Mutex::new(None), honest, dataset })
    }

    /// Does something to a server, and checks that it goes on.
    fn attack<T>(&self, attack: impl FnOnce(&Daemon) -> Result<T, Harm>) -> Result<T, Harm> {
        let mut attacked = self.attacked.lock().unwrap_or_else(PoisonError::into_inner);
        let (bystander, mut server) = match attacked.take() {
            Some(attacked) => attacked,
            None => {
                let server = Launch::new(&["--trainer", self.script.path()]).start()?;
                let order = Order::new(&self.dataset, 0, "split=test&seed=5&shard=0/20&base=flip")?;
                (Bystander::of(&server.url(), &order), server)
            }
        };
        let done = server.blamed(|server| {
            let done = attack(server)?;
            bystander.goes_on()?;
            server.alive()?;
            Ok(done)
        })?;
        *attacked = Some((bystander, server));
        Ok(done)
    }
}

impl Inject for Stage {
    fn inject(&self, fault: Fault) -> Outcome {
        let mut dice = fault.dice();
        match fault.index % 8 {
            0 | 1 => self.image(&mut dice),
            2 => parquet(&mut dice),
            3 => self.http(&mut dice),
            4 | 5 => self.json(&mut dice),
            6 => packed(&mut dice),
            _ => self.arrow(&mut dice),
        }
    }
}

/// Mutates bytes a few times: bits, bytes, numbers, pieces.
pub(crate) fn mutate(bytes: &mut Vec<u8>, dice: &mut Dice) {
    for _ in 0..dice.scaled(1, 6) {
        let length = bytes.len() as u64;
        if length == 0 {
            bytes.push(dice.below(256) as u8);
            continue;
        }
        let at = dice.below(length) as usize;
        let count = (dice.scaled(1, 300) as usize).min(bytes.len() - at);
        match dice.below(16) {
            0..6 => bytes[at] ^= 1 << dice.below(8),
            6..9 => bytes[at] = dice.pick(&[0, 1, 0x7f, 0x80, 0xff, b'9', b'"', b'{', b'\n']),
            9 => drop(bytes.drain(at..at + count)),
            10 | 11 => {
                let piece = bytes[at..at + count].to_vec();
                bytes.splice(at..at, piece);
            }
            12 => bytes.truncate(at),
            13 | 14 => {
                let number = dice.pick(&[0u32, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX, 0x0001_0000, 524_288]);
                let number = if dice.once_in(2) { number.to_le_bytes() } else { number.to_be_bytes() };
                bytes.splice(at..at + count.min(4), number);
            }
            _ => {
                let extra: Vec<u8> = (0..count).map(|_| dice.below(256) as u8).collect();
                bytes.splice(at..at, extra);
            }
        }
    }
}

/// Gives each chunk of a PNG the sum that it must have.
pub(crate) fn mend_png(png: &mut [u8]) {
    let mut at = 8;
    while let Some(length) = png.get(at..at + 4) {
        let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize;
        let Some(end) = (at + 8).checked_add(length).filter(|end| end + 4 <= png.len()) else { return };
        let sum = !png[at + 4..end].iter().fold(u32::MAX, |sum, byte| {
            (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0xedb8_8320 * (sum & 1)))
        });
        png[end..end + 4].copy_from_slice(&sum.to_be_bytes());
        at = end + 4;
    }
}

/// What a server may answer to input that is wrong, or that is right all the same.
fn judged(answer: std::io::Result<crate::http::Answer>) -> Result<Survived, Harm> {
    match answer {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            Err(Harm::new(Column::Hung, "no answer"))
        }
        // It may close a connection on which nonsense comes.
        Err(error) => Ok(Survived::Refused(error.to_string())),
        Ok(answer) if answer.status >= 500 && answer.status != 503 && answer.status != 507 => {
            Err(Harm::new(Column::Other, format!("{}: {}", answer.status, answer.text())))
        }
        Ok(answer) if answer.status < 400 => Ok(Survived::Unnoticed),
        Ok(answer) => Ok(Survived::Refused(format!("{}", answer.status))),
    }
}

fn post(
    server: &Daemon,
    method: &str,
    target: &str,
    kind: &str,
    body: &[u8],
) -> std::io::Result<crate::http::Answer> {
    Ok(Download::open(server.address, method, target, &[("content-type", kind)], body)?.finish())
}

impl Stage {
    fn image(&self, dice: &mut Dice) -> Outcome {
        let is_png = dice.once_in(2);
        let kind = if is_png { "image/png" } else { "image/jpeg" };
        outcome(format!("a mutated {kind} for an op"), || {
            let mut bytes = if is_png {
                parquet_files::png(dice.scaled(1, 300) as u32, dice.scaled(1, 300) as u32, 7)
            } else {
                pictures::jpeg(dice)
            };
            mutate(&mut bytes, dice);
            // Its sums would tell otherwise, before anything else is looked at.
            if is_png && !dice.once_in(8) {
                mend_png(&mut bytes);
            }
            let answer = self.attack(|server| {
                let answer = post(server, "POST", "/v1/apply?op=Invert&magnitude=5", kind, &bytes);
                let judged = judged(answer.as_ref().map(clone).map_err(|error| error.kind().into()))?;
                Ok((answer, judged))
            })?;
            let (answer, judged) = answer;
            if judged == Survived::Unnoticed {
                is_inverted(&bytes, &answer.expect("it was answered").body)?;
            }
            Ok(judged)
        })
    }

    fn http(&self, dice: &mut Dice) -> Outcome {
        let request = dice.pick(&[
            "GET /v1/datasets/shapes/epochs/0/batches?split=test&batch_size=100&shard=0/20 HTTP/1.1\r\nhost: H\r\nconnection: close\r\n\r\n",
            "PUT /v1/schedules/x?epochs=5 HTTP/1.1\r\nhost: H\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}",
            "POST /v1/apply?op=Invert HTTP/1.1\r\nhost: H\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "GET /v1/datasets/shapes/epochs/3/preview.png?n=4 HTTP/1.1\r\nhost: H\r\nconnection: close\r\n\r\n",
            "GET /v1/schedules/cifar10-pba/plot.svg HTTP/1.1\r\nhost: H\r\nconnection: close\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nhost: H\r\norigin: http://evil.example\r\nconnection: close\r\n\r\n",
        ]);
        outcome("a mutated request", || {
            self.attack(|server| {
                let mut bytes = request.replace(": H", &format!(": {}", server.address)).into_bytes();
                mutate(&mut bytes, dice);
                let mut socket = crate::http::connect(server.address)
                    .map_err(|error| Harm::new(Column::Dead, format!("not accepted: {error}")))?;
                // It may be refused after its first bytes.
                let _ = socket.write_all(&bytes);
                let _ = socket.shutdown(std::net::Shutdown::Write);
                let mut answer = Vec::new();
                let read = socket.read_to_end(&mut answer);
                if read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock) {
                    return Err(Harm::new(Column::Hung, "it neither answers nor closes"));
                }
                let answer = String::from_utf8_lossy(&answer[..answer.len().min(12)]).into_owned();
                match answer.strip_prefix("HTTP/1.1 ") {
                    Some(status)
                        if status.starts_with("50")
                            && !status.starts_with("501")
                            && !status.starts_with("505") =>
                    {
                        Err(Harm::new(Column::Other, answer))
                    }
                    Some(status) if status.starts_with('2') => Ok(Survived::Unnoticed),
                    _ => Ok(Survived::Refused(answer)),
                }
            })
        })
    }

    fn json(&self, dice: &mut Dice) -> Outcome {
        let nothing = serde_json::json!({});
        let schedule = pba_schedules::formats::json::write(&pba_schedules::library::cifar10_pba());
        let (method, target, body) = dice.pick(&[
            ("PUT", "/v1/schedules/hostile", schedule.clone()),
            ("PUT", "/v1/schedules/hostile", schedule),
            ("POST", "/v1/searches", spec(nothing.clone()).to_string()),
            ("POST", "/v1/evaluations", evaluation(nothing.clone()).to_string()),
            ("POST", "/v1/comparisons", comparison(nothing).to_string()),
        ]);
        outcome(format!("mutated JSON for {method} {target}"), || {
            self.attack(|server| {
                let mut bytes = body.into_bytes();
                match dice.below(6) {
                    // Deep, long, or large.
                    0 => bytes = b"[".repeat(dice.scaled(100, 1_000_000) as usize),
                    1 => {
                        let name = "x".repeat(dice.scaled(100, 1_000_000) as usize);
                        bytes = format!("{{\"name\":\"{name}\",\"{name}\":1}}").into_bytes();
                    }
                    _ => mutate(&mut bytes, dice),
                }
                let answer = post(server, method, target, "application/json", &bytes);
                if let Ok(answer) = &answer
                    && (200..300).contains(&answer.status)
                {
                    // What is valid is taken, and taken back, so that it does not pile up.
                    let id = match method {
                        "PUT" => Some("hostile".to_owned()),
                        _ => answer.json()["id"].as_str().map(str::to_owned),
                    };
                    if let Some(id) = id {
                        let page = target.trim_end_matches("/hostile");
                        let _ = server.send("DELETE", &format!("{page}/{id}"), b"");
                    }
                }
                judged(answer)
            })
        })
    }

    /// An Arrow stream that a server sends to a client.
    fn arrow(&self, dice: &mut Dice) -> Outcome {
        let language = dice.pick(&[Language::Rust, Language::Python]);
        outcome(format!("a mutated Arrow stream for a client, {language:?}"), || {
            let query = format!(
                "split=test&schedule=cifar10-pba&seed={}&batch_size=8&shard={}/100&base=flip",
                dice.below(1 << 40),
                dice.below(100)
            );
            let order = Order::new(&self.dataset, 150, &query)?;
            let answer = self.honest.get(&order.target());
            let answer = answer.map_err(|error| Harm::new(Column::Dead, error))?;
            let intact = answer.body;
            // In the schema and the heads of batches, where lengths are, rather than in pixels.
            let head = dice.between(1, 1500.min(intact.len() as u64)) as usize;
            let mut stream = intact.clone();
            if dice.once_in(2) {
                let mut beginning = stream.drain(..head).collect();
                mutate(&mut beginning, dice);
                stream.splice(0..0, beginning);
            } else {
                mutate(&mut stream, dice);
            }
            if stream == intact {
                return Ok(Survived::NotInjected("the mutation changed nothing".to_owned()));
            }
            let liar = Liar::start(stream);
            let reading = Reading::of(language, [liar.url.clone()]).stalling(Duration::from_secs(2));
            reading.read(&order)
        })
    }
}

/// Checks the answer to `/v1/apply?op=Invert&magnitude=5`, a PNG, for a picture.
pub(crate) fn is_inverted(picture: &[u8], answer: &[u8]) -> Result<(), Harm> {
    let image = pba_datasets::decode(picture)
        .map_err(|error| Harm::new(Column::WrongPixels, format!("what is no picture: {error}")))?;
    let mut rgba = Rgba::from_rgb(image.shape, &image.pixels).map_err(|error| harness!("{error}"))?;
    let centre = (image.shape.width / 2, image.shape.height / 2);
    let call = OpCall { op: Op::Invert, magnitude: 5, sign: Sign::Plus, centre };
    pba_augment::apply(&call, &mut rgba, &mut Scratch::new());
    let decoder = png::Decoder::new(std::io::Cursor::new(answer));
    let mut reader = decoder.read_info().map_err(|error| harness!("{error}"))?;
    let mut pixels = vec![0; reader.output_buffer_size().unwrap_or(0)];
    reader.next_frame(&mut pixels).map_err(|error| harness!("{error}"))?;
    match pixels == rgba.as_bytes() {
        true => Ok(()),
        false => Err(Harm::new(Column::WrongPixels, "of an op on a picture")),
    }
}

fn clone(answer: &crate::http::Answer) -> crate::http::Answer {
    let crate::http::Answer { status, headers, body, complete } = answer;
    crate::http::Answer { status: *status, headers: headers.clone(), body: body.clone(), complete: *complete }
}

/// Answers every request with the same stream, whole.
struct Liar {
    url: String,
    address: std::net::SocketAddr,
    ended: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

impl Liar {
    fn start(stream: Vec<u8>) -> Liar {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let ended = std::sync::Arc::<std::sync::atomic::AtomicBool>::default();
        let over = std::sync::Arc::clone(&ended);
        std::thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                if over.load(std::sync::atomic::Ordering::SeqCst) {
                    return;
                }
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/vnd.apache.arrow.stream\r\n\
                     content-length: {}\r\nconnection: close\r\n\r\n",
                    stream.len()
                );
                let _ = client.read(&mut [0; 4096]);
                let _ = client.write_all(head.as_bytes()).and_then(|()| client.write_all(&stream));
            }
        });
        Liar { url: format!("http://{address}"), address, ended }
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.ended.store(true, std::sync::atomic::Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

/// A mutated Parquet file that is imported.
fn parquet(dice: &mut Dice) -> Outcome {
    outcome("a mutated Parquet file", || {
        let pictures = Pictures::new(false, dice)?;
        let file = pictures.path().join("train.parquet");
        serve_mutated(&pictures, &file, dice)
    })
}

/// A mutated packed file, which is served as it is.
fn packed(dice: &mut Dice) -> Outcome {
    outcome("a mutated packed file of a user's", || {
        let source = Pictures::new(dice.once_in(2), dice)?;
        let (_data, packed) = source.packed()?;
        let folder = tempfile::tempdir().map_err(|error| harness!("{error}"))?;
        let file = folder.path().join("train.arrow");
        std::fs::copy(packed, &file).map_err(|error| harness!("{error}"))?;
        let pictures = Pictures::at(folder, source.encoded);
        serve_mutated(&pictures, &file, dice)
    })
}

fn serve_mutated(pictures: &Pictures, file: &std::path::Path, dice: &mut Dice) -> Result<Survived, Harm> {
    let intact = pictures.order(dice)?;
    let mut bytes = std::fs::read(file).map_err(|error| harness!("{error}"))?;
    // The end is where both formats keep what is read first.
    if dice.once_in(2) {
        let at = bytes.len() - dice.between(1, 3000.min(bytes.len() as u64)) as usize;
        let mut end = bytes.split_off(at);
        mutate(&mut end, dice);
        bytes.extend(end);
    } else {
        mutate(&mut bytes, dice);
    }
    std::fs::write(file, &bytes).map_err(|error| harness!("{error}"))?;
    // What the library makes of it, in this process: the same, or a refusal.
    let order = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| pictures.order(&mut dice.clone())));
    let mut server = Launch::new(&[&pictures.flag()]).start()?;
    let reading = Reading::any(dice, [server.url()]);
    let read = match order {
        Ok(Ok(order)) => reading.read(&order)?,
        _ => match reading.read(&intact) {
            Ok(Survived::Refused(why)) => Survived::Refused(why),
            Ok(_) => Survived::Unnoticed,
            Err(harm) => return Err(harm),
        },
    };
    server.healthy()?;
    Ok(read)
}
