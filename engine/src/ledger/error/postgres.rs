//! What PostgreSQL's error codes mean.

use super::LedgerError;

/// The words for a SQLSTATE (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).
pub(super) fn explained(code: &str) -> LedgerError {
    let what = match code {
        "40001" | "40P01" => return LedgerError::Contended,
        // The session ended while its transaction waited for the next statement, or the link broke.
        "25P03" | "57P05" => return LedgerError::Disconnected,
        _ if code.starts_with("08") => return LedgerError::Disconnected,
        "53100" => "the server's disk is full; free some space, nothing is lost",
        "53200" => "the server has no memory left",
        "53300" => "the server has no connection left; raise its max_connections or run fewer processes",
        "55P03" => "it is busy: a lock was not free in time",
        "57014" => "the statement was cancelled at the server",
        "57P01" | "57P02" | "57P03" => "the server is shutting down or starting",
        "25006" => "it is read-only; point ledger.url at the primary, or look at default_transaction_read_only",
        "28000" | "28P01" => "the server refuses the role or its password",
        "3D000" => "there is no database of this name",
        "42501" => "the role lacks a right; it must own the ledger's tables",
        "42P01" | "42703" | "3F000" => "its tables are not this version's; run `dispatch migrate`",
        "58030" | "XX001" | "XX002" => "the server cannot read its files; look at its log and its disk",
        _ => return LedgerError::Unavailable(format!("database error {code}")),
    };
    LedgerError::Unavailable(format!("{what} (PostgreSQL {code})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_transaction_caused_may_be_tried_again() {
        for code in ["40001", "40P01"] {
            assert!(matches!(explained(code), LedgerError::Contended), "{code}");
        }
    }

    #[test]
    fn a_broken_link_is_not_taken_for_a_refusal() {
        for code in ["08000", "08006", "25P03"] {
            assert!(matches!(explained(code), LedgerError::Disconnected), "{code}");
        }
    }

    #[test]
    fn the_codes_an_operator_meets_say_what_to_do() {
        for (code, words) in [
            ("53100", "free some space"),
            ("25006", "point ledger.url at the primary"),
            ("57P01", "shutting down"),
            ("55P03", "a lock was not free in time"),
            ("53300", "max_connections"),
            ("28P01", "refuses the role"),
            ("42501", "must own the ledger's tables"),
            ("42P01", "dispatch migrate"),
            ("22P02", "database error 22P02"),
        ] {
            let told = explained(code).to_string();
            assert!(told.contains(words) && told.contains(code), "{told}");
        }
    }
}
