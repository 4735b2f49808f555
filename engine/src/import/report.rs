//! What was wrong with the rows of a file, in bounded memory and without a value from any of them.

use std::{collections::BTreeMap, sync::Arc};

use dispatch_schemas::{
    address::AddressError,
    api::imports::{ParseReport, ProblemCount, RowProblem},
};

/// Problems that are kept one by one; beyond them there are only counts.
pub const PROBLEMS_KEPT: usize = 1_000;

/// What can be wrong with a row or a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Wrong {
    /// Past the bytes a row may have.
    #[error("the row is longer than 256 KiB")]
    LineTooLong,
    /// A quotation mark opens and never closes.
    #[error("a quotation mark opens in this row and is not closed, or closes inside a cell of a later one")]
    UnclosedQuote,
    /// A NUL in the row.
    #[error("the row contains NUL characters")]
    Nul,
    /// Bytes that are no text.
    #[error("the row is not text")]
    NotText,
    /// Past the columns a row may have.
    #[error("the row has more than 1,000 columns")]
    TooManyColumns,
    /// Filled cells beyond the last column that has a name.
    #[error("the row has more filled columns than the first row has names; a value may need quotation marks")]
    ExtraColumns,
    /// Neither e-mail nor phone is filled.
    #[error("the row has neither an e-mail address nor a phone number")]
    NoAddress,
    /// A field's value past what a field may hold; the field is left out.
    #[error("the value is longer than 1,000 characters and was left out")]
    ValueTooLong,
    /// The cell does not hold an address.
    #[error(transparent)]
    Address(#[from] AddressError),
}

impl Wrong {
    /// A short name that stays the same.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::LineTooLong => "line_too_long",
            Self::UnclosedQuote => "unclosed_quote",
            Self::Nul => "nul",
            Self::NotText => "not_text",
            Self::TooManyColumns => "too_many_columns",
            Self::ExtraColumns => "extra_columns",
            Self::NoAddress => "no_address",
            Self::ValueTooLong => "value_too_long",
            Self::Address(wrong) => wrong.code(),
        }
    }
}

/// Gathers what was wrong. The number of counts is bounded by the columns that are read and the things that can be
/// wrong.
#[derive(Debug, Default)]
pub struct Report {
    rows: u64,
    accepted: u64,
    problem_count: u64,
    kept: Vec<RowProblem>,
    counts: BTreeMap<(Option<Arc<str>>, Wrong), u64>,
}

impl Report {
    /// Counts a row that has an address.
    pub fn accept(&mut self) {
        self.rows += 1;
        self.accepted += 1;
    }

    /// Counts a row that is left out; its problems are noted by [`Self::note`].
    pub fn reject(&mut self) {
        self.rows += 1;
    }

    /// Notes a problem of a row, or of its cell in `column`.
    pub fn note(&mut self, line: u64, column: Option<&Arc<str>>, wrong: Wrong) {
        self.problem_count += 1;
        *self.counts.entry((column.cloned(), wrong)).or_default() += 1;
        if self.kept.len() < PROBLEMS_KEPT {
            self.kept.push(RowProblem {
                line,
                column: column.map(ToString::to_string),
                code: wrong.code().into(),
                message: wrong.to_string().into(),
            });
        }
    }

    /// Rows so far.
    #[must_use]
    pub const fn rows(&self) -> u64 {
        self.rows
    }

    /// The report about the rows; what is known of the file is the caller's to fill in.
    #[must_use]
    pub fn into_report(self) -> ParseReport {
        let count = |((column, wrong), count): ((Option<Arc<str>>, Wrong), u64)| ProblemCount {
            column: column.map(|name| name.to_string()),
            code: wrong.code().into(),
            count,
        };
        ParseReport {
            rows: self.rows,
            accepted: self.accepted,
            rejected: self.rows - self.accepted,
            problem_count: self.problem_count,
            problems: self.kept,
            problem_counts: self.counts.into_iter().map(count).collect(),
            ..ParseReport::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_limit_problems_are_only_counted() {
        let mut report = Report::default();
        let column: Arc<str> = "courriel".into();
        for line in 0..PROBLEMS_KEPT as u64 + 5 {
            report.reject();
            report.note(line, Some(&column), AddressError::NoAt.into());
        }
        report.accept();
        let report = report.into_report();
        assert_eq!((report.rows, report.accepted, report.rejected), (1_006, 1, 1_005));
        assert_eq!((report.problems.len(), report.problem_count), (PROBLEMS_KEPT, 1_005));
        let [count] = report.problem_counts.as_slice() else { panic!() };
        assert_eq!((count.column.as_deref(), &*count.code, count.count), (Some("courriel"), "no_at", 1_005));
    }
}
