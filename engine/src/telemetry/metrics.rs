//! The measurements, in Prometheus' text form. The API serves [`Metrics::render`] at `/metrics`.

use std::time::Duration;

use metrics::{Key, KeyName, Level, Metadata, Recorder as _, SetRecorderError};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::{
    catalogue::{Kind, METRICS, Unit},
    memory,
};

/// How often recorded values are folded into their histograms. Without this, a process that nobody scrapes would keep
/// every single one.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

/// Why nothing is measured.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// A histogram of the catalogue has no buckets.
    #[error("a metric cannot be set up: {0}")]
    Build(#[from] BuildError),
    /// Something else measures in this process already.
    #[error("the metrics are set up already")]
    Installed(#[from] SetRecorderError<PrometheusRecorder>),
}

/// All measurements of this process.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// Starts measuring, for the whole process.
    ///
    /// # Errors
    /// When the process measures already.
    pub fn install() -> Result<Self, MetricsError> {
        let recorder = recorder()?;
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder)?;
        tell_build();
        Ok(Self(handle))
    }

    /// All measurements in Prometheus' text form, version 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        if let Some(bytes) = memory::resident_bytes() {
            metrics::gauge!("dispatch_process_resident_memory_bytes").set(bytes as f64);
        }
        self.0.render()
    }

    /// Keeps the histograms small, for as long as it is polled.
    pub async fn keep_up(&self) {
        let mut every = tokio::time::interval(UPKEEP_EVERY);
        loop {
            every.tick().await;
            self.0.run_upkeep();
        }
    }
}

/// A recorder that knows the catalogue; counters without labels start at zero, so that their first step is a step.
fn recorder() -> Result<PrometheusRecorder, BuildError> {
    let mut builder = PrometheusBuilder::new();
    for metric in METRICS {
        if let Kind::Histogram(buckets) = metric.kind {
            builder = builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)?;
        }
    }
    let recorder = builder.build_recorder();
    for metric in METRICS {
        let (name, unit) = (KeyName::from_const_str(metric.name), Some(unit(metric.unit)));
        match metric.kind {
            Kind::Counter => recorder.describe_counter(name, unit, metric.meaning.into()),
            Kind::Gauge => recorder.describe_gauge(name, unit, metric.meaning.into()),
            Kind::Histogram(_) => recorder.describe_histogram(name, unit, metric.meaning.into()),
        }
        if matches!(metric.kind, Kind::Counter) && metric.labels.is_empty() {
            recorder.register_counter(&Key::from_static_name(metric.name), &METADATA).increment(0);
        }
    }
    Ok(recorder)
}

/// The commit this was built from, when the build said so in the environment variable of this name.
const COMMIT: Option<&str> = option_env!("DISPATCH_BUILD_COMMIT");

fn tell_build() {
    let (version, commit) = (env!("CARGO_PKG_VERSION"), COMMIT.unwrap_or("unknown"));
    metrics::gauge!("dispatch_build_info", "version" => version, "commit" => commit).set(1.0);
}

const fn unit(unit: Unit) -> metrics::Unit {
    match unit {
        Unit::Deliveries | Unit::Count => metrics::Unit::Count,
        Unit::Seconds => metrics::Unit::Seconds,
        Unit::Bytes => metrics::Unit::Bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_is_rendered_with_its_meaning_and_buckets() {
        let recorder = recorder().unwrap();
        let metrics = Metrics(recorder.handle());
        let text = metrics::with_local_recorder(&recorder, || {
            tell_build();
            metrics::counter!("dispatch_sends_total", "provider" => "smtp", "channel" => "email", "verdict" => "accepted")
                .increment(3);
            metrics::histogram!("dispatch_request_recipients", "provider" => "smtp", "channel" => "email").record(7.0);
            metrics.render()
        });
        for line in [
            "# TYPE dispatch_sends_total counter",
            "dispatch_sends_total{provider=\"smtp\",channel=\"email\",verdict=\"accepted\"} 3",
            "# TYPE dispatch_request_recipients histogram",
            "dispatch_request_recipients_bucket{provider=\"smtp\",channel=\"email\",le=\"5\"} 0",
            "dispatch_request_recipients_bucket{provider=\"smtp\",channel=\"email\",le=\"10\"} 1",
            "dispatch_ledger_unavailable_total 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(text.contains("# HELP dispatch_sends_total Recipients a request was made for"), "{text}");
        assert!(text.contains(concat!("dispatch_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"")), "{text}");
    }
}
