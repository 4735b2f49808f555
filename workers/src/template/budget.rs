//! What a template may cost. A limit for everything an author or a recipient's data could make grow.

/// The longest source of one part, in bytes.
pub const MAX_SOURCE_BYTES: usize = 256 * 1024;

/// The most a message may come to for one recipient, all parts together, in bytes. Mail programs clip pages at a
/// fifth of this.
pub const MAX_OUTPUT_BYTES: usize = 512 * 1024;

/// The work one recipient may cost, in minijinja's fuel: an instruction, or 64 bytes produced. A long newsletter with
/// conditions in every paragraph needs about a tenth.
pub const MAX_FUEL: u64 = 50_000;

/// How deep control blocks may stand inside each other.
pub const MAX_BLOCK_DEPTH: usize = 16;

/// The most `elif` branches open at any point of the source. The parser calls itself for each, so they count like
/// depth; a choice between all countries of a continent fits.
pub const MAX_OPEN_BRANCHES: usize = 64;

/// How deep brackets may stand inside each other in one tag.
pub const MAX_BRACKET_DEPTH: usize = 16;

/// The longest `{{ … }}` or `{% … %}`, in tokens. Operators nest as deep as there are tokens, so this bounds the
/// recursion of every walk over an expression.
pub const MAX_TAG_TOKENS: usize = 300;

/// How deep macros and recursive loops may call themselves, in minijinja's units: a macro call costs about five, so
/// this is sixteen calls inside the deepest nesting.
pub const MAX_RECURSION: usize = 16 * 5 + MAX_BLOCK_DEPTH;

/// The most different variables in one template.
pub const MAX_VARIABLES: usize = 200;

/// The most slots in one template. Providers that fill slots themselves take far fewer.
pub const MAX_SLOTS: usize = 1_000;

/// The most fields of one recipient.
pub const MAX_FIELDS: usize = 1_000;

/// The most a recipient's fields may come to, names and values together, in bytes.
pub const MAX_DATA_BYTES: usize = 1024 * 1024;
