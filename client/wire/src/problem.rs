//! Errors over HTTP: `application/problem+json` (RFC 9457).

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The media type of a [`Problem`].
pub const CONTENT_TYPE: &str = "application/problem+json";
/// What each [`Problem::kind`] of a PBA server begins with.
pub const URN: &str = "urn:pba:problem:";
/// [`Problem::kind`] of the refusal of a stream whose dataset is still being imported.
pub const IMPORTING: &str = "urn:pba:problem:importing";
/// The kind of the refusal of samples whose packed file is damaged: another replica's may be whole, and the server
/// mends its own.
pub const DAMAGED: &str = "urn:pba:problem:damaged";
/// The kind of the refusal of a server that cannot write to its data directory.
pub const READ_ONLY: &str = "urn:pba:problem:read-only";
/// The kind of the refusal of a request that was changed on its way, of which nothing was done.
pub const ALTERED: &str = "urn:pba:problem:altered";

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// A short name for the kind of error; stable, for programs.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind of error, for people.
    pub title: String,
    /// The HTTP status, repeated.
    pub status: u16,
    /// The exact error, for people.
    pub detail: String,
    /// The offending parameter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
    /// Its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The allowed values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.detail, self.status)
    }
}
