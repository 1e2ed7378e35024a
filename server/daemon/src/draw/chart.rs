//! What the charts inside the pages share. Each is as wide as its place: across, everything stands at a share of the
//! width, and downwards in pixels, so that text keeps its size on any screen. Colours are those of the classes in
//! `assets/style.css`, for light and dark.

use std::fmt::{Arguments, Display, Write};

use crate::draw::markup::escaped;

/// Space above a line for the label that stands on it.
const LABEL: f64 = 4.0;

/// A chart that is being drawn.
pub(super) struct Chart {
    svg: String,
}

impl Chart {
    /// A chart of a height in pixels, with what it shows in words.
    pub(super) fn new(height: f64, label: &str) -> Chart {
        let mut chart = Chart { svg: String::new() };
        let label = escaped(label);
        chart.add(format_args!(
            "<svg class=\"chart\" width=\"100%\" height=\"{height:.0}\" role=\"img\" aria-label=\"{label}\">"
        ));
        chart
    }

    pub(super) fn add(&mut self, markup: Arguments<'_>) {
        self.svg.write_fmt(markup).expect("a string takes text");
    }

    /// Begins something that shows a text where the mouse is over it.
    pub(super) fn begin(&mut self, tooltip: &str) {
        self.add(format_args!("<g class=\"hover\"><title>{}</title>", escaped(tooltip)));
    }

    pub(super) fn end(&mut self) {
        self.svg += "</g>";
    }

    /// A rectangle from one share of the width to another; at least a hair wide.
    pub(super) fn bar(&mut self, class: &str, [from, to]: [f64; 2], y: f64, height: f64) {
        let (from, width) = (100.0 * from, (100.0 * (to - from)).max(0.05));
        self.add(format_args!(
            "<rect class=\"{class}\" x=\"{from:.2}%\" width=\"{width:.2}%\" y=\"{y:.1}\" height=\"{height:.1}\"/>"
        ));
    }

    pub(super) fn line(&mut self, class: &str, [x1, y1]: [f64; 2], [x2, y2]: [f64; 2]) {
        self.add(format_args!(
            "<line class=\"{class}\" x1=\"{:.2}%\" y1=\"{y1:.1}\" x2=\"{:.2}%\" y2=\"{y2:.1}\"/>",
            100.0 * x1,
            100.0 * x2
        ));
    }

    pub(super) fn dot(&mut self, class: &str, [x, y]: [f64; 2], radius: f64) {
        let x = 100.0 * x;
        self.add(format_args!("<circle class=\"{class}\" cx=\"{x:.2}%\" cy=\"{y:.1}\" r=\"{radius}\"/>"));
    }

    /// Text that begins, is centred or ends at a share of the width.
    pub(super) fn text(&mut self, class: &str, anchor: Anchor, [x, y]: [f64; 2], text: impl Display) {
        let (x, anchor, text) = (100.0 * x, anchor.name(), escaped(&text.to_string()));
        self.add(format_args!(
            "<text class=\"{class}\" x=\"{x:.2}%\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
        ));
    }

    /// A line across, with its value on it at the left.
    pub(super) fn rule(&mut self, y: f64, value: impl Display) {
        self.line("rule", [0.0, y], [1.0, y]);
        self.text("tick", Anchor::Start, [0.0, y - LABEL], value);
    }

    /// Round epochs along the lower end, of `0..=epochs`.
    pub(super) fn epochs(&mut self, y: f64, epochs: u32) {
        let ticks: Vec<u32> = super::plot::ticks_of(epochs, 4).collect();
        for tick in ticks {
            let x = f64::from(tick) / f64::from(epochs.max(1));
            let anchor = match x {
                ..0.04 => Anchor::Start,
                0.96.. => Anchor::End,
                _ => Anchor::Middle,
            };
            self.text("tick", anchor, [x, y], tick);
        }
    }

    pub(super) fn finish(mut self) -> String {
        self.svg += "</svg>";
        self.svg
    }
}

/// Which part of a text stands where it is placed.
#[derive(Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

impl Anchor {
    fn name(self) -> &'static str {
        match self {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        }
    }
}

/// A name of at most so many characters, with its beginning and its end: text in a chart is not wrapped. The tooltip and
/// the table have all of it.
pub(super) fn brief(name: &str, characters: usize) -> String {
    let count = name.chars().count();
    if count <= characters {
        return name.to_owned();
    }
    let end = (characters - 1) / 2;
    let beginning: String = name.chars().take(characters - 1 - end).collect();
    beginning + "…" + &name.chars().skip(count - end).collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_keeps_its_beginning_and_its_end() {
        assert_eq!(brief("abcdefgh", 8), "abcdefgh");
        assert_eq!(brief("abcdéfgh", 7), "abc…fgh");
        assert_eq!(brief("abcdefgh", 6), "abc…gh");
    }

    #[test]
    fn names_are_text_wherever_they_stand() {
        let mut chart = Chart::new(10.0, "\"><script>");
        chart.begin("<b>&");
        chart.text("tick", Anchor::End, [1.0, 5.0], "</text>");
        chart.end();
        assert_eq!(
            chart.finish(),
            "<svg class=\"chart\" width=\"100%\" height=\"10\" role=\"img\" aria-label=\"&quot;&gt;&lt;script&gt;\">\
             <g class=\"hover\"><title>&lt;b&gt;&amp;</title><text class=\"tick\" x=\"100.00%\" y=\"5.0\" \
             text-anchor=\"end\">&lt;/text&gt;</text></g></svg>"
        );
    }
}
