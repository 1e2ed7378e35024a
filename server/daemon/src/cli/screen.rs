//! What a watcher sees of a job: in a terminal a table that is redrawn in place above a bar, elsewhere a line for each
//! change.

use std::fmt::Display;
use std::io::stderr;

use indicatif::{ProgressBar, ProgressStyle};
use pba_search::Progress;
use terminal_size::terminal_size_of;

use crate::cli::bar;
use crate::cli::output;
use crate::cli::style::{self, Stream};
use crate::cli::table::{self, Aligned, Cell, Column, Layout};

/// Steps of the whole bar.
const STEPS: u64 = 10_000;
/// Lines below the table: the bar, and the cursor.
const LINES_BELOW: usize = 2;

/// The bar of a job, and what stands above it.
pub(crate) struct Screen {
    bar: ProgressBar,
}

impl Screen {
    /// An empty bar; none is seen where standard error is no terminal, or only results are wanted.
    pub(crate) fn new() -> Screen {
        let bar = if bar::is_hidden() { ProgressBar::hidden() } else { ProgressBar::new(STEPS) };
        bar.set_style(style(""));
        Screen { bar }
    }

    /// Whether it is seen.
    pub(crate) fn is_seen(&self) -> bool {
        !self.bar.is_hidden()
    }

    /// Prints a line for good, unless only results are wanted.
    pub(crate) fn line(&self, text: impl Display) {
        self.bar.suspend(|| output::progress(text));
    }

    /// Does something that prints.
    pub(crate) fn suspend(&self, print: impl FnOnce()) {
        self.bar.suspend(print);
    }

    /// Shows a table in place of the last one, if it is seen; rows for which the terminal has no room are counted.
    pub(crate) fn show(&self, head: &[&'static str], mut rows: Vec<Vec<Cell>>) {
        if !self.is_seen() {
            return;
        }
        let (width, height) = terminal_size_of(stderr())
            .map_or((80, 24), |(width, height)| (usize::from(width.0), usize::from(height.0)));
        // With the head, and the line that counts.
        let room = height.saturating_sub(LINES_BELOW + 2).max(1);
        let left = rows.len().saturating_sub(room);
        rows.truncate(room);
        let layout = Layout { width: Some(width), has_colors: style::is_colored(Stream::Error) };
        let Aligned { mut lines, .. } = table::aligned(&Column::in_order(head), &rows, style::HEAD, layout);
        if left > 0 {
            lines.push(format!("and {left} more"));
        }
        self.bar.set_style(style("{prefix}\n"));
        self.bar.set_prefix(lines.join("\n"));
    }

    /// Moves the bar.
    pub(crate) fn progress(&self, progress: &Progress) {
        self.bar.set_position((STEPS as f64 * progress.fraction) as u64);
        let left = progress.seconds_left.map_or("?".to_owned(), rough);
        let rate = bar::rate(progress.images_per_second);
        self.bar.set_message(format!("epoch {}/{}  {rate}  {left} left", progress.epoch, progress.epochs));
    }

    /// What is written beside the bar.
    pub(crate) fn message(&self) -> String {
        self.bar.message()
    }

    /// Takes it away.
    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// The bar under what `above` shows.
fn style(above: &str) -> ProgressStyle {
    let template = format!("{above}{} {{percent:>3}} %  {{msg}}", bar::wide());
    ProgressStyle::with_template(&template).expect("the template is well-formed")
}

/// A time to come, as exactly as it can be known.
pub(crate) fn rough(seconds: f64) -> String {
    let (minutes, hours) = (seconds / 60.0, seconds / 3600.0);
    match seconds {
        ..120.0 => format!("{seconds:.0} s"),
        ..7200.0 => format!("{minutes:.0} min"),
        _ => format!("{hours:.0} h"),
    }
}
