//! The usual names of columns, in the languages of the lists that people upload.
//!
//! Folded: lower case, letters and digits only, without accents. Within a list the likeliest comes first; of two phone
//! columns the mobile one is read.

pub(super) const EMAIL: &[&str] = &[
    "email",
    "emailaddress",
    "mail",
    "mailaddress",
    "courriel",
    "adresseemail",
    "adressemail",
    "adressecourriel",
    "correo",
    "correoelectronico",
    "direccionemail",
    "emailadresse",
    "mailadresse",
    "eposta",
    "epost",
    "epostadress",
    "epostadresse",
    "indirizzoemail",
    "postaelettronica",
    "adresemail",
    "emailadres",
    "emailadresa",
    "enderecodeemail",
    "emailcim",
    "sahkoposti",
    "elpastas",
    "ηλεκτρονικηδιευθυνση",
    "почта",
    "электроннаяпочта",
    "имейл",
];

pub(super) const PHONE: &[&str] = &[
    "mobile",
    "mobilephone",
    "mobilenumber",
    "cell",
    "cellphone",
    "msisdn",
    "gsm",
    "sms",
    "portable",
    "telephoneportable",
    "mobil",
    "handy",
    "handynummer",
    "mobilnummer",
    "mobiltelefon",
    "movil",
    "telefonomovil",
    "celular",
    "telemovel",
    "cellulare",
    "komorka",
    "telefonkomorkowy",
    "matkapuhelin",
    "κινητο",
    "мобильный",
    "мобильныйтелефон",
    "phone",
    "phonenumber",
    "telephone",
    "telephonenumber",
    "tel",
    "telno",
    "numerodetelephone",
    "telefon",
    "telefonnummer",
    "telefono",
    "numerodetelefono",
    "telefone",
    "telefoon",
    "telefoonnummer",
    "numertelefonu",
    "telefonszam",
    "puhelin",
    "puhelinnumero",
    "τηλεφωνο",
    "телефон",
];

pub(super) const FIRST_NAME: &[&str] = &[
    "firstname",
    "givenname",
    "forename",
    "prenom",
    "vorname",
    "nombre",
    "nome",
    "imie",
    "fornamn",
    "fornavn",
    "voornaam",
    "jmeno",
    "keresztnev",
    "etunimi",
    "prenume",
    "ονομα",
    "имя",
];

pub(super) const LAST_NAME: &[&str] = &[
    "lastname",
    "surname",
    "familyname",
    "nomdefamille",
    "nom",
    "nachname",
    "familienname",
    "apellido",
    "apellidos",
    "cognome",
    "sobrenome",
    "apelido",
    "nazwisko",
    "efternamn",
    "etternavn",
    "efternavn",
    "achternaam",
    "prijmeni",
    "vezeteknev",
    "sukunimi",
    "επωνυμο",
    "фамилия",
];

pub(super) const NAME: &[&str] =
    &["name", "fullname", "nomcomplet", "nombrecompleto", "nomecompleto", "vollername", "displayname"];

pub(super) const LOCALE: &[&str] = &[
    "locale",
    "language",
    "lang",
    "langue",
    "sprache",
    "idioma",
    "lingua",
    "taal",
    "sprak",
    "jezyk",
    "jazyk",
    "nyelv",
    "kieli",
    "limba",
    "γλωσσα",
    "язык",
];

/// A name as the lists above have it.
pub(super) fn folded(name: &str) -> String {
    name.chars().flat_map(char::to_lowercase).filter(|c| c.is_alphanumeric()).map(without_accent).collect()
}

const fn without_accent(c: char) -> char {
    match c {
        'à'..='å' | 'ā' | 'ă' | 'ą' => 'a',
        'ç' | 'ć' | 'č' => 'c',
        'ď' | 'đ' => 'd',
        'è'..='ë' | 'ē' | 'ė' | 'ę' | 'ě' => 'e',
        'ì'..='ï' | 'ī' | 'į' | 'ı' => 'i',
        'ł' | 'ľ' => 'l',
        'ñ' | 'ń' | 'ň' => 'n',
        'ò'..='ö' | 'ø' | 'ō' | 'ő' => 'o',
        'ŕ' | 'ř' => 'r',
        'ś' | 'š' | 'ş' | 'ș' => 's',
        'ť' | 'ţ' | 'ț' => 't',
        'ù'..='ü' | 'ū' | 'ů' | 'ű' => 'u',
        'ý' | 'ÿ' => 'y',
        'ź' | 'ż' | 'ž' => 'z',
        'ά' => 'α',
        'έ' => 'ε',
        'ή' => 'η',
        'ί' => 'ι',
        'ό' => 'ο',
        'ύ' => 'υ',
        'ώ' => 'ω',
        'ё' => 'е',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_a_name_are_one() {
        for (name, one) in [
            ("E-Mail", "email"),
            ("E-mail Address", "emailaddress"),
            ("Prénom", "prenom"),
            ("Pre\u{301}nom", "prenom"),
            ("Numéro de téléphone", "numerodetelephone"),
            ("first_name", "firstname"),
            ("JĘZYK", "jezyk"),
            ("Τηλέφωνο", "τηλεφωνο"),
            ("Sähköposti", "sahkoposti"),
        ] {
            assert_eq!(folded(name), one);
        }
    }

    #[test]
    fn the_lists_hold_folded_names_and_none_twice() {
        let mut all = [EMAIL, PHONE, FIRST_NAME, LAST_NAME, NAME, LOCALE].concat();
        assert!(all.iter().all(|name| folded(name) == *name));
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
