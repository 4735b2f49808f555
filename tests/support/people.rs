//! Made-up people: addresses nobody has, told apart by a word and a number.

use dispatch_schemas::states::Channel;

/// `count` people of one channel.
#[derive(Debug, Clone, Copy)]
pub struct People {
    /// Tells groups apart; letters only.
    pub word: &'static str,
    /// By which channel they are reached.
    pub channel: Channel,
    /// How many.
    pub count: usize,
}

impl People {
    /// People with an e-mail address.
    #[must_use]
    pub const fn by_email(word: &'static str, count: usize) -> Self {
        Self { word, channel: Channel::Email, count }
    }

    /// People with a mobile number in France; at most a million.
    #[must_use]
    pub const fn by_sms(word: &'static str, count: usize) -> Self {
        Self { word, channel: Channel::Sms, count }
    }

    /// The address of one of them, normalised.
    #[must_use]
    pub fn address(&self, number: usize) -> String {
        match self.channel {
            Channel::Email => format!("{}{number}@people.example", self.word),
            Channel::Sms => format!("+33612{number:06}"),
        }
    }

    /// All of them as a contact file.
    #[must_use]
    pub fn csv(&self) -> String {
        let column = match self.channel {
            Channel::Email => "email",
            Channel::Sms => "phone",
        };
        let mut csv = format!("{column},first_name\n");
        for number in 0..self.count {
            csv.push_str(&format!("{},Person {number}\n", self.address(number)));
        }
        csv
    }
}
