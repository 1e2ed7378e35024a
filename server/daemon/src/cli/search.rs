//! `pba search`: learn schedules.

use anyhow::bail;
use clap::Subcommand;
use pba_search::{Event, Exploit, MemberResults, Search, SearchResults};
use pba_types::SplitName;
use pba_wire::jobs::JobState;
use reqwest::Method;
use serde::Serialize;
use serde_json::Value;

use crate::cli::compare;
use crate::cli::jobs::{self, Answer, Field, Reader, Shown, Training, percent};
use crate::cli::output;
use crate::cli::remote::Remote;
use crate::cli::screen::Screen;
use crate::cli::table::{Cell, Column};

/// Arguments of `pba search`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  pba search start --dataset shapes --model tiny --population 8 --epochs 24 --watch
  pba search list
  pba search watch shapes-tiny-1
  pba search schedule shapes-tiny-1 > learned.json
  pba search delete shapes-tiny-1")]
pub(crate) struct Args {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a search
    #[command(after_help = "\
Examples:
  pba search start --dataset shapes --model tiny --population 8 --epochs 24 --watch
  pba search start --preset rcifar10 --dataset cifar10 --name mine
  pba search start --spec spec.json --seed 7 --json
  id=$(pba search start --model tiny --quiet)")]
    Start {
        #[command(flatten)]
        start: jobs::StartFlags,
        #[command(flatten)]
        fields: Box<Fields>,
    },
    #[command(flatten)]
    Job(jobs::Command),
    /// End a search with the generation that it trains; its schedule is that of the best member so far
    #[command(after_help = "Example:\n  pba search finish shapes-tiny-1")]
    Finish {
        /// Id of the search
        id: String,
    },
    /// Print the schedule that a search learned
    #[command(after_help = "Example:\n  pba search schedule shapes-tiny-1 > learned.json")]
    Schedule {
        /// Id of the search
        id: String,
    },
}

/// The fields of a spec.
#[derive(Debug, clap::Args, Serialize)]
#[command(allow_negative_numbers = true, next_help_heading = "The population")]
struct Fields {
    /// Name of the search and of its schedule [default: derived from dataset and model]
    #[arg(long)]
    name: Option<String>,
    /// Members of the population [default: 16]
    #[arg(long)]
    population: Option<Field>,
    /// Images to score members with
    #[arg(long)]
    val_size: Option<Field>,
    /// Split to score members with: val, or what training leaves of train [default: val if there is one]
    #[arg(long)]
    val_split: Option<String>,
    /// Epochs from one exploit to the next [default: 3]
    #[arg(long)]
    perturbation_interval: Option<Field>,
    /// Share of the population that each exploit replaces [default: 0.25]
    #[arg(long)]
    quantile: Option<Field>,
    /// Probability that exploring resamples a level [default: 0.2]
    #[arg(long)]
    resample_probability: Option<Field>,
    /// Ops of the policies, separated by commas [default: all 15]
    #[arg(long, value_delimiter = ',', value_parser = |op: &str| anyhow::Ok(op.trim().to_owned()))]
    ops: Option<Vec<String>>,
    /// Strategy: auto, sequential, stacked or graphs
    #[arg(long)]
    strategy: Option<String>,
    /// CUDA streams that members share with the strategy graphs [default: 4]
    #[arg(long)]
    streams: Option<Field>,
    /// Then compare the schedule with none, TrivialAugment, a tuned RandAugment and its own epochs
    /// shuffled; with fields of the comparison as JSON, such as {"seeds": 10}
    #[arg(long, value_name = "JSON", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    then_compare: Option<Field>,
    #[command(flatten)]
    #[serde(flatten)]
    training: Training,
}

/// Does what the subcommand says.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let remote = &args.remote;
    let watched = match args.command {
        Command::Start { start, fields } => jobs::start::<Members>(remote, &start, &fields, None).await?,
        Command::Job(command) => jobs::run::<Members>(remote, command).await?,
        Command::Finish { id } => {
            let answer = jobs::one::<Members>(remote, Method::POST, &id, "/finish").await?;
            let watch = remote.command(format_args!("search watch {id}"));
            let says = format_args!("search {id} ends with its generation; watch it with: {watch}");
            remote.print(remote.document(&answer)?, says);
            None
        }
        Command::Schedule { id } => {
            let answer = jobs::one::<Members>(remote, Method::GET, &id, "").await?;
            let job: Answer<Members> = remote.read(&answer)?;
            if job.results.schedule.is_none() {
                bail!("search {id} is {}; its schedule is available when it is done", job.state);
            }
            job.notes.iter().for_each(|note| tracing::warn!("{note}"));
            output::bytes(&jobs::one::<Members>(remote, Method::GET, &id, "/schedule").await?);
            None
        }
    };
    // Did it help? The answer comes in the same place.
    let Some(search) = watched else { return Ok(()) };
    match search.spec.comparison()? {
        Some(comparison) => follow(remote, &search.id, &comparison.name).await,
        None => Ok(()),
    }
}

/// Watches the comparison that follows a search.
async fn follow(remote: &Remote, search: &str, comparison: &str) -> anyhow::Result<()> {
    let watched = jobs::watch_next::<compare::Watched>(remote, search, comparison).await;
    let Err(error) = watched else { return Ok(()) };
    let job: Answer<Members> = remote.read(&jobs::one::<Members>(remote, Method::GET, search, "").await?)?;
    // The search knows why its comparison did not begin.
    Err(job.error.map_or(error, |reason| anyhow::anyhow!("search {search}: {reason}")))
}

/// Whether no op of a schedule's document is ever applied.
fn is_empty(schedule: &Value) -> bool {
    let read = pba_schedules::formats::json::read(&schedule.to_string());
    read.is_ok_and(|schedule| schedule.segments().iter().all(|segment| segment.policy.to_string().is_empty()))
}

