//! How a value is made harmless for the place it stands in.

/// How the values of a part are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Escape {
    /// As HTML: safe in text and in quoted attributes.
    Html,
    /// As it is.
    Plain,
    /// As it is, with control characters and line breaks turned into spaces: a header.
    OneLine,
}

impl Escape {
    /// Writes a value to the end of `out`.
    pub(super) fn push(self, value: &str, out: &mut String) {
        match self {
            Self::Html => html(value, |piece| out.push_str(piece)),
            Self::Plain => out.push_str(value),
            Self::OneLine => out.extend(value.chars().map(|c| if breaks_a_line(c) { ' ' } else { c })),
        }
    }

    /// Writes what a template has rendered, values escaped already, to the end of `out`.
    pub(super) fn push_rendered(self, rendered: &str, out: &mut String) {
        match self {
            Self::Html | Self::Plain => out.push_str(rendered),
            Self::OneLine => self.push(rendered, out),
        }
    }
}

/// Whether a character may not stand in a header: all controls (C0, DEL, C1), and Unicode's own line ends.
pub(super) fn breaks_a_line(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

/// Escapes for HTML text and quoted attributes. Hands pieces to `write` in order. The slash stays as it is, unlike in
/// minijinja's own escaper: links are then readable for providers that rewrite them.
pub(super) fn html(value: &str, mut write: impl FnMut(&str)) {
    let mut from = 0;
    for (at, byte) in value.bytes().enumerate() {
        let entity = match byte {
            b'&' => "&amp;",
            b'<' => "&lt;",
            b'>' => "&gt;",
            b'"' => "&quot;",
            b'\'' => "&#39;",
            _ => continue,
        };
        write(&value[from..at]);
        write(entity);
        from = at + 1;
    }
    write(&value[from..]);
}

/// What a value must be to stand where it does, beyond being escaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Guard {
    /// It begins a link: it may not bring a scheme that runs code.
    Url,
    /// It stands in a `style` attribute: a word, a number or a colour.
    Style,
}

impl Guard {
    /// The filter that applies this guard in a template. Authors may write it, too.
    pub(super) const fn filter(self) -> &'static str {
        match self {
            Self::Url => "url",
            Self::Style => "style",
        }
    }

    /// The guard of a filter's name.
    pub(super) fn of_filter(name: &str) -> Option<Self> {
        [Self::Url, Self::Style].into_iter().find(|guard| guard.filter() == name)
    }

    /// Whether the value may stand there.
    pub(super) fn admits(self, value: &str) -> bool {
        match self {
            Self::Url => is_safe_url_start(value),
            Self::Style => value.chars().all(|c| c.is_alphanumeric() || " #%.,-+".contains(c)),
        }
    }
}

/// Schemes a recipient's data may bring into a link. `cid` is an image inside the mail.
const SCHEMES: [&str; 6] = ["http", "https", "mailto", "tel", "sms", "cid"];

/// Whether a URL that begins with `value` is relative or has a scheme that cannot run code. Reads it as browsers do:
/// spaces and controls before the URL and line breaks inside it do not count (WHATWG URL, "basic URL parser").
fn is_safe_url_start(value: &str) -> bool {
    let scheme: String = value
        .chars()
        .filter(|c| *c > ' ' && !c.is_control())
        .take_while(|c| !matches!(c, '/' | '?' | '#' | '\\'))
        .collect();
    match scheme.split_once(':') {
        None => true,
        Some((scheme, _)) => SCHEMES.iter().any(|known| scheme.eq_ignore_ascii_case(known)),
    }
}

/// Percent-encodes everything but RFC 3986's unreserved characters, for a value inside a link's path or query.
pub(super) fn percent_encoded(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.extend([byte >> 4, byte & 15].map(|digit| char::from(b"0123456789ABCDEF"[usize::from(digit)])));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pushed(escape: Escape, value: &str) -> String {
        let mut out = String::from("|");
        escape.push(value, &mut out);
        out
    }

    #[test]
    fn html_is_safe_in_text_and_in_either_kind_of_quotes() {
        assert_eq!(
            pushed(Escape::Html, r#"<a b="c" d='e'>&amp;é😀/"#),
            "|&lt;a b=&quot;c&quot; d=&#39;e&#39;&gt;&amp;amp;é😀/"
        );
        assert_eq!(pushed(Escape::Html, ""), "|");
    }

    #[test]
    fn a_header_stays_one_line() {
        assert_eq!(pushed(Escape::OneLine, "a\r\nBcc: b\u{0}\u{7f}\u{85}\u{2028}é"), "|a  Bcc: b    é");
        assert_eq!(pushed(Escape::Plain, "a\nb"), "|a\nb");
    }

    #[test]
    fn a_link_may_begin_with_a_harmless_scheme_or_none() {
        for value in
            ["", "https://x.eu/a:b", "HTTP://x.eu", "mailto:a@x.eu", "/a:b", "?a:b", "#a:b", "a/b:c", "//x.eu", "x"]
        {
            assert!(Guard::Url.admits(value), "{value}");
        }
        for value in [
            "javascript:alert(1)",
            "JaVaScRiPt:alert(1)",
            "  javascript:alert(1)",
            "\u{1}javascript:alert(1)",
            "java\nscript:alert(1)",
            "java\tscript\r:alert(1)",
            "data:text/html,<script>",
            "vbscript:x",
            "file:///etc/passwd",
            ":alert(1)",
            "x:y",
        ] {
            assert!(!Guard::Url.admits(value), "{value}");
        }
    }

    #[test]
    fn a_style_takes_words_numbers_and_colours_only() {
        for value in ["", "red", "#ff00aa", "1.5em", "12px -3px", "50%", "Arial, sans-serif"] {
            assert!(Guard::Style.admits(value), "{value}");
        }
        for value in ["red;background:url(//x.eu)", "url(x)", "expression(1)", "a:b", "\\75 rl", "a/*", "'x'", "red\n"]
        {
            assert!(!Guard::Style.admits(value), "{value}");
        }
    }

    #[test]
    fn percent_encoding_leaves_only_unreserved_characters() {
        assert_eq!(percent_encoded("a-b._~9 &=é/%"), "a-b._~9%20%26%3D%C3%A9%2F%25");
    }
}
