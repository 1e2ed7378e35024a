//! Rows in columns.

use std::collections::BTreeSet;

use anstyle::Style;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// What stands where a cell was cut.
const ELLIPSIS: char = '…';
/// Between two columns.
const GAP: &str = "  ";
/// The first column is that of names.
const NAME: usize = 0;
/// Names are cut to no less than this.
const NAME_WIDTH_MIN: usize = 20;
/// Columns of at most this width are not cut: a time is as wide.
const WIDTH_UNCUT: usize = 16;
/// Others are cut to no less than this.
const WIDTH_MIN: usize = 8;
/// Columns that are there in any case where none has a rank of its own.
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

/// A column, and whether it is left out of a terminal that has no room for all of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    head: &'static str,
    /// Those of the lowest rank are left out first; without one it is there in any case.
    rank: Option<u8>,
}

impl Column {
    /// One that is there in any case.
    pub(crate) const fn kept(head: &'static str) -> Column {
        Column { head, rank: None }
    }

    /// One that is left out where there is no room for it, those of the lowest rank first.
    pub(crate) const fn ranked(head: &'static str, rank: u8) -> Column {
        Column { head, rank: Some(rank) }
    }

    /// Columns of which the last is left out first, but for the first two.
    pub(crate) fn in_order(heads: &[&'static str]) -> Vec<Column> {
        let ranks = (0..heads.len() as u8).rev();
        let column = |(at, (&head, rank))| Column { head, rank: (at >= COLUMNS_MIN).then_some(rank) };
        heads.iter().zip(ranks).enumerate().map(column).collect()
    }

    /// What stands above it.
    pub(crate) fn head(&self) -> &'static str {
        self.head
    }
}

/// How columns are laid out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// The width of the terminal, to which rows are cut; none where nothing is cut.
    pub(crate) width: Option<usize>,
    pub(crate) has_colors: bool,
}

/// A table as it is printed.
#[derive(Debug)]
pub(crate) struct Aligned {
    /// Its head, and a line for each row.
    pub(crate) lines: Vec<String>,
    /// The heads of the columns for which there was no room.
    pub(crate) left_out: Vec<&'static str>,
}

/// Lays out a table in aligned columns, under a head.
pub(crate) fn aligned(columns: &[Column], rows: &[Vec<Cell>], head_style: Style, layout: Layout) -> Aligned {
    let head: Vec<Cell> = columns.iter().map(|column| Cell::painted(column.head, head_style)).collect();
    let natural = |column: usize| {
        let cells = std::iter::once(&head).chain(rows).filter_map(|row| row.get(column));
        cells.map(|cell| width_of(&one_line(&cell.text))).max().unwrap_or_default()
    };
    let mut fitted: Vec<Fitted> = (0..columns.len())
        .map(|at| {
            let (natural, rank) = (natural(at), columns[at].rank);
            let min = match at {
                NAME => name_width_min(rows, natural),
                _ if natural > WIDTH_UNCUT => WIDTH_MIN.max(width_of(columns[at].head)),
                _ => natural,
            };
            Fitted { at, rank, width: natural, min }
        })
        .collect();
    if let Some(width) = layout.width {
        fit(&mut fitted, width);
    }
    let line = |row: &Vec<Cell>| {
        let cells = fitted.iter().filter_map(|column| Some((column, row.get(column.at)?)));
        let cells = cells.map(|(&Fitted { at, width, .. }, cell)| {
            let text = one_line(&cell.text);
            let text = if at == NAME { cut_in_the_middle(&text, width) } else { cut(&text, width) };
            let is_last = fitted.last().is_some_and(|last| last.at == at);
            let padding = if is_last { 0 } else { width - width_of(&text) };
            let style = if layout.has_colors { cell.style } else { Style::new() };
            format!("{style}{text}{style:#}{}", " ".repeat(padding))
        });
        cells.collect::<Vec<_>>().join(GAP).trim_end().to_owned()
    };
    let is_left_out = |at: &usize| fitted.iter().all(|column| column.at != *at);
    Aligned {
        lines: std::iter::once(&head).chain(rows).map(line).collect(),
        left_out: (0..columns.len()).filter(is_left_out).map(|at| columns[at].head).collect(),
    }
}

