//! Text for people: tables, colours on a terminal only, times and sizes in words.

use crate::base::finding::Grade;
use crate::base::text::{visible, visible_line};
use crate::base::units;
use core::time::Duration;
use serde_json::Value;
use std::io::IsTerminal;

/// Whether standard output takes colours: a terminal, and neither NO_COLOR nor TERM=dumb.
#[must_use]
pub(crate) fn colours() -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    std::io::stdout().is_terminal() && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
}

#[must_use]
pub(crate) fn on_terminal_err() -> bool {
    std::io::stderr().is_terminal()
}

/// Members of a reply that are lines: mistakes, one a line, and a prompt, whose lines are shown each behind a bar.
/// Deeper in a reply others choose the names.
const IN_LINES: [&str; 2] = ["config_error", "whole_prompt"];

/// A reply for a terminal: no text of others in it has a control character that could colour or erase what hob says, or
/// an end of a line, behind which it could say more in the name of hob.
#[must_use]
pub(crate) fn masked(reply: &Value) -> Value {
    let mut shown = inner(reply);
    for key in IN_LINES {
        if let (Some(lines), Some(shown)) = (reply.get(key).and_then(Value::as_str), shown.get_mut(key)) {
            *shown = Value::from(visible(lines));
        }
    }
    shown
}

fn inner(v: &Value) -> Value {
    match v {
        Value::String(text) => Value::from(visible_line(text)),
        Value::Array(all) => all.iter().map(inner).collect(),
        Value::Object(all) => all.iter().map(|(k, v)| (visible_line(k).into_owned(), inner(v))).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => v.clone(),
    }
}

/// A way to colour text, or to leave it as it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paint {
    pub(crate) on: bool,
}

impl Paint {
    pub(crate) fn colour(self, code: &str, text: &str) -> String {
        if self.on && !code.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// The colour of the state of a service or a task.
    pub(crate) fn state(self, state: &str, text: &str) -> String {
        let code = match state {
            "running" | "succeeded" => "32",
            "failed" | "timed_out" | "lost" => "31;1",
            "backoff" => "31",
            "starting" | "stopping" | "waiting" | "queued" | "paused" | "held" => "33",
            _ => "2",
        };
        self.colour(code, text)
    }

    /// The colour of a finding's grade.
    pub(crate) fn grade(self, grade: Grade, text: &str) -> String {
        let code = match grade {
            Grade::Ok => "32",
            Grade::Note => "2",
            Grade::Warning => "33;1",
            Grade::Error => "31;1",
        };
        self.colour(code, text)
    }

    /// The same in bold, for what stands alone.
    pub(crate) fn strong_state(self, state: &str, text: &str) -> String {
        let code = match state {
            "running" | "succeeded" => "32;1",
            "failed" | "backoff" | "timed_out" | "lost" => "31;1",
            "starting" | "stopping" | "waiting" | "queued" | "paused" | "held" => "33;1",
            _ => "1",
        };
        self.colour(code, text)
    }
}

/// A text broken at its spaces into lines of a terminal's width; without one it stays one line. The first line is
/// indented by `first`, the others by `rest`; a word that is longer than a line stays whole.
pub(crate) fn wrapped(text: &str, first: usize, rest: usize, columns: Option<usize>) -> String {
    let mut out = " ".repeat(first);
    let Some(columns) = columns else { return out + text };
    let (mut used, mut fresh) = (first, true);
    for word in text.split(' ') {
        let width = word.chars().count();
        if !fresh && used + 1 + width > columns {
            out.push('\n');
            out.push_str(&" ".repeat(rest));
            (used, fresh) = (rest, true);
        }
        if !fresh {
            out.push(' ');
            used += 1;
        }
        out.push_str(word);
        (used, fresh) = (used + width, false);
    }
    out
}

/// One of six colours for the names of logs that are shown together, by their place.
pub(crate) fn name_colour(place: usize) -> &'static str {
    const COLOURS: [&str; 6] = ["36", "33", "35", "32", "34", "31"];
    COLOURS[place % COLOURS.len()]
}

/// A table whose columns are as wide as their widest cell. Cells are measured without their colours; the last column is
/// never padded, and numbers stand to the right.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<Cell>>,
}

#[derive(Debug)]
struct Cell {
    text: String,
    shown: String,
    right: bool,
}

impl Table {
    pub(crate) fn row(&mut self) -> &mut Self {
        self.rows.push(Vec::new());
        self
    }

    pub(crate) fn cell(&mut self, text: impl Into<String>) -> &mut Self {
        let text = text.into();
        self.painted(text.clone(), text)
    }

    pub(crate) fn painted(&mut self, text: impl Into<String>, shown: String) -> &mut Self {
        self.push(Cell { text: text.into(), shown, right: false })
    }

    pub(crate) fn number(&mut self, text: impl Into<String>) -> &mut Self {
        let text = text.into();
        self.push(Cell { shown: text.clone(), text, right: true })
    }

