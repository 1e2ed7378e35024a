//! `GET /`: what the server does now, and what there is.

use std::sync::Arc;

use askama::Template;
use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use pba_search::{Comparison, Evaluation, Search};
use pba_wire::datasets::{Dataset, DatasetState, ReadySplit, Split};
use pba_wire::schedules::ScheduleSummary;
use pba_wire::streams::{Stream, Waits};

use crate::access::Identity;
use crate::app::App;
use crate::draw;
use crate::draw::figures;
use crate::http::pages::job::{JobRow, rows};
use crate::http::pages::{Shell, page as respond};
use crate::rates::{KEPT, sum};

/// Streams, schedules and datasets that are listed at most, of each.
const LISTED_MAX: usize = 200;
/// Schedules that are listed of those that were added; earlier ones are folded up.
const NEWEST_MAX: usize = 8;
/// Characters of a schedule's origin, which may be a paragraph: its own page has all of it.
const ORIGIN_MAX: usize = 72;
/// Jobs that are listed at most: all that wait or run come first.
const JOBS_MAX: usize = 40;

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    shell: Shell,
    figures: Vec<Figure>,
    rates: String,
    streams: Vec<StreamRow>,
    streams_left_out: usize,
    jobs: Vec<JobRow>,
    jobs_left_out: usize,
    datasets: Vec<DatasetRow>,
    datasets_left_out: usize,
    schedules: ScheduleRows,
}

/// A number with what it counts.
struct Figure {
    name: &'static str,
    value: String,
    of: String,
}

/// A running stream.
struct StreamRow {
    /// The token's name, or the client.
    who: String,
    /// What else is known of the client.
    client: String,
    sends: String,
    how: String,
    epoch: u32,
    sent: u64,
    batches: u64,
    rate: String,
    waits: &'static str,
    shares: String,
}

struct DatasetRow {
    name: String,
    state: &'static str,
    splits: String,
    classes: usize,
    bytes: String,
    note: Option<String>,
    /// Rows done and in all, while it is imported.
    import: Option<(u64, u64)>,
}

struct ScheduleRows {
    /// The last ones that were added.
    newest: Vec<ScheduleRow>,
    /// The others that were added, folded up.
    earlier: Vec<ScheduleRow>,
    left_out: usize,
    built_in: Vec<ScheduleRow>,
}

struct ScheduleRow {
    name: String,
    length: String,
    segments: usize,
    origin: String,
}

/// Shows rates, streams, jobs, datasets and schedules.
#[utoipa::path(
    get,
    path = "/",
    tag = "pages",
    operation_id = "overview",
    responses((status = 200, description = "The overview", body = String, content_type = "text/html")),
)]
pub(crate) async fn page(State(app): State<Arc<App>>, Extension(identity): Extension<Identity>) -> Response {
    respond(app, identity, |app, shell| Ok(overview(app, shell))).await
}

fn overview(app: &App, shell: Shell) -> Overview {
    let mut jobs = rows::<Search>(app, JOBS_MAX);
    jobs.extend(rows::<Comparison>(app, JOBS_MAX));
    jobs.extend(rows::<Evaluation>(app, JOBS_MAX));
    jobs.sort_by_key(|job| job.rank());
    let jobs_left_out = jobs.len().saturating_sub(JOBS_MAX);
    jobs.truncate(JOBS_MAX);
    let trains = jobs.iter().filter(|job| job.is_running()).count();
    let entries = app.catalog.list();
    let streams = app.engine.running.list();
    Overview {
        shell,
        figures: figures_of(app, trains),
        rates: draw::rates::draw(&app.rates.images(), KEPT, "images/s"),
        streams_left_out: streams.len().saturating_sub(LISTED_MAX),
        streams: streams.into_iter().take(LISTED_MAX).map(stream_row).collect(),
        jobs,
        jobs_left_out,
        datasets: entries.iter().take(LISTED_MAX).map(|entry| dataset_row(entry.describe())).collect(),
        datasets_left_out: entries.len().saturating_sub(LISTED_MAX),
        schedules: schedule_rows(app.registry.list()),
    }
}

fn figures_of(app: &App, trains: usize) -> Vec<Figure> {
    let (now, metrics) = (app.rates.now(), &app.engine.metrics);
    let threads = app.engine.limits.threads;
    let figure = |name, value: String, of: &str| Figure { name, value, of: of.to_owned() };
    let trainer = match trains {
        0 => "no trainer runs here".to_owned(),
        1 => "cores, by 1 trainer".to_owned(),
        trains => format!("cores, by {trains} trainers"),
    };
    vec![
        figure("Images per second", figures::short(now.images), ""),
        figure("Megabytes per second", format!("{:.1}", now.bytes / 1e6), ""),
        figure("Streams", metrics.streams_active.get().to_string(), "running"),
        figure("Stream workers busy", format!("{:.1}", now.workers_busy), &format!("of {threads}")),
        figure("Training", format!("{:.1}", now.trainer_cores), &trainer),
        figure("Clients waiting", format!("{:.1}", now.clients_waiting), "for the server"),
        figure("Batches waiting", format!("{:.1}", now.batches_waiting), "for their clients"),
        figure("Images in all", figures::short(sum(&metrics.images_augmented)), "since the start"),
    ]
}

