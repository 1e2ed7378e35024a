//! Progress bars on standard error; invisible when that is not a terminal, or gets JSON, and with `--quiet`.

use std::fmt::Write;

use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressState, ProgressStyle};

use crate::cli::options::is_quiet;
use crate::cli::style::{Stream, is_colored};
use crate::log::Format;

/// A bar that counts images; the total is shown once its length is set.
pub(crate) fn rows(what: &str) -> ProgressBar {
    let bar = if is_hidden() { ProgressBar::hidden() } else { ProgressBar::no_length() };
    bar.with_style(style()).with_message(what.to_owned())
}

/// Whether no bar is shown, even in a terminal.
pub(crate) fn is_hidden() -> bool {
    is_quiet() || Format::chosen() == Format::Json
}

/// Images per second, as an integer.
pub(crate) fn rate(images_per_second: f64) -> String {
    format!("{} images/s", HumanCount(images_per_second.round() as u64))
}

/// The bar itself in a template, as wide as what is left of the line.
pub(crate) fn wide() -> &'static str {
    if is_colored(Stream::Error) { "{wide_bar:.cyan/blue}" } else { "{wide_bar}" }
}

fn style() -> ProgressStyle {
    let style =
        ProgressStyle::with_template(&format!("{{msg:24}} {} {{count}}  {{rate:>16}}  {{left:>9}}", wide()));
    style
        .expect("the template is well-formed")
        .with_key("count", |state: &ProgressState, out: &mut dyn Write| {
            let _ = match state.len() {
                Some(total) => write!(out, "{}/{} images", HumanCount(state.pos()), HumanCount(total)),
                None => write!(out, "{} images", HumanCount(state.pos())),
            };
        })
        // There is no rate before the first image, and no end in sight before the total is known.
        .with_key("rate", |state: &ProgressState, out: &mut dyn Write| {
            if state.pos() > 0 {
                let _ = out.write_str(&rate(state.per_sec()));
            }
        })
        .with_key("left", |state: &ProgressState, out: &mut dyn Write| {
            if state.pos() > 0 && state.len().is_some() {
                let _ = write!(out, "{:#} left", HumanDuration(state.eta()));
            }
        })
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use indicatif::TermLike;

    use super::*;

    /// A terminal that keeps what was written on it.
    #[derive(Clone, Debug, Default)]
    struct Paper(Arc<Mutex<String>>);

    impl TermLike for Paper {
        fn width(&self) -> u16 {
            120
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(text)
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }
        fn clear_line(&self) -> io::Result<()> {
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What the bar looks like now.
    fn look(bar: &ProgressBar, paper: &Paper) -> String {
        paper.0.lock().unwrap().clear();
        bar.force_draw();
        paper.0.lock().unwrap().clone()
    }

    #[test]
    fn counts_are_grouped_and_totals_are_shown_once_known() {
        let (bar, paper) = (rows("shapes, epoch 0"), Paper::default());
        bar.set_draw_target(indicatif::ProgressDrawTarget::term_like(Box::new(paper.clone())));
        let text = look(&bar, &paper);
        assert!(text.contains("shapes, epoch 0") && text.contains(" 0 images"), "{text:?}");
        assert!(!text.contains('/') && !text.contains("left"), "{text:?}");
        bar.set_length(50_000);
        assert!(look(&bar, &paper).contains(" 0/50,000 images"));
        bar.set_position(12_800);
        let text = look(&bar, &paper);
        assert!(text.contains(" 12,800/50,000 images") && text.contains(" left"), "{text:?}");
        let (rate, _) = text.split_once(" images/s").expect("a rate");
        let rate = rate.rsplit_once(' ').unwrap().1;
        assert!(rate.bytes().all(|byte| byte.is_ascii_digit() || byte == b','), "{rate:?}");
    }

    #[test]
    fn rates_are_whole_and_grouped() {
        assert_eq!(rate(12_656.812_771_134_647), "12,657 images/s");
        assert_eq!(rate(0.4), "0 images/s");
        assert_eq!(rate(f64::NAN), "0 images/s");
    }
}
