//! Whether a server queued the job that was asked for.

use anyhow::ensure;
use pba_search::Spec;
use serde_json::{Map, Value};

/// Checks that the spec of a job holds the fields that were asked for, as this program reads them.
///
/// # Errors
/// At the first field that is another one.
pub(super) fn check<S: Spec>(asked: &Map<String, Value>, queued: &S) -> anyhow::Result<()> {
    // A field that this program does not know may be one of a newer server.
    let Ok(mut spec) = S::try_from(asked.clone()) else { return Ok(()) };
    let mut queued = queued.clone();
    // The server writes the name of a schedule in the place of its digest.
    for (asked, queued) in spec.schedules().into_iter().zip(queued.schedules()) {
        if asked.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            asked.clone_from(queued);
        }
    }
    let defaults = S::try_from(Map::new()).map(|spec| fields(&spec)).unwrap_or_default();
    let queued = fields(&queued);
    for (field, value) in fields(&spec) {
        // The server fills in what was left out.
        let is_asked = asked.contains_key(&field) || defaults.get(&field) != Some(&value);
        let found = queued.get(&field).unwrap_or(&Value::Null);
        ensure!(!is_asked || *found == value, "{field} is {found}, and {value} was asked for");
    }
    Ok(())
}

fn fields(spec: &impl Spec) -> Map<String, Value> {
    match serde_json::to_value(spec) {
        Ok(Value::Object(fields)) => fields,
        _ => unreachable!("a spec is written as an object"),
    }
}

#[cfg(test)]
mod tests {
    use pba_search::{ComparisonSpec, EvaluationSpec, SearchSpec};
    use serde_json::json;

    use super::*;

    /// What is found of a job that was asked for with some fields and queued with others.
    fn found<S: Spec>(asked: Value, queued: Value) -> Result<(), String> {
        let fields = |value: Value| value.as_object().expect("fields are an object").clone();
        let Ok(queued) = S::try_from(fields(queued)) else { panic!("the server queues what is right") };
        check(&fields(asked), &queued).map_err(|error| error.to_string())
    }

    #[test]
    fn what_was_left_out_may_be_anything_and_what_was_asked_for_may_not() {
        let asked = json!({ "epochs": 12, "lr": 0.1, "then_compare": true });
        let mut queued = json!({ "name": "shapes-tiny-1", "epochs": 12, "then_compare": {}, "base": "flip" });
        assert_eq!(found::<SearchSpec>(asked.clone(), queued.clone()), Ok(()));
        queued["lr"] = 0.2.into();
        assert_eq!(
            found::<SearchSpec>(asked, queued),
            Err("lr is 0.2, and 0.1 was asked for".to_owned()),
            "also where it is the default"
        );
        let of_preset = found::<SearchSpec>(json!({ "preset": "rcifar10" }), json!({}));
        assert!(of_preset.unwrap_err().contains("was asked for"));
    }

    #[test]
    fn a_digest_becomes_a_name_and_a_name_no_other_one() {
        let of = |asked: &str, queued: &str| {
            found::<EvaluationSpec>(json!({ "schedule": asked }), json!({ "schedule": queued }))
        };
        assert_eq!(of("0f2f615f3cf4733d", "mine"), Ok(()));
        assert_eq!(of("mine", "mine"), Ok(()));
        assert_eq!(of("mine", "other"), Err(r#"schedule is "other", and "mine" was asked for"#.to_owned()));
        let arms = |last: &str| json!({ "arms": ["none", "mine", last] });
        assert_eq!(found::<ComparisonSpec>(arms("0f2f615f3cf4733d"), arms("other")), Ok(()));
        assert!(found::<ComparisonSpec>(arms("one"), arms("other")).is_err());
    }
}
