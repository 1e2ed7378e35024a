//! Charts of a comparison inside a page: the error of each run with mean and deviation of each arm, and the differences
//! with their intervals.

use pba_search::{ComparisonResults, ComparisonSpec, Contrast, Entry, Verdict, worded};

use crate::draw::axis::Axis;
use crate::draw::chart::{Anchor, Chart, brief};

const ROW: f64 = 46.0;
/// Where a row's marks stand below its text.
const MARKS: f64 = 30.0;
const AXIS: f64 = 22.0;
/// Characters of a name that stands beside a figure, and of one that stands beside another, in a narrow window.
const NAME_MAX: usize = 24;
const NAME_OF_TWO_MAX: usize = 20;

/// Share of an axis that stays empty on either side.
const MARGIN: f64 = 0.08;

/// Rules at round percentages, down to `bottom`.
fn draw_rules(chart: &mut Chart, axis: &Axis, bottom: f64, is_signed: bool) {
    for (number, text) in axis.ticks(4.0, is_signed) {
        let x = axis.place(number);
        let anchor = if x < 0.06 {
            Anchor::Start
        } else if x > 0.94 {
            Anchor::End
        } else {
            Anchor::Middle
        };
        chart.line("rule", [x, 0.0], [x, bottom]);
        chart.text("tick", anchor, [x, bottom + 15.0], with_minus(&text));
    }
}

/// The errors of every arm and group; nothing before a run has ended.
pub(crate) fn arms(results: &ComparisonResults) -> Option<String> {
    let errors = results.arms.iter().flat_map(|arm| arm.errors.iter().flatten().copied());
    let entries = || results.arms.iter().map(|arm| &arm.entry).chain(&results.groups);
    let spreads = entries().filter_map(|entry| Some((entry.mean?, entry.deviation.unwrap_or(0.0))));
    let spreads = spreads.flat_map(|(mean, deviation)| [mean - deviation, mean + deviation]);
    let axis = Axis::over(errors.chain(spreads), MARGIN)?;
    let bottom = ROW * entries().count() as f64;
    let label = "Error of each run, with mean and standard deviation of each arm; the table has the numbers";
    let mut chart = Chart::new(bottom + AXIS, label);
    draw_rules(&mut chart, &axis, bottom, false);
    let runs = results.arms.iter().map(|arm| arm.errors.iter().flatten().copied().collect());
    let runs = runs.chain(results.groups.iter().map(|_| Vec::new()));
    for ((row, entry), runs) in entries().enumerate().zip(runs) {
        draw_arm(&mut chart, &axis, ROW * row as f64, entry, &runs);
    }
    Some(chart.finish())
}

fn draw_arm(chart: &mut Chart, axis: &Axis, y: f64, entry: &Entry, runs: &Vec<f64>) {
    chart.begin(&format!("{}: {}", entry.name, figure(entry)));
    chart.text("name", Anchor::Start, [0.0, y + 14.0], brief(&entry.name, NAME_MAX));
    chart.text("number", Anchor::End, [1.0, y + 14.0], figure(entry));
    for run in runs {
        chart.dot("run", [axis.place(*run), y + MARKS], 4.0);
    }
    if let Some(mean) = entry.mean {
        let spread = entry.deviation.unwrap_or(0.0);
        bar(chart, axis, y, "accent-stroke", mean, [mean - spread, mean + spread]);
    }
    chart.end();
}

/// The mean error of an arm with its deviation, in percent.
pub(crate) fn figure(entry: &Entry) -> String {
    match (entry.mean, entry.deviation) {
        (Some(mean), Some(deviation)) => format!("{:.2} ± {:.2} %", 100.0 * mean, 100.0 * deviation),
        (Some(mean), None) => format!("{:.2} %", 100.0 * mean),
        (None, _) => "–".to_owned(),
    }
}

