//! What SQLite's result codes mean.

use super::LedgerError;

/// The words for an extended result code (<https://www.sqlite.org/rescode.html>).
pub(super) fn explained(code: &str) -> LedgerError {
    LedgerError::Unavailable(match code {
        "13" => "the disk is full (SQLite 13); free some space, nothing is lost".to_owned(),
        // A write that failed, a file that could not be synced or made longer.
        "778" | "1034" | "4874" => {
            format!("the disk is full or failing (SQLite {code}); free some space or look at the disk, nothing is lost")
        }
        "5" | "6" | "261" | "517" => "it is busy or locked (SQLite 5)".to_owned(),
        "8" | "264" | "520" | "776" | "1032" | "1544" => {
            "it is read-only (SQLite 8); check the file's and folder's rights".to_owned()
        }
        "11" | "26" => "the file is damaged or not a database (SQLite 11)".to_owned(),
        code => format!("database error {code}"),
    })
}
