//! The pages for people: one file and one template each. A page is complete as it is sent; `assets/live.js` asks for it
//! again and takes over the parts that change, so there is one way in which anything is shown.

mod assets;
mod comparison;
mod dataset;
mod evaluation;
mod job;
mod overview;
mod schedule;
mod search;
pub(super) mod sign_in;
mod start;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use askama::Template;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use pba_wire::Role;
use pba_wire::problem::CONTENT_TYPE;
use utoipa::openapi::RefOr;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::path::Operation;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::access::Identity;
use crate::app::App;
use crate::error::Error;
use crate::http::read;
use crate::version;

/// The pages, and what they load. All of them only read.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(overview::page))
        .routes(routes!(dataset::page))
        .routes(routes!(schedule::page))
        .routes(routes!(search::page))
        .routes(routes!(comparison::page))
        .routes(routes!(evaluation::page))
        .routes(routes!(start::page))
        .routes(routes!(assets::asset))
        .routes(routes!(assets::icon))
}

/// Says in the document that the problems of a page are pages as well.
pub(super) fn document(operation: &mut Operation) {
    if operation.tags.iter().flatten().any(|tag| tag == "pages") {
        for response in operation.responses.responses.values_mut() {
            if let RefOr::T(response) = response
                && response.content.contains_key(CONTENT_TYPE)
            {
                response.content.insert("text/html".to_owned(), ContentBuilder::new().build().into());
            }
        }
    }
}

/// Whether a route shows schedules, which a replica then reads again.
pub(super) fn show_schedules(route: &str) -> bool {
    !route.starts_with("/v1/")
        && ["/start", "/datasets/", "/schedules/", "/searches/", "/comparisons/", "/evaluations/"]
            .iter()
            .any(|page| route.starts_with(page))
        || route == "/"
}

/// What pages load and where they send: only this server. Nothing in them is a script or a style, so that no name in
/// the data can be one, and no other page holds them.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; \
                      connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// What every page says of itself.
pub(super) struct Shell {
    /// What the version is.
    version: &'static str,
    /// When it was made, in UTC.
    as_of: String,
    /// That the server is shutting down, if it is.
    leaving: Option<&'static str>,
    /// Whether who asks may start, end and remove jobs: others are not offered it.
    may_change: bool,
}

impl Shell {
    fn new(leaving: Option<&'static str>, may_change: bool) -> Shell {
        Shell { version: version::VERSION, as_of: time_of_day(SystemTime::now()), leaving, may_change }
    }

    /// A page for who asks.
    fn of(app: &App, identity: &Identity) -> Shell {
        Shell::new(app.stage.notice(), identity.may(Role::Researcher))
    }
}

/// Hours, minutes and seconds, in UTC.
fn time_of_day(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    format!("{:02}:{:02}:{:02}", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
}

/// What is shown when there is no such page, or it cannot be shown.
#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemPage {
    shell: Shell,
    status: String,
    detail: String,
}

/// Makes a page for who asks, apart from the asynchronous threads, as it may wait for the disk.
async fn page<T: Template>(
    app: Arc<App>,
    identity: Identity,
    make: impl FnOnce(&App, Shell) -> Result<T, Error> + Send + 'static,
) -> Response {
    let of_problem = Shell::of(&app, &identity);
    let made = read(app, move |app| {
        let shell = Shell::of(app, &identity);
        make(app, shell)?.render().map_err(Error::internal)
    });
    made.await.map_or_else(|error| problem(of_problem, error), html)
}

/// A problem as a page; its status and its headers are those of the API.
fn problem(shell: Shell, error: Error) -> Response {
    let detail = error.detail.clone();
    let (mut parts, _) = error.into_response().into_parts();
    let shown = ProblemPage { shell, status: parts.status.to_string(), detail };
    match shown.render() {
        Ok(text) => {
            parts.headers.remove(header::CONTENT_TYPE);
            (parts, html(text)).into_response()
        }
        Err(error) => Error::internal(error).into_response(),
    }
}

/// A name as a part of a path or of a query.
pub(super) fn segment(name: &str) -> String {
    percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn html(text: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
    ];
    (headers, text).into_response()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::error::Cause;

    #[test]
    fn times_are_of_the_day() {
        let at = |seconds| time_of_day(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!([at(0), at(86_399), at(86_400 + 3_661)], ["00:00:00", "23:59:59", "01:01:01"]);
    }

    #[test]
    fn a_problem_is_text_with_its_status() {
        let shell = || Shell::new(None, true);
        let response = problem(shell(), Error::new(Cause::NotFound, "no \"<script>\" here"));
        assert_eq!(response.status(), 404);
        assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8");
        assert!(response.headers().contains_key("content-security-policy"));
        let (shell, status) = (shell(), "404".to_owned());
        let text = ProblemPage { shell, status, detail: "no <script>".to_owned() }.render().unwrap();
        assert!(text.contains("no &#60;script&#62;"), "{text}");
    }

    #[test]
    fn pages_with_schedules_are_told_from_others() {
        assert!(["/", "/datasets/{dataset}", "/start"].iter().all(|route| show_schedules(route)));
        assert!(!["/metrics", "/v1/datasets", "/assets/{asset}"].iter().any(|route| show_schedules(route)));
    }
}
