//! A plot of a schedule: the probability and the magnitude of each op, over the epochs.

use pba_schedules::{MAGNITUDE_MAX, OpOdds, Schedule};

use crate::draw::plot::{LEFT, PLOT_WIDTH, Plot, TOP};

const ROW: u32 = 26;
const BAR_MAX: u32 = 22;
const BOTTOM: u32 = 56;

/// Draws a schedule as SVG.
///
/// One row per op. The height of a bar is the op's probability, its colour the op's magnitude.
pub(crate) fn draw(schedule: &Schedule) -> String {
    draw_at(schedule, schedule.epochs(), 0)
}

/// The height of the picture of a schedule over `ops` ops.
pub(super) fn height(ops: u32) -> u32 {
    TOP + ops * ROW + BOTTOM
}

/// As [`draw`], for use inside another picture at height `y`, as the beginning of a run of `epochs`.
pub(super) fn draw_at(schedule: &Schedule, epochs: u32, y: u32) -> String {
    let ops = schedule.ops();
    let drawn = match schedule.epochs() {
        drawn if drawn < epochs => format!("{drawn} of {epochs} epochs"),
        _ => format!("{epochs} epochs"),
    };
    // Not the beginning of a run that will have other policies.
    let is_constant = schedule.is_constant() && epochs == 1;
    let length = match is_constant {
        true => "One policy throughout".to_owned(),
        false => format!("{drawn}, segments: {}", schedule.segments().len()),
    };
    let about = format!("{length}. Bar height: probability. Colour: magnitude.");
    let mut plot = Plot::new(Some(y), height(ops.len() as u32), epochs, schedule.name(), &about);

    for (row, op) in ops.iter().enumerate() {
        let base = TOP + (row as u32 + 1) * ROW;
        plot.line(format_args!(
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{op}</text>",
            LEFT - 10,
            base - 6
        ));
        plot.line(format_args!(
            "<line x1=\"{LEFT}\" y1=\"{base}\" x2=\"{}\" y2=\"{base}\" stroke=\"#eaeef2\"/>",
            LEFT + PLOT_WIDTH
        ));
        let mut start = 0;
        for segment in schedule.segments() {
            let end = start + segment.epochs;
            let OpOdds { probability, magnitude } = segment.policy.odds(*op);
            if probability > 0.0 {
                let bar = f64::from(BAR_MAX) * probability;
                plot.line(format_args!(
                    "<rect x=\"{:.2}\" y=\"{:.2}\" width=\"{:.2}\" height=\"{bar:.2}\" fill=\"{}\"><title>{op}{}: probability {probability:.2}, \
                     magnitude {magnitude:.1}</title></rect>",
                    plot.x(start),
                    f64::from(base) - bar,
                    plot.x(end) - plot.x(start),
                    color(magnitude / f64::from(MAGNITUDE_MAX)),
                    if is_constant { String::new() } else { format!(", epochs {start} to {}", end - 1) },
                ));
            }
            start = end;
        }
    }

    if !is_constant {
        plot.axis(TOP + ops.len() as u32 * ROW, 2, "epoch of the search");
    }
    for level in 0..=u32::from(MAGNITUDE_MAX) {
        let y = TOP + 24 + (u32::from(MAGNITUDE_MAX) - level) * 18;
        plot.line(format_args!(
            "<rect x=\"{}\" y=\"{y}\" width=\"18\" height=\"18\" fill=\"{}\"/><text x=\"{}\" y=\"{}\">{level}</text>",
            LEFT + PLOT_WIDTH + 30,
            color(f64::from(level) / f64::from(MAGNITUDE_MAX)),
            LEFT + PLOT_WIDTH + 54,
            y + 13
        ));
    }
    plot.line(format_args!(
        "<text x=\"{}\" y=\"{}\" fill=\"#57606a\">magnitude</text>",
        LEFT + PLOT_WIDTH + 30,
        TOP + 14
    ));
    plot.finish()
}

/// From pale yellow through teal to dark blue, for 0..1.
fn color(strength: f64) -> String {
    const STOPS: [[f64; 3]; 4] =
        [[237.0, 217.0, 130.0], [110.0, 190.0, 150.0], [45.0, 125.0, 160.0], [40.0, 45.0, 110.0]];
    let position = strength.clamp(0.0, 1.0) * (STOPS.len() - 1) as f64;
    let from = (position as usize).min(STOPS.len() - 2);
    let mix = |channel: usize| {
        let (low, high) = (STOPS[from][channel], STOPS[from + 1][channel]);
        (low + (high - low) * (position - from as f64)).round() as u8
    };
    format!("#{:02x}{:02x}{:02x}", mix(0), mix(1), mix(2))
}

#[cfg(test)]
mod tests {
    use pba_schedules::Op;

    use super::*;

    #[test]
    fn every_op_has_a_row_and_every_bar_a_tooltip() {
        let svg = draw(&pba_schedules::library::cifar10_pba());
        for op in Op::PAPER {
            assert!(svg.contains(&format!(">{op}</text>")), "{op}");
        }
        assert!(svg.contains("AutoContrast, epochs 195 to 199"), "{svg}");
        assert_eq!(svg.matches("<rect x").count(), svg.matches("</title>").count() + 10);
    }

    #[test]
    fn a_policy_that_never_changes_has_a_bar_for_each_op_and_no_epochs() {
        let policy = pba_schedules::library::named("randaugment:2:20").unwrap().unwrap();
        let svg = draw(&policy);
        assert_eq!(svg.matches("</title>").count(), policy.ops().len());
        assert!(svg.contains("One policy throughout.") && !svg.contains("epoch of the search"), "{svg}");
        assert!(svg.contains("Rotate: probability 0.14, magnitude 6.0"), "{svg}");
    }
}
