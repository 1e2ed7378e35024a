//! `GET /start`: forms that start a search or a comparison.

use std::sync::Arc;

use askama::Template;
use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use pba_search::{Arm, Preset};
use pba_wire::Role;

use crate::access::Identity;
use crate::app::App;
use crate::http::pages::{Shell, page as respond};

/// Models that the forms offer; others can be typed.
const MODELS: [&str; 5] = ["tiny", "wrn-28-2", "wrn-40-2", "wrn-28-10", "shake-shake-26-2x32d"];
/// The arms of a comparison that are offered first: its defaults, and those that are no schedules and take no number.
const ARMS: [&str; 4] = ["none", "trivial-augment-wide", "identity", "randaugment:tuned"];

#[derive(Template)]
#[template(path = "start.html")]
struct Start {
    shell: Shell,
    datasets: Vec<String>,
    schedules: Vec<String>,
    models: [&'static str; 5],
    search_presets: Vec<&'static str>,
    comparison_presets: Vec<&'static str>,
    arms: [&'static str; 4],
    special: String,
    is_writer: bool,
    /// The role of who asks, where there are any.
    role: &'static str,
}

/// Shows forms that start a search or a comparison.
#[utoipa::path(
    get,
    path = "/start",
    tag = "pages",
    operation_id = "start",
    responses((status = 200, description = "The forms", body = String, content_type = "text/html")),
)]
pub(crate) async fn page(State(app): State<Arc<App>>, Extension(identity): Extension<Identity>) -> Response {
    let role = identity.role().map_or("", Role::name);
    let start = move |app: &App, shell: Shell| {
        let schedules = app.registry.list().into_iter().map(|summary| summary.name);
        Start {
            shell,
            role,
            datasets: app.catalog.list().iter().map(|entry| entry.describe().name).collect(),
            schedules: schedules.filter(|name| !ARMS.contains(&name.as_str())).collect(),
            models: MODELS,
            search_presets: Preset::OF_SEARCHES.iter().map(|preset| preset.name()).collect(),
            comparison_presets: Preset::ALL.iter().map(|preset| preset.name()).collect(),
            arms: ARMS,
            special: Arm::SPECIAL.join(", "),
            is_writer: app.lock.is_writer(),
        }
    };
    respond(app, identity, move |app, shell| Ok(start(app, shell))).await
}
