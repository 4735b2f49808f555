//! What a command prints: tables for people, JSON for programs.

use std::io::{self, Write};

use serde::Serialize;

/// Where a command prints to.
pub struct Output(Box<dyn Write + Send>);

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Output")
    }
}

impl Output {
    /// The process's standard output.
    #[must_use]
    pub fn to_stdout() -> Self {
        Self(Box::new(io::stdout()))
    }

    /// Somewhere else.
    #[must_use]
    pub fn to(writer: impl Write + Send + 'static) -> Self {
        Self(Box::new(writer))
    }

    /// Prints one line. A reader that has seen enough (`| head`) is no error.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn line(&mut self, text: &str) -> io::Result<()> {
        match writeln!(self.0, "{text}").and_then(|()| self.0.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            outcome => outcome,
        }
    }

    /// Prints a value as JSON on one line.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_string(value).map_err(io::Error::other)?;
        self.line(&text)
    }

    /// Prints rows under their headings, columns aligned; the last column is as long as it likes.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn table<const N: usize>(&mut self, headings: [&str; N], rows: &[[String; N]]) -> io::Result<()> {
        let mut widths = headings.map(|heading| heading.chars().count());
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        self.line(&aligned(&headings, &widths))?;
        rows.iter().try_for_each(|row| self.line(&aligned(&row.each_ref().map(String::as_str), &widths)))
    }

    /// Prints names and their values, one a line.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn pairs(&mut self, pairs: &[(&str, String)]) -> io::Result<()> {
        let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
        pairs.iter().try_for_each(|(name, value)| self.line(&format!("{name:width$}  {value}")))
    }

    /// The writer itself.
    pub fn writer(&mut self) -> &mut (dyn Write + Send) {
        &mut *self.0
    }
}

fn aligned<const N: usize>(cells: &[&str; N], widths: &[usize; N]) -> String {
    let line: Vec<String> = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
    line.join("  ").trim_end().to_owned()
}
