use super::*;

fn found(columns: &Columns) -> (Option<usize>, Option<usize>, Vec<(&str, usize)>) {
    let at = |column: &Option<Column>| column.as_ref().map(|column| column.at);
    (at(&columns.email), at(&columns.phone), columns.fields.iter().map(|(name, column)| (&**name, column.at)).collect())
}

fn mapping(json: &str) -> Mapping {
    serde_json::from_str(json).unwrap()
}

#[test]
fn usual_names_are_found_in_many_languages() {
    for (header, expected) in [
        (&["id", "Email", "Phone"][..], (Some(1), Some(2), vec![])),
        (
            &["Prénom", "Nom", "Courriel", "Langue"],
            (Some(2), None, vec![("first_name", 0), ("last_name", 1), ("locale", 3)]),
        ),
        (
            &["Vorname", "Nachname", "E-Mail-Adresse", "Handy"],
            (Some(2), Some(3), vec![("first_name", 0), ("last_name", 1)]),
        ),
        (&["Telefon", "Mobil", " name "], (None, Some(1), vec![("name", 2)])),
        (&["Ηλεκτρονική Διεύθυνση", "Κινητό"], (Some(0), Some(1), vec![])),
    ] {
        let columns = Columns::find(header, &Mapping::default()).unwrap();
        assert_eq!(found(&columns), expected, "{header:?}");
    }
}

#[test]
fn a_mapping_that_names_an_address_is_all_that_is_read() {
    let header = ["email", "work email", "phone", "first_name", "Plan"];
    let mapping = mapping(r#"{"email": "Work Email", "fields": {"plan": "Plan", "a1_": "phone"}}"#);
    let columns = Columns::find(&header, &mapping).unwrap();
    assert_eq!(found(&columns), (Some(1), None, vec![("a1_", 2), ("plan", 4)]));
    assert_eq!((columns.width, columns.dropped), (5, 2));
}

#[test]
fn a_mapping_of_fields_alone_leaves_addresses_to_be_found() {
    let columns = Columns::find(&["mail", "prenom", "Plan"], &mapping(r#"{"fields": {"plan": "Plan"}}"#)).unwrap();
    assert_eq!(found(&columns), (Some(0), None, vec![("first_name", 1), ("plan", 2)]));
}

#[test]
fn what_cannot_be_made_out_is_said_with_its_remedy() {
    let many: Vec<String> = (0..30).map(|at| format!("column {at}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for (header, mapping, message) in [
        (&["id", "city"][..], "{}", "none of the file's 2 columns has a name known for e-mail or phone"),
        (&many, "{}", "none of the file's 30 columns"),
        (&["anna@x.eu", "Anna"], "{}", "the first row looks like data"),
        (&["Anna", "+33612345678"], "{}", "the first row looks like data"),
        (&["anna@x.eu", "Anna"], r#"{"email": "email"}"#, "the first row looks like data"),
        (
            &["e-mail adress", "name"],
            r#"{"email": "E-Mail-Address"}"#,
            "which is not among the file's 2; did you mean `e-mail adress`?",
        ),
        (
            &["mail", "zzz"],
            r#"{"email": "mail", "fields": {"plan": "plan"}}"#,
            "`plan` is mapped to the column `plan`, which is not among the file's 2",
        ),
        (&["email", "name", "email"], "{}", "two columns named `email`"),
        (&["a", "b", "a"], r#"{"email": "a"}"#, "two columns named `a`"),
        (&["a"], r#"{"email": "a", "fields": {"Plan": "a"}}"#, "`Plan` cannot be a field's name"),
        (&["a"], r#"{"email": "a", "fields": {"": "a"}}"#, "`` cannot be a field's name"),
        (&["a"], r#"{"email": "a", "fields": {"first_name": "a"}}"#, "`first_name` has a place of its own"),
    ] {
        let error = Columns::find(header, &self::mapping(mapping)).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn no_cell_of_a_file_without_names_is_shown() {
    let error = Columns::find(&["anna@x.eu", "Anna", "Roy"], &mapping(r#"{"email": "email"}"#)).unwrap_err();
    assert!(!format!("{error} {error:?}").to_lowercase().contains("anna"));
}

#[test]
fn a_first_row_that_was_mapped_by_its_values_is_refused_and_not_shown() {
    for (header, json) in [
        (&["anna@x.eu", "Anna"][..], r#"{"email": "anna@x.eu", "first_name": "Anna"}"#),
        (&["+33612345678", "Anna"], r#"{"phone": "+33612345678"}"#),
        (&["email", "n"], r#"{"email": "email", "fields": {"plan": "anna@x.eu"}}"#),
        (&["email", "n"], r#"{"email": "0612345678"}"#),
        (&["email", "n"], r#"{"email": "٠٦١٢٣٤٥٦٧٨"}"#),
        (&["anna at x.eu 12345", "n"], r#"{"email": "anna at x.eu 12346"}"#),
        (&["email", "n", "n 12345", "n 12345"], r#"{"email": "email", "fields": {"plan": "n 12345"}}"#),
        (&["email"], r#"{"email": "email", "fields": {"anna@x.eu": "email"}}"#),
        (&["email"], r#"{"email": "email", "fields": {"a33612345678": "town"}}"#),
    ] {
        let error = Columns::find(header, &mapping(json)).unwrap_err();
        let said = format!("{error} {error:?}").to_lowercase();
        for secret in ["anna", "x.eu", "336", "0612", "٠٦١", "1234"] {
            assert!(!said.contains(secret), "{said}");
        }
    }
}

#[test]
fn a_column_whose_name_may_hold_an_address_is_reported_by_its_place() {
    let header = ["email", "answers of 2024-2025"];
    let columns = Columns::find(&header, &mapping(r#"{"fields": {"answers": "Answers of 2024-2025"}}"#)).unwrap();
    assert_eq!(&*columns.fields[0].1.name, "column 2");
}

#[test]
fn two_columns_of_one_name_do_no_harm_when_neither_is_read() {
    let columns = Columns::find(&["email", "note", "note", ""], &Mapping::default()).unwrap();
    assert_eq!(columns.dropped, 3);
}

#[test]
fn a_field_too_many_is_refused() {
    let mut mapping = Mapping { email: Some("a".into()), ..Mapping::default() };
    for at in 0..=FIELDS_MAX {
        mapping.fields.insert(format!("f{at}"), "a".into());
    }
    assert_eq!(check(&mapping), Err(MappingError::TooManyFields { fields: FIELDS_MAX + 1 }));
}
