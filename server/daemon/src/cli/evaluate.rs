//! `pba evaluate`: train models from scratch and test them.

use pba_search::{Evaluation, EvaluationEvent, EvaluationResults};
use serde::Serialize;

use crate::cli::jobs::{Answer, Reader, Shown, StartOrElse, Training, percent};
use crate::cli::output;
use crate::cli::remote::Remote;
use crate::cli::screen::Screen;
use crate::cli::table::{Cell, Column};

/// Examples for its help.
pub(crate) const EXAMPLES: &str = "\
Examples:
  pba evaluate --dataset shapes --model tiny --epochs 24 --watch
  pba evaluate --dataset cifar10 --schedule cifar10-pba --preset cifar10
  pba evaluate list
  pba evaluate delete shapes-tiny-1";

/// Arguments of `pba evaluate`.
pub(crate) type Args = StartOrElse<Fields>;

/// The fields of a spec.
#[derive(Debug, clap::Args, Serialize)]
#[command(allow_negative_numbers = true, next_help_heading = "The evaluation")]
pub(crate) struct Fields {
    /// Name of the evaluation [default: derived from dataset and model]
    #[arg(long)]
    name: Option<String>,
    /// Schedule to train with, by name or digest [default: none]
    #[arg(long)]
    schedule: Option<String>,
    /// Ablation of the schedule: scheduled, flatten, shuffled or final [default: scheduled]
    #[arg(long)]
    ablation: Option<String>,
    #[command(flatten)]
    #[serde(flatten)]
    training: Training,
}

/// Starts an evaluation, or does what the subcommand says.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let help = "there is nothing to evaluate; name at least a dataset, as in \
                        `pba evaluate --dataset shapes --model tiny --epochs 24`, or see `pba evaluate --help`";
    args.run::<Watched>(help).await
}

/// A watcher only has to remember where it runs.
#[derive(Default)]
struct Watched;

impl Shown for Watched {
    type Run = Evaluation;
    const COLUMNS: &'static [Column] =
        &[Column::ranked("TEST ERROR", 10), Column::ranked("SCHEDULE", 4), Column::ranked("ABLATION", 1)];

    fn cells(results: &EvaluationResults, reader: Reader) -> Vec<String> {
        vec![reader.ratio(results.test_error), results.schedule.clone(), results.ablation.to_string()]
    }

    fn happened(&mut self, event: EvaluationEvent, screen: Option<&Screen>) {
        if let (EvaluationEvent::Trained { epoch, train_loss }, Some(screen)) = (event, screen) {
            let loss = train_loss.map_or("-".to_owned(), |loss| format!("{loss:.4}"));
            match screen.is_seen() {
                true => screen
                    .show(&["EPOCH", "TRAIN LOSS"], vec![[epoch.to_string(), loss].map(Cell::from).into()]),
                false => screen.line(format_args!("epoch {epoch}: train loss {loss}")),
            }
        }
    }

    fn ended(&self, _remote: &Remote, job: &Answer<Watched>) {
        let EvaluationResults { test_error, images, split, .. } = &job.results;
        let tested = match (images, split) {
            (Some(images), Some(split)) => format!(" on the {images} images of {split}"),
            _ => String::new(),
        };
        let error = percent(*test_error);
        output::line(format_args!("done in {:.1} s, test error {error}{tested}", job.seconds));
    }
}
