//! People, and how they come into lists.

use dispatch_engine::ledger::{ContactRow, NewContacts, StoreCounts};
use dispatch_schemas::{
    api::lists::{Import, ImportTotals},
    ids::{ContactId, ImportId, ListId},
    states::Channel,
};
use dispatch_workers::sealing::Column;

use super::world::World;

/// A row of an upload.
#[derive(Clone, Default)]
pub(crate) struct Person {
    email: Option<String>,
    phone: Option<String>,
    name: Option<String>,
}

pub(crate) fn email(address: impl Into<String>) -> Person {
    Person { email: Some(address.into()), ..Person::default() }
}

pub(crate) fn phone(number: impl Into<String>) -> Person {
    Person { phone: Some(number.into()), ..Person::default() }
}

impl Person {
    pub(crate) fn with_phone(self, number: &str) -> Self {
        Self { phone: Some(number.to_owned()), ..self }
    }

    pub(crate) fn named(self, name: &str) -> Self {
        Self { name: Some(name.to_owned()), ..self }
    }
}

/// `count` people with an e-mail address each: `person0@example.org` and on.
pub(crate) fn crowd(count: usize) -> Vec<Person> {
    (0..count).map(|number| email(address(number))).collect()
}

/// The address of one of them.
pub(crate) fn address(number: usize) -> String {
    format!("person{number}@example.org")
}

/// An upload that is under way.
pub(crate) struct Upload<'w> {
    world: &'w World,
    pub(crate) id: ImportId,
    list: ListId,
    totals: ImportTotals,
    fields: Vec<String>,
}

impl Upload<'_> {
    /// Stores some rows.
    pub(crate) async fn store(&mut self, people: &[Person]) -> StoreCounts {
        let counts = self.try_store(people).await.unwrap();
        self.totals.rows += people.len() as u64;
        self.totals.added += counts.added;
        self.totals.updated += counts.updated;
        self.totals.duplicate += counts.duplicate;
        self.totals.blocked += counts.blocked;
        counts
    }

    pub(crate) async fn try_store(&self, people: &[Person]) -> dispatch_engine::ledger::Result<StoreCounts> {
        let world = self.world;
        let first = world.ledger.contact_ids(people.len()).await?;
        let contacts = (first.0..).zip(people).map(|(id, person)| world.sealed(ContactId(id), person)).collect();
        world
            .ledger
            .store_contacts(NewContacts { import: self.id, list: self.list, tenant: world.tenant, contacts })
            .await
    }

    /// Says which fields the upload has brought.
    pub(crate) fn brings(mut self, fields: &[&str]) -> Self {
        self.fields = fields.iter().map(|name| (*name).to_owned()).collect();
        self
    }

    pub(crate) async fn complete(self) -> Import {
        let Self { world, id, totals, fields, .. } = &self;
        world.ledger.complete_import(*id, totals, fields, &serde_json::Value::Null).await.unwrap();
        self.world.ledger.import(self.world.tenant, self.id).await.unwrap()
    }

    pub(crate) async fn roll_back(self) -> Import {
        self.world.ledger.roll_back_import(self.id, "the file broke off").await.unwrap();
        self.world.ledger.import(self.world.tenant, self.id).await.unwrap()
    }
}

impl World {
    pub(crate) async fn upload(&self, list: ListId) -> Upload<'_> {
        let id = self.ledger.begin_import(self.tenant, list).await.unwrap();
        Upload { world: self, id, list, totals: ImportTotals::default(), fields: Vec::new() }
    }

    /// A list with these people in it.
    pub(crate) async fn list_of(&self, name: &str, people: &[Person]) -> ListId {
        let list = self.list(name).await;
        self.add(list, people).await;
        list
    }

    /// Uploads these people into a list.
    pub(crate) async fn add(&self, list: ListId, people: &[Person]) -> Import {
        let mut upload = self.upload(list).await;
        for rows in people.chunks(2_000) {
            upload.store(rows).await;
        }
        upload.complete().await
    }

    /// A person as the ledger takes it.
    pub(crate) fn sealed(&self, id: ContactId, person: &Person) -> ContactRow {
        let entropy = self.entropy.as_ref();
        let (key, wrapped) = self.keys.new_contact(id, entropy);
        let fields = person.name.as_ref().map(|name| serde_json::json!({ "first_name": name }).to_string());
        let address = |column, channel, value: &String| {
            (key.seal(column, value.as_bytes(), entropy), self.keys.address_hash(channel, value))
        };
        ContactRow {
            id,
            key: wrapped,
            email: person.email.as_ref().map(|value| address(Column::Email, Channel::Email, value)),
            phone: person.phone.as_ref().map(|value| address(Column::Phone, Channel::Sms, value)),
            fields: fields.map(|fields| key.seal(Column::Fields, fields.as_bytes(), entropy)),
            email_destination: person
                .email
                .as_ref()
                .and_then(|email| email.split_once('@'))
                .map(|(_, domain)| self.master.domain_hashes().hash(domain)),
            phone_destination: person.phone.as_ref().map(|_| 7),
        }
    }
}
