//! Answers as a page shows them.
//!
//! In what is shown `…` stands for what differs: alone for any value, within a string for any text, and as a member of an
//! object for more members. All else must be the same, and no member may be missing on either side.

use serde_json::Value;

const ANYTHING: &str = "…";

/// The last answer in an output: its last line that is JSON.
pub(crate) fn last(output: &str) -> Option<Value> {
    output.lines().rev().find_map(|line| serde_json::from_str(line).ok())
}

/// Whether an answer is as shown; if not, where it differs.
pub(crate) fn agree(shown: &Value, came: &Value) -> Result<(), String> {
    compare(shown, came, "")
}

fn compare(shown: &Value, came: &Value, at: &str) -> Result<(), String> {
    match (shown, came) {
        (Value::String(pattern), _) if pattern == ANYTHING => Ok(()),
        (Value::String(pattern), Value::String(text)) if fits(pattern, text) => Ok(()),
        (Value::Array(shown), Value::Array(came)) if shown.len() == came.len() => shown
            .iter()
            .zip(came)
            .enumerate()
            .try_for_each(|(n, (shown, came))| compare(shown, came, &format!("{at}/{n}"))),
        (Value::Object(shown), Value::Object(came)) => {
            for (name, shown) in shown.iter().filter(|(name, _)| *name != ANYTHING) {
                let came = came.get(name).ok_or_else(|| format!("{at}/{name} is shown and did not come"))?;
                compare(shown, came, &format!("{at}/{name}"))?;
            }
            match came.keys().find(|name| !shown.contains_key(*name)) {
                Some(more) if !shown.contains_key(ANYTHING) => Err(format!("{at}/{more} came and is not shown")),
                _ => Ok(()),
            }
        }
        (shown, came) if shown == came => Ok(()),
        (shown, came) => Err(format!("{at} is shown as {shown} and came as {came}")),
    }
}

/// Whether a text begins and ends as a pattern does around its `…`.
fn fits(pattern: &str, text: &str) -> bool {
    match pattern.split_once(ANYTHING) {
        Some((begin, end)) => text.strip_prefix(begin).is_some_and(|rest| rest.ends_with(end)),
        None => pattern == text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_differs_may_differ_and_nothing_else() {
        let shown = json!({"id": "cmp_…", "at": "…", "counts": {"ready": 1}, "list": [1, "…"]});
        let came = json!({"id": "cmp_0A", "at": 7, "counts": {"ready": 1}, "list": [1, {}]});
        assert_eq!(agree(&shown, &came), Ok(()));
        for (at, wrong) in
            [("/id", json!("lst_0A")), ("/counts/ready", json!(2)), ("/list/0", json!(2)), ("/list", json!([1]))]
        {
            let mut other = came.clone();
            *other.pointer_mut(at).unwrap() = wrong;
            assert!(agree(&shown, &other).is_err_and(|difference| difference.starts_with(at)), "{at}");
        }
    }

    #[test]
    fn a_member_too_many_or_too_few_is_a_difference_unless_shown_as_more() {
        let came = json!({"a": 1, "b": 2});
        assert_eq!(agree(&json!({"a": 1}), &came), Err("/b came and is not shown".to_owned()));
        assert_eq!(agree(&json!({"a": 1, "…": "…"}), &came), Ok(()));
        assert_eq!(agree(&json!({"c": 1, "…": "…"}), &came), Err("/c is shown and did not come".to_owned()));
    }

    #[test]
    fn the_last_line_of_json_is_the_answer() {
        assert_eq!(last("{\"a\": 1}\n{\"a\": 2}\ndone, says the engine\n"), Some(json!({"a": 2})));
        assert_eq!(last("nothing\n"), None);
    }
}
