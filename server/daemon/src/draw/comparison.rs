//! A plot of a comparison: every run's error with mean and spread of each arm, and below it the
//! differences with their intervals.

use pba_search::{ComparisonResults, ComparisonSpec, Contrast, Entry, Verdict, worded};

use crate::draw::plot::{LEFT, PLOT_WIDTH, Plot, TOP};

/// Height of a row.
const ROW: u32 = 24;
/// Names stand left of here.
const NAMES: f64 = LEFT as f64 + 190.0;
/// Figures stand right of here.
const FIGURES: f64 = (LEFT + PLOT_WIDTH) as f64 - 60.0;
/// Between the two parts, and below the last.
const GAP: u32 = 64;

/// A horizontal axis.
struct Axis {
    low: f64,
    high: f64,
}

impl Axis {
    /// An axis that holds some numbers, with a margin.
    fn over(numbers: impl Iterator<Item = f64>) -> Option<Axis> {
        let (low, high) = numbers.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), number| {
            (low.min(number), high.max(number))
        });
        let margin = ((high - low) * 0.06).max(1e-4);
        (low <= high).then_some(Axis { low: low - margin, high: high + margin })
    }

    fn x(&self, number: f64) -> f64 {
        NAMES + 16.0 + (FIGURES - NAMES - 32.0) * (number - self.low) / (self.high - self.low)
    }

    /// Lines at round percentages, from height `top` to `bottom`.
    fn draw(&self, plot: &mut Plot, (top, bottom): (u32, u32), label: &str, signed: bool) {
        let rough = 100.0 * (self.high - self.low) / 7.0;
        let decade = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * decade);
        let step = step.into_iter().find(|&step| step >= rough).unwrap_or(rough);
        let decimals = (-step.log10().floor()).clamp(0.0, 6.0) as usize;
        let first = (100.0 * self.low / step).ceil() as i64;
        for tick in (first..).map(|count| count as f64 * step).take_while(|tick| *tick <= 100.0 * self.high) {
            let (x, tick) = (self.x(tick / 100.0), tick + 0.0);
            let text = if signed && tick > 0.0 {
                format!("+{tick:.decimals$}")
            } else {
                format!("{tick:.decimals$}")
            };
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
    let Some(axis) = Axis::over(errors().chain(spreads)) else { return plot.finish() };
    axis.draw(&mut plot, (TOP, bottom), "error, % (dots: runs; line: mean and standard deviation)", false);
    let arms = results.arms.iter().map(|arm| (&arm.entry, arm.errors.iter().flatten().copied().collect()));
    let groups = results.groups.iter().map(|group| (group, Vec::new()));
    for (row, (entry, runs)) in (0..).zip(arms.chain(groups)) {
        draw_entry(&mut plot, &axis, TOP + ROW * row + ROW / 2, entry, &runs);
    }
    let margin = spec.margin / 100.0;
    let ends = |contrast: &Contrast| contrast.interval.into_iter().flatten().chain(contrast.difference);
    let Some(axis) = Axis::over(results.contrasts.iter().flat_map(ends).chain([-margin, margin])) else {
        return plot.finish();
    };
    let (top, bottom) = (top_of_contrasts, top_of_contrasts + contrasts);
    plot.line(format_args!(
        "<rect x=\"{:.1}\" y=\"{top}\" width=\"{:.1}\" height=\"{contrasts}\" fill=\"#f1f4f8\"/>",
        axis.x(-margin),
        axis.x(margin) - axis.x(-margin)
    ));
    let label = "difference, points of error, with its 95 % interval (left of 0: fewer errors; shaded: would not matter)";
    axis.draw(&mut plot, (top, bottom), label, true);
    let zero = axis.x(0.0);
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
        plot.line(format_args!("<circle cx=\"{:.1}\" cy=\"{y}\" r=\"3\" fill=\"#8fb3dd\"/>", axis.x(*run)));
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
        axis.x(low),
        axis.x(high),
        axis.x(at),
        y - 7,
        y + 7
    ));
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
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
