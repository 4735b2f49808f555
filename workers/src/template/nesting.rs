//! Bounds how deep a source nests, before it is parsed.
//!
//! minijinja's parser, its code generator and the dropping of its syntax tree all call themselves for what stands
//! inside something else, and for chains its own limit does not count (`not not …`, `a if b else c if d else …`,
//! `elif`). Its tokenizer does not, so one flat pass over the tokens can refuse what would exhaust the stack.

use std::borrow::Cow;

use minijinja::{
    machinery::{Token, tokenize},
    syntax::SyntaxConfig,
};

use super::{
    budget::{MAX_BLOCK_DEPTH, MAX_BRACKET_DEPTH, MAX_OPEN_BRANCHES, MAX_TAG_TOKENS},
    engine::syntax_error,
    error::TemplateError,
};

/// Tags that open a block and are closed by one that begins with `end`. `set` is one when it assigns nothing.
const OPENERS: [&str; 8] = ["for", "if", "with", "macro", "call", "filter", "autoescape", "block"];

/// The longest line minijinja's tokenizer is given, in characters. It counts columns in 16 bits, and overflows them when
/// it reports an error beyond.
const MAX_COLUMNS: usize = 65_000;

/// Refuses a source that is not made of tokens, or nests too deep.
pub(super) fn check(part: &str, source: &str) -> Result<(), TemplateError> {
    // For each open block, how many `elif` it has.
    let mut open: Vec<usize> = Vec::new();
    let mut tag: Option<Tag> = None;
    let wrapped = wrapped(source).map_err(|offset| {
        let message = format!("more than {MAX_COLUMNS} characters without a space or a line break; break the line");
        TemplateError::at(part, source, offset, message)
    })?;
    for token in tokenize(&wrapped, false, SyntaxConfig::default()) {
        let (token, span) = token.map_err(|error| syntax_error(part, source, &error))?;
        let refuse = |message: String| Err(TemplateError::at(part, source, span.start_offset as usize, message));
        match token {
            Token::TemplateData(_) => {}
            Token::VariableStart | Token::BlockStart => {
                tag = Some(Tag { is_block: matches!(token, Token::BlockStart), ..Tag::default() });
            }
            Token::VariableEnd | Token::BlockEnd => {
                if let Some(tag) = tag.take() {
                    tag.close(&mut open);
                }
                if open.len() > MAX_BLOCK_DEPTH {
                    return refuse(format!("more than {MAX_BLOCK_DEPTH} blocks stand inside each other"));
                }
                if open.iter().sum::<usize>() > MAX_OPEN_BRANCHES {
                    return refuse(format!(
                        "more than {MAX_OPEN_BRANCHES} `elif` in one choice; use a map or less of them"
                    ));
                }
            }
            token => {
                let Some(tag) = &mut tag else { continue };
                tag.take(&token);
                if tag.tokens > MAX_TAG_TOKENS {
                    return refuse(format!("a tag has more than {MAX_TAG_TOKENS} tokens; split it"));
                }
                if tag.brackets > MAX_BRACKET_DEPTH {
                    return refuse(format!("more than {MAX_BRACKET_DEPTH} brackets stand inside each other"));
                }
            }
        }
    }
    Ok(())
}

/// The source with spaces of too long lines (minified pages have them) turned into line breaks: to the tokenizer both
/// are the same, and all offsets stay. Hands back the offset where there is no space to turn.
fn wrapped(source: &str) -> Result<Cow<'_, str>, usize> {
    let mut breaks = Vec::new();
    // Characters since the last line break, and the last space since then: its offset and column.
    let (mut column, mut space) = (0, None);
    for (at, c) in source.char_indices() {
        column += 1;
        match c {
            '\n' => (column, space) = (0, None),
            ' ' => space = Some((at, column)),
            _ => {}
        }
        if column > MAX_COLUMNS {
            let (at, space_column) = space.take().ok_or(at)?;
            breaks.push(at);
            column -= space_column;
        }
    }
    if breaks.is_empty() {
        return Ok(Cow::Borrowed(source));
    }
    let mut out = String::with_capacity(source.len());
    let mut from = 0;
    for at in breaks {
        out.push_str(&source[from..at]);
        out.push('\n');
        from = at + 1;
    }
    out.push_str(&source[from..]);
    Ok(Cow::Owned(out))
}

/// What is known of the tag being read.
#[derive(Default)]
struct Tag<'s> {
    is_block: bool,
    keyword: Option<&'s str>,
    assigns: bool,
    brackets: usize,
    tokens: usize,
}

