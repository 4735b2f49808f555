//! How far an upload is: a bar on a terminal, plain lines elsewhere.

use std::io::{self, IsTerminal as _, Write as _};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

/// A line for each tenth of the file.
const STEP_PERCENT: u64 = 10;

/// Shows how much of a file has been sent.
pub enum UploadProgress {
    /// On a terminal.
    Bar(ProgressBar),
    /// Elsewhere.
    Lines {
        /// Bytes of the file.
        total: u64,
        /// Bytes sent.
        sent: u64,
        /// The percentage the next line is due at.
        next_percent: u64,
    },
}

impl std::fmt::Debug for UploadProgress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UploadProgress")
    }
}

impl UploadProgress {
    /// For a file of this many bytes; fitting for where standard error goes.
    #[must_use]
    pub fn of(total: u64) -> Self {
        if !io::stderr().is_terminal() {
            return Self::Lines { total, sent: 0, next_percent: STEP_PERCENT };
        }
        let bar = ProgressBar::new(total);
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {percent:>3}%  {bytes} of {total_bytes}  {eta} {msg}")
        {
            bar.set_style(style);
        }
        Self::Bar(bar)
    }

    /// Counts bytes as sent.
    pub fn sent(&mut self, bytes: u64) {
        match self {
            Self::Bar(bar) => bar.inc(bytes),
            Self::Lines { total, sent, next_percent } => {
                *sent += bytes;
                let percent = (*sent * 100).checked_div(*total).unwrap_or(100);
                if percent >= *next_percent {
                    *next_percent = percent - percent % STEP_PERCENT + STEP_PERCENT;
                    // Progress is a courtesy: nobody misses it when standard error is closed.
                    let _ = writeln!(io::stderr(), "sent {percent}% ({} of {})", HumanBytes(*sent), HumanBytes(*total));
                }
            }
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}
