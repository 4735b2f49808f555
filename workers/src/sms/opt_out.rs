//! What people write to be left alone.

/// Words that mean it wherever they are the whole text: English, French, Spanish, German, Italian. Upper case.
const WORDS: [&str; 19] = [
    "STOP",
    "STOPALL",
    "UNSUBSCRIBE",
    "END",
    "QUIT",
    "CANCEL",
    "OPTOUT",
    "ARRET",
    "ARRÊT",
    "DESABO",
    "DÉSABO",
    "BAJA",
    "PARAR",
    "STOPP",
    "ABMELDEN",
    "ABBESTELLEN",
    "CANCELLA",
    "ANNULLA",
    "DISISCRIVIMI",
];

/// Whether a text message is an opt-out: one of the words, alone or with a number or the sender's name behind `STOP`, in
/// any case, with any signs around it.
#[must_use]
pub fn is_opt_out(text: &str) -> bool {
    let mut words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    let Some(first) = words.next() else { return false };
    let first = first.to_uppercase();
    let others = words.count();
    WORDS.contains(&first.as_str()) && (others == 0 || (first == "STOP" && others <= 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_known_in_any_case_and_with_signs_around_them() {
        for text in
            ["STOP", "stop", " Stop. ", "STOP!", "Stop 36180", "stop sms", "Arrêt", "baja", "Abmelden", "annulla"]
        {
            assert!(is_opt_out(text), "{text}");
        }
    }

    #[test]
    fn other_texts_are_not_taken_for_it() {
        for text in [
            "",
            "!!",
            "please do not stop the offers",
            "Stop wasting my time and send the invoice",
            "non-stop",
            "ok",
            "end of march would be fine",
        ] {
            assert!(!is_opt_out(text), "{text}");
        }
    }
}
