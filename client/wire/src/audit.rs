//! `GET /v1/audit`: who changed what.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::query::integer;
use crate::role::Role;

/// Most entries of an answer.
pub const ENTRIES_MAX: usize = 1000;

crate::query! {
    /// Parameters of `GET /v1/audit`.
    pub struct AuditQuery {
        /// Entries to answer, the newest ones
        n: usize = 100, integer(1..=ENTRIES_MAX);
    }
}

/// The answer of `GET /v1/audit`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditList {
    /// The newest entries, newest first.
    pub entries: Vec<AuditEntry>,
}

/// A request for a change, made or refused: a line of the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// When it was answered, in UTC (RFC 3339).
    pub time: String,
    /// Name of the token; null without one.
    pub token: Option<String>,
    /// Role of the token, or of the Unix socket; null where neither is known, or no tokens are configured.
    pub role: Option<Role>,
    /// Where the request came from: an address, or a process of this machine.
    pub peer: String,
    /// The request's `X-Request-Id`, if it has one.
    pub request_id: Option<String>,
    /// Method of the request.
    pub method: String,
    /// Path of the request, without its query.
    pub path: String,
    /// Status of the answer.
    pub status: u16,
    /// Name of what was made, if something was.
    pub made: Option<String>,
    /// Refused requests since the last entry of this kind that have no entry, because there were too many.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}
