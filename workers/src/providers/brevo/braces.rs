//! Keeping content out of Brevo's template language.
//!
//! Brevo runs a template language over subject, text and page, and, as users found, over values put into them too. It
//! begins with `{{`, `{%` or `{#`. A brace that could begin one, with what stands beside it or may come to stand beside
//! it, is written so that the reader sees a brace and the language sees none:
//!
//! - in a page as the reference `&#123;`, which text and attributes of HTML read as a brace;
//! - inside `<style>` and `<script>`, which know no references, as a brace and a space: in CSS and outside its strings
//!   they mean the same;
//! - in plain text and subjects as a brace and a zero-width space, which shows nothing. The text is then not the same
//!   to the byte: whoever copies such a brace copies the space with it.

use std::borrow::Cow;

const REFERENCE: &str = "&#123;";
const BRACE_AND_SPACE: &str = "{ ";
const BRACE_AND_NOTHING: &str = "{\u{200b}";

/// Elements whose text is not read as HTML.
const RAW_ELEMENTS: [&str; 2] = ["style", "script"];

/// Plain text, neutral.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    replace(text, |_| BRACE_AND_NOTHING)
}

/// Where the reading of a page stands, for a page that comes in pieces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Page {
    /// Inside which of [`RAW_ELEMENTS`].
    raw: Option<usize>,
}

impl Page {
    /// The next piece of the page, neutral whatever comes next.
    pub(super) fn neutral<'t>(&mut self, piece: &'t str) -> Cow<'t, str> {
        let mut read_to = 0;
        let neutral = replace(piece, |at| {
            self.read(&piece[read_to..at]);
            read_to = at;
            if self.raw.is_some() { BRACE_AND_SPACE } else { REFERENCE }
        });
        self.read(&piece[read_to..]);
        neutral
    }

    /// Passes over a piece.
    pub(super) fn read(&mut self, piece: &str) {
        for (at, _) in piece.match_indices('<') {
            let tag = &piece[at + 1..];
            self.raw = match self.raw {
                None => RAW_ELEMENTS.iter().position(|name| begins(tag, name)),
                Some(open) if tag.strip_prefix('/').is_some_and(|name| begins(name, RAW_ELEMENTS[open])) => None,
                open => open,
            };
        }
    }
}

/// Replaces each brace that could begin something by what `with` says for its place.
fn replace<'t>(text: &'t str, mut with: impl FnMut(usize) -> &'static str) -> Cow<'t, str> {
    let mut out = String::new();
    let mut copied_to = 0;
    for (at, _) in text.match_indices('{') {
        if !matches!(text.as_bytes().get(at + 1), None | Some(b'{' | b'%' | b'#')) {
            continue;
        }
        out.push_str(&text[copied_to..at]);
        out.push_str(with(at));
        copied_to = at + 1;
    }
    if copied_to == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[copied_to..]);
    Cow::Owned(out)
}

fn begins(text: &str, name: &str) -> bool {
    text.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> String {
        Page::default().neutral(text).into_owned()
    }

    #[test]
    fn braces_that_begin_nothing_stay() {
        for text in ["", "a { b } c", "}} %} #}", "{x}", "{ {"] {
            let at_the_end = text.ends_with('{');
            assert_eq!(matches!(plain(text), Cow::Borrowed(_)), !at_the_end, "{text}");
        }
    }

    #[test]
    fn braces_that_could_begin_something_do_not() {
        assert_eq!(page("{{7*7}}"), "&#123;{7*7}}");
        assert_eq!(page("{% now %}{# c #}"), "&#123;% now %}&#123;# c #}");
        assert_eq!(page("{{{{x"), "&#123;&#123;&#123;{x");
        assert_eq!(plain("{{x}}"), "{\u{200b}{x}}");
        assert_eq!(plain("a{"), "a{\u{200b}", "a slot may come next");
    }

    #[test]
    fn a_style_sheet_keeps_its_meaning() {
        assert_eq!(
            page("<STYLE>@media x{#a{color:red}}</style><p>{#b"),
            "<STYLE>@media x{ #a{color:red}}</style><p>&#123;#b"
        );
        assert_eq!(page("<style>a</script>{{</style>{{"), "<style>a</script>{ {</style>&#123;&#123;");
    }

    #[test]
    fn a_page_in_pieces_is_read_as_one() {
        let mut page = Page::default();
        assert_eq!(page.neutral("<style>p{"), "<style>p{ ");
        page.read("");
        assert_ne!(page, Page::default());
        assert_eq!(page.neutral("{{}"), "{ {}");
        page.read("</style>");
        assert_eq!(page, Page::default());
    }
}
