//! A plot of a comparison: every run's error with mean and spread of each arm, and below it the
//! differences with their intervals.

use pba_search::{ComparisonResults, ComparisonSpec, Contrast, Entry, Verdict, worded};

use crate::draw::axis::Axis;
use crate::draw::markup::escaped;
use crate::draw::plot::{LEFT, PLOT_WIDTH, Plot, TOP};

/// Height of a row.
const ROW: u32 = 24;
/// Names stand left of here.
const NAMES: f64 = LEFT as f64 + 190.0;
/// Figures stand right of here.
const FIGURES: f64 = (LEFT + PLOT_WIDTH) as f64 - 60.0;
/// Between the two parts, and below the last.
const GAP: u32 = 64;

/// Share of an axis that stays empty on either side.
const MARGIN: f64 = 0.06;

/// Where a number of an axis lies in the plot.
fn x_of(axis: &Axis, number: f64) -> f64 {
    NAMES + 16.0 + (FIGURES - NAMES - 32.0) * axis.place(number)
}

/// Lines at round percentages, from height `top` to `bottom`.
fn draw_rules(plot: &mut Plot, axis: &Axis, (top, bottom): (u32, u32), label: &str, is_signed: bool) {
    for (number, text) in axis.ticks(7.0, is_signed) {
        let x = x_of(axis, number);
        plot.line(format_args!(
            "<line x1=\"{x:.1}\" y1=\"{top}\" x2=\"{x:.1}\" y2=\"{bottom}\" stroke=\"#eaeef2\"/>\
             <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{text}</text>",
            bottom + 16
        ));
    }
    plot.line(format_args!(
        "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\" fill=\"#57606a\">{label}</text>",
        (NAMES + FIGURES) / 2.0,
        bottom + 34
    ));
}

/// Draws the comparison so far.
pub(crate) fn draw(spec: &ComparisonSpec, results: &ComparisonResults) -> String {
    let state = match &results.verdict {
        Some(verdict) => escaped(verdict),
        None => format!("{} of {} runs have ended", results.runs_done, results.runs),
    };
    let rows = results.arms.len() + results.groups.len();
    let bottom = TOP + ROW * rows as u32;
    let (top_of_contrasts, contrasts) = (bottom + GAP, ROW * results.contrasts.len() as u32);
    let mut plot = Plot::new(None, top_of_contrasts + contrasts + GAP, 1, &spec.name, &state);
    let errors = || results.arms.iter().flat_map(|arm| arm.errors.iter().flatten().copied());
    let entries = || results.arms.iter().map(|arm| &arm.entry).chain(&results.groups);
    let spreads = entries().filter_map(|entry| Some((entry.mean?, entry.deviation?)));
    let spreads = spreads.flat_map(|(mean, deviation)| [mean - deviation, mean + deviation]);
    let Some(axis) = Axis::over(errors().chain(spreads), MARGIN) else { return plot.finish() };
    draw_rules(
        &mut plot,
        &axis,
        (TOP, bottom),
        "error, % (dots: runs; line: mean and standard deviation)",
        false,
    );
    let arms = results.arms.iter().map(|arm| (&arm.entry, arm.errors.iter().flatten().copied().collect()));
    let groups = results.groups.iter().map(|group| (group, Vec::new()));
    for (row, (entry, runs)) in (0..).zip(arms.chain(groups)) {
        draw_entry(&mut plot, &axis, TOP + ROW * row + ROW / 2, entry, &runs);
    }
    let margin = spec.margin / 100.0;
    let ends = |contrast: &Contrast| contrast.interval.into_iter().flatten().chain(contrast.difference);
    let Some(axis) = Axis::over(results.contrasts.iter().flat_map(ends).chain([-margin, margin]), MARGIN)
    else {
        return plot.finish();
    };
    let (top, bottom) = (top_of_contrasts, top_of_contrasts + contrasts);
    plot.line(format_args!(
        "<rect x=\"{:.1}\" y=\"{top}\" width=\"{:.1}\" height=\"{contrasts}\" fill=\"#f1f4f8\"/>",
        x_of(&axis, -margin),
        x_of(&axis, margin) - x_of(&axis, -margin)
    ));
    let label = "difference, points of error, with its 95 % interval (left of 0: fewer errors; shaded: would not matter)";
    draw_rules(&mut plot, &axis, (top, bottom), label, true);
    let zero = x_of(&axis, 0.0);
    plot.line(format_args!(
        "<line x1=\"{zero:.1}\" y1=\"{top}\" x2=\"{zero:.1}\" y2=\"{bottom}\" stroke=\"#57606a\"/>"
    ));
    for (row, contrast) in (0..).zip(&results.contrasts) {
        draw_contrast(&mut plot, &axis, top + ROW * row + ROW / 2, contrast, spec.margin);
    }
    plot.finish()
}

