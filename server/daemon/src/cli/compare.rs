//! `pba compare`: which way to augment is better.

use std::collections::BTreeMap;

use pba_search::{Comparison, ComparisonEvent, ComparisonResults, ComparisonSpec, worded};
use serde::Serialize;

use crate::cli::jobs::{Answer, Field, Reader, Shown, StartOrElse, Training, percent};
use crate::cli::output;
use crate::cli::remote::Remote;
use crate::cli::screen::Screen;
use crate::cli::table::{Cell, Column};

/// Examples for its help.
pub(crate) const EXAMPLES: &str = "\
Examples:
  pba compare --dataset shapes --model tiny --epochs 24 --seeds 3 --watch
  pba compare --arms none,trivial-augment-wide,cifar10-pba --dataset cifar10
  pba compare list
  pba compare show shapes-tiny-1";

/// Arguments of `pba compare`.
pub(crate) type Args = StartOrElse<Fields>;

/// The fields of a spec.
#[derive(Debug, clap::Args, Serialize)]
#[command(allow_negative_numbers = true, next_help_heading = "The comparison")]
pub(crate) struct Fields {
    /// Name of the comparison [default: derived from dataset and model]
    #[arg(long)]
    name: Option<String>,
    /// Arms, separated by commas; the first is the baseline: none, identity, cutout:N, random:K,
    /// randaugment:tuned, NAME or NAME@ABLATION of a schedule [default: none,trivial-augment-wide]
    #[arg(long, value_delimiter = ',', value_parser = |arm: &str| anyhow::Ok(arm.trim().to_owned()))]
    arms: Option<Vec<String>>,
    /// Arms that are samples of one thing, as in learned=a,b,c; may be repeated
    #[arg(long = "group", value_name = "NAME=ARM,ARM...", value_parser = group)]
    #[serde(serialize_with = "as_object", rename = "groups")]
    group: Option<Vec<Group>>,
    /// Seeds that each arm is trained with [default: 5]
    #[arg(long)]
    seeds: Option<Field>,
    /// What models are scored on: val, as often as one likes, or test, once [default: test]
    #[arg(long)]
    score: Option<String>,
    /// Open the test split although an earlier comparison opened it
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    again: bool,
    /// Percentage points that would not matter [default: 0.5]
    #[arg(long)]
    margin: Option<Field>,
    /// Validation images, to score or to tune with
    #[arg(long)]
    val_size: Option<Field>,
    /// Seeds that each setting of randaugment:tuned is tried with [default: 2]
    #[arg(long)]
    tuning_seeds: Option<Field>,
    /// Runs that are trained side by side [default: 16]
    #[arg(long)]
    at_once: Option<Field>,
    /// Strategy: auto, sequential, stacked or graphs
    #[arg(long)]
    strategy: Option<String>,
    #[command(flatten)]
    #[serde(flatten)]
    training: Training,
}

/// A group: its name and its arms.
type Group = (String, Vec<String>);

fn group(text: &str) -> anyhow::Result<Group> {
    let (name, arms) = text.split_once('=').ok_or_else(|| {
        anyhow::anyhow!("{text:?} is not a group; expected NAME=ARM,ARM..., as in learned=a,b")
    })?;
    Ok((name.trim().to_owned(), arms.split(',').map(|arm| arm.trim().to_owned()).collect()))
}

fn as_object<S: serde::Serializer>(groups: &Option<Vec<Group>>, serializer: S) -> Result<S::Ok, S::Error> {
    let by_name = groups.as_ref().map(|groups| groups.iter().cloned().collect::<BTreeMap<_, _>>());
    if by_name.as_ref().map(BTreeMap::len) != groups.as_ref().map(Vec::len) {
        return Err(serde::ser::Error::custom("--group: two groups have one name; each needs its own"));
    }
    by_name.serialize(serializer)
}

/// Starts a comparison, or does what the subcommand says.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let help = "there is nothing to compare; name at least a dataset, as in \
                        `pba compare --dataset shapes --model tiny --epochs 24 --seeds 3`, or see \
                        `pba compare --help`";
    args.run::<Watched>(help).await
}

/// What a watcher knows of a comparison, according to the events.
#[derive(Default)]
pub(crate) struct Watched {
    comparison: Option<Comparison>,
}

impl Shown for Watched {
    type Run = Comparison;
    const COLUMNS: &'static [Column] =
        &[Column::ranked("TRAIN WITH", 10), Column::ranked("RUNS", 4), Column::ranked("ARMS", 1)];

