//! `GET /datasets/{dataset}`: class balance, splits, and what the stream would send of any epoch.

use std::sync::Arc;

use askama::Template;
use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use pba_types::SplitName;
use pba_wire::DatasetPage;
use pba_wire::datasets::{ReadySplit, Split};

use crate::access::Identity;
use crate::app::App;
use crate::draw;
use crate::draw::figures;
use crate::error::Error;
use crate::http::extract::Query;
use crate::http::pages::overview::state;
use crate::http::pages::{Shell, page as respond, problem, segment};
use crate::http::problem::NotFound;
use crate::stream::resolve::UNSCHEDULED;

/// Images on a sheet; and on one for a narrow window, where they would be too small.
const SHEET_IMAGES: u32 = 25;
const SHEET_IMAGES_NARROW: u32 = 9;
/// Classes that the table lists at most.
const CLASSES_LISTED_MAX: usize = 1_000;
/// Epochs that the slider has where a policy never changes, or there is none.
const EPOCHS_OF_CONSTANT: u32 = 200;
/// What the stream calls base augmentation only.
const NO_SCHEDULE: &str = "none";

#[derive(Template)]
#[template(path = "dataset.html")]
struct Shown {
    shell: Shell,
    name: String,
    state: &'static str,
    source: String,
    base: String,
    error: Option<String>,
    /// Rows done and in all, while it is imported.
    import: Option<(String, u64, u64)>,
    splits: Vec<SplitRow>,
    class_count: usize,
    /// Names of the splits that can be streamed, and of each class its samples in each.
    class_heads: Vec<String>,
    classes: Vec<(String, Vec<String>)>,
    sheets: Option<Sheets>,
}

struct SplitRow {
    name: String,
    samples: String,
    size: String,
    bytes: String,
    digest: String,
    classes: Option<String>,
    least: String,
    most: String,
    error: Option<String>,
}

/// Original and augmented images, and what can be chosen.
struct Sheets {
    split: String,
    splits: Vec<String>,
    schedule: String,
    schedules: Vec<Choice>,
    epoch: u32,
    epochs: u32,
    original: Sheet,
    augmented: Sheet,
    base: String,
}

/// The address of a sheet, and of one for a narrow window.
struct Sheet {
    wide: String,
    narrow: String,
}

struct Choice {
    name: String,
    /// Epochs that the slider has with it.
    epochs: u32,
}

/// The schedule and the epoch that are shown.
struct Chosen {
    schedule: String,
    epoch: u32,
    /// Epochs that the slider has.
    epochs: u32,
}

impl Chosen {
    /// What a page is asked for, or the first schedule of the list.
    ///
    /// # Errors
    /// When there is no such schedule, or it has no such epoch.
    fn of(app: &App, query: &DatasetPage) -> Result<Chosen, Error> {
        let asked = query.schedule.clone().filter(|name| !name.is_empty());
        let first = || app.registry.list().into_iter().next().map(|summary| summary.name);
        let schedule = asked.or_else(first).unwrap_or_else(|| NO_SCHEDULE.to_owned());
        let known = match UNSCHEDULED.contains(&schedule.as_str()) {
            true => None,
            false => Some(app.registry.get(&schedule).map_err(|error| error.or_one_of(&UNSCHEDULED))?),
        };
        let epoch = query.epoch;
        let epochs = match known.filter(|schedule| !schedule.is_constant()) {
            Some(known) if epoch >= known.epochs() => {
                let why = format!("out of range for {schedule:?}, which has {} epochs", known.epochs());
                return Err(Error::parameter("epoch", epoch, why, format!("0..={}", known.epochs() - 1)));
            }
            Some(known) => known.epochs(),
            // Every epoch has the same policy, and the slider ends somewhere.
            None => EPOCHS_OF_CONSTANT.max(epoch + 1),
        };
        Ok(Chosen { schedule, epoch, epochs })
    }
}

/// Shows a dataset.
#[utoipa::path(
    get,
    path = "/datasets/{dataset}",
    tag = "pages",
    operation_id = "dataset",
    params(("dataset" = String, Path, description = "Name of the dataset"), DatasetPage),
    responses((status = 200, description = "The page", body = String, content_type = "text/html"), NotFound),
)]
pub(crate) async fn page(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Identity>,
    Path(name): Path<String>,
    query: Result<Query<DatasetPage>, Error>,
) -> Response {
    match query {
        Ok(Query(query)) => respond(app, identity, move |app, shell| show(app, shell, &name, &query)).await,
        Err(error) => problem(Shell::of(&app, &identity), error),
    }
}

