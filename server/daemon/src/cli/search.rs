//! `pba search`: learn schedules.

use std::io::IsTerminal;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Method;
use serde_json::{Map, Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::bar::rate;
use crate::cli::remote::Remote;
use crate::cli::{INTERRUPTED, output};

/// Arguments of `pba search`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a search
    Start(Box<Start>),
    /// List the searches
    List,
    /// Watch a search until it ends
    Watch {
        /// Its id
        id: String,
    },
    /// Show where a search stands
    Show {
        /// Its id
        id: String,
    },
    /// End a search
    Cancel {
        /// Its id
        id: String,
    },
    /// Go on with a failed or cancelled search
    Resume {
        /// Its id
        id: String,
    },
    /// Print the schedule that a search learned
    Schedule {
        /// Its id
        id: String,
    },
}

/// The fields of a spec, as flags; the server says what is wrong with them.
#[derive(Debug, clap::Args)]
#[command(allow_negative_numbers = true)]
struct Start {
    /// A JSON file with the fields of the spec; flags win over it
    #[arg(long, value_name = "FILE")]
    spec: Option<PathBuf>,
    /// Watch it until it ends
    #[arg(long)]
    watch: bool,
    /// Name of the search and of the schedule [default: made of dataset and model]
    #[arg(long)]
    name: Option<String>,
    /// Dataset [default: shapes]
    #[arg(long)]
    dataset: Option<String>,
    /// tiny, resnet-20, wrn-D-K [default: wrn-40-2]
    #[arg(long)]
    model: Option<String>,
    /// Members [default: 16]
    #[arg(long)]
    population: Option<String>,
    /// Epochs that each member trains [default: 200]
    #[arg(long)]
    epochs: Option<String>,
    /// Images to train on
    #[arg(long)]
    train_size: Option<String>,
    /// Images to score with
    #[arg(long)]
    val_size: Option<String>,
    /// Epochs between two exploits [default: 3]
    #[arg(long)]
    perturbation_interval: Option<String>,
    /// Share of the population that is replaced [default: 0.25]
    #[arg(long)]
    quantile: Option<String>,
    /// Chance that exploring draws a level afresh [default: 0.2]
    #[arg(long)]
    resample_probability: Option<String>,
    /// Images per step [default: 128, for tiny 32]
    #[arg(long)]
    batch_size: Option<String>,
    /// Learning rate [default: 0.1]
    #[arg(long)]
    lr: Option<String>,
    /// Weight decay [default: 0.0005]
    #[arg(long)]
    weight_decay: Option<String>,
    /// cosine, or JSON as {"steps": [80, 120], "factor": 0.1}
    #[arg(long)]
    lr_schedule: Option<String>,
    /// Ops, separated by commas [default: all 15]
    #[arg(long)]
    ops: Option<String>,
    /// Base augmentation [default: the dataset's own]
    #[arg(long)]
    base: Option<String>,
    /// Seed of everything random [default: 0]
    #[arg(long)]
    seed: Option<String>,
    /// auto, cpu, cuda or cuda:N
    #[arg(long)]
    device: Option<String>,
    /// auto, sequential, stacked or graphs
    #[arg(long)]
    strategy: Option<String>,
}

impl Start {
    /// The spec as JSON: what is a number or JSON stays so, and everything else is text.
    fn fields(&self) -> anyhow::Result<Map<String, Value>> {
        let mut fields = match &self.spec {
            None => Map::new(),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                serde_json::from_str(&text)
                    .with_context(|| format!("{} is not a JSON object", path.display()))?
            }
        };
        let texts = [
            ("name", &self.name),
            ("dataset", &self.dataset),
            ("model", &self.model),
            ("base", &self.base),
            ("device", &self.device),
            ("strategy", &self.strategy),
        ];
        let values = [
            ("population", &self.population),
            ("epochs", &self.epochs),
            ("train_size", &self.train_size),
            ("val_size", &self.val_size),
            ("perturbation_interval", &self.perturbation_interval),
            ("quantile", &self.quantile),
            ("resample_probability", &self.resample_probability),
            ("batch_size", &self.batch_size),
            ("lr", &self.lr),
            ("weight_decay", &self.weight_decay),
            ("lr_schedule", &self.lr_schedule),
            ("seed", &self.seed),
        ];
        for (field, text) in texts {
            if let Some(text) = text {
                fields.insert(field.to_owned(), text.as_str().into());
            }
        }
        for (field, text) in values {
            if let Some(text) = text {
                let value = serde_json::from_str(text).unwrap_or_else(|_| text.as_str().into());
                fields.insert(field.to_owned(), value);
            }
        }
        if let Some(ops) = &self.ops {
            fields.insert("ops".to_owned(), ops.split(',').map(str::trim).collect::<Value>());
        }
        Ok(fields)
    }
}

