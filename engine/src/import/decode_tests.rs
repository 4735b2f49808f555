use proptest::prelude::*;

use super::*;

fn decode(pieces: &[&[u8]]) -> Result<(String, &'static str, u64), NotText> {
    let mut decoder = Decoder::default();
    let mut text = String::new();
    for piece in pieces {
        decoder.feed(piece, &mut |piece| text.push_str(piece))?;
    }
    decoder.finish(&mut |piece| text.push_str(piece))?;
    Ok((text, decoder.encoding().name(), decoder.damaged_characters()))
}

fn utf16(text: &str, to_bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
    text.encode_utf16().flat_map(to_bytes).collect()
}

const TEXT: &str = "email,name\na@x.eu,Zoë Łukasz Παύλος 🎉\n";

#[test]
fn every_form_of_unicode_is_read() {
    let with_mark = format!("\u{feff}{TEXT}");
    for (bytes, encoding) in [
        (TEXT.as_bytes().to_vec(), "UTF-8"),
        (with_mark.as_bytes().to_vec(), "UTF-8"),
        (utf16(&with_mark, u16::to_le_bytes), "UTF-16LE"),
        (utf16(&with_mark, u16::to_be_bytes), "UTF-16BE"),
        (utf16(TEXT, u16::to_le_bytes), "UTF-16LE"),
        (utf16(TEXT, u16::to_be_bytes), "UTF-16BE"),
    ] {
        assert_eq!(decode(&[&bytes]).unwrap(), (TEXT.to_owned(), encoding, 0));
    }
}

#[test]
fn old_encodings_are_guessed_however_late_they_show() {
    let ascii = "email,name\n".to_owned() + &"a@x.eu,Anna\n".repeat(20_000);
    for (name, encoding) in [("Renée Müller", "windows-1252"), ("Łukasz Żółć Gęślą", "windows-1250")] {
        let whole = format!("{ascii}a@x.eu,{name}\na@x.eu,{name}\n");
        let (bytes, ..) = Encoding::for_label(encoding.as_bytes()).unwrap().encode(&whole);
        let (text, found, damaged) = decode(&[&bytes]).unwrap();
        assert_eq!((found, damaged), (encoding, 0));
        assert!(text == whole, "{encoding}");
    }
}

#[test]
fn bytes_that_are_no_text_are_counted_and_marked() {
    let mut bytes = "é,".repeat(SAMPLE_BYTES).into_bytes();
    bytes.extend_from_slice(b"a\xff\xfeb\xe2\x82");
    let (text, encoding, damaged) = decode(&[&bytes]).unwrap();
    assert_eq!((encoding, damaged), ("UTF-8", 3));
    assert!(text.ends_with("a\u{fffd}\u{fffd}b\u{fffd}"));
}

#[test]
fn files_that_are_no_text_are_named() {
    assert_eq!(decode(&[b"PK\x03\x04rest"]).unwrap_err().what, "a zip archive or an Excel workbook (.xlsx)");
    assert_eq!(decode(&[b"\x1f\x8b\x08"]).unwrap_err().what, "compressed with gzip");
}

proptest! {
    #[test]
    fn where_the_bytes_are_cut_does_not_matter(
        mut bytes in prop_oneof![any::<Vec<u8>>(), ".{0,60}".prop_map(String::into_bytes)],
        marked in prop::sample::select(vec![&b""[..], b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"]),
        long: bool,
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        if long {
            bytes = [b"a,b\n".repeat(500), bytes].concat();
        }
        let bytes = [marked.to_vec(), bytes].concat();
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        at.extend([0, bytes.len()]);
        at.sort_unstable();
        let pieces: Vec<&[u8]> = at.windows(2).map(|ends| &bytes[ends[0]..ends[1]]).collect();
        prop_assert_eq!(decode(&pieces), decode(&[&bytes]));
    }
}
