//! The fenced blocks of a page.

use serde_json::Value;

/// Some commands, and the answer shown after them.
#[derive(Debug)]
pub(crate) struct Step {
    /// The text of the block of commands.
    pub(crate) commands: String,
    /// What the block after it shows.
    pub(crate) answer: Option<Value>,
}

/// The steps of a section, to the next heading of its level: `sh` blocks are commands, `json` blocks their answers.
/// Other blocks are for the reader alone.
pub(crate) fn steps(page: &str, heading: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut open: Option<(&str, Vec<&str>)> = None;
    let section = page.lines().skip_while(|line| *line != heading).skip(1);
    for line in section {
        open = match (open, line.strip_prefix("```")) {
            (None, None) if line.starts_with("## ") => break,
            (None, None) => None,
            (None, Some(language)) => Some((language, Vec::new())),
            (Some((language, mut lines)), None) => {
                lines.push(line);
                Some((language, lines))
            }
            (Some((language, lines)), Some(_)) => {
                end(language, &lines.join("\n"), &mut steps);
                None
            }
        };
    }
    steps
}

fn end(language: &str, text: &str, steps: &mut Vec<Step>) {
    match language {
        "sh" => steps.push(Step { commands: text.to_owned(), answer: None }),
        "json" => {
            let answer = serde_json::from_str(text).unwrap_or_else(|error| panic!("not JSON ({error}):\n{text}"));
            let step = steps.last_mut().unwrap_or_else(|| panic!("an answer without commands:\n{text}"));
            assert!(step.answer.is_none(), "two answers to\n{}", step.commands);
            step.answer = Some(answer);
        }
        _ => {}
    }
}
