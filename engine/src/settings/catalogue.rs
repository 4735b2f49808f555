//! Every setting there is, as `config/dispatch.toml` explains them.

use std::path::Path;

use super::document::Document;

/// The commented settings file: every setting with its default, those without one commented out as `#name = …`.
pub const EXAMPLE: &str = include_str!("../../../config/dispatch.toml");

/// The tables whose keys are names of the operator's choice.
const NAMED: &[&str] = &["providers", "limits.domains", "limits.countries"];

/// The example with the settings that are commented out switched on. Prose has a space after its `#`, they have none.
pub(super) fn example_in_full() -> String {
    let switched_on = |line: &'static str| match line.strip_prefix('#') {
        Some(setting) if setting.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => setting,
        _ => line,
    };
    EXAMPLE.lines().map(switched_on).collect::<Vec<_>>().join("\n")
}

/// The full names of all settings, with `*` for a name of the operator's choice: `providers.*.url`.
pub(super) fn keys() -> Vec<String> {
    // A test holds the example to what the program reads; were it broken, suggestions would be missing, no more.
    let document = Document::parse(&example_in_full(), Path::new("config/dispatch.toml")).unwrap_or_default();
    let mut keys: Vec<String> = document.keys().iter().map(|key| unnamed(key)).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// `limits.domains."gmail.com".per_day` → `limits.domains.*.per_day`.
pub(super) fn unnamed(key: &str) -> String {
    for table in NAMED {
        let Some(rest) = key.strip_prefix(table).and_then(|rest| rest.strip_prefix('.')) else { continue };
        let setting = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').map(|(_, setting)| setting.trim_start_matches('.')),
            None => rest.split_once('.').map(|(_, setting)| setting),
        };
        return match setting {
            Some(setting) if !setting.is_empty() => format!("{table}.*.{setting}"),
            _ => format!("{table}.*"),
        };
    }
    key.to_owned()
}
