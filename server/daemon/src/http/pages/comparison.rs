//! `GET /comparisons/{comparison}`: the verdict of a comparison, its arms and their differences.

use std::sync::Arc;

use askama::Template;
use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use pba_search::{ArmResults, Comparison, Contrast, Run, Search, worded};

use crate::access::Identity;
use crate::app::App;
use crate::draw::errors;
use crate::error::Error;
use crate::http::pages::job::{Action, Standing, actions, is_as_it_was};
use crate::http::pages::{Shell, page as respond};
use crate::http::problem::NotFound;

#[derive(Template)]
#[template(path = "comparison.html")]
struct Shown {
    shell: Shell,
    id: String,
    standing: Standing,
    actions: Vec<Action>,
    verdict: Option<String>,
    command: Option<String>,
    runs_done: u32,
    runs: u32,
    scored: String,
    arms_chart: Option<String>,
    contrasts_chart: Option<String>,
    margin: f64,
    arms: Vec<ArmRow>,
    contrasts: Vec<ContrastRow>,
    tuning: Option<String>,
    /// The search that it follows.
    follows: Option<String>,
    follows_is_there: bool,
    is_over: bool,
}

struct ArmRow {
    name: String,
    /// The schedule that it trains with, if that is here as it was.
    schedule: Option<String>,
    error: String,
    n: u32,
    diverged: u32,
    is_recommended: bool,
}

struct ContrastRow {
    name: String,
    points: String,
    n: u32,
    verdict: String,
}

/// Shows a comparison.
#[utoipa::path(
    get,
    path = "/comparisons/{comparison}",
    tag = "pages",
    operation_id = "comparison",
    params(("comparison" = String, Path, description = "Its id")),
    responses((status = 200, description = "The page", body = String, content_type = "text/html"), NotFound),
)]
pub(crate) async fn page(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Identity>,
    Path(id): Path<String>,
) -> Response {
    respond(app, identity, move |app, shell| show(app, shell, &id)).await
}

fn show(app: &App, shell: Shell, id: &str) -> Result<Shown, Error> {
    let record = app.jobs.of::<Comparison>().get(id)?;
    let job = record.answer(&app.registry);
    let results = &job.results;
    let recommended = results.recommended.as_deref();
    let arms = results.arms.iter().zip(&job.spec.arms).map(|(results, arm)| {
        let schedule = arm.schedule().filter(|name| is_as_it_was(app, &record, name));
        arm_row(results, schedule.map(str::to_owned), recommended)
    });
    let groups = results.groups.iter().map(|group| ArmRow {
        name: group.name.clone(),
        schedule: None,
        error: errors::figure(group),
        n: group.n,
        diverged: 0,
        is_recommended: false,
    });
    let on = results.images.zip(results.split.as_ref());
    let on =
        on.map_or(format!("{} images", results.score), |(images, split)| format!("{images} {split} images"));
    let tuning = results.tuning.as_ref().map(|tuning| {
        format!(
            "{} of {} settings, by {} validation images",
            tuning.chosen,
            tuning.candidates.len(),
            tuning.images
        )
    });
    Ok(Shown {
        standing: Standing::of::<Comparison>(&job),
        actions: actions(&shell, Comparison::JOB, &job, false),
        shell,
        verdict: results.verdict.clone(),
        command: results.stream_command.clone(),
        runs_done: results.runs_done,
        runs: results.runs,
        scored: on,
        arms_chart: errors::arms(results),
        contrasts_chart: errors::contrasts(&job.spec, results),
        margin: job.spec.margin,
        arms: arms.chain(groups).collect(),
        contrasts: results.contrasts.iter().map(|contrast| contrast_row(contrast, job.spec.margin)).collect(),
        tuning,
        follows_is_there: job.follows.as_ref().is_some_and(|id| app.jobs.of::<Search>().get(id).is_ok()),
        follows: job.follows.clone(),
        is_over: job.state.is_final(),
        id: job.id.clone(),
    })
}

fn arm_row(results: &ArmResults, schedule: Option<String>, recommended: Option<&str>) -> ArmRow {
    ArmRow {
        name: results.entry.name.clone(),
        schedule,
        error: errors::figure(&results.entry),
        n: results.entry.n,
        diverged: results.diverged,
        is_recommended: recommended == Some(&results.entry.name),
    }
}

fn contrast_row(contrast: &Contrast, margin: f64) -> ContrastRow {
    ContrastRow {
        name: format!("{} − {}", contrast.arm, contrast.against),
        points: errors::points(contrast),
        n: contrast.n,
        verdict: contrast.verdict.map_or("–".to_owned(), |verdict| worded(verdict, margin)),
    }
}
