//! The one place that writes to stdout: tables for people, JSON for programs. A
//! reader that goes away, as `head` does, is no error.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use comfy_table::presets;
use comfy_table::{Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, Table, Width};
use machina_core::Status;
use serde::Serialize;

/// How wide a table is when it goes into a pipe or a file.
const WIDTH_PIPED: u16 = 80;

/// How wide a column stays, if its content is that wide, while those with longer
/// texts are wrapped.
const UNWRAPPED_MAX: u16 = 26;

/// Where a command writes its answer.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    json: bool,
    terminal: bool,
    colour: bool,
    closed: Arc<AtomicBool>,
}

impl Output {
    pub(crate) fn new(json: bool, colour: bool) -> Self {
        let terminal = io::stdout().is_terminal();
        Self { json, terminal, colour: colour && terminal, closed: Arc::default() }
    }

    /// Whether programs read it.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether a person sees it as it is written.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal && !self.json
    }

    /// Whether nobody reads any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    fn write(&self, text: &str) {
        if self.is_closed() {
            return;
        }
        let mut stdout = io::stdout().lock();
        if stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).is_err() {
            self.closed.store(true, Ordering::Relaxed);
        }
    }

    /// A line for people.
    pub(crate) fn line(&self, text: impl Display) {
        self.write(&format!("{}\n", clean(&text.to_string())));
    }

    /// Text as it is; control characters only reach those who do not watch.
    pub(crate) fn text(&self, text: &str) {
        let end = if text.ends_with('\n') { "" } else { "\n" };
        let text = if self.terminal { clean(text) } else { text.to_owned() };
        self.write(&format!("{text}{end}"));
    }

    /// A document for programs.
    pub(crate) fn json(&self, value: &impl Serialize) {
        match serde_json::to_string_pretty(value) {
            Ok(text) => self.write(&format!("{text}\n")),
            Err(error) => tracing::error!(%error, "the answer cannot be written as JSON"),
        }
    }

    /// One document on one line, for programs that read while we write.
    pub(crate) fn json_line(&self, value: &impl Serialize) {
        match serde_json::to_string(value) {
            Ok(text) => self.write(&format!("{text}\n")),
            Err(error) => tracing::error!(%error, "the answer cannot be written as JSON"),
        }
    }

    /// A table in the making, with this header. Columns whose heading begins with
    /// `#` hold numbers.
    pub(crate) fn columns(&self, header: &[&str]) -> Columns {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header(header.iter().map(|heading| heading.trim_start_matches('#')));
        for (column, heading) in table.column_iter_mut().zip(header) {
            column.set_padding((0, 2));
            if heading.starts_with('#') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        if !self.terminal {
            table.set_width(WIDTH_PIPED);
        }
        Columns { table, colour: self.colour }
    }

    /// A table, no wider than the terminal; 80 columns where there is none.
    pub(crate) fn table(&self, mut columns: Columns) {
        self.write(&laid_out(&mut columns));
    }
}

/// The lines of a table. Names and numbers keep their width; long texts, and the
/// last column, are wrapped.
fn laid_out(columns: &mut Columns) -> String {
    let mut widths = columns.table.column_max_content_widths();
    widths.pop();
    for (column, width) in columns.table.column_iter_mut().zip(widths) {
        let least = width.min(UNWRAPPED_MAX).saturating_add(column.padding_width());
        column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(least)));
    }
    columns.table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// A table in the making.
#[derive(Debug)]
pub(crate) struct Columns {
    table: Table,
    colour: bool,
}

impl Columns {
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells = cells.into_iter().map(|text| {
            let cell = Cell::new(clean(&text));
            match colour_of(&text) {
                Some(colour) if self.colour => cell.fg(colour),
                _ => cell,
            }
        });
        self.table.add_row(cells.collect::<Vec<_>>());
    }
}

/// The words of a status have a colour.
fn colour_of(text: &str) -> Option<Color> {
    let status = Status::ALL.iter().find(|status| status.as_str() == text)?;
    Some(match status {
        Status::Healthy => Color::Green,
        Status::Degraded => Color::Yellow,
        Status::Unhealthy => Color::Red,
        Status::Unknown | Status::Disabled | Status::Maintenance => Color::DarkGrey,
    })
}

/// `text` without characters that would command a terminal: what servers say of
/// themselves is not to be trusted with that.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// The beginning of `text`, on one line.
pub(crate) fn short(text: &str, characters_max: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(characters_max) {
        Some((end, _)) => format!("{}…", line[..end].trim_end()),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_fits_into_80_columns_and_carries_no_commands() {
        let output = Output { json: false, terminal: false, colour: false, closed: Arc::default() };
        let mut columns = output.columns(&["NAME", "#N", "DETAIL"]);
        columns.row(["time\u{1b}[31m".to_owned(), "7".to_owned(), "a long detail ".repeat(30)]);
        let lines: Vec<String> = laid_out(&mut columns).lines().map(str::to_owned).collect();
        assert!(lines.iter().all(|line| line.chars().count() <= 80), "{lines:?}");
        assert!(!lines.concat().contains('\u{1b}'), "{lines:?}");
        assert!(lines[0].starts_with("NAME"), "{lines:?}");
    }

    #[test]
    fn long_text_is_cut_at_a_character() {
        assert_eq!(short("a\n  b", 10), "a b");
        assert_eq!(short("äöü äöü", 5), "äöü ä…");
        assert_eq!(short("äöü äöü", 4), "äöü…");
    }
}
