//! What a check came to.

use std::fmt;

use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// As it should be.
    Ok,
    /// It works, and will not always, or was meant otherwise.
    Warn,
    /// It does not work, or a promise does not hold.
    Fail,
}

/// One check and what it came to. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    pub(super) level: Level,
    /// Area and thing, such as `database.role`.
    pub(super) name: String,
    /// What was found.
    pub(super) text: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mend: Option<String>,
}

impl Check {
    pub(super) fn ok(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { level: Level::Ok, name: name.into(), text: text.into(), mend: None }
    }

    pub(super) fn warn(name: impl Into<String>, text: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { level: Level::Warn, name: name.into(), text: text.into(), mend: Some(mend.into()) }
    }

    pub(super) fn fail(name: impl Into<String>, text: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { level: Level::Fail, name: name.into(), text: text.into(), mend: Some(mend.into()) }
    }

    /// A failure in words that say what to do themselves.
    pub(super) fn refused(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { level: Level::Fail, name: name.into(), text: text.into(), mend: None }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "fail",
        };
        write!(f, "{level:4}  {}: {}", self.name, self.text)?;
        self.mend.as_ref().map_or(Ok(()), |mend| write!(f, "; {mend}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_one_line_that_ends_with_what_to_do() {
        let check = Check::warn("disk.ledger", "1 GiB is free", "free some");
        assert_eq!(check.to_string(), "warn  disk.ledger: 1 GiB is free; free some");
        assert_eq!(Check::ok("a.b", "well").to_string(), "ok    a.b: well");
        let json = serde_json::to_value(&check).unwrap();
        assert_eq!(json["level"], "warn");
        assert_eq!(json["mend"], "free some");
    }
}
