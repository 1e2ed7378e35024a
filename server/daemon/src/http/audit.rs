//! `GET /v1/audit`: who changed what.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use pba_wire::audit::{AuditList, AuditQuery};

use crate::app::App;
use crate::audit::ENTRY_BYTES_MAX;
use crate::error::Error;
use crate::http::extract::Query;
use crate::http::json::json;
use crate::http::read;

/// Lists who changed what: the newest entries of the audit log.
#[utoipa::path(
    get,
    path = "/v1/audit",
    tag = "audit",
    params(AuditQuery),
    responses((status = 200, description = "The entries, newest first", body = AuditList)),
)]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Query(AuditQuery { n: count }): Query<AuditQuery>,
) -> Result<Response, Error> {
    let list = move |app: &App| {
        let _memory = app.engine.memory_for_answer(2 * count as u64 * ENTRY_BYTES_MAX)?;
        let entries = app
            .audit
            .newest(count)
            .map_err(|error| Error::internal(format_args!("the audit log cannot be read: {error}")))?;
        json(&app.engine, &AuditList { entries })
    };
    read(app, list).await
}
