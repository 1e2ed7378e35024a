//! The clients: ours in Rust, in this process, and ours in Python, in processes that live on from one fault
//! to the next. What comes is judged as it comes.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pba_client::{Client, ClientOptions, Query as _};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::chaos::dice::Dice;
use crate::chaos::fault::HANG;
use crate::chaos::harm::{Column, Harm, Survived, harness};
use crate::chaos::oracle::{Judge, Order};
use crate::epoch::samples;

/// Which client reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    Rust,
    Python,
}

/// How an epoch is read.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    pub(crate) language: Language,
    pub(crate) urls: Vec<String>,
    pub(crate) shared_memory: bool,
    /// How long a server may send nothing.
    pub(crate) stall: Duration,
}

impl Reading {
    pub(crate) fn of(language: Language, urls: impl IntoIterator<Item = String>) -> Reading {
        let urls = urls.into_iter().collect();
        Reading { language, urls, shared_memory: true, stall: Duration::from_secs(20) }
    }

    pub(crate) fn any(dice: &mut Dice, urls: impl IntoIterator<Item = String>) -> Reading {
        // Python's is the one that most people train with.
        Reading::of(dice.pick(&[Language::Rust, Language::Python]), urls)
    }

    pub(crate) fn stalling(self, stall: Duration) -> Reading {
        Reading { stall, ..self }
    }

    pub(crate) fn sharing(self, shared_memory: bool) -> Reading {
        Reading { shared_memory, ..self }
    }

    /// Reads an epoch, and judges each batch of it. An error of the client's is no harm by itself: what
    /// came before it was right.
    pub(crate) fn read(&self, order: &Order) -> Result<Survived, Harm> {
        self.read_with(order, &mut |_| ())
    }

    /// The same; `each` is called after each batch with the number of them.
    pub(crate) fn read_with(&self, order: &Order, each: &mut dyn FnMut(usize)) -> Result<Survived, Harm> {
        match self.language {
            Language::Rust => self.in_rust(order, each),
            Language::Python => self.in_python(order, each),
        }
    }

    /// The same, of an epoch that has to come whole.
    pub(crate) fn read_whole(&self, order: &Order) -> Result<Survived, Harm> {
        self.read_whole_with(order, &mut |_| ())
    }

    /// The same; `each` is called after each batch with the number of them.
    pub(crate) fn read_whole_with(
        &self,
        order: &Order,
        each: &mut dyn FnMut(usize),
    ) -> Result<Survived, Harm> {
        match self.read_with(order, each)? {
            Survived::Refused(error) => Err(Harm::new(Column::Lost, format!("the client gave up: {error}"))),
            read => Ok(read),
        }
    }

    /// The same, of an epoch that has to come whole, from a server that may be away at first: whoever trains
    /// starts its client again then.
    pub(crate) fn read_patiently(&self, order: &Order) -> Result<Survived, Harm> {
        let begun = Instant::now();
        loop {
            let mut batches = 0;
            match self.read_whole_with(order, &mut |received| batches = received) {
                Err(Harm { column: Column::Lost, .. }) if batches == 0 && begun.elapsed() < HANG => {
                    std::thread::sleep(Duration::from_millis(100));
                }
                read => return read,
            }
        }
    }

    /// Has a Python client read an epoch, and kills it after some batches, which are judged; says how many samples
    /// they held.
    pub(crate) fn until_killed(&self, order: &Order, batches: u64) -> Result<u64, Harm> {
        let mut python = Python::take()?;
        python.ask(self, order)?;
        let mut judge = Judge::new(order);
        for _ in 0..batches {
            let line = python.hear(judge.received)?;
            if line["done"] == true {
                break;
            }
            if let Some(error) = line["error"].as_str() {
                return Err(Harm::new(Column::Lost, format!("the client gave up: {error}")));
            }
            take(&mut judge, &line)?;
        }
        drop(python);
        Ok(order.expected[..judge.received].iter().map(|rows| rows.indices.len() as u64).sum())
    }

    fn in_rust(&self, order: &Order, each: &mut dyn FnMut(usize)) -> Result<Survived, Harm> {
        let options = ClientOptions { stall: self.stall, ..ClientOptions::default() };
        let client = Client::with_options(&self.urls, &options).map_err(|error| harness!("{error}"))?;
        let client = if self.shared_memory { client } else { client.without_shared_memory() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime can be made").block_on(async {
            let hung = |at: usize| Harm::new(Column::Hung, format!("the client waits after {at} batches"));
            let mut judge = Judge::new(order);
            let opened = client.epoch(&order.dataset, order.epoch, order.request.clone());
            let mut stream = match timeout(HANG, opened).await.map_err(|_| hung(0))? {
                Ok(stream) => stream,
                Err(error) => return Ok(Survived::Refused(error.to_string())),
            };
            loop {
                let batch = match timeout(HANG, stream.next()).await.map_err(|_| hung(judge.received))? {
                    Ok(Some(batch)) => batch,
                    Ok(None) => return judge.end().map(|()| Survived::Unnoticed),
                    Err(error) => return Ok(Survived::Refused(error.to_string())),
                };
                let indices: Vec<u64> = samples(&batch).map(|sample| sample.index).collect();
                judge.take(&indices, |due| {
                    let labels = samples(&batch).map(|sample| sample.label);
                    let pixels = samples(&batch).flat_map(|sample| sample.pixels);
                    labels.eq(due.labels.iter().copied()) && pixels.eq(&due.pixels)
                })?;
                each(judge.received);
            }
        })
    }

    fn in_python(&self, order: &Order, each: &mut dyn FnMut(usize)) -> Result<Survived, Harm> {
        let mut python = Python::take()?;
        python.ask(self, order)?;
        let mut judge = Judge::new(order);
        loop {
            let line = python.hear(judge.received)?;
            if let Some(error) = line["error"].as_str() {
                python.give_back();
                return Ok(Survived::Refused(error.to_owned()));
            }
            if line["done"] == true {
                python.give_back();
                return judge.end().map(|()| Survived::Unnoticed);
            }
            take(&mut judge, &line)?;
            each(judge.received);
        }
    }
}

