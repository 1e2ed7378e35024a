//! What the plots share: a title, and a horizontal axis of epochs.

use std::fmt::{Arguments, Write};

const WIDTH: u32 = LEFT + PLOT_WIDTH + RIGHT;
/// Where the axis of epochs begins.
pub(super) const LEFT: u32 = 110;
/// Length of the axis of epochs.
pub(super) const PLOT_WIDTH: u32 = 760;
const RIGHT: u32 = 150;
/// Height of the title.
pub(super) const TOP: u32 = 64;

/// An SVG picture that is being drawn.
pub(super) struct Plot {
    svg: String,
    epochs: u32,
}

impl Plot {
    /// A plot over `0..=epochs` with nothing but a title, and a remark below it. It stands at height `y` if it
    /// is part of another one.
    pub(super) fn new(y: Option<u32>, height: u32, epochs: u32, title: &str, about: &str) -> Plot {
        let y = y.map(|y| format!("y=\"{y}\" ")).unwrap_or_default();
        let mut plot = Plot { svg: String::new(), epochs };
        plot.line(format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" {y}viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
             font-family=\"system-ui, sans-serif\" font-size=\"12\" fill=\"#24292f\">\n\
             <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
             <text x=\"{LEFT}\" y=\"26\" font-size=\"17\" font-weight=\"600\">{title}</text>\n\
             <text x=\"{LEFT}\" y=\"46\" fill=\"#57606a\">{about}</text>"
        ));
        plot
    }

    pub(super) fn line(&mut self, text: Arguments<'_>) {
        writeln!(self.svg, "{text}").expect("a string takes text");
    }

    pub(super) fn x(&self, epoch: u32) -> f64 {
        f64::from(LEFT) + f64::from(PLOT_WIDTH) * f64::from(epoch) / f64::from(self.epochs)
    }

    /// Adds the axis of epochs at height `y`, placed to so many `decimals`.
    pub(super) fn axis(&mut self, y: u32, decimals: usize, label: &str) {
        for tick in ticks(self.epochs) {
            self.line(format_args!(
                "<line x1=\"{0:.decimals$}\" y1=\"{y}\" x2=\"{0:.decimals$}\" y2=\"{1}\" stroke=\"#57606a\"/><text x=\"{0:.decimals$}\" y=\"{2}\" text-anchor=\"middle\">{tick}</text>",
                self.x(tick),
                y + 5,
                y + 19
            ));
        }
        self.line(format_args!(
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\" fill=\"#57606a\">{label}</text>",
            LEFT + PLOT_WIDTH / 2,
            y + 40
        ));
    }

    pub(super) fn finish(mut self) -> String {
        self.line(format_args!("</svg>"));
        self.svg
    }
}

/// Round numbers for an axis of `0..=length`: about eight of them.
fn ticks(length: u32) -> impl Iterator<Item = u32> {
    ticks_of(length, 8)
}

/// Round numbers for an axis of `0..=length`: about `count` of them.
pub(super) fn ticks_of(length: u32, count: u32) -> impl Iterator<Item = u32> {
    let rough = f64::from(length) / f64::from(count);
    let decade = 10f64.powf(rough.max(1.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * decade).find(|&step| step >= rough);
    (0..=length).step_by(step.unwrap_or(rough).max(1.0) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round() {
        assert_eq!(ticks(200).collect::<Vec<_>>(), [0, 50, 100, 150, 200]);
        assert_eq!(ticks(3).collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert_eq!(ticks(1).collect::<Vec<_>>(), [0, 1]);
    }
}