fn stream_row(stream: Stream) -> StreamRow {
    let percent = |share: f64| format!("{:.0} %", 100.0 * share);
    let client = [stream.token.is_some().then(|| stream.client.clone()), stream.user_agent];
    StreamRow {
        client: client.into_iter().flatten().collect::<Vec<_>>().join(" · "),
        who: stream.token.unwrap_or(stream.client),
        sends: format!("{} {}", stream.dataset, stream.split),
        how: format!("{}, shard {}", stream.schedule, stream.shard),
        epoch: stream.epoch,
        sent: stream.batches_sent,
        // An empty one is complete.
        batches: stream.batches.max(1),
        rate: figures::short(stream.images_per_second),
        waits: match stream.waits {
            Waits::Client => "the client, for the server",
            Waits::Server => "the server, for the client",
            Waits::Neither => "neither",
        },
        shares: format!(
            "client {}, server {}",
            percent(stream.client_wait_ratio),
            percent(stream.backpressure_ratio)
        ),
    }
}

fn dataset_row(dataset: Dataset) -> DatasetRow {
    let ready = |split: &Split| match split {
        Split::Ready(split) => Some(split.clone()),
        Split::Failed { .. } => None,
    };
    let splits = dataset.splits.iter().filter_map(|(name, split)| {
        let ReadySplit { samples, .. } = ready(split)?;
        Some(format!("{} {name}", figures::count(samples)))
    });
    let failed = dataset.splits.iter().find_map(|(name, split)| match split {
        Split::Failed { error } => Some(format!("{name}: {error}")),
        Split::Ready(_) => None,
    });
    DatasetRow {
        splits: splits.collect::<Vec<_>>().join(", "),
        classes: dataset.classes.len(),
        bytes: figures::bytes(dataset.splits.values().filter_map(ready).map(|split| split.bytes).sum()),
        state: state(dataset.state),
        note: dataset.error.or(failed),
        import: dataset.progress.map(|progress| (progress.rows_done, progress.rows_total)),
        name: dataset.name,
    }
}

/// A dataset's state in a word or two.
pub(super) fn state(state: DatasetState) -> &'static str {
    match state {
        DatasetState::Importing => "importing",
        DatasetState::Ready => "ready",
        DatasetState::Damaged => "damaged",
        DatasetState::NotPacked => "not packed",
        DatasetState::Failed => "failed",
    }
}

/// Those that were added, the newest first, apart from those that are built in.
fn schedule_rows(schedules: Vec<ScheduleSummary>) -> ScheduleRows {
    let (mut added, built_in): (Vec<_>, Vec<_>) =
        schedules.into_iter().partition(|schedule| schedule.added.is_some());
    // Times in UTC of one form are in order as texts.
    added.sort_by(|one, other| (&other.added, &other.name).cmp(&(&one.added, &one.name)));
    let left_out = added.len().saturating_sub(LISTED_MAX);
    let mut added = added.iter().take(LISTED_MAX).map(schedule_row);
    ScheduleRows {
        newest: added.by_ref().take(NEWEST_MAX).collect(),
        earlier: added.collect(),
        left_out,
        built_in: built_in.iter().map(schedule_row).collect(),
    }
}

/// The beginning of a text in a line, cut between words where it has any.
fn beginning(text: &str, characters: usize) -> String {
    let Some((end, _)) = text.char_indices().nth(characters) else { return text.to_owned() };
    let whole = text[..end].rfind(' ').unwrap_or(end);
    format!("{} …", &text[..whole])
}

fn schedule_row(summary: &ScheduleSummary) -> ScheduleRow {
    let provenance = &summary.provenance;
    let learned = || {
        let on = provenance.dataset.as_ref().map(|dataset| format!("learned on {dataset}"));
        let with = provenance.model.as_ref().map(|model| format!(" with {model}"));
        let score = provenance.score.map(|score| format!(", {}", figures::percent(Some(score))));
        on.map(|on| on + &with.unwrap_or_default() + &score.unwrap_or_default())
    };
    ScheduleRow {
        name: summary.name.clone(),
        length: match summary.epochs {
            1 => "constant".to_owned(),
            epochs => figures::count(epochs.into()),
        },
        segments: summary.segments,
        origin: beginning(&provenance.source.clone().or_else(learned).unwrap_or_default(), ORIGIN_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(name: &str, added: Option<&str>) -> ScheduleSummary {
        ScheduleSummary {
            name: name.to_owned(),
            digest: String::new(),
            epochs: 9,
            segments: 3,
            added: added.map(str::to_owned),
            provenance: Default::default(),
        }
    }

    #[test]
    fn the_last_schedules_that_were_added_come_first() {
        let at = |minute: usize| format!("2026-01-01T00:{minute:02}:00.000Z");
        let mut schedules = vec![schedule("built-in", None)];
        schedules.extend((0..20).map(|minute| schedule(&format!("many-{minute}"), Some(&at(minute)))));
        let rows = schedule_rows(schedules);
        let names = |rows: &[ScheduleRow]| rows.iter().map(|row| row.name.clone()).collect::<Vec<_>>();
        let expected = |minutes: std::ops::Range<usize>| {
            minutes.rev().map(|minute| format!("many-{minute}")).collect::<Vec<_>>()
        };
        assert_eq!(names(&rows.newest), expected(20 - NEWEST_MAX..20));
        assert_eq!(names(&rows.earlier), expected(0..20 - NEWEST_MAX));
        assert_eq!((names(&rows.built_in), rows.left_out), (vec!["built-in".to_owned()], 0));
    }

    #[test]
    fn a_long_origin_is_cut_between_words() {
        assert_eq!(beginning("learned on shapes", 17), "learned on shapes");
        assert_eq!(beginning("learned on shapes", 16), "learned on …");
        assert_eq!(beginning("ééééé", 4), "éééé …");
    }
}
