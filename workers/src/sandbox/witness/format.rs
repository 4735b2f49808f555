//! A [`super::WitnessLine`] as bytes, by hand: a line for hundreds of recipients costs less than reading their request.

use std::io::Write as _;

use super::{WitnessRecipient, WitnessVerdict};
use crate::sandbox::Observation;

/// What the JSON of one recipient takes with a UUID for its key; more is allocated where a key is longer.
const RECIPIENT_BYTES: usize = 128;

/// The start of a line, up to and without what [`rest`] gives.
pub(super) fn start(seq: u64, t_ms: i64, out: &mut Vec<u8>) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, r#"{{"seq":{seq},"t_ms":{t_ms},"provider":"#);
}

/// The rest of a line with its line break: all that does not depend on its place in the log.
pub(super) fn rest(seen: &Observation) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 + seen.recipients.len() * RECIPIENT_BYTES);
    string(seen.provider, &mut out);
    optional(r#","token":"#, seen.token.as_deref(), &mut out);
    optional(r#","batch_key":"#, seen.batch_key.as_deref(), &mut out);
    out.extend_from_slice(br#","mode":"#);
    string(seen.mode, &mut out);
    let _ = write!(out, r#","status":{},"recipients":["#, seen.status);
    for (at, of_one) in seen.recipients.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        recipient(of_one, &mut out);
    }
    out.extend_from_slice(b"]}\n");
    out
}

fn recipient(recipient: &WitnessRecipient, out: &mut Vec<u8>) {
    out.push(b'{');
    if let Some(key) = &recipient.key {
        out.extend_from_slice(br#""key":"#);
        string(key, out);
        out.push(b',');
    }
    out.extend_from_slice(br#""to":"#);
    string(&recipient.to, out);
    out.extend_from_slice(match recipient.verdict {
        WitnessVerdict::Accepted => br#","verdict":"accepted"}"#,
        WitnessVerdict::Duplicate => br#","verdict":"duplicate"}"#,
        WitnessVerdict::Refused => br#","verdict":"refused"}"#,
    });
}

fn optional(name: &str, value: Option<&str>, out: &mut Vec<u8>) {
    if let Some(value) = value {
        out.extend_from_slice(name.as_bytes());
        string(value, out);
    }
}

/// A JSON string (RFC 8259 section 7): quotation mark, backslash and control characters are escaped.
fn string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    if text.bytes().any(|byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
        for byte in text.bytes() {
            match byte {
                b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
                0..0x20 => {
                    let _ = write!(out, "\\u{byte:04x}");
                }
                _ => out.push(byte),
            }
        }
    } else {
        out.extend_from_slice(text.as_bytes());
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sandbox::witness::WitnessLine;

    proptest! {
        #[test]
        fn a_line_reads_back_as_what_was_seen(
            seq in any::<u64>(),
            t_ms in any::<i64>(),
            token in any::<Option<String>>(),
            batch_key in any::<Option<String>>(),
            status in any::<u16>(),
            recipients in prop::collection::vec((any::<Option<String>>(), any::<String>(), 0..3_usize), 0..5),
        ) {
            let verdicts = [WitnessVerdict::Accepted, WitnessVerdict::Duplicate, WitnessVerdict::Refused];
            let recipients: Vec<_> = recipients
                .into_iter()
                .map(|(key, to, verdict)| WitnessRecipient { key, to, verdict: verdicts[verdict] })
                .collect();
            let seen = Observation {
                provider: "sendgrid",
                token: token.clone(),
                batch_key: batch_key.clone(),
                mode: "ok",
                status,
                recipients: recipients.clone(),
            };
            let mut bytes = Vec::new();
            start(seq, t_ms, &mut bytes);
            bytes.extend_from_slice(&rest(&seen));
            prop_assert_eq!(bytes.iter().position(|byte| *byte == b'\n'), Some(bytes.len() - 1));
            let line: WitnessLine = serde_json::from_slice(&bytes).unwrap();
            prop_assert_eq!(line, WitnessLine {
                seq, t_ms, provider: "sendgrid".into(), token, batch_key, mode: "ok".into(), status, recipients,
            });
        }
    }
}
