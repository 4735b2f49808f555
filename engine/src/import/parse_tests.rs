use std::collections::BTreeMap;

use dispatch_schemas::address::PhoneNumber;

use proptest::prelude::*;

use super::*;
use crate::import::{
    fixture,
    records::{COLUMNS_MAX, RECORD_BYTES_MAX},
};

fn parse_pieces<'a>(
    mapping: &str,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Result<(Vec<Row>, ParseReport), FileError> {
    let mut parser = RowParser::new(serde_json::from_str(mapping).unwrap())?;
    let mut rows = Vec::new();
    for piece in pieces {
        parser.feed(piece, &mut rows)?;
    }
    let report = parser.finish(&mut rows)?;
    assert_eq!(report.rows, report.accepted + report.rejected);
    assert_eq!(report.accepted, rows.len() as u64);
    assert_eq!(report.problem_count, report.problem_counts.iter().map(|count| count.count).sum::<u64>());
    assert!(report.problem_count >= report.rejected);
    Ok((rows, report))
}

fn parse(bytes: impl AsRef<[u8]>) -> Result<(Vec<Row>, ParseReport), FileError> {
    parse_pieces("{}", [bytes.as_ref()])
}

/// What became of each row: its line and its addresses, or its problems.
fn outcome(rows: &[Row], report: &ParseReport) -> Vec<String> {
    let mut lines: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for row in rows {
        let email = row.email.iter().map(|email| email.as_str().to_owned());
        let phone = row.phone.iter().map(|phone| phone.as_str().to_owned());
        let fields = row.fields.iter().map(|(name, value)| format!("{name}={value}"));
        lines.entry(row.line).or_default().extend(email.chain(phone).chain(fields));
    }
    for problem in &report.problems {
        let place = problem.column.as_deref().unwrap_or("row");
        lines.entry(problem.line).or_default().push(format!("!{place} {}", problem.code));
    }
    lines.into_iter().map(|(line, all)| format!("{line}: {}", all.join(" "))).collect()
}

fn outcome_of(bytes: impl AsRef<[u8]>) -> Vec<String> {
    let (rows, report) = parse(bytes).unwrap();
    outcome(&rows, &report)
}

