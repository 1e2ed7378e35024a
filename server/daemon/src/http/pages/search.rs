//! `GET /searches/{search}`: scores, lineage and members of a search, and what can be done about it.

use std::sync::Arc;

use askama::Template;
use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use pba_schedules::{Op, Provenance};
use pba_search::{Comparison, Event, Member, Run, Search};

use crate::access::Identity;
use crate::app::App;
use crate::draw;
use crate::draw::figures;
use crate::draw::odds;
use crate::draw::scores::Generation;
use crate::error::Error;
use crate::http::pages::job::{Action, Standing, actions, is_as_it_was};
use crate::http::pages::{Shell, page as respond};
use crate::http::problem::NotFound;

/// Generations and steps that the tables list at most: the last ones.
const LISTED_MAX: usize = 100;

#[derive(Template)]
#[template(path = "search.html")]
struct Shown {
    shell: Shell,
    id: String,
    standing: Standing,
    actions: Vec<Action>,
    best: String,
    population: u32,
    interval: u32,
    scores: Option<String>,
    generations: Vec<GenerationRow>,
    lineage: Vec<StepRow>,
    members: Vec<MemberRow>,
    ops: Vec<OpRow>,
    /// Names of the ops that the best member's lineage never applies.
    unused: String,
    /// The schedule that it learned.
    schedule: Option<String>,
    /// Whether that is here as it learned it, and neither removed nor replaced.
    schedule_is_there: bool,
    /// The comparison that follows it, if there is one.
    comparison: Option<String>,
    /// What is lost of the journal.
    missing: Option<String>,
    is_over: bool,
}

struct GenerationRow {
    epoch: u32,
    scores: Vec<String>,
    diverged: usize,
}

struct StepRow {
    epoch: u32,
    member: u32,
    policy: String,
}

struct MemberRow {
    id: u32,
    score: String,
    age: u32,
    parent: String,
    policy: String,
}

struct OpRow {
    name: &'static str,
    chart: String,
}

/// Shows a search.
#[utoipa::path(
    get,
    path = "/searches/{search}",
    tag = "pages",
    operation_id = "search",
    params(("search" = String, Path, description = "Its id")),
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
    let record = app.jobs.of::<Search>().get(id)?;
    let job = record.answer(&app.registry);
    let search = record.job();
    let (lines, missing) = record.journal()?;
    let events: Vec<Event> = lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let drawn = search.as_ref().and_then(|search| draw::scores::draw(&job.spec, search, events));
    let best = search.as_ref().filter(|search| search.epoch() > 0).map(|search| search.population.best());
    let mut members: Vec<&Member> = search.iter().flat_map(|search| &search.population.members).collect();
    // A member that diverged has no number, and comes last.
    members.sort_by(|one, other| {
        let score = |member: &Member| member.score.filter(|score| score.is_finite()).unwrap_or(-1.0);
        score(other).total_cmp(&score(one))
    });
    let steps = best.map(|best| &best.lineage.0[best.lineage.0.len().saturating_sub(LISTED_MAX)..]);
    let comparison = job.spec.comparison().ok().flatten().map(|comparison| comparison.name);
    let comparison = comparison.filter(|name| app.jobs.of::<Comparison>().get(name).is_ok());
    let schedule = job.results.schedule.clone();
    let schedule_is_there = schedule.as_ref().is_some_and(|name| is_as_it_was(app, &record, name));
    let (scores, generations) = drawn
        .map(|drawn| (drawn.chart, drawn.generations))
        .map_or((None, Vec::new()), |(chart, generations)| (Some(chart), generations));
    let (ops, unused) = search.as_ref().zip(best).map(|(search, best)| ops(search, best)).unwrap_or_default();
    let generations = generations.iter().rev().take(LISTED_MAX).map(generation_row).collect();
    Ok(Shown {
        standing: Standing::of::<Search>(&job),
        actions: actions(&shell, Search::JOB, &job, true),
        shell,
        best: figures::percent(job.results.best_accuracy),
        population: job.results.population,
        interval: job.spec.perturbation_interval,
        scores,
        generations,
        lineage: steps.into_iter().flatten().rev().map(step_row).collect(),
        members: members.into_iter().map(member_row).collect(),
        ops,
        unused,
        schedule,
        schedule_is_there,
        comparison,
        missing: missing.map(|missing| missing.to_string()),
        is_over: job.state.is_final(),
        id: job.id,
    })
}

fn generation_row(generation: &Generation) -> GenerationRow {
    let best_first = generation.quantiles.iter().rev();
    GenerationRow {
        epoch: generation.epoch,
        scores: best_first.map(|score| figures::percent(Some(*score))).collect(),
        diverged: generation.diverged,
    }
}

fn step_row(step: &pba_search::Step) -> StepRow {
    StepRow { epoch: step.epoch, member: step.member, policy: words(&step.policy.to_string()) }
}

fn member_row(member: &Member) -> MemberRow {
    MemberRow {
        id: member.id,
        score: figures::percent(member.score),
        age: member.age,
        parent: member.parent.map_or("–".to_owned(), |parent| parent.to_string()),
        policy: words(&member.policy.to_string()),
    }
}

/// A policy in words.
fn words(policy: &str) -> String {
    if policy.is_empty() { "does nothing".to_owned() } else { policy.to_owned() }
}

/// The charts of what the best member's lineage learned so far, and the names of the ops that it never applies.
fn ops(search: &Search, best: &Member) -> (Vec<OpRow>, String) {
    let epochs = search.spec().training.epochs;
    let learned = best.lineage.schedule("learned", search.epoch(), Provenance::default());
    let Ok(schedule) = learned else { return Default::default() };
    let is_used = |op: &Op| odds::mean(&schedule, *op).probability > 0.0;
    let (used, unused): (Vec<Op>, Vec<Op>) = schedule.ops().into_iter().partition(is_used);
    let row = |op: Op| OpRow { name: op.name(), chart: odds::op(&schedule, op, epochs) };
    let unused: Vec<&str> = unused.into_iter().map(Op::name).collect();
    (used.into_iter().map(row).collect(), unused.join(", "))
}