fn show(app: &App, shell: Shell, name: &str, query: &DatasetPage) -> Result<Shown, Error> {
    let entry = app.catalog.get(name)?;
    let chosen = Chosen::of(app, query)?;
    // The address is that of what is shown: nothing else is shown in its place. What is still imported has no splits yet.
    if let (Some(split), Ok(served)) = (query.split, entry.served()) {
        served.split(split)?;
    }
    let dataset = entry.describe();
    let ready: Vec<(SplitName, &ReadySplit)> = dataset
        .splits
        .iter()
        .filter_map(|(name, split)| match split {
            Split::Ready(ready) => Some((*name, ready)),
            Split::Failed { .. } => None,
        })
        .collect();
    let of = |split: SplitName| ready.iter().find(move |(name, _)| *name == split);
    let shown = match query.split {
        Some(split) => of(split),
        None => of(SplitName::Train).or(ready.first()),
    };
    let sheets = shown.map(|(split, ready_split)| {
        let resized = dataset.eval_base.clone().filter(|_| ready_split.shape.is_none());
        let names: Vec<String> = ready.iter().map(|(name, _)| name.to_string()).collect();
        sheets(app, name, chosen, *split, names, resized)
    });
    let counts_of = |label: usize| {
        let count = |split: &ReadySplit| {
            split.class_counts.get(label).map_or("–".to_owned(), |n| figures::count(*n))
        };
        ready.iter().map(|(_, split)| count(split)).collect()
    };
    let classes = dataset.classes.iter().enumerate().take(CLASSES_LISTED_MAX);
    let classes = classes.map(|(label, name)| (name.clone(), counts_of(label))).collect();
    let splits = dataset.splits.iter().map(|(name, split)| split_row(*name, split, &dataset.classes));
    Ok(Shown {
        shell,
        state: state(dataset.state),
        base: dataset.base.clone().unwrap_or_else(|| "not known yet".to_owned()),
        error: dataset.error.clone().filter(|_| splits.clone().all(|split| split.error.is_none())),
        import: dataset
            .progress
            .map(|progress| (progress.split.to_string(), progress.rows_done, progress.rows_total)),
        splits: splits.collect(),
        class_count: dataset.classes.len(),
        class_heads: ready.iter().map(|(name, _)| name.to_string()).collect(),
        classes,
        sheets,
        source: dataset.source,
        name: dataset.name,
    })
}

/// The sheets of a split. Originals of different sizes are `resized` as images are that no model trains on.
fn sheets(
    app: &App,
    dataset: &str,
    Chosen { schedule, epoch, epochs }: Chosen,
    split: SplitName,
    splits: Vec<String>,
    resized: Option<String>,
) -> Sheets {
    let mut schedules = vec![Choice { name: NO_SCHEDULE.to_owned(), epochs: EPOCHS_OF_CONSTANT }];
    schedules.extend(app.registry.list().into_iter().map(|summary| Choice {
        epochs: if summary.epochs == 1 { EPOCHS_OF_CONSTANT } else { summary.epochs },
        name: summary.name,
    }));
    match schedules.iter_mut().find(|choice| choice.name == schedule) {
        Some(choice) => choice.epochs = epochs,
        // One without being listed, as a RandAugment.
        None => schedules.push(Choice { name: schedule.clone(), epochs }),
    }
    let base = resized.unwrap_or_else(|| "identity".to_owned());
    let sheet = |schedule: &str, base: &str| {
        let of = |images: u32| {
            format!(
                "/v1/datasets/{}/epochs/{epoch}/preview.png?n={images}&split={split}&schedule={}{base}",
                segment(dataset),
                segment(schedule)
            )
        };
        Sheet { wide: of(SHEET_IMAGES), narrow: of(SHEET_IMAGES_NARROW) }
    };
    Sheets {
        original: sheet(NO_SCHEDULE, &format!("&base={}", segment(&base))),
        augmented: sheet(&schedule, ""),
        split: split.to_string(),
        splits,
        schedule,
        schedules,
        epoch,
        epochs,
        base,
    }
}

fn split_row(name: SplitName, split: &Split, classes: &[String]) -> SplitRow {
    let name = name.to_string();
    match split {
        Split::Ready(split) => SplitRow {
            samples: figures::count(split.samples),
            size: match split.shape {
                Some([height, width, _]) => format!("{height} × {width}"),
                None => {
                    let ([low, high], [left, right]) = (split.sizes.height, split.sizes.width);
                    format!("{low} to {high} × {left} to {right}")
                }
            },
            bytes: figures::bytes(split.bytes),
            digest: figures::digest(&split.digest),
            classes: draw::classes::draw(&name, classes, &split.class_counts),
            least: figures::count(split.class_counts.iter().copied().min().unwrap_or(0)),
            most: figures::count(split.class_counts.iter().copied().max().unwrap_or(0)),
            error: None,
            name,
        },
        Split::Failed { error } => SplitRow {
            name,
            samples: "–".to_owned(),
            size: "–".to_owned(),
            bytes: "–".to_owned(),
            digest: "–".to_owned(),
            classes: None,
            least: "–".to_owned(),
            most: "–".to_owned(),
            error: Some(error.clone()),
        },
    }
}