/// Does what the subcommand says.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let client = args.remote.client()?;
    let json = args.remote.json;
    match args.command {
        Command::Start(start) => {
            let body = serde_json::to_vec(&start.fields()?)?;
            let answer = client.request(Method::POST, "/v1/searches", Some(body)).await?;
            let search = args.remote.document(&answer)?;
            let id = search["id"].as_str().context("the server gave no id")?.to_owned();
            if start.watch {
                // Before the id is told: whoever knows it may press Ctrl-C.
                let interrupt = signal(SignalKind::interrupt()).context("cannot watch for Ctrl-C")?;
                if !json {
                    output::line(format_args!("search {id}"));
                }
                return watch(&args.remote, &id, interrupt).await;
            }
            if json {
                output::json(&search);
            } else {
                output::line(format_args!(
                    "search {id} is {}; watch it with: {}",
                    text(&search["state"]),
                    args.remote.command(format_args!("search watch {id}"))
                ));
            }
            Ok(())
        }
        Command::List => {
            let list = client.request(Method::GET, "/v1/searches", None).await?;
            let list = args.remote.document(&list)?;
            if json {
                output::json(&list);
                return Ok(());
            }
            let rows: Vec<Vec<String>> = list["searches"].as_array().into_iter().flatten().map(row).collect();
            output::table(&["ID", "STATE", "EPOCH", "BEST", "SECONDS", "DATASET", "MODEL", "MEMBERS"], &rows);
            Ok(())
        }
        Command::Watch { id } => {
            let interrupt = signal(SignalKind::interrupt()).context("cannot watch for Ctrl-C")?;
            watch(&args.remote, &id, interrupt).await
        }
        Command::Show { id } => {
            let search = one(&args.remote, Method::GET, &id, "").await?;
            if json {
                output::json(&search)
            } else {
                print(&search)
            }
            Ok(())
        }
        Command::Cancel { id } => {
            let search = one(&args.remote, Method::DELETE, &id, "").await?;
            if json {
                output::json(&search)
            } else {
                print(&search)
            }
            Ok(())
        }
        Command::Resume { id } => {
            let search = one(&args.remote, Method::POST, &id, "/resume").await?;
            if json {
                output::json(&search)
            } else {
                print(&search)
            }
            Ok(())
        }
        Command::Schedule { id } => {
            let search = one(&args.remote, Method::GET, &id, "").await?;
            let Some(name) = search["schedule"].as_str() else {
                bail!("search {id} is {}; its schedule is there when it is done", text(&search["state"]));
            };
            let path = format!("/v1/schedules/{name}");
            output::bytes(&client.request(Method::GET, &path, None).await?);
            Ok(())
        }
    }
}

async fn one(remote: &Remote, method: Method, id: &str, suffix: &str) -> anyhow::Result<Value> {
    let path = format!(
        "/v1/searches/{}{suffix}",
        form_urlencoded::byte_serialize(id.as_bytes()).collect::<String>()
    );
    remote.document(&remote.client()?.request(method, &path, None).await?)
}