fn draw_entry(plot: &mut Plot, axis: &Axis, y: u32, entry: &Entry, runs: &Vec<f64>) {
    let Entry { name, mean, deviation, n } = entry;
    label(plot, y, name);
    for run in runs {
        plot.line(format_args!(
            "<circle cx=\"{:.1}\" cy=\"{y}\" r=\"3\" fill=\"#8fb3dd\"/>",
            x_of(axis, *run)
        ));
    }
    let Some(mean) = *mean else { return };
    let spread = deviation.unwrap_or(0.0);
    bar(plot, axis, y, mean, [mean - spread, mean + spread], "#0b3d91");
    let figure = match deviation {
        Some(deviation) => format!("{:.2} ± {:.2} ({n})", 100.0 * mean, 100.0 * deviation),
        None => format!("{:.2} ({n})", 100.0 * mean),
    };
    figures(plot, y, &figure);
}

fn draw_contrast(plot: &mut Plot, axis: &Axis, y: u32, contrast: &Contrast, margin: f64) {
    label(plot, y, &format!("{} − {}", contrast.arm, contrast.against));
    let (Some(difference), Some(verdict)) = (contrast.difference, contrast.verdict) else { return };
    let color = match verdict {
        Verdict::Better => "#1a7f37",
        Verdict::Worse => "#b42318",
        Verdict::NoDifference | Verdict::TooFew => "#57606a",
    };
    bar(plot, axis, y, difference, contrast.interval.unwrap_or([difference; 2]), color);
    figures(plot, y, &worded(verdict, margin));
}

fn label(plot: &mut Plot, y: u32, name: &str) {
    let end = NAMES;
    // Long names are drawn narrower, so that none leaves the picture.
    let fit =
        if name.chars().count() > 42 { " textLength=\"280\" lengthAdjust=\"spacingAndGlyphs\"" } else { "" };
    plot.line(format_args!(
        "<text x=\"{end}\" y=\"{}\" text-anchor=\"end\"{fit}>{}</text>",
        y + 4,
        escaped(name)
    ));
}

fn figures(plot: &mut Plot, y: u32, text: &str) {
    plot.line(format_args!("<text x=\"{FIGURES}\" y=\"{}\">{text}</text>", y + 4));
}

/// A mark with a bar through it.
fn bar(plot: &mut Plot, axis: &Axis, y: u32, at: f64, [low, high]: [f64; 2], color: &str) {
    plot.line(format_args!(
        "<line x1=\"{:.1}\" y1=\"{y}\" x2=\"{:.1}\" y2=\"{y}\" stroke=\"{color}\" stroke-width=\"2\"/>\
         <line x1=\"{2:.1}\" y1=\"{3}\" x2=\"{2:.1}\" y2=\"{4}\" stroke=\"{color}\" stroke-width=\"3\"/>",
        x_of(axis, low),
        x_of(axis, high),
        x_of(axis, at),
        y - 7,
        y + 7
    ));
}

#[cfg(test)]
mod tests {
    use pba_search::{Comparison, ComparisonEvent, Run, Spec};

    use super::*;

    #[test]
    fn every_arm_and_every_contrast_is_drawn() {
        let text =
            r#"{"arms": ["none", "a", "b"], "groups": {"both": ["a", "b"]}, "seeds": 3, "at_once": 3}"#;
        let spec = ComparisonSpec::from_json(text).unwrap();
        let begun = ComparisonEvent::Comparing {
            spec: Box::new(spec.clone()),
            schedule_digests: vec![None; 3],
            dataset_digest: String::new(),
        };
        let (mut comparison, _) = Comparison::begin(&begun).unwrap();
        assert!(draw(&spec, &comparison.report()).contains("0 of 9 runs have ended"));
        for (round, scores) in (0..).zip([[0.5, 0.4, 0.3], [0.52, 0.41, 0.33], [0.49, 0.4, 0.31]]) {
            let (split, errors) = ("test".to_owned(), scores.map(Some).to_vec());
            comparison.apply(&ComparisonEvent::Scored { round, split, images: 10, errors }).unwrap();
        }
        let svg = draw(&spec, &comparison.report());
        assert_eq!(svg.matches("<circle").count(), 9);
        for part in [">none</text>", ">both</text>", ">both − none</text>", "50.33 ± 1.53 (3)"] {
            assert!(svg.contains(part), "{svg}\ndoes not hold {part}");
        }
    }
}
