//! What separates the columns of a file.

/// The separators that are looked for, the likeliest first.
const CANDIDATES: [u8; 4] = [b',', b';', b'\t', b'|'];
/// Records at the beginning that are counted.
const RECORDS: usize = 20;

/// Finds the separator from the beginning of a file: the one that gives the first record at least two columns and most
/// of the following ones as many; a comma when none does.
///
/// A first line `sep=;`, which Excel obeys and writes for others to see, is taken at its word: see [`declared`].
#[must_use]
pub fn detect(beginning: &str) -> u8 {
    let score = |delimiter: u8| {
        let columns = columns(beginning.as_bytes(), delimiter);
        let (header, rows) = columns.split_first()?;
        let alike = rows.iter().filter(|count| *count == header).count();
        (*header > 1).then_some((alike * 100 / rows.len().max(1), *header))
    };
    // `max_by_key` takes the last of equals, and the likeliest should win.
    CANDIDATES
        .into_iter()
        .rev()
        .filter(|delimiter| score(*delimiter).is_some())
        .max_by_key(|d| score(*d))
        .unwrap_or(b',')
}

/// The separator a first line `sep=…` names, and the length of that line with its end.
#[must_use]
pub fn declared(beginning: &str) -> Option<(u8, usize)> {
    let rest = beginning.strip_prefix("sep=")?;
    let delimiter = *rest.as_bytes().first().filter(|byte| CANDIDATES.contains(byte))?;
    let after = rest.get(1..)?;
    let end = ["\r\n", "\n", "\r"].into_iter().find(|end| after.starts_with(end))?;
    Some((delimiter, "sep=".len() + 1 + end.len()))
}

/// Columns of the first records. The last record is left out unless it is the only one: it may be cut.
fn columns(text: &[u8], delimiter: u8) -> Vec<usize> {
    let mut counts = Vec::new();
    let mut count = 1;
    let mut quoted = false;
    // What stood before: a quotation mark opens a field only after a separator, or closes and opens when doubled.
    let mut before = b'\n';
    for byte in text {
        match *byte {
            b'"' if quoted => quoted = false,
            b'"' => quoted = before == delimiter || matches!(before, b'"' | b'\r' | b'\n'),
            _ if quoted => {}
            b'\r' | b'\n' => {
                if !matches!(before, b'\r' | b'\n') {
                    counts.push(count);
                }
                if counts.len() == RECORDS {
                    return counts;
                }
                count = 1;
            }
            other if other == delimiter => count += 1,
            _ => {}
        }
        before = *byte;
    }
    if counts.is_empty() {
        counts.push(count);
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_separator_is_found_from_the_first_rows() {
        for (text, delimiter) in [
            ("email,name\na@x.eu,Anna\n", b','),
            ("email;name\na@x.eu;Anna\n", b';'),
            ("email\tname\na@x.eu\tAnna\n", b'\t'),
            ("email|name\na@x.eu|Anna\n", b'|'),
            ("email;name;note\na@x.eu;Martin, Anna;a, b\nb@x.eu;Roy, Bo;c\n", b';'),
            ("email,note\na@x.eu,a;b;c\nb@x.eu,d;e\n", b','),
            ("\"e,m,a\";name\n\"a;\n\"\"b\";Anna\n", b';'),
            ("email;name\r\rna@x.eu;Anna\r", b';'),
            ("email;name", b';'),
            ("email\na@x.eu\n", b','),
            ("", b','),
        ] {
            assert_eq!(char::from(detect(text)), char::from(delimiter), "{text:?}");
        }
    }

    #[test]
    fn a_separator_that_is_declared_is_taken() {
        assert_eq!(declared("sep=;\r\nemail,x;name\r\n"), Some((b';', 7)));
        assert_eq!(declared("sep=\t\nemail"), Some((b'\t', 6)));
        assert_eq!(declared("sep=x\nemail"), None);
        assert_eq!(declared("separator,email\n"), None);
    }
}