/// Judges a line about a batch.
pub(crate) fn take(judge: &mut Judge, line: &Value) -> Result<(), Harm> {
    let indices: Vec<u64> =
        line["indices"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
    judge.take(&indices, |due| line["digest"] == due.digest())
}

/// The parameters of an epoch as keywords of the Python client.
pub(crate) fn parameters(order: &Order) -> Value {
    let request = &order.request;
    let mut parameters = json!({
        "split": request.split.to_string(), "batch_size": request.batch_size, "seed": request.seed,
        "shard": [request.shard.0, request.shard.1],
    });
    if let Some(schedule) = &request.schedule {
        parameters["schedule"] = json!(schedule);
    }
    if let Some(shuffle) = request.shuffle {
        parameters["shuffle"] = json!(shuffle);
    }
    if let Some(epochs) = request.epochs {
        parameters["epochs"] = json!(epochs);
    }
    if let Some(base) = &request.base {
        parameters["base"] = json!(base);
    }
    debug_assert_eq!((request.start, request.step, request.drop_last), (0, 1, false));
    debug_assert!(!request.to_query().contains("policy"), "it has no such keyword here");
    parameters
}

/// Says of each batch which samples it holds, and the digest of all that it holds.
pub(crate) const TELL: &str = r#"
import hashlib, json, sys
import pba_client

def tell(batch, number):
    digest = hashlib.sha256()
    for array in (batch.index, batch.label, batch.image):
        digest.update(array.tobytes())
    return {"batch": number, "indices": batch.index.tolist(), "digest": digest.hexdigest()}
"#;

/// Reads the epochs that its standard input asks for, one a line. Between them it holds no batch.
const WORK: &str = r#"
def say(what):
    print(json.dumps(what), flush=True)

def read(asked):
    client = pba_client.Client(asked["urls"], stall_seconds=asked["stall_seconds"],
                               shared_memory=asked["shared_memory"], retry_seconds=10)
    parameters = {k: tuple(v) if k == "shard" else v for k, v in asked["parameters"].items()}
    with client.epoch(asked["dataset"], asked["epoch"], **parameters) as epoch:
        for number, batch in enumerate(epoch):
            say(tell(batch, number))

for line in sys.stdin:
    try:
        read(json.loads(line))
        say({"done": True})
    except pba_client.PbaError as error:
        say({"error": f"{type(error).__name__}: {error}"})
"#;

/// A Python that reads epochs. It is ended when it is dropped, and kept when it is given back.
struct Python {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
    stderr: Arc<Mutex<String>>,
}

static IDLE: Mutex<Vec<Python>> = Mutex::new(Vec::new());

/// A program for the interpreter of the project's environment, with the client of this repository.
pub(crate) fn python(program: &str) -> Result<Command, Harm> {
    let python = crate::repository(".venv/bin/python");
    if !python.exists() {
        return Err(harness!("{} is missing: `make test` and `make chaos` make it", python.display()));
    }
    let mut command = Command::new(python);
    command.args(["-c", program]).env("PYTHONPATH", crate::repository("client/python/src"));
    command.env_remove("PBA_TOKEN").env_remove("PBA_CA");
    Ok(command)
}

impl Python {
    fn take() -> Result<Python, Harm> {
        if let Some(python) = IDLE.lock().unwrap().pop() {
            return Ok(python);
        }
        let mut command = python(&format!("{TELL}{WORK}"))?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| harness!("python: {error}"))?;
        let (send, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| send.send(line).ok())
        });
        let stderr = Arc::new(Mutex::new(String::new()));
        let (text, pipe) = (Arc::clone(&stderr), child.stderr.take().expect("it is piped"));
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                let mut text = text.lock().unwrap();
                text.push_str(&line);
                text.push('\n');
            }
        });
        let stdin = child.stdin.take().expect("it is piped");
        Ok(Python { child, stdin, lines, stderr })
    }

    fn ask(&mut self, reading: &Reading, order: &Order) -> Result<(), Harm> {
        self.say(&json!({
            "urls": reading.urls, "dataset": order.dataset, "epoch": order.epoch,
            "parameters": parameters(order), "shared_memory": reading.shared_memory,
            "stall_seconds": reading.stall.as_secs_f64(),
        }))
    }

    fn say(&mut self, what: &Value) -> Result<(), Harm> {
        writeln!(self.stdin, "{what}").map_err(|_| self.died())
    }

    fn hear(&mut self, batches: usize) -> Result<Value, Harm> {
        match self.lines.recv_timeout(HANG) {
            Ok(line) => serde_json::from_str(&line).map_err(|error| harness!("{line}: {error}")),
            Err(RecvTimeoutError::Disconnected) => Err(self.died()),
            Err(RecvTimeoutError::Timeout) => {
                Err(Harm::new(Column::Hung, format!("the Python client waits after {batches} batches")))
            }
        }
    }

    fn died(&mut self) -> Harm {
        let status = self.child.wait();
        let log = self.stderr.lock().unwrap();
        Harm::new(
            Column::Dead,
            format!("the Python client ended ({status:?}): {}", crate::chaos::daemon::tail(&log)),
        )
    }

    fn give_back(self) {
        IDLE.lock().unwrap().push(self);
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ends those that are no longer needed.
pub(crate) fn dismiss() {
    IDLE.lock().unwrap().clear();
}