/// The lines of a list for programs: a line for each row, with tabs between its cells, and nothing cut.
pub(crate) fn tabbed(rows: &[Vec<Cell>]) -> Vec<String> {
    let line = |row: &Vec<Cell>| row.iter().map(|cell| one_line(&cell.text)).collect::<Vec<_>>().join("\t");
    rows.iter().map(line).collect()
}

/// A column while its width is chosen.
struct Fitted {
    /// Its place among all columns.
    at: usize,
    rank: Option<u8>,
    width: usize,
    /// It is not cut to less.
    min: usize,
}

/// Leaves out columns, those of the lowest rank first, until what is left fits when it is cut; then narrows the widest
/// ones until it does.
fn fit(columns: &mut Vec<Fitted>, width: usize) {
    let gaps = |columns: &[Fitted]| GAP.len() * columns.len().saturating_sub(1);
    while columns.iter().map(|column| column.min).sum::<usize>() + gaps(columns) > width {
        let ranks = columns.iter().enumerate().filter_map(|(at, column)| Some((column.rank?, at)));
        let Some((_, at)) = ranks.min() else { break };
        columns.remove(at);
    }
    while columns.iter().map(|column| column.width).sum::<usize>() + gaps(columns) > width {
        let wide = columns.iter_mut().filter(|column| column.width > column.min);
        let Some(widest) = wide.max_by_key(|column| column.width) else { return };
        widest.width -= 1;
    }
}

