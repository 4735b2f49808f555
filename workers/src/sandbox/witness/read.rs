//! Reading the log back, a line at a time.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _},
    path::Path,
};

use super::WitnessLine;

/// Longest line read. The largest body a fake takes holds 30 MB, and a line is longer than what it was made of only
/// where a body is all addresses.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// A log that cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum WitnessReadError {
    /// The file cannot be read.
    #[error("the witness's log cannot be read: {0}")]
    Io(#[from] io::Error),
    /// A line that ends in a line break is not a line of the witness: somebody else has written to the file.
    #[error("line {number} of the witness's log is not a witness line: {cause}")]
    Line {
        /// Counted from 1.
        number: u64,
        /// What is wrong with it.
        cause: serde_json::Error,
    },
    /// A line has no end.
    #[error("line {number} of the witness's log is longer than {} bytes", LINE_BYTES_MAX)]
    Endless {
        /// Counted from 1.
        number: u64,
    },
}

/// The lines of a log in their order, read as they are asked for: memory holds one.
///
/// A last line without a line break was being written when its machine stopped. Its request was never answered, so it
/// ends the log without an error.
#[derive(Debug)]
pub struct WitnessLines {
    file: BufReader<File>,
    line: Vec<u8>,
    number: u64,
    ended: bool,
}

/// Opens a log for reading; it may still be written to.
///
/// # Errors
/// When the file cannot be opened.
pub fn read_lines(path: &Path) -> io::Result<WitnessLines> {
    let file = BufReader::with_capacity(1 << 18, File::open(path)?);
    Ok(WitnessLines { file, line: Vec::new(), number: 0, ended: false })
}

impl WitnessLines {
    fn read(&mut self) -> Result<Option<WitnessLine>, WitnessReadError> {
        self.line.clear();
        self.number += 1;
        let bytes = self.file.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut self.line)?;
        if self.line.last() == Some(&b'\n') {
            let line = serde_json::from_slice(&self.line);
            return line.map(Some).map_err(|cause| WitnessReadError::Line { number: self.number, cause });
        }
        if bytes as u64 == LINE_BYTES_MAX { Err(WitnessReadError::Endless { number: self.number }) } else { Ok(None) }
    }
}

impl Iterator for WitnessLines {
    type Item = Result<WitnessLine, WitnessReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let read = self.read().transpose();
        self.ended = !matches!(read, Some(Ok(_)));
        read
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const LINE: &str = r#"{"seq":0,"t_ms":1,"provider":"smtp","mode":"ok","status":250,"recipients":[]}"#;

    fn lines_of(text: &str) -> Vec<Result<WitnessLine, WitnessReadError>> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("witness.jsonl");
        fs::write(&path, text).unwrap();
        read_lines(&path).unwrap().collect()
    }

    #[test]
    fn a_torn_last_line_ends_the_log_at_every_place_it_can_tear() {
        for torn_at in 0..LINE.len() {
            let lines = lines_of(&format!("{LINE}\n{}", &LINE[..torn_at]));
            assert_eq!(lines.len(), 1, "torn after {torn_at} bytes");
            assert_eq!(lines[0].as_ref().unwrap().status, 250);
        }
    }

    #[test]
    fn a_whole_line_that_is_not_the_witnesss_is_an_error_with_its_number() {
        let lines = lines_of(&format!("{LINE}\nnot json\n{LINE}\n"));
        assert_eq!(lines.len(), 2);
        assert!(matches!(lines[1], Err(WitnessReadError::Line { number: 2, .. })));
    }

    #[test]
    fn an_empty_log_has_no_lines() {
        assert!(lines_of("").is_empty());
    }
}
