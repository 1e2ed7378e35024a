//! A chart of a rate over the last minutes.

use crate::draw::chart::{Anchor, Chart};
use crate::draw::figures;

const HEIGHT: f64 = 96.0;
const TOP: f64 = 16.0;

/// Draws the latest of at most `room` values, the last of them at the right.
pub(crate) fn draw(values: &[f64], room: usize, unit: &str) -> String {
    let values = &values[values.len().saturating_sub(room)..];
    let greatest = values.iter().copied().fold(0.0, f64::max);
    let now = values.last().copied().unwrap_or(0.0);
    let label = format!("{now:.0} {unit} now, at most {greatest:.0} in the last {} s", values.len());
    let mut chart = Chart::new(HEIGHT + 18.0, &label);
    let first = room - values.len();
    for (position, &value) in values.iter().enumerate() {
        let across = [first + position, first + position + 1].map(|at| at as f64 / room as f64);
        let height = (HEIGHT - TOP) * value / greatest.max(1.0);
        chart.bar("accent", [across[0], across[1] - 0.15 / room as f64], HEIGHT - height, height);
    }
    chart.rule(TOP, format_args!("{} {unit}", figures::short(greatest)));
    chart.line("base", [0.0, HEIGHT], [1.0, HEIGHT]);
    chart.text("tick", Anchor::Start, [0.0, HEIGHT + 14.0], format_args!("{room} s ago"));
    chart.text("tick", Anchor::End, [1.0, HEIGHT + 14.0], "now");
    chart.finish()
}
