//! The log of a server in JSON, as programs read it.

use serde_json::Value;

use crate::server::Process;
use crate::wait_for;

/// The lines of a log with `PBA_LOG_FORMAT=json`, each of which is one object.
///
/// # Panics
/// At the first that is not, or lacks what each has.
#[track_caller]
pub fn lines(text: &str) -> Vec<Value> {
    let read = |line: &str| {
        let value: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("not JSON: {error}: {line:?}"));
        for key in ["timestamp", "level", "target"] {
            assert!(value[key].is_string(), "{line} has no {key}");
        }
        assert!(value["fields"]["message"].is_string(), "{line} has no message");
        value
    };
    text.lines().map(read).collect()
}

/// Those of a running server that are there whole.
fn written(process: &Process) -> Vec<Value> {
    let text = process.stderr();
    lines(text.rfind('\n').map_or("", |end| &text[..end]))
}

/// The lines with a message, once there are so many of them.
///
/// # Panics
/// When there are more, or not as many in time.
#[track_caller]
pub fn with_message(process: &Process, message: &str, count: usize) -> Vec<Value> {
    let found = wait_for(message, || {
        let mut found = written(process);
        found.retain(|line| line["fields"]["message"] == message);
        (found.len() >= count).then_some(found)
    });
    assert_eq!(found.len(), count, "{found:#?}");
    found
}
