//! `GET /evaluations/{evaluation}`: the loss of an evaluation over its epochs, its test error, and what can be done about
//! it.

use std::sync::Arc;

use askama::Template;
use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use pba_search::{Evaluation, EvaluationEvent, EvaluationSpec, Run};

use crate::access::Identity;
use crate::app::App;
use crate::draw::{figures, losses};
use crate::error::Error;
use crate::http::pages::job::{Action, Standing, actions, is_as_it_was};
use crate::http::pages::{Shell, page as respond};
use crate::http::problem::NotFound;

/// Epochs that the table lists at most: the last ones.
const LISTED_MAX: usize = 100;

#[derive(Template)]
#[template(path = "evaluation.html")]
struct Shown {
    shell: Shell,
    id: String,
    standing: Standing,
    actions: Vec<Action>,
    test_error: String,
    /// What it was tested on, once it was.
    tested_on: String,
    train_loss: String,
    schedule: String,
    /// Whether that is here as it was when it was requested, and has a page.
    schedule_is_there: bool,
    ablation: String,
    losses: Option<String>,
    /// The last epochs, the latest first, with their losses.
    epochs: Vec<(usize, String)>,
    /// What is lost of the journal.
    missing: Option<String>,
    is_over: bool,
}

/// Shows an evaluation.
#[utoipa::path(
    get,
    path = "/evaluations/{evaluation}",
    tag = "pages",
    operation_id = "evaluation",
    params(("evaluation" = String, Path, description = "Its id")),
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
    let record = app.jobs.of::<Evaluation>().get(id)?;
    let job = record.answer(&app.registry);
    let (lines, missing) = record.journal()?;
    let events = lines.iter().filter_map(|line| serde_json::from_str(line).ok());
    let trained: Vec<Option<f64>> = events
        .filter_map(|event: EvaluationEvent| match event {
            EvaluationEvent::Trained { train_loss, .. } => Some(train_loss),
            _ => None,
        })
        .collect();
    let results = &job.results;
    let loss = |loss: Option<f64>| loss.map_or("–".to_owned(), |loss| format!("{loss:.4}"));
    let last = trained.iter().enumerate().rev().take(LISTED_MAX);
    let tested_on = results.images.zip(results.split.as_ref());
    Ok(Shown {
        standing: Standing::of::<Evaluation>(&job),
        actions: actions(&shell, Evaluation::JOB, &job, false),
        shell,
        test_error: figures::percent(results.test_error),
        tested_on: tested_on
            .map(|(images, split)| format!("of {} {split} images", figures::count(images as u64)))
            .unwrap_or_default(),
        train_loss: loss(results.train_loss),
        schedule_is_there: results.schedule != EvaluationSpec::NO_SCHEDULE
            && is_as_it_was(app, &record, &results.schedule),
        schedule: results.schedule.clone(),
        ablation: results.ablation.to_string(),
        losses: losses::draw(job.epochs, &trained),
        epochs: last.map(|(before, mean)| (before + 1, loss(*mean))).collect(),
        missing: missing.map(|missing| missing.to_string()),
        is_over: job.state.is_final(),
        id: job.id,
    })
}
