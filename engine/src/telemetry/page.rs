//! `docs/metrics.md`, made from the catalogue.

use std::fmt::Write as _;

use super::catalogue::{Area, Kind, Label, METRICS, Values};

const HEAD: &str = "\
# Metrics

Served at `/metrics` on the API's address, in Prometheus' text form. Counters count from the start of the process.
No metric holds an address, a name or the content of a message, and no label holds an id: a label's values are bounded
by what stands beside it. `config/prometheus/rules.yml` alerts on them, `config/grafana/dispatch.json` draws them.

This page is made from `engine/src/telemetry/catalogue.rs`; a test holds it equal. To make it anew:
`BLESS=1 cargo test -p dispatch-engine the_page_of_metrics`.
";

/// The page.
#[must_use]
pub fn metrics_page() -> String {
    let mut page = HEAD.to_owned();
    for area in Area::ALL {
        page.push_str("\n## ");
        page.push_str(area.heading());
        page.push_str("\n\n| metric | kind | unit | labels | what it tells |\n|---|---|---|---|---|\n");
        for metric in METRICS.iter().filter(|metric| metric.area == *area) {
            let labels: Vec<String> = metric.labels.iter().map(shown).collect();
            let labels = if labels.is_empty() { "none".to_owned() } else { labels.join("; ") };
            // Writing to a String does not fail.
            let _ = writeln!(
                page,
                "| `{}` | {} | {} | {labels} | {} |",
                metric.name,
                metric.kind.as_str(),
                metric.unit.as_str(),
                metric.meaning
            );
        }
    }
    page.push_str("\n## Buckets\n\nUpper bounds of the histograms.\n\n| metric | bounds |\n|---|---|\n");
    for metric in METRICS {
        if let Kind::Histogram(buckets) = metric.kind {
            let bounds: Vec<String> = buckets.iter().map(ToString::to_string).collect();
            let _ = writeln!(page, "| `{}` | {} |", metric.name, bounds.join(", "));
        }
    }
    page
}

fn shown(label: &Label) -> String {
    match label.values {
        Values::Words(words) => {
            let words: Vec<String> = words().iter().map(|word| format!("`{word}`")).collect();
            format!("`{}`: {}", label.key, words.join(", "))
        }
        Values::BoundedBy(what) => format!("`{}`: {what}", label.key),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;
    use crate::telemetry::catalogue;

    fn in_repository(path: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
    }

    #[test]
    fn the_page_of_metrics_is_what_the_catalogue_makes() {
        let path = in_repository("docs/metrics.md");
        if std::env::var_os("BLESS").is_some() {
            fs::write(&path, metrics_page()).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), metrics_page(), "make it anew as its head says");
    }

    #[test]
    fn every_metric_stands_on_the_page() {
        let page = metrics_page();
        assert!(METRICS.iter().all(|metric| page.contains(&format!("| `{}` |", metric.name))));
    }

    #[test]
    fn alerts_and_dashboard_name_only_metrics_there_are() {
        for path in ["config/prometheus/rules.yml", "config/grafana/dispatch.json"] {
            let text = fs::read_to_string(in_repository(path)).unwrap();
            let names: BTreeSet<&str> = text
                .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .filter(|word| word.starts_with("dispatch_"))
                .collect();
            assert!(names.len() > 5, "{path} names no metrics");
            for name in names {
                let part_of_histogram = ["_bucket", "_sum", "_count"].iter().filter_map(|end| name.strip_suffix(end));
                let known = catalogue::metric(name).is_some()
                    || part_of_histogram
                        .filter_map(catalogue::metric)
                        .any(|metric| matches!(metric.kind, Kind::Histogram(_)));
                assert!(known, "{path} names {name}, which there is not");
            }
        }
    }
}
