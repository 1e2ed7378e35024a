//! `GET /schedules/{schedule}`: how often and how strongly each op is applied over the epochs, of one schedule or of two.

use std::sync::Arc;

use askama::Template;
use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use pba_schedules::{Op, Schedule};
use pba_wire::SchedulePage;

use crate::access::Identity;
use crate::app::App;
use crate::draw::figures;
use crate::draw::odds::{self, Stacked};
use crate::error::Error;
use crate::http::extract::Query;
use crate::http::pages::{Shell, page as respond, problem};
use crate::http::problem::NotFound;

#[derive(Template)]
#[template(path = "schedule.html")]
struct Shown {
    shell: Shell,
    schedules: Vec<About>,
    ops: Vec<OpRow>,
    /// What it can be compared with.
    others: Vec<String>,
    with: String,
}

/// One of the schedules that are shown.
struct About {
    name: String,
    digest: String,
    length: String,
    facts: Vec<(&'static str, String)>,
    ops_per_image: String,
    probabilities: String,
    magnitudes: String,
}

/// An op, with its chart and its means in each schedule.
struct OpRow {
    name: &'static str,
    number: usize,
    charts: Vec<String>,
    means: Vec<(String, String)>,
}

/// Shows a schedule, or two side by side.
#[utoipa::path(
    get,
    path = "/schedules/{schedule}",
    tag = "pages",
    operation_id = "schedule",
    params(("schedule" = String, Path, description = "Its name, or its digest or 12 or more digits of it"), SchedulePage),
    responses((status = 200, description = "The page", body = String, content_type = "text/html"), NotFound),
)]
pub(crate) async fn page(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Identity>,
    Path(name): Path<String>,
    query: Result<Query<SchedulePage>, Error>,
) -> Response {
    match query {
        Ok(Query(SchedulePage { with })) => {
            respond(app, identity, move |app, shell| show(app, shell, &name, with)).await
        }
        Err(error) => problem(Shell::of(&app, &identity), error),
    }
}

fn show(app: &App, shell: Shell, name: &str, with: Option<String>) -> Result<Shown, Error> {
    let with = with.filter(|with| !with.is_empty());
    let mut schedules = vec![app.registry.get(name)?];
    if let Some(with) = &with {
        schedules.push(app.registry.get(with)?);
    }
    let others = app.registry.list().into_iter().map(|summary| summary.name);
    Ok(Shown {
        shell,
        ops: ops(&schedules),
        schedules: schedules.iter().map(|schedule| about(schedule)).collect(),
        others: others.filter(|other| other != name).collect(),
        with: with.unwrap_or_default(),
    })
}

fn ops(schedules: &[Arc<Schedule>]) -> Vec<OpRow> {
    let known: Vec<Vec<Op>> = schedules.iter().map(|schedule| schedule.ops()).collect();
    let ops = Op::ALL.into_iter().filter(|op| known.iter().any(|known| known.contains(op)));
    ops.map(|op| OpRow {
        name: op.name(),
        number: op as usize,
        charts: schedules.iter().map(|schedule| odds::op(schedule, op, schedule.epochs())).collect(),
        means: schedules
            .iter()
            .map(|schedule| {
                let mean = odds::mean(schedule, op);
                (format!("{:.2}", mean.probability), format!("{:.1}", mean.magnitude))
            })
            .collect(),
    })
    .collect()
}

fn about(schedule: &Schedule) -> About {
    let provenance = &schedule.provenance;
    let facts = [
        ("Source", provenance.source.clone()),
        ("Dataset", provenance.dataset.clone()),
        ("Model", provenance.model.clone()),
        ("Population", provenance.population.map(|members| members.to_string())),
        ("Validation accuracy", provenance.score.map(|score| figures::percent(Some(score)))),
        ("Created", provenance.created.clone()),
    ];
    About {
        name: schedule.name().to_owned(),
        digest: figures::digest(&schedule.digest().to_string()),
        length: match schedule.is_constant() {
            true => "one policy that never changes".to_owned(),
            false => {
                format!("{} epochs, {} policies", schedule.epochs(), schedule.segments().len())
            }
        },
        facts: facts.into_iter().filter_map(|(name, value)| Some((name, value?))).collect(),
        ops_per_image: odds::ops_per_image(schedule),
        probabilities: odds::stacked(schedule, Stacked::Probability),
        magnitudes: odds::stacked(schedule, Stacked::Magnitude),
    }
}
