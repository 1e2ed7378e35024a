//! `pba demo`: one command to start with.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use pba_client::EpochRequest;

use crate::cli::access::Access;
use crate::cli::serve::{self, start};
use crate::cli::sources::Given;
use crate::cli::{file, output, stream};
use crate::config::{Config, ServeArgs};
use crate::jobs::trainer::Trainer;
use crate::shutdown::{Stop, stop_signal};
use pba_datasets::BUILT_IN;

/// The epoch that is streamed: the schedule's last, where its policy is strongest.
const EPOCH: u32 = 199;
const SCHEDULE: &str = "cifar10-pba";
/// How often to look for a missing trainer.
const TRAINER_POLL: Duration = Duration::from_millis(500);

/// Arguments of `pba demo`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  pba demo
  pba demo --once --sheet sheet.png")]
pub(crate) struct Args {
    #[command(flatten)]
    serve: ServeArgs,
    /// Where to save the contact sheet [default: contact-sheet.png in the data directory]
    #[arg(long, value_name = "FILE.png")]
    sheet: Option<PathBuf>,
    /// Exit after the epoch instead of continuing to serve
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    access: Access,
}

/// Starts a server, streams one epoch from it, saves a contact sheet and continues to serve.
pub(crate) async fn run(args: Args, given: &Given) -> anyhow::Result<()> {
    if args.serve.check {
        return serve::run(args.serve, given).await;
    }
    let mut config = Config::resolve(&args.serve)?;
    anyhow::ensure!(
        config.tls_cert.is_none(),
        "tls_cert: the demo speaks plain HTTP with itself; leave it out, or use `pba serve`"
    );
    anyhow::ensure!(
        !config.needs_tokens() || config.listen.is_none() || args.access.has_token(),
        "tokens are configured, and the demo has none for its own requests; set one of a reader with PBA_TOKEN, or try the \
         demo in a folder without pba.toml"
    );
    let server = match start(&config).await {
        // The default port is taken and none was chosen: use another one, as this is a demo.
        Err(error) if args.serve.settings.listen.is_none() && is_address_in_use(&error) => {
            config.listen.iter_mut().for_each(|address| address.set_port(0));
            start(&config).await?
        }
        started => started?,
    };
    // Watched before the first line is printed, and not while the dataset is drawn.
    let stop = stop_signal()?;
    let url = server.urls().swap_remove(0);
    output::line(format_args!("listening on {url}"));

    let interrupted = Arc::new(AtomicBool::new(false));
    let interrupt = Arc::clone(&interrupted);
    let (ended, end) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(server.run(async move {
        let ended = async {
            // Never, unless the demo is over.
            if end.await.is_err() {
                std::future::pending().await
            }
        };
        tokio::select! {
            stop = stop => {
                interrupt.store(true, Ordering::Relaxed);
                stop
            }
            // Nothing waits for it.
            () = ended => Stop::Interrupt,
        }
    }));
    let shown = show(&url, &config, &args);
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        shown = shown => match shown {
            // Ctrl-C in the middle of the epoch: the server drains, and refuses what comes next.
            Err(_) if interrupted.load(Ordering::Relaxed) => {
                return serving.await.context("the server failed");
            }
            shown => shown?,
        },
        stopped = &mut serving => return stopped.context("the server failed"),
    }
    if args.once {
        let _ = ended.send(());
        return serving.await.context("the server failed");
    }
    output::line(dashboard(&url));
    if std::io::stdout().is_terminal() {
        output::line("Ctrl-C ends the server");
    }
    let trainer = config.find_trainer();
    tokio::select! {
        () = tell_of_searches(&url, &trainer) => {}
        stopped = &mut serving => return stopped.context("the server failed"),
    }
    // Kept until the server has ended: dropping it would not end it, but says nothing either.
    let stopped = serving.await.context("the server failed");
    drop(ended);
    stopped
}

/// Where the dashboard is: no browser opens a Unix socket.
fn dashboard(url: &str) -> String {
    match url.starts_with("http://") {
        true => format!("dashboard: {url}/"),
        false => "no dashboard: the server has no port; it has one with --listen 127.0.0.1:0".to_owned(),
    }
}

/// Prints how to start a search once there is a trainer, which `make run` builds while the server runs;
/// repeats where the dashboard is, because the build's output has scrolled it away.
async fn tell_of_searches(url: &str, trainer: &Trainer) {
    while !trainer.is_there() {
        tokio::time::sleep(TRAINER_POLL).await;
    }
    let program = std::env::args().next().unwrap_or_else(|| "pba".to_owned());
    let server = if url == pba_wire::DEFAULT_URL { String::new() } else { format!(" --server {url}") };
    output::notice(format_args!(
        "searches are ready; start one with: {program} search start --dataset {BUILT_IN} --model tiny \
         --population 8 --epochs 24 --watch{server}\n{}",
        dashboard(url)
    ));
}

async fn show(url: &str, config: &Config, args: &Args) -> anyhow::Result<()> {
    let client = args.access.client([url])?;
    let request = EpochRequest { schedule: Some(SCHEDULE.to_owned()), ..EpochRequest::default() };
    let path = format!("/v1/datasets/{BUILT_IN}/epochs/{EPOCH}/preview.png?n=64&schedule={SCHEDULE}");
    // Waits for the import of the dataset, which must not count in the rate of the stream.
    let png = client.request(reqwest::Method::GET, &path, None).await?;
    output::line(format_args!("streaming epoch {EPOCH} of {BUILT_IN} with {SCHEDULE}"));
    let result = stream::read(&client, BUILT_IN, EPOCH, request, None).await?;
    output::line(stream::sentence(&result));

    let sheet = args.sheet.clone().unwrap_or_else(|| config.data_dir.join("contact-sheet.png"));
    file::write(&sheet, &png)?;
    output::line(format_args!("contact sheet: {}", sheet.display()));
    Ok(())
}

fn is_address_in_use(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::AddrInUse)
}