/// The columns of the members of a population.
const MEMBER_COLUMNS: [&str; 4] = ["MEMBER", "SCORE", "AGE", "PARENT"];

/// What a watcher knows of a search: its population, according to the events.
#[derive(Default)]
struct Members {
    epoch: u32,
    members: Vec<Member>,
    /// Whether the schedule that was learned augments nothing.
    learned_nothing: bool,
}

#[derive(Clone, Default)]
struct Member {
    score: Option<f64>,
    age: u32,
    parent: Option<u32>,
}

impl Members {
    fn scored(&mut self, epoch: u32, scores: &[Option<f64>]) {
        self.members.resize(scores.len(), Member::default());
        for (member, score) in self.members.iter_mut().zip(scores) {
            member.score = *score;
            member.age += epoch.saturating_sub(self.epoch);
        }
        self.epoch = epoch;
    }

    fn exploited(&mut self, exploit: &Exploit) {
        if let Some(member) = self.members.get_mut(exploit.target as usize) {
            // It keeps its score until it is scored again: the value of its new policy is not known yet.
            (member.age, member.parent) = (0, Some(exploit.clone));
        }
    }

    /// Best first: in a terminal all of them, elsewhere the best in one line.
    fn show(&self, screen: &Screen) {
        let mut ranked: Vec<(usize, &Member)> = self.members.iter().enumerate().collect();
        let score = |member: &Member| member.score.unwrap_or(-1.0);
        ranked.sort_by(|(_, one), (_, other)| score(other).total_cmp(&score(one)));
        let parent = |member: &Member| member.parent.map_or("-".to_owned(), |parent| parent.to_string());
        if screen.is_seen() {
            let row = |(id, member): &(usize, &Member)| {
                let cells = [id.to_string(), percent(member.score), member.age.to_string(), parent(member)];
                cells.map(Cell::from).to_vec()
            };
            return screen.show(&MEMBER_COLUMNS, ranked.iter().map(row).collect());
        }
        let best = ranked.first().map_or(String::new(), |(id, member)| {
            format!(
                "  {id:>3}  {:>6}  age {:>3}  parent {}",
                percent(member.score),
                member.age,
                parent(member)
            )
        });
        screen.line(format_args!("epoch {}: best member{best}", self.epoch));
    }
}

impl Shown for Members {
    type Run = Search;
    const COLUMNS: &'static [Column] = &[Column::ranked("BEST", 10), Column::ranked("MEMBERS", 1)];

    fn cells(results: &SearchResults, reader: Reader) -> Vec<String> {
        vec![reader.ratio(results.best_accuracy), results.population.to_string()]
    }

    fn details(_remote: &Remote, job: &Answer<Members>) {
        let (results, spec) = (&job.results, &job.spec);
        if let Some(place) = job.place.as_ref().filter(|_| job.state == JobState::Running) {
            jobs::tell_of(place);
        }
        if let (Some(train), Some(val)) = (spec.train_size, spec.val_size) {
            let split = spec.val_split.unwrap_or(SplitName::Train);
            output::line(format_args!(
                "members train on {train} images, and are scored with {val} of the {split} split"
            ));
        }
        let row = |member: &MemberResults| {
            let parent = member.parent.map_or("-".to_owned(), |parent| parent.to_string());
            vec![member.id.to_string(), percent(member.score), member.age.to_string(), parent]
        };
        if !results.members.is_empty() {
            output::line("");
            let members: Vec<Vec<String>> = results.members.iter().map(row).collect();
            output::table(&MEMBER_COLUMNS, &members);
        }
    }

    fn happened(&mut self, event: Event, screen: Option<&Screen>) {
        match event {
            Event::Started { .. } => {}
            Event::Scored { epoch, scores } => self.scored(epoch, &scores),
            Event::Finished { epoch } => {
                if let Some(screen) = screen {
                    screen.line(format_args!("asked to end after epoch {epoch}"));
                }
            }
            Event::Exploit(exploit) => self.exploited(&exploit),
            // After the exploits, so that what is shown is what the server shows.
            Event::Checkpoint { .. } => {
                if let Some(screen) = screen {
                    self.show(screen);
                }
            }
            Event::Done(done) => self.learned_nothing = is_empty(&done.schedule),
        }
    }

    fn ended(&self, remote: &Remote, job: &Answer<Members>) {
        let (name, best) = (&job.id, percent(job.results.best_accuracy));
        output::line(format_args!("done in {:.1} s, best validation accuracy {best}", job.seconds));
        // The name may be another's by now.
        let command = match job.notes.is_empty() {
            true => remote.command(format_args!("stream --dataset {} --schedule {name}", job.dataset)),
            false => remote.command(format_args!("search schedule {name}")),
        };
        let how = if job.notes.is_empty() { "stream with it" } else { "print it" };
        output::line(format_args!("schedule {name}; {how}: {command}"));
        if let Some(comparison) = job.spec.comparison().ok().flatten() {
            output::line(format_args!("whether it helps: comparison {}", comparison.name));
        }
        if self.learned_nothing {
            output::note(
                "the best member never changed its policy, so this schedule augments nothing. Augmentation helps more \
                 with more epochs or fewer training images",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use pba_search::toy::ToyTrainer;
    use pba_search::{Run, SearchSpec, Spec};

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
            copies += u32::from(matches!(event, Event::Exploit(_)));
            members.happened(event.clone(), None);
            let shown = members.members.iter().map(|member| (member.score, member.age, member.parent));
            let expected = search.population.members.iter();
            assert!(shown.eq(expected.map(|member| (member.score, member.age, member.parent))), "{event:?}");
        }
        assert!(copies > 0);
    }
}