impl<'s> Tag<'s> {
    fn take(&mut self, token: &Token<'s>) {
        self.tokens += 1;
        match token {
            Token::Ident(name) if self.is_block && self.tokens == 1 => self.keyword = Some(name),
            Token::Assign if self.brackets == 0 => self.assigns = true,
            Token::ParenOpen | Token::BracketOpen | Token::BraceOpen => self.brackets += 1,
            Token::ParenClose | Token::BracketClose | Token::BraceClose => {
                self.brackets = self.brackets.saturating_sub(1);
            }
            _ => {}
        }
    }

    /// Counts the block the finished tag opens, continues or closes. An end that does not match its opener is the
    /// parser's to refuse; it stops there, so what is counted up to that point is right.
    fn close(self, open: &mut Vec<usize>) {
        match self.keyword {
            Some("elif") => {
                if let Some(branches) = open.last_mut() {
                    *branches += 1;
                }
            }
            Some("set") if !self.assigns => open.push(0),
            Some(keyword) if OPENERS.contains(&keyword) => open.push(0),
            Some(keyword) if keyword.starts_with("end") => {
                open.pop();
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(source: &str) -> String {
        check("html", source).expect_err(source).message
    }

    #[test]
    fn nesting_up_to_the_limits_passes() {
        for source in [
            "{% if a %}".repeat(MAX_BLOCK_DEPTH) + &"{% endif %}".repeat(MAX_BLOCK_DEPTH),
            "{% set x %}{% endset %}".repeat(100),
            "{% set x = 1 %}".repeat(100),
            "{% if a %}{% elif b %}{% endif %}".repeat(100),
            format!("{{% if a %}}{}{{% endif %}}", "{% elif b %}".repeat(MAX_OPEN_BRANCHES)),
            format!("{{{{ {}x{} }}}}", "(".repeat(MAX_BRACKET_DEPTH), ")".repeat(MAX_BRACKET_DEPTH)),
            "{% raw %}{% if a %}{% endraw %}".repeat(100),
            "{# {% if a %} #}".repeat(100),
        ] {
            assert_eq!(check("html", &source), Ok(()), "{source}");
        }
    }

    #[test]
    fn ten_thousand_of_anything_inside_each_other_is_refused_with_its_line() {
        let many = 10_000;
        for (what, source) in [
            ("blocks", "\n{% if a %}".repeat(many)),
            ("blocks", "\n{% set x %}".repeat(many)),
            ("blocks", "\n{% for a in b %}".repeat(many)),
            ("elif", format!("\n{{% if a %}}{}", "\n{% elif b %}".repeat(many))),
            ("brackets", format!("\n{{{{ {}", "(".repeat(many))),
            ("brackets", format!("\n{{{{ {}", "[".repeat(many))),
            ("brackets", format!("\n{{% for {}", "(".repeat(many))),
            ("tokens", format!("\n{{{{ {} x }}}}", "not ".repeat(many))),
            ("tokens", format!("\n{{{{ {} x }}}}", "- ".repeat(many))),
            ("tokens", format!("\n{{{{ x{} }}}}", ".x".repeat(many))),
            ("tokens", format!("\n{{{{ x{} }}}}", "|upper".repeat(many))),
            ("tokens", format!("\n{{{{ x{} }}}}", "~x".repeat(many))),
            ("tokens", format!("\n{{{{ a{} }}}}", " if b else a".repeat(many))),
        ] {
            let message = refused(&source);
            assert!(message.contains(what) && message.contains("line "), "{what}: {message}");
        }
    }

    #[test]
    fn a_fault_far_along_a_line_is_refused_with_the_line_it_has() {
        let words = "\n".to_owned() + &"word ".repeat(20_000);
        for fault in ["{% raw %}", "{# a", "{{ 'a", "{{ \u{1F600} }}"] {
            assert!(refused(&(words.clone() + fault)).starts_with("html, line 2: "), "{fault}");
        }
        assert_eq!(check("html", &(words.clone() + "{{ a }}" + &words)), Ok(()));
        assert_eq!(check("html", &"x".repeat(MAX_COLUMNS)), Ok(()));
        assert!(refused(&("\n".to_owned() + &"x".repeat(MAX_COLUMNS + 1))).starts_with("html, line 2: more than"));
    }

    #[test]
    fn a_source_that_is_not_tokens_is_refused() {
        for source in ["{{ 'a", "{# a", "{% raw %}", "{{ \u{1F600} }}"] {
            assert!(refused(source).starts_with("html, line 1: "), "{source}");
        }
    }
}
