//! What a row of a contact list costs before it is sealed and stored: its addresses, and the reading of the file.

#![expect(clippy::expect_used, reason = "a bench that cannot set up its input has nothing to measure")]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use dispatch_engine::import::{
    fixture::{self, Addresses},
    parse::RowParser,
};
use dispatch_schemas::{
    address::{EmailAddress, PhoneNumber},
    api::imports::Mapping,
};

const ROWS: u64 = 20_000;
/// Bytes a file is handed in by: an HTTP body's usual piece.
const PIECE_BYTES: usize = 64 << 10;

fn list(addresses: Addresses) -> Vec<u8> {
    let mut list = Vec::new();
    fixture::write_clean(&mut list, ROWS, addresses).expect("a vector takes every byte");
    list
}

/// The first cell of each row.
fn first_cells(list: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(list);
    text.lines().skip(1).filter_map(|line| line.split(',').next()).map(str::to_owned).collect()
}

fn addresses(c: &mut Criterion) {
    let mut group = c.benchmark_group("address");
    group.throughput(Throughput::Elements(ROWS));
    let emails = first_cells(&list(Addresses::Email));
    group.bench_function("email", |b| {
        b.iter(|| emails.iter().filter(|text| EmailAddress::parse(black_box(text)).is_ok()).count());
    });
    let phones = first_cells(&list(Addresses::Phone));
    group.bench_function("phone", |b| {
        b.iter(|| phones.iter().filter(|text| PhoneNumber::parse(black_box(text), None).is_ok()).count());
    });
    group.finish();
}

fn files(c: &mut Criterion) {
    let mut messy = Vec::new();
    fixture::write_messy(&mut messy, ROWS, 1).expect("a vector takes every byte");
    let mut group = c.benchmark_group("import/parse");
    group.throughput(Throughput::Elements(ROWS));
    for (name, file) in [
        ("email", list(Addresses::Email)),
        ("phone", list(Addresses::Phone)),
        ("both", list(Addresses::Both)),
        ("messy", messy),
    ] {
        group.bench_function(name, |b| {
            b.iter_batched(
                || RowParser::new(Mapping::default()).expect("an empty mapping fits"),
                |mut parser| {
                    let mut rows = Vec::new();
                    for piece in file.chunks(PIECE_BYTES) {
                        rows.clear();
                        parser.feed(piece, &mut rows).expect("the list has a header");
                    }
                    parser.finish(&mut rows).expect("the list has a header")
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, addresses, files);
criterion_main!(benches);
