//! Progress bars on standard error; invisible when that is not a terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar that counts images.
pub fn rows(what: &str) -> ProgressBar {
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template(
        "{msg:24} {wide_bar:.cyan/blue} {human_pos}/{human_len} images  {per_sec:>14}  {eta} left",
    );
    bar.set_style(style.expect("the template is well-formed"));
    bar.set_message(what.to_owned());
    bar
}