    fn cells(results: &ComparisonResults, _reader: Reader) -> Vec<String> {
        let recommended = results.recommended.clone().unwrap_or("-".to_owned());
        vec![recommended, format!("{}/{}", results.runs_done, results.runs), results.arms.len().to_string()]
    }

    fn details(remote: &Remote, job: &Answer<Watched>) {
        tables(&job.spec, &job.results);
        show_command(remote, job);
    }

    fn happened(&mut self, event: ComparisonEvent, screen: Option<&Screen>) {
        use pba_search::Run;
        match (&mut self.comparison, Comparison::begin(&event)) {
            (_, Some((begun, _))) => self.comparison = Some(begun),
            // Events that do not follow one another are those of a later server.
            (Some(comparison), None) => drop(comparison.apply(&event)),
            (None, None) => {}
        }
        let (Some(screen), Some(comparison)) = (screen, &self.comparison) else { return };
        match event {
            ComparisonEvent::Scored { .. } => show(screen, &comparison.report()),
            ComparisonEvent::Tuned(tuning) => {
                screen.line(format_args!("randaugment:tuned is {}", tuning.chosen));
            }
            _ => {}
        }
    }

    fn ended(&self, remote: &Remote, job: &Answer<Watched>) {
        output::line(format_args!("done in {:.1} s", job.seconds));
        tables(&job.spec, &job.results);
        show_command(remote, job);
    }
}

/// Shows the arms: in a terminal in a table, elsewhere in one line.
fn show(screen: &Screen, results: &ComparisonResults) {
    if screen.is_seen() {
        let row = |arm: &pba_search::Entry| {
            let cells = [arm.name.clone(), percent(arm.mean), percent(arm.deviation), arm.n.to_string()];
            cells.map(Cell::from).to_vec()
        };
        return screen.show(&ARM_COLUMNS, results.arms.iter().map(|arm| row(&arm.entry)).collect());
    }
    let means = results.arms.iter().map(|arm| format!("{} {}", arm.entry.name, percent(arm.entry.mean)));
    let means = means.collect::<Vec<_>>().join(", ");
    screen.line(format_args!("{} of {} runs; mean error: {means}", results.runs_done, results.runs));
}

/// The columns of arms and groups.
const ARM_COLUMNS: [&str; 4] = ["ARM", "MEAN ERROR", "DEVIATION", "N"];

/// Prints the command that streams the recommended arm; there is none if its name is that of another schedule by now.
fn show_command(remote: &Remote, job: &Answer<Watched>) {
    if let Some(command) = &job.results.stream_command {
        let command = command.strip_prefix("pba ").unwrap_or(command);
        output::line(format_args!("train with it: {}", remote.command(command)));
    }
}

/// Prints the report.
fn tables(spec: &ComparisonSpec, results: &ComparisonResults) {
    let points = |share: f64| format!("{:+.2}", 100.0 * share);
    let entry = |entry: &pba_search::Entry| {
        vec![entry.name.clone(), percent(entry.mean), percent(entry.deviation), entry.n.to_string()]
    };
    let rows: Vec<Vec<String>> =
        results.arms.iter().map(|arm| &arm.entry).chain(&results.groups).map(entry).collect();
    output::line("");
    output::table(&ARM_COLUMNS, &rows);
    let rows = results.contrasts.iter().map(|contrast| {
        let interval = contrast.interval.map(|[low, high]| format!("{} to {}", points(low), points(high)));
        vec![
            contrast.arm.clone(),
            contrast.against.clone(),
            contrast.difference.map_or("-".to_owned(), points),
            interval.unwrap_or("-".to_owned()),
            format!("{} {}s", contrast.n, contrast.unit),
            contrast.verdict.map_or("-".to_owned(), |verdict| worded(verdict, spec.margin)),
        ]
    });
    output::line("");
    output::table(
        &["ARM", "AGAINST", "POINTS", "95 % INTERVAL", "OVER", "VERDICT"],
        &rows.collect::<Vec<Vec<String>>>(),
    );
    if let Some(tuning) = &results.tuning {
        let runs = tuning.candidates.len() * tuning.seeds as usize;
        output::line(format_args!("\nrandaugment:tuned is {}, chosen by {runs} runs", tuning.chosen));
    }
    if let Some(verdict) = &results.verdict {
        output::line(format_args!("\n{verdict}"));
    }
}
