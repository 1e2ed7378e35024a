//! `pba dataset`: the datasets of a server.

use std::path::PathBuf;

use clap::Subcommand;
use pba_wire::datasets::{Dataset, DatasetList, DatasetState, ImportProgress, ReadySplit, Split};
use pba_wire::{EpochRequest, Preview, Query};
use reqwest::Method;

use crate::cli::query::Flags;
use crate::cli::remote::Remote;
use crate::cli::table::{Cell, Column};
use crate::cli::{file, output, style};

/// Arguments of `pba dataset`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  pba dataset list
  pba dataset show shapes
  pba dataset preview shapes --epoch 199 --schedule cifar10-pba --out sheet.png")]
pub(crate) struct Args {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the datasets, by name
    #[command(after_help = "\
Examples:
  pba dataset list
  pba dataset list | cut -f1                           # their names")]
    List,
    /// Show a dataset, as JSON
    #[command(after_help = "Example:\n  pba dataset show shapes")]
    Show {
        /// Name of the dataset
        name: String,
    },
    /// Save a contact sheet of the images that a stream would send
    #[command(after_help = "\
Examples:
  pba dataset preview shapes --epoch 199 --schedule cifar10-pba
  pba dataset preview shapes --schedule randaugment:2:9 -n 16 --out sheet.png")]
    Preview {
        /// Name of the dataset
        name: String,
        /// Epoch, from 0
        #[arg(long, default_value_t = 0)]
        epoch: u32,
        /// File to write
        #[arg(long, value_name = "FILE.png", default_value = "contact-sheet.png")]
        out: PathBuf,
        #[command(flatten)]
        parameters: Flags<(Preview, EpochRequest)>,
    },
}

/// Does what the subcommand says.
pub(crate) async fn run(Args { remote, command }: Args) -> anyhow::Result<()> {
    let client = remote.client()?;
    let check = |name: &str| {
        pba_types::check_name(name).map_err(|_| anyhow::anyhow!("{name:?} is not a dataset name"))
    };
    match command {
        Command::List => {
            let answer = client.request(Method::GET, "/v1/datasets", None).await?;
            let list: DatasetList = remote.read(&answer)?;
            let rows: Vec<Vec<Cell>> = list.datasets.iter().map(row).collect();
            match remote.json {
                true => output::json(&remote.document(&answer)?),
                false => output::list(&COLUMNS, &rows),
            }
        }
        Command::Show { name } => {
            check(&name)?;
            let path = format!("/v1/datasets/{name}");
            let dataset = remote.document(&client.request(Method::GET, &path, None).await?)?;
            // A dataset's description is a small tree; as JSON it reads best either way.
            output::json(&dataset);
        }
        Command::Preview { name, epoch, out, parameters } => {
            check(&name)?;
            let query = parameters.query()?.to_query();
            let path = format!("/v1/datasets/{name}/epochs/{epoch}/preview.png?{query}");
            let png = client.request(Method::GET, &path, None).await?;
            file::write(&out, &png)?;
            let out = out.display().to_string();
            remote.print(serde_json::json!({ "out": out }), format_args!("contact sheet: {out}"));
        }
    }
    Ok(())
}

const COLUMNS: [Column; 7] = [
    Column::kept("NAME"),
    Column::kept("STATE"),
    Column::ranked("SPLITS", 4),
    Column::ranked("IMAGES", 3),
    Column::ranked("CLASSES", 2),
    Column::ranked("SOURCE", 1),
    Column::ranked("ERROR", 5),
];

fn row(dataset: &Dataset) -> Vec<Cell> {
    let mut images: Vec<(String, String)> = Vec::new();
    let (mut names, mut errors) = (Vec::new(), Vec::from_iter(dataset.error.clone()));
    for (name, split) in &dataset.splits {
        names.push(name.name());
        images.push(match split {
            Split::Ready(ReadySplit { samples, shape: Some([height, width, channels]), .. }) => {
                (samples.to_string(), format!(" of {height}x{width}x{channels}"))
            }
            Split::Ready(split) => (split.samples.to_string(), " of different sizes".to_owned()),
            Split::Failed { error } => {
                // One that is the dataset's is there already.
                if dataset.error.is_none() {
                    errors.push(format!("split {name}: {error}"));
                }
                ("not readable".to_owned(), String::new())
            }
        });
    }
    // What is the same of all is said once.
    let are_alike = images.windows(2).all(|two| two[0].1 == two[1].1);
    let last = images.len().saturating_sub(1);
    let images = images.iter().enumerate().map(|(at, (count, kind))| match are_alike && at < last {
        true => count.clone(),
        false => format!("{count}{kind}"),
    });
    let images: Vec<String> = images.collect();
    let progress = dataset.progress.map(|ImportProgress { split, rows_done, rows_total }| {
        format!("importing {split}, {rows_done} of {rows_total}")
    });
    let names = match (names.is_empty(), progress) {
        (true, progress) => progress,
        (false, Some(progress)) => Some(format!("{} ({progress})", names.join(", "))),
        (false, None) => Some(names.join(", ")),
    };
    let style = match dataset.state {
        DatasetState::Failed | DatasetState::Damaged => style::ERROR,
        DatasetState::Importing | DatasetState::NotPacked => style::WARNING,
        DatasetState::Ready => anstyle::Style::new(),
    };
    let known = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    vec![
        dataset.name.clone().into(),
        Cell::painted(dataset.state, style),
        known(names.unwrap_or_default()).into(),
        known(images.join(", ")).into(),
        dataset.classes.len().to_string().into(),
        dataset.source.clone().into(),
        known(errors.join("; ")).into(),
    ]
}
