//! Who sent a request, and whether its route is for them.
//!
//! A token stands in `Authorization: Bearer TOKEN`, or in the cookie that the sign-in page sets ([`sign_in`]). Where
//! both are sent the header counts, so one that is wrong is refused whatever the cookie holds.
//!
//! A browser sends the cookie on its own, even with requests that a page of another server makes it send. Those are kept
//! out by `boundary`, which refuses requests of pages of another origin before any token is looked at, and by
//! `SameSite=Strict`.
//!
//! [`sign_in`]: crate::http::sign_in

use std::borrow::Cow;
use std::collections::HashMap;

use axum::extract::Request;
use axum::http::header::{AUTHORIZATION, COOKIE};
use axum::http::{HeaderMap, Method};
use pba_wire::Role;
use pba_wire::role::OPERATION_KEY;
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Components, OpenApi};
use utoipa_axum::router::OpenApiRouter;

use crate::access::Identity;
use crate::access::authenticator::{Authenticator, Refusal};
use crate::error::{Cause, Error};
use crate::stream::shared_memory_stream::Local;

/// The name of the cookie with a token.
pub(super) const COOKIE_NAME: &str = "pba_token";
/// The scheme's name in `/openapi.json`.
const SCHEME: &str = "token";

/// Routes that a role is needed for.
pub(super) fn for_role<S: Clone + Send + Sync + 'static>(
    role: Role,
    mut routes: OpenApiRouter<S>,
) -> OpenApiRouter<S> {
    for (_, operation) in operations(routes.get_openapi_mut()) {
        let key = Extensions::from_iter([(OPERATION_KEY, role.name())]);
        operation.extensions.get_or_insert_default().merge(key);
        operation.security = Some(vec![SecurityRequirement::new(SCHEME, [""; 0])]);
    }
    routes
}

/// Says in the document how to authenticate, where one has to: else only the roles stand there.
pub(super) fn document(document: &mut OpenApi, is_needed: bool) {
    if !is_needed {
        for (_, operation) in operations(document) {
            operation.security = None;
        }
        return;
    }
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(
        "A token of the server's configuration, where it has any. x-pba-role is the role that an operation needs; each \
         role may do what those before it may: reader, researcher, admin",
    ));
    let components = document.components.get_or_insert_with(Components::new);
    components.add_security_scheme(SCHEME, SecurityScheme::Http(scheme.build()));
}

/// Every operation of a document with its method and path.
fn operations(document: &mut OpenApi) -> Vec<((Method, String), &mut Operation)> {
    document.paths.paths.iter_mut().flat_map(|(path, item)| of_path(path, item)).collect()
}

/// The operations of a path.
pub(super) fn of_path<'a>(
    path: &'a str,
    item: &'a mut PathItem,
) -> impl Iterator<Item = ((Method, String), &'a mut Operation)> {
    let operations = [
        (Method::GET, &mut item.get),
        (Method::PUT, &mut item.put),
        (Method::POST, &mut item.post),
        (Method::DELETE, &mut item.delete),
    ];
    operations
        .into_iter()
        .filter_map(|(method, operation)| Some(((method, path.to_owned()), operation.as_mut()?)))
}

/// The role that an operation needs.
pub(super) fn role_of(operation: &Operation) -> Option<Role> {
    operation.extensions.as_ref()?.get(OPERATION_KEY)?.as_str()?.parse().ok()
}

/// The role that each operation needs; none of those that need no token.
#[derive(Default)]
pub(super) struct Roles(HashMap<(Method, String), Option<Role>>);

impl Roles {
    pub(super) fn add(&mut self, operation: (Method, String), role: Option<Role>) {
        self.0.insert(operation, role);
    }

    /// The role that a request needs. What is no route is told to readers only.
    pub(super) fn needed(&self, method: &Method, route: Option<&str>) -> Option<Role> {
        // What is asked by HEAD is what GET would answer.
        let method = if method == Method::HEAD { &Method::GET } else { method };
        let known = route.and_then(|route| self.0.get(&(method.clone(), route.to_owned())));
        known.copied().unwrap_or(Some(Role::Reader))
    }
}

/// Who sent a request.
///
/// # Errors
/// When a token is needed, and none of this server's was sent.
pub(super) fn identify(authenticator: &Authenticator, request: &Request) -> Result<Identity, Error> {
    let is_local = request.extensions().get::<Local>().is_some();
    let found = match presented(request.headers()) {
        Ok(presented) => authenticator.identify(presented.as_deref(), is_local),
        // Where no token is needed, what a proxy wanted means nothing.
        Err(_) if !authenticator.is_needed() => authenticator.identify(None, is_local),
        Err(malformed) => return Err(refused(malformed)),
    };
    found.map_err(|refusal| {
        refused(match refusal {
            Refusal::Missing => "no token was sent; send one as Authorization: Bearer TOKEN",
            Refusal::Unknown => "the token is none of this server's, or was revoked",
        })
    })
}