    fn push(&mut self, cell: Cell) -> &mut Self {
        if let Some(row) = self.rows.last_mut() {
            row.push(cell);
        }
        self
    }

    pub(crate) fn print(&self) -> String {
        self.print_within(None)
    }

    /// Whether rows fit into so many columns, with the last cell cut to what it needs at least.
    pub(crate) fn fits(&self, columns: usize) -> bool {
        let widths = self.widths();
        let last = widths.last().map_or(0, |w| (*w).min(LAST_CELL));
        self.before_last(&widths) + last <= columns
    }

    /// The table, its last cells cut where they would run over the terminal's edge.
    pub(crate) fn print_within(&self, columns: Option<usize>) -> String {
        let widths = self.widths();
        let room = columns.map(|c| c.saturating_sub(self.before_last(&widths)).max(LAST_CELL));
        let mut out = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (i, cell) in row.iter().enumerate() {
                let pad = widths.get(i).map_or(0, |w| w.saturating_sub(cell.text.chars().count()));
                if cell.right {
                    line.extend(core::iter::repeat_n(' ', pad));
                }
                match room {
                    Some(room) if i + 1 == widths.len() && cell.text.chars().count() > room => {
                        line.extend(cell.text.chars().take(room.saturating_sub(3)));
                        line.push_str("...");
                    }
                    _ => line.push_str(&cell.shown),
                }
                if !cell.right {
                    line.extend(core::iter::repeat_n(' ', pad));
                }
                line.push_str("  ");
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }

    fn widths(&self) -> Vec<usize> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width =
            |i: usize| self.rows.iter().filter_map(|r| r.get(i)).map(|c| c.text.chars().count()).max().unwrap_or(0);
        (0..columns).map(width).collect()
    }

    /// The columns before the last one, with the gaps between them.
    fn before_last(&self, widths: &[usize]) -> usize {
        widths.iter().rev().skip(1).map(|w| w + 2).sum()
    }
}

/// The least that is left of a last cell that is cut.
const LAST_CELL: usize = 20;

/// The same, with fractions of a second where they matter.
pub(crate) fn lasted(seconds: f64) -> String {
    units::human_duration(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX))
}

/// `3 s`, `2 min 5 s`, `4 h 10 min`, `3 d 4 h`.
pub(crate) fn ago(seconds: f64) -> String {
    units::human_duration(Duration::try_from_secs_f64(seconds.max(0.0).floor()).unwrap_or(Duration::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_say_has_no_colours_and_what_hob_says_has() {
        let inner = ["\x1b[8mhidden", "\u{9b}2J\nnext"];
        let reply = serde_json::json!({ "a\x1b[31m": [inner[0], { "config_error": inner[1] }, 1, null],
            "config_error": "a\nb" });
        let shown = masked(&reply);
        let inner = ["\\u{1b}[8mhidden", "\\u{9b}2J\\nnext"];
        let wanted = serde_json::json!({ "a\\u{1b}[31m": [inner[0], { "config_error": inner[1] }, 1, null],
            "config_error": "a\nb" });
        assert_eq!(shown, wanted);
        let said = Paint { on: true }.colour("31", shown["a\\u{1b}[31m"][0].as_str().unwrap_or_default());
        assert_eq!(crate::base::text::visible_or_colour(&said), "\x1b[31m\\u{1b}[8mhidden\x1b[0m");
    }

    #[test]
    fn texts_wrap_at_spaces_under_their_indent() {
        assert_eq!(wrapped("one two three", 2, 4, Some(10)), "  one two\n    three");
        assert_eq!(wrapped("one two three", 2, 4, None), "  one two three");
        assert_eq!(wrapped("unbreakable word", 0, 1, Some(4)), "unbreakable\n word");
    }

    #[test]
    fn last_cells_are_cut_on_a_terminal_alone() {
        let mut t = Table::default();
        t.row().cell("web").cell("a message that is much longer than the terminal is wide");
        assert!(t.fits(25) && !t.fits(24));
        assert_eq!(t.print_within(Some(30)), "web  a message that is much...\n");
        assert_eq!(t.print().trim_end().len(), 60);
    }

    #[test]
    fn columns_line_up_without_counting_colours() {
        let mut t = Table::default();
        t.row().cell("NAME").cell("STATE").number("PID").cell("NOTE");
        t.row().cell("web").painted("running", Paint { on: true }.state("running", "running")).number("7").cell("");
        t.row().cell("database").cell("failed").number("12345").cell("x");
        let lines: Vec<String> =
            t.print().replace("\x1b[32m", "").replace("\x1b[0m", "").lines().map(str::to_owned).collect();
        assert_eq!(
            lines,
            ["NAME      STATE      PID  NOTE", "web       running      7", "database  failed   12345  x"]
        );
    }
}
