//! What requests try, for the audit log.

use axum::extract::Request;
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use pba_types::{VALUE_SHOWN, shortened};
use pba_wire::Role;
use pba_wire::audit::AuditEntry;

use crate::access::Identity;
use crate::access::secret::redacted_path;
use crate::audit::Audit;
use crate::date;
use crate::http::correlation::Correlation;
use crate::stream::client::Client;
use crate::stream::peer::Peer;

/// Longest method that is kept.
const METHOD_MAX: usize = 128;

/// The part of an entry that is known before the answer.
pub(super) struct Attempt {
    entry: AuditEntry,
    /// Whether it changes something if it is let in.
    is_change: bool,
    /// Whether it needs a role by which changes are made. Signing in and out needs none.
    needs_role: bool,
}

impl Attempt {
    /// What a request tries that needs a role, if an entry may come of it: whatever needs more than a reader, and signing
    /// in.
    pub(super) fn of(request: &Request, needed: Option<Role>) -> Option<Attempt> {
        let is_read = [Method::GET, Method::HEAD].contains(request.method());
        let needs_role = needed.is_some_and(|role| role > Role::Reader);
        let is_noted = needs_role || needed.is_none() && !is_read;
        is_noted.then(|| {
            let peer = request.extensions().get().copied().unwrap_or(Peer::local(Client::Unknown));
            let entry = AuditEntry {
                time: String::new(),
                token: None,
                role: None,
                peer: peer.to_string(),
                request_id: request
                    .extensions()
                    .get::<Correlation>()
                    .map(|known| known.request_id.to_string()),
                method: shortened(request.method().as_str(), METHOD_MAX).into_owned(),
                path: shortened(&redacted_path(request.uri().path()), VALUE_SHOWN).into_owned(),
                status: 0,
                made: None,
                left_out: 0,
            };
            Attempt { entry, is_change: !is_read, needs_role }
        })
    }

    /// Adds the entry to the log, now that the answer is known. What was only read has none.
    pub(super) fn add_to(mut self, audit: &Audit, identity: Option<&Identity>, response: &Response) {
        let status = response.status();
        let is_refused = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status);
        if !self.is_change && !is_refused {
            return;
        }
        // Who signs in is known by the answer.
        let identity = response.extensions().get().or(identity);
        self.entry.token = identity.and_then(Identity::name).map(str::to_owned);
        self.entry.role = identity.and_then(Identity::role);
        self.entry.status = status.as_u16();
        if status.is_success() {
            self.entry.made = made(response.headers());
        }
        self.entry.time = date::timestamp();
        let is_change = self.needs_role && status.as_u16() < 400;
        audit.add(self.entry, !is_change);
    }
}

/// The name of what was made, which is the last part of where it is.
fn made(headers: &HeaderMap) -> Option<String> {
    let location = headers.get(LOCATION)?.to_str().ok()?;
    Some(shortened(location.rsplit('/').next()?, VALUE_SHOWN).into_owned())
}
