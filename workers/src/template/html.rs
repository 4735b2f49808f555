//! The place in a page: a state machine over literal HTML (WHATWG HTML, "Tokenization"), as far as it matters for
//! what a value may do there.

use super::escape::Guard;

/// Where the next character of a page stands. Names are in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Between tags.
    Text,
    /// After `<`.
    Less,
    /// After `</`.
    LessSlash,
    /// After `<!` and the characters kept here, while it is not yet clear what begins.
    Declaration(String),
    /// In something that ends at the next `>`: a doctype, a processing instruction, a conditional comment's brackets.
    Bogus,
    /// In a comment, after this many dashes (at most two).
    Comment(u8),
    /// In the name of a tag.
    TagName(Tag),
    /// In a tag, between attributes.
    InTag(Tag),
    /// In the name of an attribute, or after it (`ended`) where a `=` may still follow.
    AttrName { tag: Tag, name: String, ended: bool },
    /// After `=`.
    BeforeValue { tag: Tag, name: String },
    /// In an attribute's value. `quote` is a space when there are no quotes.
    Value { tag: Tag, name: String, quote: char, kind: Kind },
    /// In an element whose content is not markup, after the beginning of its end tag kept here.
    Raw { tag: String, end: String },
}

/// A tag being read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tag {
    name: String,
    closing: bool,
}

/// What an attribute's value means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// Text.
    Plain,
    /// A link whose scheme is not decided yet.
    Link {
        /// What literal text it begins with, in lower case.
        start: String,
        /// Whether a value stands before this point.
        after_value: bool,
    },
    /// CSS.
    Style,
    /// No value may stand there, with the reason.
    Closed(&'static str),
}

/// Elements whose content browsers do not read as markup. In the last two, values are still only text.
const RAW: [&str; 9] = ["script", "style", "iframe", "noembed", "noframes", "xmp", "plaintext", "title", "textarea"];
const RAW_TEXT: [&str; 2] = ["title", "textarea"];

/// Attributes that hold a link.
const LINKS: [&str; 15] = [
    "action",
    "background",
    "cite",
    "classid",
    "codebase",
    "data",
    "formaction",
    "href",
    "icon",
    "longdesc",
    "manifest",
    "poster",
    "src",
    "srcset",
    "usemap",
];

/// The name of an attribute that depends on a condition.
const EITHER: &str = "?";

/// The longest name and link scheme kept; what is longer is no name that matters.
const MAX_KEPT: usize = 64;

impl Place {
    /// Moves over literal text.
    ///
    /// # Errors
    /// The byte in `text` and the reason, when the text makes a place where values could do harm.
    pub(super) fn feed(&mut self, text: &str) -> Result<(), (usize, &'static str)> {
        for (at, c) in text.char_indices() {
            let here = std::mem::replace(self, Self::Text);
            *self = here.after(c).map_err(|reason| (at, reason))?;
        }
        Ok(())
    }

    /// Moves over a value: the guard it needs here.
    ///
    /// # Errors
    /// Why no value may stand here.
    pub(super) fn value(&mut self) -> Result<Option<Guard>, String> {
        let reason = match self {
            Self::Text | Self::Comment(_) => return Ok(None),
            Self::Raw { tag, .. } if RAW_TEXT.contains(&tag.as_str()) => return Ok(None),
            Self::Raw { tag, .. } => return Err(format!("a value may not stand inside <{tag}>")),
            Self::Value { quote: ' ', .. } | Self::BeforeValue { .. } => {
                "a value may not be an attribute without quotes; put the attribute in double quotes"
            }
            Self::Value { kind: Kind::Plain, .. } => return Ok(None),
            Self::Value { kind: Kind::Style, .. } => return Ok(Some(Guard::Style)),
            Self::Value { kind: Kind::Link { after_value, .. }, .. } => {
                *after_value = true;
                return Ok(Some(Guard::Url));
            }
            Self::Value { kind: Kind::Closed(reason), .. } => reason,
            Self::Less | Self::LessSlash | Self::TagName(_) => "a value may not be the name of a tag, or a part of it",
            Self::InTag(_) | Self::AttrName { .. } => "a value may not be an attribute or the name of one",
            Self::Declaration(_) | Self::Bogus => "a value may not stand in a declaration or begin a comment",
        };
        Err(reason.to_owned())
    }