#[test]
fn bad_rows_are_reported_and_the_rest_goes_on() {
    let long = "x".repeat(RECORD_BYTES_MAX);
    let wide = ",".repeat(COLUMNS_MAX);
    for (file, expected) in [
        // Nothing but names.
        ("email\n", vec![]),
        ("email", vec![]),
        // Rows with too few and too many cells, blank rows.
        (
            "email,phone,city\na@x.eu\nb@x.eu,,,\nc@x.eu,,,z\n,,\n\n  \nd@x.eu\n",
            vec!["2: a@x.eu", "3: b@x.eu", "4: !row extra_columns", "8: d@x.eu"],
        ),
        ("email,phone,city\n,,Oslo\n \t,,Oslo\n", vec!["2: !row no_address", "3: !row no_address"]),
        // One good address is enough.
        (
            "email,phone\na@b@c,+33612345678\na@x.eu,12\na@,3.36E10\n",
            vec![
                "2: +33612345678 !email many_ats",
                "3: a@x.eu !phone no_country",
                "4: !email no_domain !phone spreadsheet_number",
            ],
        ),
        // NUL, a long line, a quote that is not closed, too many columns.
        ("email\na@x.eu\nb\0@x.eu\nc@x.eu\n", vec!["2: a@x.eu", "3: !row nul", "4: c@x.eu"]),
        (&format!("email\na@x.eu\n{long}{long}\nc@x.eu\n"), vec!["2: a@x.eu", "3: !row line_too_long", "4: c@x.eu"]),
        (
            "email,name\n\"a@x.eu,A\nb@x.eu,\"B\nb\"\nd@x.eu\n",
            vec!["2: !row unclosed_quote", "3: b@x.eu name=B b", "5: d@x.eu"],
        ),
        (&format!("email\na@x.eu{wide}\nb@x.eu\n"), vec!["2: !row too_many_columns", "3: b@x.eu"]),
        // A header injected by a line break in the cell.
        ("email\n\"a@x.eu\r\nBcc: v@y.eu\"\nb@x.eu\n", vec!["2: !email control", "4: b@x.eu"]),
        // Formulas and template text are data.
        (
            "email,name\na@x.eu,=cmd|' /C calc'!A0\nb@x.eu,@SUM(A1)\nc@x.eu,+1+1\nd@x.eu,\"\t=1\"\ne@x.eu,{{ secret }}\n",
            vec![
                "2: a@x.eu name==cmd|' /C calc'!A0",
                "3: b@x.eu name=@SUM(A1)",
                "4: c@x.eu name=+1+1",
                "5: d@x.eu name==1",
                "6: e@x.eu name={{ secret }}",
            ],
        ),
        // Values are trimmed, on one line, and of bounded length.
        ("email,name\na@x.eu,\" A\r\n\u{7}b\u{85}c \"\n", vec!["2: a@x.eu name=A b c"]),
        (&format!("email,name\na@x.eu,{}\n", "é".repeat(1_001)), vec!["2: a@x.eu !name value_too_long"]),
        // Line ends, delimiters.
        ("email;phone\ra@x.eu;\r;+33612345678", vec!["2: a@x.eu", "3: +33612345678"]),
        ("email\tname\r\na@x.eu\tA,B;C\r\n", vec!["2: a@x.eu name=A,B;C"]),
        ("sep=|\r\nemail|name\r\na@x.eu|A;B;C\r\n", vec!["3: a@x.eu name=A;B;C"]),
    ] {
        assert_eq!(outcome_of(file), expected, "{:?}", file.get(..60).unwrap_or(file));
    }
}