/// The refusal of a client that is not known.
pub(super) fn refused(detail: &str) -> Error {
    Error::new(Cause::Unauthenticated, detail)
}

/// Refuses what needs another role.
///
/// # Errors
/// When it does.
pub(super) fn check_role(identity: &Identity, needed: Option<Role>) -> Result<(), Error> {
    let Some(needed) = needed.filter(|needed| !identity.may(*needed)) else { return Ok(()) };
    let had = identity.role().map_or("none", Role::name);
    let who = match identity.name() {
        Some(name) => format!("the token {name:?} has {had}"),
        None => format!("the Unix socket has {had} (socket_role)"),
    };
    let allowed = Role::ALL.into_iter().filter(|role| *role >= needed).map(Role::name);
    Err(Error {
        parameter: Some("role".to_owned()),
        value: Some(had.to_owned()),
        allowed: Some(allowed.collect::<Vec<_>>().join(", ")),
        ..Error::new(Cause::Role, format!("this needs the role {needed}, and {who}"))
    })
}

/// The token that a request has, of its header or else of its cookie.
///
/// # Errors
/// When the header is there and holds none.
fn presented(headers: &HeaderMap) -> Result<Option<Cow<'_, [u8]>>, &'static str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(cookie(headers)) };
    if values.next().is_some() {
        return Err("Authorization was sent more than once; expected one Bearer TOKEN");
    }
    let value = value.as_bytes();
    let scheme = value.iter().position(|byte| *byte == b' ').map(|space| value.split_at(space));
    match scheme {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer") => {
            Ok(Some(token.trim_ascii().into()))
        }
        _ => Err("Authorization was sent with another scheme; expected Bearer TOKEN"),
    }
}

/// The token of the cookie.
fn cookie(headers: &HeaderMap) -> Option<Cow<'_, [u8]>> {
    let values = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let cookies =
        values.flat_map(|value| value.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
    let token = cookies.into_iter().find(|(name, _)| *name == COOKIE_NAME)?.1;
    Some(percent_encoding::percent_decode_str(token).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(headers: &[(&str, &str)], expected: Result<Option<&str>, &str>) {
        let request = headers
            .iter()
            .fold(Request::builder(), |request, (name, value)| request.header(*name, *value))
            .body(axum::body::Body::empty())
            .unwrap();
        match (presented(request.headers()), expected) {
            (Ok(found), Ok(expected)) => {
                assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{headers:?}")
            }
            (Err(error), Err(says)) => assert!(error.contains(says), "{error}"),
            (found, _) => panic!("{headers:?}: {found:?}"),
        }
    }

    #[test]
    fn a_token_stands_in_the_header_or_else_in_the_cookie() {
        check(&[], Ok(None));
        check(&[("authorization", "Bearer pba_1")], Ok(Some("pba_1")));
        check(&[("authorization", "bearer   pba_1 ")], Ok(Some("pba_1")));
        check(&[("authorization", "Bearer ")], Ok(Some("")));
        check(&[("authorization", "Bearer")], Err("another scheme"));
        check(&[("authorization", "Basic cGJhOg==")], Err("another scheme"));
        check(&[("authorization", "pba_1")], Err("another scheme"));
        check(&[("authorization", "Bearer a"), ("authorization", "Bearer b")], Err("more than once"));
        check(&[("cookie", "a=b; pba_token=pba_1; c=d")], Ok(Some("pba_1")));
        check(&[("cookie", "a=b"), ("cookie", "pba_token=a%3Bb")], Ok(Some("a;b")));
        check(&[("cookie", "xpba_token=1; pba_tokens=2; pba_token")], Ok(None));
        check(&[("cookie", "pba_token=right"), ("authorization", "Bearer wrong")], Ok(Some("wrong")));
    }

    #[test]
    fn what_is_no_route_is_told_to_readers_only() {
        let mut roles = Roles::default();
        roles.add((Method::GET, "/open".to_owned()), None);
        roles.add((Method::GET, "/x".to_owned()), Some(Role::Admin));
        assert_eq!(roles.needed(&Method::GET, Some("/open")), None);
        assert_eq!(roles.needed(&Method::HEAD, Some("/open")), None);
        assert_eq!(roles.needed(&Method::POST, Some("/open")), Some(Role::Reader));
        assert_eq!(roles.needed(&Method::HEAD, Some("/x")), Some(Role::Admin));
        assert_eq!(roles.needed(&Method::GET, None), Some(Role::Reader));
    }
}
