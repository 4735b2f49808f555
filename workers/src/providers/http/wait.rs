//! How long a provider wants us to wait.

use std::time::{Duration, UNIX_EPOCH};

use reqwest::header::{HeaderMap, RETRY_AFTER};

use crate::clock::{Entropy, TimestampMs, random};

/// The shortest and the longest wait that is obeyed: less is no relief, and a longer one, meant or forged, would
/// silence an account for the day.
const WAIT_MIN: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(3_600);

/// The wait when the provider names none: between one and five seconds, so that many processes do not come back
/// together.
const UNNAMED_WAIT_MS: std::ops::Range<u64> = 1_000..5_000;

/// A header of a provider's own that says when its limit opens again.
#[derive(Debug, Clone, Copy)]
pub(in crate::providers) enum Reset {
    /// Seconds since 1970.
    At(&'static str),
    /// Seconds from now.
    In(&'static str),
}

/// The wait of the `Retry-After` header in either of its forms (RFC 9110, section 10.2.3); `None` when there is none
/// or it is neither.
pub(super) fn retry_after(headers: &HeaderMap, now_ms: TimestampMs) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match seconds(text) {
        Some(wait) => wait,
        None => {
            let at = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
            at.saturating_sub(since_1970(now_ms))
        }
    };
    Some(wait.clamp(WAIT_MIN, WAIT_MAX))
}

/// The wait that the headers ask for: `Retry-After`, else the provider's own.
pub(super) fn asked_for(headers: &HeaderMap, reset: Option<Reset>, now_ms: TimestampMs) -> Option<Duration> {
    retry_after(headers, now_ms).or_else(|| {
        let (name, since) = match reset? {
            Reset::At(name) => (name, since_1970(now_ms)),
            Reset::In(name) => (name, Duration::ZERO),
        };
        let until = seconds(headers.get(name)?.to_str().ok()?.trim())?;
        Some(until.saturating_sub(since).clamp(WAIT_MIN, WAIT_MAX))
    })
}

/// A wait for an answer that names none.
pub(super) fn unnamed(entropy: &dyn Entropy) -> Duration {
    let spread = UNNAMED_WAIT_MS.end - UNNAMED_WAIT_MS.start;
    Duration::from_millis(UNNAMED_WAIT_MS.start + u64::from_be_bytes(random(entropy)) % spread)
}

/// Digits and nothing else; more than a clock holds counts as the most it holds.
fn seconds(text: &str) -> Option<Duration> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| Duration::from_secs(text.parse().unwrap_or(u64::MAX)))
}

fn since_1970(now_ms: TimestampMs) -> Duration {
    Duration::from_millis(u64::try_from(now_ms).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reqwest::header::HeaderValue;

    use super::*;
    use crate::clock::SystemEntropy;

    /// Sun, 06 Nov 1994 08:49:37 GMT.
    const NOW_MS: TimestampMs = 784_111_777_000;

    fn after(value: &str) -> Option<Duration> {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(value).unwrap())]);
        retry_after(&headers, NOW_MS)
    }

    #[test]
    fn seconds_and_dates_are_read_and_clamped() {
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        assert_eq!(after(" 120 "), Some(Duration::from_secs(120)));
        assert_eq!(after("0"), Some(WAIT_MIN));
        assert_eq!(after("86400"), Some(WAIT_MAX));
        assert_eq!(after("99999999999999999999999999"), Some(WAIT_MAX));
        assert_eq!(after("Sun, 06 Nov 1994 08:50:07 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(after("Sunday, 06-Nov-94 08:50:07 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(after("Sun Nov  6 08:50:07 1994"), Some(Duration::from_secs(30)));
        assert_eq!(after("Sat, 06 Nov 1993 08:50:07 GMT"), Some(WAIT_MIN));
    }

    #[test]
    fn what_is_neither_is_no_wait() {
        for garbage in ["", "-5", "+5", "1.5", "1e3", "soon", "06 Nov 1994", "7 seconds", "0x10"] {
            assert_eq!(after(garbage), None, "{garbage}");
        }
        let not_text = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_bytes(b"\xff\xfe").unwrap())]);
        assert_eq!(retry_after(&not_text, NOW_MS), None);
    }

    #[test]
    fn a_reset_header_counts_when_there_is_no_retry_after() {
        let mut headers = HeaderMap::new();
        headers.insert("x-ratelimit-reset", HeaderValue::from_static("784111797"));
        headers.insert("x-sib-ratelimit-reset", HeaderValue::from_static("12"));
        let at = Some(Reset::At("x-ratelimit-reset"));
        let left = Some(Reset::In("x-sib-ratelimit-reset"));
        assert_eq!(asked_for(&headers, at, NOW_MS), Some(Duration::from_secs(20)));
        assert_eq!(asked_for(&headers, at, NOW_MS + 3_600_000), Some(WAIT_MIN));
        assert_eq!(asked_for(&headers, left, NOW_MS), Some(Duration::from_secs(12)));
        assert_eq!(asked_for(&headers, None, NOW_MS), None);
        headers.insert(RETRY_AFTER, HeaderValue::from_static("3"));
        assert_eq!(asked_for(&headers, at, NOW_MS), Some(Duration::from_secs(3)));
    }

    #[test]
    fn an_unnamed_wait_is_between_one_and_five_seconds() {
        for _ in 0..200 {
            let wait = unnamed(&SystemEntropy::default());
            assert!((1_000..5_000).contains(&wait.as_millis()), "{wait:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_server_writes_the_wait_is_bounded(bytes in proptest::collection::vec(32_u8..=255, 0..60), now: i64) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let headers = HeaderMap::from_iter([(RETRY_AFTER, value)]);
                let wait = retry_after(&headers, now);
                prop_assert!(wait.is_none_or(|wait| (WAIT_MIN..=WAIT_MAX).contains(&wait)));
            }
        }
    }
}
