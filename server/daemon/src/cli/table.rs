//! Rows in columns.

use anstyle::Style;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// What stands where a cell was cut.
const ELLIPSIS: char = '…';
/// Between two columns.
const GAP: &str = "  ";
/// No column is cut below this width to make room for others.
const WIDTH_MIN: usize = 6;

/// A cell: what it says, and how it is painted where there are colours.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// A cell in a colour.
    pub(crate) fn painted(text: impl ToString, style: Style) -> Cell {
        Cell { text: text.to_string(), style }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Cell {
        Cell { text, style: Style::new() }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Cell {
        text.to_owned().into()
    }
}

/// How columns are laid out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// The width of the terminal, to which rows are cut; none where nothing is cut.
    pub(crate) width: Option<usize>,
    pub(crate) has_colors: bool,
}

/// The lines of a table: its head, and a line for each row, in aligned columns.
pub(crate) fn aligned(head: &[&str], rows: &[Vec<Cell>], head_style: Style, layout: Layout) -> Vec<String> {
    let head: Vec<Cell> = head.iter().map(|text| Cell::painted(text, head_style)).collect();
    let natural = |column: usize| {
        let cells = std::iter::once(&head).chain(rows).filter_map(|row| row.get(column));
        cells.map(|cell| width_of(&one_line(&cell.text))).max().unwrap_or_default()
    };
    let mut widths: Vec<usize> = (0..head.len()).map(natural).collect();
    if let Some(width) = layout.width {
        fit(&mut widths, width);
    }
    let line = |row: &Vec<Cell>| {
        let last = row.len().saturating_sub(1);
        let cells = row.iter().zip(&widths).enumerate().map(|(at, (cell, &width))| {
            let text = cut(&one_line(&cell.text), width);
            let padding = if at == last { 0 } else { width - width_of(&text) };
            let style = if layout.has_colors { cell.style } else { Style::new() };
            format!("{style}{text}{style:#}{}", " ".repeat(padding))
        });
        cells.collect::<Vec<_>>().join(GAP).trim_end().to_owned()
    };
    std::iter::once(&head).chain(rows).map(line).collect()
}

/// The lines of a list for programs: a line for each row, with tabs between its cells, and nothing cut.
pub(crate) fn tabbed(rows: &[Vec<Cell>]) -> Vec<String> {
    let line = |row: &Vec<Cell>| row.iter().map(|cell| one_line(&cell.text)).collect::<Vec<_>>().join("\t");
    rows.iter().map(line).collect()
}

/// Narrows the widest columns until all fit.
fn fit(widths: &mut [usize], width: usize) {
    let gaps = GAP.len() * widths.len().saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > width {
        let Some(widest) = widths.iter_mut().rev().max_by_key(|width| **width) else { return };
        if *widest <= WIDTH_MIN {
            return;
        }
        *widest -= 1;
    }
}

/// A text without what would end its line or its cell, or move the cursor.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Columns that a text takes in a terminal.
pub(crate) fn width_of(text: &str) -> usize {
    text.width()
}

/// A text cut to a width, with an ellipsis where something is left out.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if width_of(text) <= width {
        return text.to_owned();
    }
    let (mut kept, mut taken) = (String::new(), 0);
    for c in text.chars() {
        let next = taken + c.width().unwrap_or(0);
        if next + 1 > width {
            break;
        }
        kept.push(c);
        taken = next;
    }
    kept.push(ELLIPSIS);
    kept
}

#[cfg(test)]
mod tests {
    use anstyle::AnsiColor;

    use super::*;

    const PLAIN: Layout = Layout { width: None, has_colors: false };

    fn rows(rows: &[&[&str]]) -> Vec<Vec<Cell>> {
        rows.iter().map(|row| row.iter().map(|&text| text.into()).collect()).collect()
    }

    #[test]
    fn columns_are_as_wide_as_what_they_show() {
        let table = rows(&[&["a", "done"], &["日本語", "x"]]);
        let lines = aligned(&["NAME", "STATE"], &table, Style::new(), PLAIN);
        assert_eq!(lines, ["NAME    STATE", "a       done", "日本語  x"]);
    }

    #[test]
    fn the_widest_columns_are_cut_to_the_width_of_the_terminal() {
        let table = rows(&[&["a-very-long-name-of-a-search", "done", "/a/long/path/of/data"]]);
        for width in [30, 40, 50] {
            let layout = Layout { width: Some(width), has_colors: false };
            let lines = aligned(&["NAME", "STATE", "SOURCE"], &table, Style::new(), layout);
            assert!(lines.iter().all(|line| width_of(line) <= width), "{width}: {lines:?}");
            assert!(lines[1].contains("done") && lines[1].contains('…'), "{lines:?}");
        }
        // What does not fit at all is not cut to nothing.
        let layout = Layout { width: Some(5), has_colors: false };
        let lines = aligned(&["NAME", "STATE", "SOURCE"], &table, Style::new(), layout);
        assert_eq!(lines[1], "a-ver…  done   /a/lo…");
    }

    #[test]
    fn wide_characters_are_cut_between_two() {
        assert_eq!([cut("日本語", 6), cut("日本語", 5), cut("日本語", 4)], ["日本語", "日本…", "日…"]);
        assert_eq!([cut("abc", 3), cut("abcd", 3)], ["abc", "ab…"]);
    }

    #[test]
    fn colours_take_no_room() {
        let table = vec![vec![Cell::painted("done", AnsiColor::Green.on_default()), "x".into()]];
        let layout = Layout { width: None, has_colors: true };
        let lines = aligned(&["STATE", "N"], &table, Style::new().bold(), layout);
        assert_eq!(lines[1], "\u{1b}[32mdone\u{1b}[0m   x");
        assert!(lines[0].starts_with("\u{1b}[1mSTATE"), "{lines:?}");
        assert_eq!(aligned(&["STATE", "N"], &table, Style::new(), PLAIN)[1], "done   x");
    }

    #[test]
    fn a_list_for_programs_has_a_line_for_each_row_and_cuts_nothing() {
        let table = rows(&[&["a\tb", "line\nbreak"], &["a-very-long-name-of-a-search", ""]]);
        assert_eq!(tabbed(&table), ["a b\tline break", "a-very-long-name-of-a-search\t"]);
    }
}