/// The differences with their intervals; nothing before there are any.
pub(crate) fn contrasts(spec: &ComparisonSpec, results: &ComparisonResults) -> Option<String> {
    let margin = spec.margin / 100.0;
    results.contrasts.iter().find_map(|contrast| contrast.difference)?;
    let ends = |contrast: &Contrast| contrast.interval.into_iter().flatten().chain(contrast.difference);
    let axis = Axis::over(results.contrasts.iter().flat_map(ends).chain([-margin, margin]), MARGIN)?;
    let bottom = ROW * results.contrasts.len() as f64;
    let label =
        "Differences of error in percentage points, with their 95 % intervals; the table has the numbers";
    let mut chart = Chart::new(bottom + AXIS, label);
    chart.bar("track", [axis.place(-margin), axis.place(margin)], 0.0, bottom);
    draw_rules(&mut chart, &axis, bottom, true);
    chart.line("base", [axis.place(0.0), 0.0], [axis.place(0.0), bottom]);
    for (row, contrast) in results.contrasts.iter().enumerate() {
        let y = ROW * row as f64;
        let name = format!("{} − {}", contrast.arm, contrast.against);
        let shown = [&contrast.arm, &contrast.against].map(|name| brief(name, NAME_OF_TWO_MAX)).join(" − ");
        let words = contrast.verdict.map_or("–".to_owned(), |verdict| worded(verdict, spec.margin));
        chart.begin(&format!("{name}: {} points, {words}", points(contrast)));
        chart.text("name", Anchor::Start, [0.0, y + 14.0], shown);
        if let Some(difference) = contrast.difference {
            let class = match contrast.verdict {
                Some(Verdict::Better) => "good-stroke",
                Some(Verdict::Worse) => "bad-stroke",
                _ => "soft-stroke",
            };
            bar(&mut chart, &axis, y, class, difference, contrast.interval.unwrap_or([difference; 2]));
        }
        chart.end();
    }
    Some(chart.finish())
}

/// A difference with its interval, in percentage points.
pub(crate) fn points(contrast: &Contrast) -> String {
    let text = match (contrast.difference, contrast.interval) {
        (Some(difference), Some([low, high])) => {
            format!("{:+.2} ({:+.2} to {:+.2})", 100.0 * difference, 100.0 * low, 100.0 * high)
        }
        (Some(difference), None) => format!("{:+.2}", 100.0 * difference),
        (None, _) => return "–".to_owned(),
    };
    with_minus(&text)
}

/// Numbers with the sign that is as wide as a plus.
fn with_minus(numbers: &str) -> String {
    numbers.replace('-', "−")
}

/// A mark with a bar through it, below the text of a row.
fn bar(chart: &mut Chart, axis: &Axis, y: f64, class: &str, at: f64, [low, high]: [f64; 2]) {
    let y = y + MARKS;
    chart.line(class, [axis.place(low), y], [axis.place(high), y]);
    for end in [low, high].into_iter().filter(|end| *end != at) {
        chart.line(class, [axis.place(end), y - 4.0], [axis.place(end), y + 4.0]);
    }
    chart.dot(class, [axis.place(at), y], 5.0);
}

#[cfg(test)]
mod tests {
    use pba_search::{Comparison, ComparisonEvent, Run, Spec};

    use super::*;

    #[test]
    fn every_arm_and_every_contrast_has_a_row() {
        let text =
            r#"{"arms": ["none", "a", "b"], "groups": {"both": ["a", "b"]}, "seeds": 3, "at_once": 3}"#;
        let spec = ComparisonSpec::from_json(text).unwrap();
        let begun = ComparisonEvent::Comparing {
            spec: Box::new(spec.clone()),
            schedule_digests: vec![None; 3],
            dataset_digest: String::new(),
        };
        let (mut comparison, _) = Comparison::begin(&begun).unwrap();
        assert_eq!(arms(&comparison.report()), None);
        assert_eq!(contrasts(&spec, &comparison.report()), None);
        for (round, scores) in (0..).zip([[0.5, 0.4, 0.3], [0.52, 0.41, 0.33], [0.49, 0.4, 0.31]]) {
            let (split, errors) = ("test".to_owned(), scores.map(Some).to_vec());
            comparison.apply(&ComparisonEvent::Scored { round, split, images: 10, errors }).unwrap();
        }
        let arms = arms(&comparison.report()).unwrap();
        assert_eq!(arms.matches("class=\"run\"").count(), 9);
        let contrasts = contrasts(&spec, &comparison.report()).unwrap();
        for part in [">none</text>", ">both</text>", "50.33 ± 1.53 %"] {
            assert!(arms.contains(part), "{arms}\ndoes not hold {part}");
        }
        assert!(contrasts.contains(">both − none</text>"), "{contrasts}");
    }
}