#[test]
fn a_file_that_cannot_be_read_is_refused_with_its_reason() {
    let wide = format!("email{}\n", ",".repeat(9_999));
    for (file, reason) in [
        (&b""[..], "the file is empty"),
        (b"\xef\xbb\xbf", "the file is empty"),
        (b"\r\n\n\n", "the file is empty"),
        (b"\xff\xfe", "the file is empty"),
        (b"a@x.eu,Anna\nb@x.eu,Bo\n", "the first row looks like data"),
        (b"id,city\n1,Oslo\n", "none of the file's 2 columns has a name known for e-mail or phone"),
        (b"email,email\na@x.eu,b@x.eu\n", "two columns named `email`"),
        (wide.as_bytes(), "in line 1: the row has more than 1,000 columns"),
        (b"em\0ail\n", "in line 1: the row contains NUL"),
        (b"\x1f\x8b\x08\x00\x00", "compressed with gzip"),
        (b"PK\x03\x04../../etc", "an Excel workbook"),
    ] {
        let error = parse(file).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn encodings_are_found_and_said() {
    let text = "email;prénom\na@x.eu;Zoë\nb@x.eu;Renée\nc@x.eu;Jürgen\n";
    let utf16 = |to_bytes: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(to_bytes).collect::<Vec<u8>>();
    let (latin1, ..) = encoding_rs::WINDOWS_1252.encode(text);
    for (bytes, encoding) in [
        (text.as_bytes().to_vec(), "UTF-8"),
        (format!("\u{feff}{text}").into_bytes(), "UTF-8"),
        (utf16(u16::to_le_bytes), "UTF-16LE"),
        (utf16(u16::to_be_bytes), "UTF-16BE"),
        (latin1.to_vec(), "windows-1252"),
    ] {
        let (rows, report) = parse(bytes).unwrap();
        assert_eq!((report.encoding.as_str(), report.delimiter, report.damaged_characters), (encoding, ';', 0));
        let names: Vec<_> = rows.iter().filter_map(|row| row.fields.get("first_name")).collect();
        assert_eq!(names, ["Zoë", "Renée", "Jürgen"]);
    }
}

#[test]
fn only_the_allowed_fields_are_kept() {
    let names: Vec<String> = (0..40).map(|at| format!("c{at}")).collect();
    let cells: Vec<String> = (0..40).map(|at| format!("secret{at}")).collect();
    let file = format!("email,{}\na@x.eu,{}\n", names.join(","), cells.join(","));
    let mapping = r#"{"email": "email", "fields": {"plan": "c7", "city": "c3", "none": "c39"}}"#;
    let (rows, report) = parse_pieces(mapping, [file.as_bytes()]).unwrap();
    assert_eq!(
        serde_json::to_string(&rows[0].fields).unwrap(),
        r#"{"city":"secret3","none":"secret39","plan":"secret7"}"#
    );
    assert_eq!(report.dropped_columns, 37);
}

#[test]
fn a_default_country_completes_numbers_and_folds_their_spellings() {
    let file = "tel\n06 12 34 56 78\n+33612345678\n0033 6 12 34 56 78\n33612345678\n+41791234567\n";
    let (rows, report) = parse_pieces(r#"{"phone": "tel", "default_country": "FR"}"#, [file.as_bytes()]).unwrap();
    assert_eq!(report.rejected, 0);
    let phones: Vec<_> = rows.iter().filter_map(|row| row.phone.as_ref()).map(PhoneNumber::as_str).collect();
    assert_eq!(phones, ["+33612345678", "+33612345678", "+33612345678", "+33612345678", "+41791234567"]);
}

#[test]
fn no_cell_is_shown_by_a_report_a_row_or_the_parser() {
    let mut parser = RowParser::new(Mapping::default()).unwrap();
    let mut rows = Vec::new();
    parser.feed("email,name\nanna@x.eu,Zelda\nZelda@@x.eu,anna\n".as_bytes(), &mut rows).unwrap();
    let before = format!("{parser:?}");
    let report = parser.finish(&mut rows).unwrap();
    let shown = format!("{before} {rows:?} {report:?} {}", serde_json::to_string(&report).unwrap()).to_lowercase();
    assert!(!shown.contains("anna") && !shown.contains("zelda"), "{shown}");
}

#[test]
fn a_file_that_failed_stays_failed() {
    let mut parser = RowParser::new(Mapping::default()).unwrap();
    let mut rows = Vec::new();
    let header = format!("id\n{}", "1\n".repeat(BEGINNING_BYTES));
    let first = parser.feed(header.as_bytes(), &mut rows).unwrap_err();
    assert_eq!(parser.feed(b"email\na@x.eu\n", &mut rows), Err(first.clone()));
    assert_eq!(parser.finish(&mut rows), Err(first));
    assert!(rows.is_empty());
}

#[test]
fn a_file_of_any_length_is_read_in_pieces_of_any_length() {
    let mut file = Vec::new();
    let truth = fixture::write_messy(&mut file, 3_000, 11).unwrap();
    let (rows, whole) = parse(&file).unwrap();
    assert_eq!((whole.rows, whole.accepted), (truth.rows, truth.accepted));
    for size in [1, 2, 7, 1_000, 65_537] {
        assert_eq!(parse_pieces("{}", file.chunks(size)).unwrap(), (rows.clone(), whole.clone()), "{size}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic_and_every_row_is_counted(
        bytes in prop_oneof![
            any::<Vec<u8>>(),
            "(email|phone|name|id)[,;\t](phone|email|x)\r?\n([ab@.+0-9,;\t\"\r\n\0 é]{0,20}\n?){0,12}".prop_map(String::into_bytes),
        ],
        cut: prop::sample::Index,
    ) {
        let whole = parse(&bytes);
        let (one, other) = bytes.split_at(cut.index(bytes.len() + 1));
        prop_assert_eq!(parse_pieces("{}", [one, other]), whole);
    }
}
