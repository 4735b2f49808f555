//! The metrics that sources name, held to the catalogue.
//!
//! [`measured_in`] reads the text of a source file, not its syntax tree: it finds the three macros of the `metrics`
//! crate by name and reads their literals.

use super::catalogue::{METRICS, Metric, metric};

/// One call of a metric's macro.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    /// The macro: `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// The metric's name; `None` when it is no literal.
    pub name: Option<String>,
    /// Its labels' names, sorted.
    pub labels: Vec<String>,
    /// The line of the call, from 1.
    pub line: usize,
}

const MACROS: [&str; 3] = ["counter", "gauge", "histogram"];

/// The metrics a source file records.
#[must_use]
pub fn measured_in(source: &str) -> Vec<Measured> {
    let mut found = Vec::new();
    for kind in MACROS {
        let call = format!("{kind}!(");
        for (at, _) in source.match_indices(&call) {
            // `describe_counter!(` is another macro.
            let before = source[..at].bytes().next_back();
            if before.is_some_and(|byte| byte == b'_' || byte.is_ascii_alphanumeric()) {
                continue;
            }
            let line = source[..at].matches('\n').count() + 1;
            let (name, labels) = literals(&source[at + call.len()..]);
            found.push(Measured { kind, name, labels, line });
        }
    }
    found.sort_by_key(|measured| measured.line);
    found
}

/// What is wrong with what sources record: names, kinds or labels the catalogue does not have.
#[must_use]
pub fn disagreements(measured: &[Measured]) -> Vec<String> {
    measured.iter().filter_map(disagreement).collect()
}

/// The metrics of the catalogue that nothing records.
#[must_use]
pub fn unrecorded(measured: &[Measured]) -> Vec<&'static str> {
    let recorded = |metric: &&Metric| measured.iter().any(|found| found.name.as_deref() == Some(metric.name));
    METRICS.iter().filter(|metric| !recorded(metric)).map(|metric| metric.name).collect()
}

fn disagreement(found: &Measured) -> Option<String> {
    let line = found.line;
    let Some(name) = &found.name else {
        return Some(format!("line {line}: the name of a metric must be a literal"));
    };
    let Some(metric) = metric(name) else {
        return Some(format!("line {line}: {name} does not stand in the catalogue of metrics"));
    };
    if metric.kind.as_str() != found.kind {
        return Some(format!(
            "line {line}: {name} is a {} in the catalogue, not a {}",
            metric.kind.as_str(),
            found.kind
        ));
    }
    let mut labels: Vec<&str> = metric.labels.iter().map(|label| label.key).collect();
    labels.sort_unstable();
    (labels != found.labels)
        .then(|| format!("line {line}: {name} has the labels {labels:?} in the catalogue, not {:?}", found.labels))
}

/// The literal a macro's arguments begin with, and the literals before a `=>`.
fn literals(arguments: &str) -> (Option<String>, Vec<String>) {
    let mut name = None;
    let mut labels = Vec::new();
    let mut depth = 0_u32;
    let mut rest = arguments.trim_start();
    if let Some((literal, after)) = literal(rest) {
        name = Some(literal.to_owned());
        rest = after;
    }
    while let Some(first) = rest.chars().next() {
        if let Some((literal, after)) = literal(rest) {
            if depth == 0 && after.trim_start().starts_with("=>") {
                labels.push(literal.to_owned());
            }
            rest = after;
            continue;
        }
        match first {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth == 0 => break,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        rest = &rest[first.len_utf8()..];
    }
    labels.sort_unstable();
    (name, labels)
}

/// A plain string literal at the start of a text, and what follows it. Names of metrics and labels need no escapes.
fn literal(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix('"')?.split_once('"')
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn calls_are_found_with_their_labels() {
        let source = r#"
            metrics::describe_counter!("no_call", "text");
            metrics::histogram!("dispatch_request_seconds", "provider" => provider, "channel" => f("x", "y"))
                .record(took("z" => 1));
            counter!(
                "dispatch_claims_expired_total"
            ).increment(1);
            gauge!(NAME).set(1.0);
        "#;
        let found = measured_in(source);
        let summary: Vec<_> = found.iter().map(|found| (found.kind, found.name.as_deref(), found.line)).collect();
        assert_eq!(
            summary,
            [
                ("histogram", Some("dispatch_request_seconds"), 3),
                ("counter", Some("dispatch_claims_expired_total"), 5),
                ("gauge", None, 8)
            ]
        );
        assert_eq!(found[0].labels, ["channel", "provider"]);
        assert_eq!(disagreements(&found), ["line 8: the name of a metric must be a literal"]);
        assert!(unrecorded(&found).contains(&"dispatch_sends_total"));
        assert!(!unrecorded(&found).contains(&"dispatch_request_seconds"));
    }

    #[test]
    fn what_the_catalogue_does_not_say_is_a_disagreement() {
        for source in [
            r#"counter!("dispatch_nothing_total")"#,
            r#"gauge!("dispatch_claims_expired_total")"#,
            r#"counter!("dispatch_claims_expired_total", "campaign" => id)"#,
            r#"counter!("dispatch_sends_total", "provider" => provider)"#,
        ] {
            assert_eq!(disagreements(&measured_in(source)).len(), 1, "{source}");
        }
    }

    #[test]
    fn the_program_records_what_stands_in_the_catalogue_and_nothing_else() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut files = 0;
        let (mut wrong, mut all) = (Vec::new(), Vec::new());
        for room in ["engine/src", "workers/src"] {
            for file in sources(&root.join(room)) {
                files += 1;
                // This file holds calls that are wrong on purpose.
                if file.ends_with("telemetry/measured.rs") {
                    continue;
                }
                let measured = measured_in(&fs::read_to_string(&file).unwrap());
                wrong.extend(disagreements(&measured).iter().map(|what| format!("{}: {what}", file.display())));
                all.extend(measured);
            }
        }
        assert!(files > 20, "the sources were not found");
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert_eq!(unrecorded(&all), [""; 0], "the page of metrics promises what nothing records");
    }

    fn sources(folder: &Path) -> Vec<std::path::PathBuf> {
        let mut files = Vec::new();
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            match entry.path() {
                path if path.is_dir() => files.extend(sources(&path)),
                path if path.extension().is_some_and(|ext| ext == "rs") => files.push(path),
                _ => {}
            }
        }
        files
    }
}