/// Follows a search to its end; fails when the search does. An interrupt ends the watching only.
async fn watch(remote: &Remote, id: &str, mut interrupt: Signal) -> anyhow::Result<()> {
    let mut events = remote.client()?.events(id);
    let (bar, mut members) = (bar(), Members::default());
    let (mut last, mut spec, mut schedule) = (Value::Null, Value::Null, Value::Null);
    loop {
        let event = tokio::select! {
            event = events.next() => event?,
            _ = interrupt.recv() => {
                bar.finish_and_clear();
                eprintln!(
                    "search {id} goes on; watch it again with: {}\ncancel it with: {}",
                    remote.command(format_args!("search watch {id}")),
                    remote.command(format_args!("search cancel {id}")),
                );
                std::process::exit(INTERRUPTED);
            }
        };
        let Some(event) = event else { break };
        if remote.json {
            output::line(json!({ "event": event.kind, "data": event.data }));
        }
        let data = event.data;
        match event.kind.as_str() {
            "started" => spec = data["spec"].clone(),
            "progress" => {
                bar.set_position((10_000.0 * data["fraction"].as_f64().unwrap_or(0.0)) as u64);
                let left =
                    data["seconds_left"].as_f64().map_or("?".to_owned(), |left| format!("{left:.0} s"));
                bar.set_message(format!(
                    "epoch {}/{}  {}  {left} left",
                    data["epoch"],
                    data["epochs"],
                    rate(data["images_per_second"].as_f64().unwrap_or_default())
                ));
            }
            "scored" => members.scored(&data),
            "exploit" => members.exploited(&data),
            // After the exploits, so that what is shown is what the server shows.
            "checkpoint" if !remote.json => members.show(&bar),
            "done" => schedule = data["schedule"].clone(),
            "state" => last = data,
            pba_client::RECONNECTING => {
                tracing::warn!("lost the server ({}); trying again", text(&data));
            }
            _ => {}
        }
    }
    bar.finish_and_clear();
    match last["state"].as_str() {
        Some("done") if remote.json => Ok(()),
        Some("done") => {
            let best = percent(&last["best_accuracy"]);
            let (name, dataset) = (text(&last["schedule"]), text(&spec["dataset"]));
            output::line(format_args!(
                "done in {} s, best validation accuracy {best}\nschedule {name}; stream with it: {}",
                last["seconds"],
                remote.command(format_args!("stream --dataset {dataset} --schedule {name}"))
            ));
            if is_empty(&schedule) {
                output::line(
                    "note: the best member never changed its policy, so this schedule augments nothing. \
                     More epochs, or fewer images to train on, give augmentation something to win",
                );
            }
            Ok(())
        }
        Some("failed") => bail!("the search failed: {}", text(&last["error"])),
        state => bail!("the search was {}", state.unwrap_or("lost")),
    }
}

/// Whether no op of a schedule's document is ever applied.
fn is_empty(schedule: &Value) -> bool {
    let read = pba_schedules::formats::json::read(&schedule.to_string());
    read.is_ok_and(|schedule| schedule.segments().iter().all(|segment| segment.policy.to_string().is_empty()))
}

fn percent(score: &Value) -> String {
    score.as_f64().map_or("-".to_owned(), |score| format!("{:.1} %", 100.0 * score))
}

/// The population as the events tell it.
#[derive(Default)]
struct Members {
    epoch: u64,
    members: Vec<Member>,
}

#[derive(Clone, Default)]
struct Member {
    score: Value,
    age: u64,
    parent: Option<u64>,
}

impl Members {
    fn scored(&mut self, event: &Value) {
        let scores = event["scores"].as_array().cloned().unwrap_or_default();
        let epoch = event["epoch"].as_u64().unwrap_or(self.epoch);
        self.members.resize(scores.len(), Member::default());
        for (member, score) in self.members.iter_mut().zip(scores) {
            member.score = score;
            member.age += epoch.saturating_sub(self.epoch);
        }
        self.epoch = epoch;
    }

    fn exploited(&mut self, event: &Value) {
        let target = event["target"].as_u64().and_then(|target| self.members.get_mut(target as usize));
        if let Some(member) = target {
            // Its score stays its own until it is scored again: nobody knows yet what its new policy is worth.
            (member.age, member.parent) = (0, event["clone"].as_u64());
        }
    }

