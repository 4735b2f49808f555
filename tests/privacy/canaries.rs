//! People whose data cannot be mistaken for anything else.

/// How many have good rows.
pub(crate) const PEOPLE: usize = 40;

/// One of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Canary(usize);

/// What is common to all of them and stands nowhere else.
const FIRST_NAME: &str = "Zilpzalpina";
const LAST_NAME: &str = "Zeisigmann";
const TOWN: &str = "Girlitzhausen";
const MAILBOX: &str = "stieglitz";
const DOMAIN: &str = "dompfaff-verein.example";
/// As long as can be, for a log is full of digits.
const PHONE: &str = "3361239870";
/// In the spellings of the file, before they are brought into order.
const BROKEN: &str = "buchfink";

impl Canary {
    pub(crate) const fn number(number: usize) -> Self {
        Self(number)
    }

    pub(crate) fn email(self) -> String {
        format!("{MAILBOX}.{}@{DOMAIN}", self.0)
    }

    pub(crate) fn broken_email(self) -> String {
        format!("{BROKEN}.{}@@{DOMAIN}", self.0)
    }

    /// The last digit is its own.
    pub(crate) fn phone(self) -> String {
        format!("+{PHONE}{}", self.0 % 10)
    }

    pub(crate) fn last_name(self) -> String {
        format!("{LAST_NAME}{}", self.0)
    }

    fn row(self) -> String {
        // A number is shared by several people; ten are enough to be written to.
        let phone = if self.0 < 30 { self.phone() } else { String::new() };
        let town = if self.0 == 20 { "" } else { TOWN };
        format!("{},{phone},{FIRST_NAME},{},{town}\n", self.email(), self.last_name())
    }
}

const HEADER: &str = "email,phone,first_name,last_name,town\n";

/// A file with good rows and bad ones.
pub(crate) fn csv() -> String {
    let mut csv = HEADER.to_owned();
    for number in 0..PEOPLE {
        csv.push_str(&Canary(number).row());
    }
    for bad in [
        format!("{},,{FIRST_NAME},{LAST_NAME},{TOWN}\n", Canary(0).broken_email()),
        format!("{BROKEN} {DOMAIN},+{PHONE},{FIRST_NAME},{LAST_NAME},{TOWN}\n"),
        format!(",,{FIRST_NAME},{LAST_NAME},{TOWN}\n"),
        format!("{BROKEN}@,{BROKEN},{FIRST_NAME},{LAST_NAME},{TOWN}\n"),
        format!("{BROKEN}1@{DOMAIN},,{FIRST_NAME},{LAST_NAME},{TOWN},{BROKEN},{BROKEN}\n"),
    ] {
        csv.push_str(&bad);
    }
    csv
}

/// A file that is refused as a whole: its first row is a person, where the names of the columns should be.
pub(crate) fn broken_csv() -> String {
    format!("{}{}", Canary(12).row(), Canary(13).row())
}

/// What must be found nowhere.
pub(crate) fn all() -> [&'static str; 7] {
    [FIRST_NAME, LAST_NAME, TOWN, MAILBOX, DOMAIN, PHONE, BROKEN]
}
