//! Rows in columns.

use anstyle::Style;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// What stands where a cell was cut.
const ELLIPSIS: char = '…';
/// Between two columns.
const GAP: &str = "  ";
/// Columns of at most this width are not cut: a time is as wide.
const WIDTH_UNCUT: usize = 16;
/// Others are cut to no less than this.
const WIDTH_MIN: usize = 8;
/// Columns that are there in any case.
const COLUMNS_MIN: usize = 2;

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
        let last = widths.len().saturating_sub(1);
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

/// Narrows wide columns until all fit; if they cannot, leaves out those at the right.
fn fit(widths: &mut Vec<usize>, width: usize) {
    let min = |width: usize| if width > WIDTH_UNCUT { WIDTH_MIN } else { width };
    let whole = |widths: &[usize]| widths.iter().sum::<usize>() + GAP.len() * widths.len().saturating_sub(1);
    while widths.len() > COLUMNS_MIN
        && whole(&widths.iter().map(|&natural| min(natural)).collect::<Vec<_>>()) > width
    {
        widths.pop();
    }
    let natural = widths.clone();
    while whole(widths) > width {
        let cut = widths.iter_mut().zip(&natural).filter(|(width, natural)| **width > min(**natural));
        let Some((widest, _)) = cut.max_by_key(|(width, _)| **width) else { return };
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
    fn wide_columns_are_cut_to_the_width_of_the_terminal() {
        let table = rows(&[&["a-very-long-name-of-a-search", "done", "/a/long/path/of/some/data"]]);
        let lines = |width| {
            let layout = Layout { width: Some(width), has_colors: false };
            aligned(&["NAME", "STATE", "SOURCE"], &table, Style::new(), layout)
        };
        for width in 25..70 {
            let lines = lines(width);
            assert!(lines.iter().all(|line| width_of(line) <= width), "{width}: {lines:?}");
            assert!(lines[0].contains("SOURCE") && lines[1].contains("  done   "), "{lines:?}");
            assert_eq!(lines[1].contains('…'), width < 62, "{width}: {lines:?}");
        }
        // The last column is left out before the others are cut to nothing, and two stay in any case.
        assert_eq!(lines(24), ["NAME               STATE", "a-very-long-name…  done"]);
        assert_eq!(lines(5), ["NAME      STATE", "a-very-…  done"]);
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