    /// The place after one of two ways.
    pub(super) fn join(self, other: Self) -> Option<Self> {
        if self == other {
            return Some(self);
        }
        match (self, other) {
            (
                Self::Value { tag, name, quote, kind },
                Self::Value { tag: tag2, name: name2, quote: quote2, kind: kind2 },
            ) if tag == tag2 && name == name2 && quote == quote2 => {
                Some(Self::Value { tag, name, quote, kind: kind.join(kind2)? })
            }
            (Self::Raw { tag, .. }, Self::Raw { tag: tag2, .. }) if tag == tag2 => {
                Some(Self::Raw { tag, end: String::new() })
            }
            (Self::TagName(tag), Self::InTag(tag2)) | (Self::InTag(tag), Self::TagName(tag2)) if tag == tag2 => {
                Some(Self::InTag(tag))
            }
            (here, there) => {
                let (tag, tag2) = (here.tag_between_attributes()?, there.tag_between_attributes()?);
                (tag == tag2).then(|| Self::AttrName { tag, name: EITHER.to_owned(), ended: false })
            }
        }
    }

    /// The place where the body of a loop begins: it may have run before.
    pub(super) fn again(mut self) -> Self {
        if let Self::Value { kind: Kind::Link { after_value, .. }, .. } = &mut self {
            *after_value = true;
        }
        self
    }

    fn tag_between_attributes(self) -> Option<Tag> {
        match self {
            Self::TagName(tag) | Self::InTag(tag) | Self::AttrName { tag, .. } => Some(tag),
            _ => None,
        }
    }

    fn after(self, c: char) -> Result<Self, &'static str> {
        Ok(match self {
            Self::Text if c == '<' => Self::Less,
            Self::Text => Self::Text,
            Self::Less => match c {
                '!' => Self::Declaration(String::new()),
                '/' => Self::LessSlash,
                '?' => Self::Bogus,
                '<' => Self::Less,
                c if c.is_ascii_alphabetic() => Self::TagName(Tag { name: lower(c), closing: false }),
                _ => Self::Text,
            },
            Self::LessSlash => match c {
                '>' => Self::Text,
                c if c.is_ascii_alphabetic() => Self::TagName(Tag { name: lower(c), closing: true }),
                _ => Self::Bogus,
            },
            Self::Declaration(start) => declared(start, c),
            Self::Bogus if c == '>' => Self::Text,
            Self::Bogus => Self::Bogus,
            Self::Comment(dashes) => match c {
                '-' => Self::Comment((dashes + 1).min(2)),
                '>' if dashes == 2 => Self::Text,
                // `--!>` ends a comment, too.
                '!' if dashes == 2 => Self::Comment(2),
                _ => Self::Comment(0),
            },
            Self::TagName(mut tag) => match c {
                '>' => tag.end(),
                '/' => Self::InTag(tag),
                c if c.is_whitespace() => Self::InTag(tag),
                c => {
                    keep(&mut tag.name, c);
                    Self::TagName(tag)
                }
            },
            Self::InTag(tag) => in_tag(tag, c),
            Self::AttrName { tag, mut name, ended } => match c {
                '>' | '/' => in_tag(tag, c),
                '=' => Self::BeforeValue { tag, name },
                c if c.is_whitespace() => Self::AttrName { tag, name, ended: true },
                c if ended => in_tag(tag, c),
                c => {
                    keep(&mut name, c);
                    Self::AttrName { tag, name, ended }
                }
            },
            Self::BeforeValue { tag, name } => match c {
                '>' => tag.end(),
                '"' | '\'' => Self::Value { kind: Kind::of(&tag, &name), tag, name, quote: c },
                c if c.is_whitespace() => Self::BeforeValue { tag, name },
                _ => Self::Value { kind: Kind::Plain, tag, name, quote: ' ' },
            },
            Self::Value { tag, quote: ' ', .. } if c == '>' => tag.end(),
            Self::Value { tag, quote: ' ', .. } if c.is_whitespace() => Self::InTag(tag),
            Self::Value { tag, quote, .. } if c == quote => Self::InTag(tag),
            Self::Value { tag, name, quote, kind } => {
                let kind = kind.after(c, &name)?;
                Self::Value { tag, name, quote, kind }
            }
            Self::Raw { tag, end } => in_raw(tag, end, c),
        })
    }
}

