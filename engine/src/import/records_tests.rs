use proptest::prelude::*;

use super::*;

type Read = Result<(u64, Vec<String>), (u64, &'static str)>;

fn read_pieces(pieces: &[&[u8]]) -> Vec<Read> {
    let mut reader = RecordReader::new(b',', 1);
    let mut found = Vec::new();
    let mut drain = |reader: &mut RecordReader| {
        while let Some(record) = reader.next_record() {
            found.push(match record {
                Ok(record) => Ok((record.line, record.cells().map(str::to_owned).collect())),
                Err(bad) => Err((bad.line, bad.wrong.code())),
            });
        }
    };
    for piece in pieces {
        reader.feed(piece);
        drain(&mut reader);
    }
    reader.finish();
    drain(&mut reader);
    found
}

fn read(text: &str) -> Vec<Read> {
    read_pieces(&[text.as_bytes()])
}

fn row(line: u64, cells: &[&str]) -> Read {
    Ok((line, cells.iter().map(|cell| (*cell).to_owned()).collect()))
}

#[test]
fn all_line_ends_are_read_and_counted() {
    for text in ["a,b\nc,d\n", "a,b\r\nc,d\r\n", "a,b\rc,d\r", "a,b\nc,d"] {
        assert_eq!(read(text), [row(1, &["a", "b"]), row(2, &["c", "d"])], "{text:?}");
    }
    assert_eq!(read("a\r\n\r\nb\n\n\nc\r\rd"), [row(1, &["a"]), row(3, &["b"]), row(6, &["c"]), row(8, &["d"])]);
    assert_eq!(read(""), []);
    assert_eq!(read("\n\r\n"), []);
}

#[test]
fn quoted_cells_may_hold_anything() {
    assert_eq!(
        read("\"a,\"\"b\"\"\",\"c\r\nd\ne\"\r\nf,\"\"\n"),
        [row(1, &["a,\"b\"", "c\r\nd\ne"]), row(4, &["f", ""])]
    );
    assert_eq!(read("\"Bob\" Smith,x\ny\n"), [row(1, &["Bob Smith", "x"]), row(2, &["y"])]);
    assert_eq!(read("5\" disk,x\ny"), [row(1, &["5\" disk", "x"]), row(2, &["y"])]);
}

#[test]
fn an_unclosed_quote_costs_its_own_row() {
    let rows = "c,d\n".repeat(RECORD_BYTES_MAX);
    let found = read(&format!("a,b\n\"open,x\n{rows}e,f\n"));
    assert_eq!(found[..3], [row(1, &["a", "b"]), Err((2, "unclosed_quote")), row(3, &["c", "d"])]);
    assert_eq!(found.len(), RECORD_BYTES_MAX + 3);
    assert_eq!(found.last().unwrap(), &row(RECORD_BYTES_MAX as u64 + 3, &["e", "f"]));

    // A later quote would close it, in a place where no quoted cell can end.
    assert_eq!(
        read("a,\"open\nb,c\nd,\"e, f\"\ng,h\n"),
        [Err((1, "unclosed_quote")), row(2, &["b", "c"]), row(3, &["d", "e, f"]), row(4, &["g", "h"])]
    );
    assert_eq!(read("a\n\"b"), [row(1, &["a"]), Err((2, "unclosed_quote"))]);
    assert_eq!(read("a\n\"b\nc\nd"), [row(1, &["a"]), Err((2, "unclosed_quote")), row(3, &["c"]), row(4, &["d"])]);
}

#[test]
fn a_file_made_of_unclosed_quotes_is_read_line_by_line_in_the_end() {
    // Read on its own, a line opens a cell; read inside that cell, it closes it, and opens another.
    let line = "\"a,b\"c,\"d\n";
    let lines = 40_000;
    let found = read(&line.repeat(lines));
    assert_eq!(found.len(), lines);
    let bad = found.iter().take_while(|row| matches!(row, Err((_, "unclosed_quote")))).count();
    let budget = REREAD_BYTES / RECORD_BYTES_MAX as u64;
    assert!((budget..budget * 2).contains(&(bad as u64)), "{bad}");
    assert!(found[bad..] == (bad..lines).map(|at| row(at as u64 + 1, &["\"a", "b\"c", "\"d"])).collect::<Vec<_>>());
}

#[test]
fn slips_here_and_there_never_end_the_reading_of_quotes() {
    let found = read(&"x,\"y\nz,\"a, b\"\n".repeat(20_000));
    assert_eq!(found.len(), 40_000);
    assert_eq!(found.last().unwrap(), &row(40_000, &["z", "a, b"]));
}

#[test]
fn a_line_without_end_is_skipped_in_constant_memory() {
    let mut reader = RecordReader::new(b',', 1);
    let mut found = Vec::new();
    let piece = vec![b'x'; 64 << 10];
    reader.feed(b"a\n");
    for _ in 0..1_000 {
        reader.feed(&piece);
        while let Some(record) = reader.next_record() {
            found.push(record.map(|record| record.line).map_err(|bad| (bad.line, bad.wrong)));
        }
        assert!(reader.text.len() <= RECORD_BYTES_MAX + 2 * piece.len());
    }
    reader.feed(b"\nb\n");
    while let Some(record) = reader.next_record() {
        found.push(record.map(|record| record.line).map_err(|bad| (bad.line, bad.wrong)));
    }
    assert_eq!(found, [Ok(1), Err((2, Wrong::LineTooLong)), Ok(3)]);
}

#[test]
fn the_limits_are_where_they_are_said_to_be() {
    let longest = "x".repeat(RECORD_BYTES_MAX);
    assert_eq!(read(&format!("{longest}\na\n")), [row(1, &[&longest]), row(2, &["a"])]);
    assert_eq!(read(&format!("{longest}x\na\n")), [Err((1, "line_too_long")), row(2, &["a"])]);
    assert_eq!(read(&format!("{longest}x")), [Err((1, "line_too_long"))]);

    let widest = ",".repeat(COLUMNS_MAX - 1);
    assert_eq!(read(&format!("{widest}\na\n"))[0].as_ref().unwrap().1.len(), COLUMNS_MAX);
    assert_eq!(read(&format!("{widest},\na\n")), [Err((1, "too_many_columns")), row(2, &["a"])]);
    assert_eq!(read(&format!("{}\na\n", ",".repeat(9_999))), [Err((1, "too_many_columns")), row(2, &["a"])]);
}

#[test]
fn a_row_with_a_nul_is_bad_and_the_next_is_not() {
    assert_eq!(read("a\nb\0c,d\ne\n"), [row(1, &["a"]), Err((2, "nul")), row(3, &["e"])]);
}

proptest! {
    #[test]
    fn where_the_text_is_cut_does_not_matter(
        text in "[ab,\"\r\n\0é]{0,60}",
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let bytes = text.as_bytes();
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        at.extend([0, bytes.len()]);
        at.sort_unstable();
        let pieces: Vec<&[u8]> = at.windows(2).map(|ends| &bytes[ends[0]..ends[1]]).collect();
        prop_assert_eq!(read_pieces(&pieces), read(&text));
    }

    #[test]
    fn what_is_written_is_read(rows in prop::collection::vec(prop::collection::vec("[a,\"\r\né ]{0,6}", 1..5), 1..9)) {
        let rows: Vec<Vec<String>> = rows.into_iter().filter(|cells| cells.len() > 1).collect();
        let cell = |cell: &String| format!("\"{}\"", cell.replace('"', "\"\""));
        let line = |cells: &Vec<String>| cells.iter().map(cell).collect::<Vec<_>>().join(",") + "\r\n";
        let text: String = rows.iter().map(line).collect();
        let found: Vec<_> = read(&text).into_iter().map(|row| row.unwrap().1).collect();
        prop_assert_eq!(found, rows);
    }
}