/// The least width of the column of names, at which they can still be told apart and read.
fn name_width_min(rows: &[Vec<Cell>], natural: usize) -> usize {
    let names: BTreeSet<String> =
        rows.iter().filter_map(|row| row.get(NAME)).map(|cell| one_line(&cell.text)).collect();
    let are_apart = |width: &usize| {
        let cut: BTreeSet<String> = names.iter().map(|name| cut_in_the_middle(name, *width)).collect();
        cut.len() == names.len()
    };
    (NAME_WIDTH_MIN..natural).find(are_apart).unwrap_or(natural)
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

/// A text cut to a width by what stands in its middle: names differ at their ends, as in shapes-tiny-1 and shapes-tiny-2.
fn cut_in_the_middle(text: &str, width: usize) -> String {
    if width_of(text) <= width {
        return text.to_owned();
    }
    let room = width.saturating_sub(1);
    let (mut tail, mut taken) = (Vec::new(), 0);
    for c in text.chars().rev() {
        let next = taken + c.width().unwrap_or(0);
        if next > room / 2 {
            break;
        }
        tail.push(c);
        taken = next;
    }
    cut(text, width - taken) + &tail.into_iter().rev().collect::<String>()
}

#[cfg(test)]
mod tests {
    use anstyle::AnsiColor;

    use super::*;

    const PLAIN: Layout = Layout { width: None, has_colors: false };

    fn rows(rows: &[&[&str]]) -> Vec<Vec<Cell>> {
        rows.iter().map(|row| row.iter().map(|&text| text.into()).collect()).collect()
    }

    fn within(width: usize, columns: &[Column], rows: &[Vec<Cell>]) -> Aligned {
        aligned(columns, rows, Style::new(), Layout { width: Some(width), has_colors: false })
    }

    #[test]
    fn columns_are_as_wide_as_what_they_show() {
        let table = rows(&[&["a", "done"], &["日本語", "x"]]);
        let aligned = aligned(&Column::in_order(&["NAME", "STATE"]), &table, Style::new(), PLAIN);
        assert_eq!(aligned.lines, ["NAME    STATE", "a       done", "日本語  x"]);
        assert!(aligned.left_out.is_empty());
    }

    #[test]
    fn wide_columns_are_cut_to_the_width_of_the_terminal() {
        let table = rows(&[&["a-very-long-name-of-a-search", "done", "/a/long/path/of/some/data"]]);
        let columns = Column::in_order(&["NAME", "STATE", "SOURCE"]);
        for width in 37..70 {
            let Aligned { lines, left_out } = within(width, &columns, &table);
            assert!(lines.iter().all(|line| width_of(line) <= width), "{width}: {lines:?}");
            assert!(lines[0].contains("SOURCE") && lines[1].contains("  done   "), "{lines:?}");
            assert_eq!(lines[1].contains('…'), width < 62, "{width}: {lines:?}");
            assert!(left_out.is_empty(), "{left_out:?}");
        }
        // The last column is left out before the others are cut to nothing, and two stay in any case.
        let Aligned { lines, left_out } = within(36, &columns, &table);
        assert_eq!(lines, ["NAME                          STATE", "a-very-long-name-of-a-search  done"]);
        assert_eq!(left_out, ["SOURCE"]);
        let Aligned { lines, .. } = within(5, &columns, &table);
        assert_eq!(lines[1], "a-very-lon…-a-search  done");
    }

    #[test]
    fn columns_are_left_out_by_their_rank() {
        let table = rows(&[&["127.0.0.1:40000", "alice", "tcp", "server"]]);
        let columns = [
            Column::kept("CLIENT"),
            Column::ranked("TOKEN", 1),
            Column::ranked("VIA", 2),
            Column::kept("WAITS"),
        ];
        let left_out = |width| within(width, &columns, &table).left_out;
        assert_eq!([left_out(35), left_out(34), left_out(27)], [vec![], vec!["TOKEN"], vec!["TOKEN", "VIA"]]);
        // What is there in any case is there in any case.
        for width in 1..35 {
            let lines = within(width, &columns, &table).lines;
            assert!(lines[0].contains("CLIENT") && lines[1].ends_with("server"), "{width}: {lines:?}");
        }
    }

    #[test]
    fn names_are_cut_so_that_they_differ() {
        // Two that differ in their middle only.
        let names = ["autoaugment-by-alice-imagenet-1", "autoaugment-by-bobby-imagenet-1", "shapes-tiny-1"];
        let table = rows(
            &names.map(|name| [name, "a-cell-that-is-long-and-can-be-cut"]).each_ref().map(|row| &row[..]),
        );
        let columns = [Column::kept("NAME"), Column::ranked("SOURCE", 1)];
        for width in 1..70 {
            let lines = within(width, &columns, &table).lines;
            let names: BTreeSet<&str> =
                lines[1..].iter().filter_map(|line| line.split("  ").next()).collect();
            assert_eq!(names.len(), 3, "{width}: {lines:?}");
        }
    }

    #[test]
    fn wide_characters_are_cut_between_two() {
        assert_eq!([cut("日本語", 6), cut("日本語", 5), cut("日本語", 4)], ["日本語", "日本…", "日…"]);
        assert_eq!([cut("abc", 3), cut("abcd", 3)], ["abc", "ab…"]);
        assert_eq!(cut_in_the_middle("日本語日本語", 9), "日本…本語");
        assert_eq!(
            [cut_in_the_middle("shapes-tiny-1", 10), cut_in_the_middle("abc", 3)],
            ["shape…ny-1", "abc"]
        );
    }

    #[test]
    fn colours_take_no_room() {
        let table = vec![vec![Cell::painted("done", AnsiColor::Green.on_default()), "x".into()]];
        let columns = Column::in_order(&["STATE", "N"]);
        let layout = Layout { width: None, has_colors: true };
        let lines = aligned(&columns, &table, Style::new().bold(), layout).lines;
        assert_eq!(lines[1], "\u{1b}[32mdone\u{1b}[0m   x");
        assert!(lines[0].starts_with("\u{1b}[1mSTATE"), "{lines:?}");
        assert_eq!(aligned(&columns, &table, Style::new(), PLAIN).lines[1], "done   x");
    }

    #[test]
    fn a_list_for_programs_has_a_line_for_each_row_and_cuts_nothing() {
        let table = rows(&[&["a\tb", "line\nbreak"], &["a-very-long-name-of-a-search", ""]]);
        assert_eq!(tabbed(&table), ["a b\tline break", "a-very-long-name-of-a-search\t"]);
    }
}
