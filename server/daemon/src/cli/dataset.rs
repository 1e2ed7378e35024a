//! `pba dataset`: what a server serves.

use std::path::PathBuf;

use clap::Subcommand;
use pba_client::EpochRequest;
use reqwest::Method;
use serde_json::Value;

use crate::cli::remote::Remote;
use crate::cli::stream::Parameters;
use crate::cli::{file, output};

/// Arguments of `pba dataset`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the datasets
    List,
    /// Show a dataset
    Show {
        /// Its name
        name: String,
    },
    /// Save a contact sheet of what a stream would send
    Preview {
        /// The dataset's name
        name: String,
        /// Epoch, from 0
        #[arg(long, default_value_t = 0)]
        epoch: u32,
        /// Images on the sheet
        #[arg(long, short, default_value_t = 64)]
        n: u32,
        /// File to write
        #[arg(long, value_name = "FILE.png", default_value = "contact-sheet.png")]
        out: PathBuf,
        #[command(flatten)]
        parameters: Box<Parameters>,
    },
}

/// Does what the subcommand says.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let client = args.remote.client()?;
    match args.command {
        Command::List => {
            let list = client.request(Method::GET, "/v1/datasets", None).await?;
            let list = args.remote.document(&list)?;
            if args.remote.json {
                output::json(&list);
                return Ok(());
            }
            let rows: Vec<Vec<String>> = list["datasets"].as_array().into_iter().flatten().map(row).collect();
            output::table(&["NAME", "SPLITS", "IMAGES", "CLASSES", "SOURCE"], &rows);
        }
        Command::Show { name } => {
            pba_types::check_name(&name).map_err(|_| anyhow::anyhow!("{name:?} is not a dataset name"))?;
            let path = format!("/v1/datasets/{name}");
            let dataset = args.remote.document(&client.request(Method::GET, &path, None).await?)?;
            // A dataset's description is a small tree; as JSON it reads best either way.
            output::json(&dataset);
        }
        Command::Preview { name, epoch, n, out, parameters } => {
            pba_types::check_name(&name).map_err(|_| anyhow::anyhow!("{name:?} is not a dataset name"))?;
            let query = EpochRequest::from_pairs(&parameters.pairs())?.to_query();
            let path = format!("/v1/datasets/{name}/epochs/{epoch}/preview.png?n={n}&{query}");
            let png = client.request(Method::GET, &path, None).await?;
            anyhow::ensure!(png.starts_with(b"\x89PNG"), "{} answered what is no PNG", args.remote.url());
            file::write(&out, &png)?;
            if args.remote.json {
                output::json(&serde_json::json!({ "out": out.display().to_string() }));
            } else {
                output::line(format_args!("contact sheet: {}", out.display()));
            }
        }
    }
    Ok(())
}

fn row(dataset: &Value) -> Vec<String> {
    let splits = dataset["splits"].as_object().cloned().unwrap_or_default();
    let names: Vec<String> = splits.keys().cloned().collect();
    let images: Vec<String> = splits
        .values()
        .map(|split| split["samples"].as_u64().map_or("broken".to_owned(), |samples| samples.to_string()))
        .collect();
    let shape = splits.values().find_map(|split| match split["images"].as_str() {
        Some("encoded") => Some(" of different sizes".to_owned()),
        _ => split["shape"].as_array().map(|shape| {
            let sides: Vec<String> = shape.iter().map(Value::to_string).collect();
            format!(" of {}", sides.join("x"))
        }),
    });
    let text = |key: &str| dataset[key].as_str().unwrap_or_default().to_owned();
    vec![
        text("name"),
        if names.is_empty() { "broken".to_owned() } else { names.join(", ") },
        format!("{}{}", images.join(", "), shape.unwrap_or_default()),
        dataset["classes"].as_array().map_or(0, Vec::len).to_string(),
        text("source"),
    ]
}
