//! How requests may be refused, as the API's description tells it.

use std::collections::BTreeMap;

use pba_wire::problem;
use utoipa::IntoResponses;
use utoipa::openapi::{Content, Ref, RefOr, Response, ResponseBuilder};

use crate::error::Cause;

/// Why any request may be refused.
const ANY: [Cause; 5] =
    [Cause::WrongParameter, Cause::TooLarge, Cause::Timeout, Cause::Opening, Cause::Internal];

/// The answers to requests that are refused for one of these causes, or for one of [`ANY`]. The component
/// schema that they refer to is [`Problem`](pba_wire::Problem)'s.
fn refusals(causes: &[Cause]) -> BTreeMap<String, RefOr<Response>> {
    let mut titles: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for cause in ANY.iter().chain(causes) {
        let (status, _, title) = cause.row();
        titles.entry(status.as_str().to_owned()).or_default().push(title);
    }
    let answer = |titles: Vec<&str>| {
        let content = Content::new(Some(Ref::from_schema_name("Problem")));
        ResponseBuilder::new().description(titles.join("; ")).content(problem::CONTENT_TYPE, content)
    };
    titles.into_iter().map(|(status, titles)| (status, answer(titles).build().into())).collect()
}

/// Of a list, which is always there.
pub(super) enum OfList {}

impl IntoResponses for OfList {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        refusals(&[])
    }
}

/// Of one thing by its name.
pub(super) enum OfOne {}

impl IntoResponses for OfOne {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        refusals(&[Cause::NotFound])
    }
}

/// Of a change to one thing by its name.
pub(super) enum OfChange {}

impl IntoResponses for OfChange {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        refusals(&[Cause::NotFound, Cause::Conflict])
    }
}

/// Of a job that is asked for.
pub(super) enum OfJob {}

impl IntoResponses for OfJob {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        use Cause::{BrokenDataset, Busy, Conflict, Draining, NoTrainer, NotFound, WrongBody};
        refusals(&[WrongBody, NotFound, Conflict, BrokenDataset, Busy, NoTrainer, Draining])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_tells_every_cause() {
        let answers = OfJob::responses();
        let statuses: Vec<&String> = answers.keys().collect();
        assert_eq!(statuses, ["400", "404", "408", "409", "413", "422", "429", "500", "503"]);
        let RefOr::T(wrong) = &answers["400"] else { panic!("it is told in its place") };
        assert_eq!(wrong.description, "wrong parameter; wrong body");
    }
}
