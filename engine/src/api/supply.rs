//! What the lists of a campaign can fill its template with.

use std::collections::BTreeSet;

use dispatch_schemas::ids::{ListId, TenantId};
use dispatch_workers::template::{Need, Template};

use super::{
    content,
    problem::{Answer, Kind, Problem},
};
use crate::{
    import::mapping::FIELD_NAME_MAX,
    ledger::{Ledger, Result},
};

/// Fields and variables named in a message; more are only counted.
const SHOWN_MAX: usize = 10;
/// How like a field must be to be suggested for a variable (Jaro-Winkler, 0 to 1).
const LIKENESS: f64 = 0.8;

/// The fields of some lists together.
#[derive(Debug)]
pub(super) struct Supply {
    fields: BTreeSet<String>,
    lists: usize,
    filled: usize,
}

impl Supply {
    /// What these lists have.
    ///
    /// # Errors
    /// When one of them does not exist, or the ledger cannot be read.
    pub(super) async fn of(ledger: &dyn Ledger, tenant: TenantId, lists: &[ListId]) -> Result<Self> {
        let mut supply = Self { fields: BTreeSet::new(), lists: lists.len(), filled: 0 };
        for id in lists {
            let list = ledger.list(tenant, *id).await?;
            supply.filled += usize::from(list.contacts > 0);
            supply.fields.extend(list.fields);
        }
        Ok(supply)
    }

    /// Whether every list has contacts: nothing is known of one that waits for its first upload.
    pub(super) const fn is_whole(&self) -> bool {
        self.filled == self.lists
    }

    /// Whether any list has contacts.
    pub(super) const fn is_there(&self) -> bool {
        self.filled > 0
    }

    /// Checks that a template can be filled for somebody.
    ///
    /// # Errors
    /// A problem that names each variable that no list has, where it stands, and what to do.
    pub(super) fn check(&self, template: &Template) -> Answer<()> {
        let unknown: Vec<_> = template.needs().iter().filter(|need| !self.fields.contains(&need.variable)).collect();
        let Some(first) = unknown.first() else { return Ok(()) };
        let names = unknown.iter().map(|need| content::named(need));
        let (verb, them) = if unknown.len() == 1 { ("has", "it") } else { ("have", "them") };
        let detail = format!(
            "{} {verb} no default, and none of the campaign's lists has such a field: {}{} Give {them} a default, such \
             as `{{{{ {} | default('…') }}}}`, or upload the list with a column mapped to {them}",
            listed(names),
            self.shown(),
            self.hint(&unknown),
            first.variable,
        );
        Err(Problem::new(Kind::UNSUPPLIED, detail))
    }

    /// The fields that may have been meant, and the end of the sentence.
    fn hint(&self, unknown: &[&Need]) -> String {
        let likeness = |field: &str, variable: &str| strsim::jaro_winkler(field, variable);
        let nearest = |variable: &str| {
            let near = self.fields.iter().filter(|field| likeness(field, variable) >= LIKENESS);
            near.max_by(|one, other| likeness(one, variable).total_cmp(&likeness(other, variable)))
        };
        // Comparing takes as long as both names multiplied; no field has a longer one.
        let meant: Vec<String> = unknown
            .iter()
            .take(SHOWN_MAX)
            .filter(|need| need.variable.len() <= FIELD_NAME_MAX)
            .filter_map(|need| Some(format!("`{}` for `{}`", nearest(&need.variable)?, need.variable)))
            .collect();
        match meant.as_slice() {
            [] if unknown.iter().any(|need| ["email", "phone"].contains(&need.variable.as_str())) => {
                ". A recipient's address is not a field.".to_owned()
            }
            [] => ".".to_owned(),
            meant => format!("; did you mean {}?", meant.join(", ")),
        }
    }

    fn shown(&self) -> String {
        if self.fields.is_empty() {
            return "they have addresses only".to_owned();
        }
        format!("they have {}", listed(self.fields.iter().map(|field| format!("`{field}`"))))
    }
}

/// The first names of some, and how many more there are.
fn listed(names: impl ExactSizeIterator<Item = String>) -> String {
    let more = names.len().saturating_sub(SHOWN_MAX);
    let mut shown: Vec<String> = names.take(SHOWN_MAX).collect();
    if more > 0 {
        shown.push(format!("{more} more"));
    }
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dispatch_schemas::api::templates::{Content, TemplateSource};

    use super::*;

    fn refusal(fields: usize, text: &str) -> String {
        let content = Content::Sms { sender: "Shop".to_owned(), text: text.to_owned() };
        let (_, template) = Template::compile(&TemplateSource { content, defaults: BTreeMap::new() }).unwrap();
        let fields = (0..fields).map(|n| format!("field_{n:03}")).collect();
        Supply { fields, lists: 1, filled: 1 }.check(&template).unwrap_err().document().detail
    }

    #[test]
    fn a_message_about_many_names_stays_short() {
        let text: String = (0..150).map(|n| format!("{{{{ variable_{n} }}}}")).collect();
        let detail = refusal(500, &text);
        assert!(detail.contains(", 140 more have no default") && detail.contains(", 490 more"), "{detail}");
        assert!(detail.len() < 2_000, "{detail}");
    }

    #[test]
    fn a_name_without_measure_is_compared_with_nothing() {
        let detail = refusal(1_000, &format!("{{{{ field_{} }}}}", "0".repeat(60_000)));
        assert!(!detail.contains("did you mean"));
        assert!(refusal(3, "{{ field_00 }}").contains("did you mean `field_00"));
    }
}
