//! How the difference of two schedules is shown.

use pba_schedules::{Change, Difference, Levels, Op, Schedule};
use serde_json::{Value, json};

use crate::cli::output;

/// The difference as JSON: whether there is none, what was compared, and the ranges of epochs.
pub(crate) fn document(names: [&str; 2], schedules: [&Schedule; 2], found: &Difference) -> Value {
    let about = |at: usize| json!({ "schedule": names[at], "epochs": found.epochs[at], "digest": schedules[at].digest().to_string() });
    json!({
        "same": found.is_empty(),
        "a": about(0),
        "b": about(1),
        "compared_epochs": found.compared,
        "ranges": found.ranges,
    })
}

/// Prints the difference: the lengths, then a row for each thing that differs, under the epochs in which it does.
pub(crate) fn print(names: [&str; 2], schedules: [&Schedule; 2], found: &Difference) {
    if found.is_empty() {
        let digest = schedules[0].digest();
        return output::line(format_args!("{} and {} are the same: digest {digest}", names[0], names[1]));
    }
    for (letter, (name, schedule)) in ["a", "b"].into_iter().zip(names.into_iter().zip(schedules)) {
        let length = match schedule.is_constant() {
            true => "one policy throughout".to_owned(),
            false => format!("{} epochs", schedule.epochs()),
        };
        output::line(format_args!("{letter} {name}: {length}, digest {}", schedule.digest()));
    }
    let compared = found.compared;
    if schedules.iter().all(|schedule| schedule.is_constant()) {
        // Whatever differs differs in every epoch.
        output::line("these differ:\n");
        let changes = found.ranges.iter().flat_map(|range| &range.changes);
        return output::table(
            &["OP (slot)", "a", "b"],
            &changes.map(|change| words(change).into()).collect::<Vec<_>>(),
        );
    }
    if found.ranges.is_empty() {
        return output::line(format_args!(
            "the policies of the first {compared} epochs, which both have, are the same"
        ));
    }
    output::line(format_args!("of the first {compared} epochs, which both have, these differ:\n"));
    let rows = found.ranges.iter().flat_map(|range| {
        let epochs = format!("{}..={}", range.first, range.last);
        range.changes.iter().enumerate().map(move |(at, change)| {
            let [what, a, b] = words(change);
            vec![if at == 0 { epochs.clone() } else { String::new() }, what, a, b]
        })
    });
    output::table(&["EPOCHS", "OP (slot)", "a", "b"], &rows.collect::<Vec<_>>());
}

/// What differs, and what it is in either schedule.
fn words(change: &Change) -> [String; 3] {
    match change {
        Change::Slot { op, slot, levels: [a, b] } => {
            [format!("{op} ({})", slot + 1), levels(a.as_ref()), levels(b.as_ref())]
        }
        Change::Order { ops: [a, b] } => {
            let names = |ops: &[Op]| ops.iter().map(|op| op.name()).collect::<Vec<_>>().join(" ");
            ["order of ops".to_owned(), names(a), names(b)]
        }
        Change::Policies { policies: [a, b], .. } => {
            let words =
                |policy: &str| if policy.is_empty() { "nothing".to_owned() } else { policy.to_owned() };
            ["all".to_owned(), words(a), words(b)]
        }
    }
}

/// Probability and magnitude as `show` has them.
fn levels(levels: Option<&Levels>) -> String {
    match levels {
        Some(Levels { probability, magnitude }) => {
            format!("{:.1}/{magnitude}", f64::from(*probability) / 10.0)
        }
        None => "not there".to_owned(),
    }
}
