//! Contact lists: from the bytes of a CSV file to rows of addresses, in constant memory.
//!
//! [`parse::RowParser`] is the way in. Bytes become text ([`decode`]), text becomes records ([`records`], after
//! [`delimiter`] has looked at the beginning), the first record says what the columns hold ([`mapping`]), and each
//! further one becomes a [`row::Row`] or a line of the [`report`]. Nothing here blocks, reads a clock or knows the
//! ledger. [`fixture`] writes lists to try all this with.

mod column_names;
pub mod decode;
pub mod delimiter;
pub mod fixture;
pub mod loading;
pub mod mapping;
pub mod parse;
pub mod records;
pub mod report;
pub mod row;