impl Tag {
    /// The place after the `>`.
    fn end(self) -> Place {
        if !self.closing && RAW.contains(&self.name.as_str()) {
            return Place::Raw { tag: self.name, end: String::new() };
        }
        Place::Text
    }
}

impl Kind {
    fn of(tag: &Tag, name: &str) -> Self {
        // `xlink:href` links as `href` does.
        let local = name.rsplit(':').next().unwrap_or(name);
        if name.starts_with(EITHER) {
            Self::Closed("a value may not stand in an attribute whose name depends on a condition")
        } else if local.starts_with("on") {
            Self::Closed("a value may not stand in a script (an `on…` attribute)")
        } else if local == "srcdoc" {
            Self::Closed("a value may not stand in `srcdoc`")
        } else if tag.name == "meta" {
            Self::Closed("a value may not stand in <meta>")
        } else if local == "style" {
            Self::Style
        } else if LINKS.contains(&local) {
            Self::Link { start: String::new(), after_value: false }
        } else {
            Self::Plain
        }
    }

    fn after(self, c: char, name: &str) -> Result<Self, &'static str> {
        let Self::Link { mut start, after_value } = self else { return Ok(self) };
        match c {
            '/' | '?' | '#' => Ok(Self::Plain),
            ':' if after_value => Err("the scheme of a link may not come from a value; write it out (`https:…`)"),
            ':' => match start.as_str() {
                "javascript" | "vbscript" => Err("a link may not run a script"),
                "data" if name == "href" => Err("a link may not hold its own data (`data:`)"),
                "data" => Ok(Self::Closed("a value may not stand in a `data:` link")),
                _ => Ok(Self::Plain),
            },
            c if c <= ' ' => Ok(Self::Link { start, after_value }),
            c => {
                keep(&mut start, c);
                Ok(Self::Link { start, after_value })
            }
        }
    }

    fn join(self, other: Self) -> Option<Self> {
        match (self, other) {
            (same, other) if same == other => Some(same),
            (Self::Closed(reason), _) | (_, Self::Closed(reason)) => Some(Self::Closed(reason)),
            (Self::Link { .. }, _) | (_, Self::Link { .. }) => {
                Some(Self::Link { start: String::new(), after_value: true })
            }
            _ => None,
        }
    }
}

fn in_tag(tag: Tag, c: char) -> Place {
    match c {
        '>' => tag.end(),
        '/' => Place::InTag(tag),
        c if c.is_whitespace() => Place::InTag(tag),
        c => Place::AttrName { tag, name: lower(c), ended: false },
    }
}

/// After `<!`: a comment, a conditional comment (Outlook reads what stands in it as page), or another declaration.
fn declared(mut start: String, c: char) -> Place {
    start.push(c);
    match start.as_str() {
        "-" | "--" | "---" | "--[" | "--[i" => Place::Declaration(start),
        "--[if" => Place::Bogus,
        "-->" | "--->" | ">" => Place::Text,
        "----" => Place::Comment(2),
        other if other.starts_with("--") => Place::Comment(0),
        _ => Place::Bogus,
    }
}

fn in_raw(tag: String, mut end: String, c: char) -> Place {
    if c == '<' {
        return Place::Raw { tag, end: lower(c) };
    }
    let whole = end.len() == tag.len() + 2;
    if whole && (matches!(c, '>' | '/') || c.is_whitespace()) {
        return in_tag(Tag { name: tag, closing: true }, c);
    }
    end.push(c.to_ascii_lowercase());
    let expected = end.strip_prefix("</").map_or(end == "</" || end == "<", |name| tag.starts_with(name));
    if whole || !expected {
        end.clear();
    }
    Place::Raw { tag, end }
}

fn lower(c: char) -> String {
    c.to_ascii_lowercase().to_string()
}

fn keep(kept: &mut String, c: char) {
    if kept.len() < MAX_KEPT {
        kept.push(c.to_ascii_lowercase());
    }
}