    /// Best first: on a terminal all of them above the bar, elsewhere the best in one line.
    fn show(&self, bar: &ProgressBar) {
        let mut ranked: Vec<(usize, &Member)> = self.members.iter().enumerate().collect();
        let score = |member: &Member| member.score.as_f64().unwrap_or(-1.0);
        ranked.sort_by(|(_, one), (_, other)| score(other).total_cmp(&score(one)));
        let cell = |(id, member): &(usize, &Member)| {
            let parent = member.parent.map_or("-".to_owned(), |parent| parent.to_string());
            format!("  {id:>3}  {:>6}  age {:>3}  parent {parent}", percent(&member.score), member.age)
        };
        let epoch = self.epoch;
        if std::io::stderr().is_terminal() {
            let table: Vec<String> = ranked.iter().map(cell).collect();
            bar.suspend(|| eprintln!("epoch {epoch}\n{}", table.join("\n")));
        } else {
            let best = ranked.first().map_or(String::new(), cell);
            output::line(format_args!("epoch {epoch}: best member{best}"));
        }
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::new(10_000);
    let style = ProgressStyle::with_template("{wide_bar:.cyan/blue} {percent:>3} %  {msg}");
    bar.set_style(style.expect("the template is well-formed"));
    bar
}

fn print(search: &Value) {
    output::table(
        &["ID", "STATE", "EPOCH", "BEST", "SECONDS", "DATASET", "MODEL", "MEMBERS"],
        &[row(search)],
    );
    if let Some(error) = search["error"].as_str() {
        output::line(format_args!("error: {error}"));
    }
    let members: Vec<Vec<String>> = search["members"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|member| {
            let score =
                member["score"].as_f64().map_or("-".to_owned(), |score| format!("{:.1} %", 100.0 * score));
            let parent = member["parent"].as_u64().map_or("-".to_owned(), |parent| parent.to_string());
            vec![member["id"].to_string(), score, member["age"].to_string(), parent]
        })
        .collect();
    if !members.is_empty() {
        output::line("");
        output::table(&["MEMBER", "SCORE", "AGE", "PARENT"], &members);
    }
}

fn row(search: &Value) -> Vec<String> {
    vec![
        text(&search["id"]),
        text(&search["state"]),
        format!("{}/{}", search["epoch"], search["epochs"]),
        search["best_accuracy"].as_f64().map_or("-".to_owned(), |best| format!("{:.1} %", 100.0 * best)),
        search["seconds"].to_string(),
        text(&search["dataset"]),
        text(&search["model"]),
        search["population"].to_string(),
    ]
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("-").to_owned()
}

#[cfg(test)]
mod tests {
    use pba_search::toy::ToyTrainer;
    use pba_search::{Search, SearchSpec};

    use super::*;

    /// What the terminal makes of the events is what the server does.
    #[test]
    fn members_are_what_the_search_says() {
        let spec = SearchSpec::from_json(r#"{"ops": ["Rotate"], "population": 8, "epochs": 20}"#).unwrap();
        let (mut search, mut members, mut copies) = (Search::new(spec.clone()), Members::default(), 0);
        let mut events = Vec::new();
        pba_search::run(&mut Search::new(spec.clone()), &mut ToyTrainer::new(&spec), |event| {
            events.push(event.clone());
            Ok(())
        })
        .unwrap();
        for event in &events {
            search.apply(event).unwrap();
            let data = serde_json::to_value(event).unwrap();
            match data["event"].as_str().unwrap() {
                "scored" => members.scored(&data),
                "exploit" => {
                    members.exploited(&data);
                    copies += 1;
                }
                _ => {}
            }
            let shown = members.members.iter().map(|member| {
                (member.score.as_f64(), member.age as u32, member.parent.map(|parent| parent as u32))
            });
            let expected = search.population().members().iter();
            assert!(shown.eq(expected.map(|member| (member.score, member.age, member.parent))), "{event:?}");
        }
        assert!(copies > 0);
    }
}
