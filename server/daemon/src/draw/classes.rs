//! A chart of how many samples each class has.

use crate::draw::chart::{Anchor, Chart};
use crate::draw::figures;

/// Classes that have a row of their own, with a name; of more, each is a column with a tooltip.
const ROWS_MAX: usize = 24;
/// Classes that are drawn as columns.
const COLUMNS_MAX: usize = 2_000;
const ROW: f64 = 30.0;
const BAR: f64 = 8.0;
const COLUMNS: f64 = 120.0;

/// Draws the samples of each class of a split, by label; nothing when there are too many classes.
pub(crate) fn draw(split: &str, names: &[String], counts: &[u64]) -> Option<String> {
    let greatest = counts.iter().copied().max().filter(|greatest| *greatest > 0)?;
    let least = counts.iter().copied().min().unwrap_or(0);
    if counts.len() > COLUMNS_MAX {
        return None;
    }
    let name = |label: usize| names.get(label).map_or("", String::as_str);
    let tooltip = |label: usize, count: u64| {
        let share = 100.0 * count as f64 / counts.iter().sum::<u64>() as f64;
        format!("{}: {} images, {share:.1} %", name(label), figures::count(count))
    };
    let label =
        format!("Images by class in {split}: {} classes of {least} to {greatest} images", counts.len());
    let share = |count: u64| count as f64 / greatest as f64;
    if counts.len() > ROWS_MAX {
        let mut chart = Chart::new(COLUMNS + 20.0, &label);
        chart.rule(16.0, figures::count(greatest));
        for (position, &count) in counts.iter().enumerate() {
            let across = [position, position + 1].map(|at| at as f64 / counts.len() as f64);
            chart.begin(&tooltip(position, count));
            let height = (COLUMNS - 16.0) * share(count);
            chart.bar("accent", across, COLUMNS - height, height);
            chart.end();
        }
        chart.line("base", [0.0, COLUMNS], [1.0, COLUMNS]);
        chart.text("tick", Anchor::Start, [0.0, COLUMNS + 15.0], name(0));
        chart.text("tick", Anchor::End, [1.0, COLUMNS + 15.0], name(counts.len() - 1));
        return Some(chart.finish());
    }
    let mut chart = Chart::new(ROW * counts.len() as f64, &label);
    for (position, &count) in counts.iter().enumerate() {
        let y = ROW * position as f64;
        chart.begin(&tooltip(position, count));
        chart.text("name", Anchor::Start, [0.0, y + 13.0], name(position));
        chart.text("number", Anchor::End, [1.0, y + 13.0], figures::count(count));
        chart.bar("track", [0.0, 1.0], y + 17.0, BAR);
        chart.bar("accent", [0.0, share(count)], y + 17.0, BAR);
        chart.end();
    }
    Some(chart.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_has_its_name_or_its_tooltip() {
        let names: Vec<String> = (0..30).map(|label| format!("class <{label}>")).collect();
        let few = draw("train", &names[..2], &[30, 10]).unwrap();
        assert!(few.contains(">class &lt;1&gt;</text>") && few.contains("10 images, 25.0 %"), "{few}");
        let many = draw("train", &names, &[7; 30]).unwrap();
        assert_eq!(many.matches("<title>").count(), 30);
        assert_eq!(draw("train", &names, &[1; COLUMNS_MAX + 1]), None);
        assert_eq!(draw("train", &names, &[]), None);
    }
}
