//! The shape of every body the API takes.

use dispatch_schemas::{
    address::Country,
    api::{
        campaigns::{NewCampaign, Retry},
        contacts::{Erase, Suppress},
        imports::Mapping,
        limits::Windows,
        lists::{NewList, NewSource},
        messages::NewMessage,
        sending_window::{TimeOfDay, Zone},
        templates::{NewTemplate, PreviewRequest, TemplateSource},
        time::Moment,
    },
    ids::{ListId, SourceId, TemplateId},
};
use serde::de::DeserializeOwned;

use super::shape::{Member, Shape};

/// A type that is read from a body.
pub trait Body: DeserializeOwned {
    /// What the body must look like.
    const SHAPE: Shape;
}

const NAME: Shape = Shape::Name(200);
/// An address as it is typed; the address parser has the last word.
const ADDRESS: Shape = Shape::Text(1_100);
/// A message's page, its text, a subject or a default: the body's own limit is the bound, the template's budgets
/// refuse what is too much for a message.
const CONTENT: Shape = Shape::Text(1 << 20);
const WORD: Shape = Shape::Text(200);
const MOMENT: Shape = Shape::Parsed(parsed::<Moment>);
const PURPOSE: Shape = Shape::Word(&["marketing", "prospecting", "service"]);
/// Why somebody can be suppressed. Erasing has its own call, and a campaign is cancelled, not a person.
pub const SUPPRESS_REASONS: &[&str] =
    &["suppressed", "unsubscribed", "complained", "hard_bounced", "restricted", "no_consent"];
const CHANNEL: Shape = Shape::Word(&["email", "sms"]);

/// The members of a person's values: a few dozen fields in practice.
const VARIABLES: Shape = Shape::Texts { most: 100, bytes_max: 10_000 };

/// No provider takes more than a million messages a second, so a larger rate is a slip of the keyboard.
const PER_SECOND_MAX: u64 = 1_000_000;
/// The same for the longer windows; also what their 32 bits hold.
const PER_WINDOW_MAX: u64 = 1_000_000_000;

const WINDOWS: Shape = Shape::Object(&[
    Member::optional("per_second", &Shape::Whole(PER_SECOND_MAX)),
    Member::optional("per_minute", &Shape::Whole(PER_WINDOW_MAX)),
    Member::optional("per_hour", &Shape::Whole(PER_WINDOW_MAX)),
    Member::optional("per_day", &Shape::Whole(PER_WINDOW_MAX)),
]);

const TIME_OF_DAY: Shape = Shape::Parsed(parsed::<TimeOfDay>);

const SENDING_WINDOW: Shape = Shape::Object(&[
    Member::required("start", &TIME_OF_DAY),
    Member::required("end", &TIME_OF_DAY),
    Member::required(
        "days",
        &Shape::List { of: &Shape::Word(&["mon", "tue", "wed", "thu", "fri", "sat", "sun"]), least: 1, most: 7 },
    ),
    Member::required("time_zone", &Shape::Parsed(parsed::<Zone>)),
]);

const SENDER: Shape =
    Shape::Object(&[Member::required("address", &ADDRESS), Member::optional("name", &Shape::Text(400))]);

macro_rules! content {
    ($($first:expr)?) => {
        Shape::Tagged(
            "channel",
            &[
                (
                    "email",
                    &[
                        $($first,)?
                        Member::required("channel", &CHANNEL),
                        Member::required("from", &SENDER),
                        Member::optional("reply_to", &SENDER),
                        Member::required("subject", &CONTENT),
                        Member::optional("html", &CONTENT),
                        Member::optional("text", &CONTENT),
                        Member::optional("defaults", &VARIABLES),
                    ],
                ),
                (
                    "sms",
                    &[
                        $($first,)?
                        Member::required("channel", &CHANNEL),
                        Member::required("sender", &WORD),
                        Member::required("text", &CONTENT),
                        Member::optional("defaults", &VARIABLES),
                    ],
                ),
            ],
        )
    };
}

const TEMPLATE_SOURCE: Shape = content!();

/// Whether a text is one of these; never repeats it.
fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<(), String> {
    text.parse::<T>().map(|_| ()).map_err(|wrong| wrong.to_string())
}

impl Body for NewSource {
    const SHAPE: Shape = Shape::Object(&[
        Member::required("name", &NAME),
        Member::required("kind", &Shape::Word(&["customer_list", "marketplace", "own_prospect", "account"])),
        Member::required(
            "legal_basis",
            &Shape::Word(&["consent", "contract", "legitimate_interest", "legal_obligation"]),
        ),
        Member::optional("reference", &Shape::Name(500)),
    ]);
}

impl Body for NewList {
    const SHAPE: Shape = Shape::Object(&[
        Member::required("name", &NAME),
        Member::required("source", &Shape::Parsed(parsed::<SourceId>)),
    ]);
}

impl Body for Mapping {
    const SHAPE: Shape = Shape::Object(&[
        Member::optional("email", &NAME),
        Member::optional("phone", &NAME),
        Member::optional("first_name", &NAME),
        Member::optional("last_name", &NAME),
        Member::optional("name", &NAME),
        Member::optional("locale", &NAME),
        Member::optional("fields", &VARIABLES),
        Member::optional("default_country", &Shape::Parsed(parsed::<Country>)),
    ]);
}

impl Body for Suppress {
    const SHAPE: Shape = Shape::Object(&[
        Member::required("addresses", &Shape::List { of: &ADDRESS, least: 1, most: 10_000 }),
        Member::required("channel", &CHANNEL),
        Member::optional("reason", &Shape::Word(SUPPRESS_REASONS)),
    ]);
}

impl Body for Erase {
    const SHAPE: Shape = Shape::Object(&[Member::optional("email", &ADDRESS), Member::optional("phone", &ADDRESS)]);
}

impl Body for TemplateSource {
    const SHAPE: Shape = TEMPLATE_SOURCE;
}

impl Body for NewTemplate {
    const SHAPE: Shape = content!(Member::required("name", &NAME));
}

impl Body for PreviewRequest {
    const SHAPE: Shape = Shape::Object(&[Member::optional("variables", &VARIABLES)]);
}

impl Body for NewCampaign {
    const SHAPE: Shape = Shape::Either(
        &[
            Member::required("name", &NAME),
            Member::required("lists", &Shape::List { of: &Shape::Parsed(parsed::<ListId>), least: 1, most: 100 }),
            Member::optional("template", &Shape::Parsed(parsed::<TemplateId>)),
            Member::optional("content", &TEMPLATE_SOURCE),
            Member::required("purpose", &PURPOSE),
            Member::optional("unknown_policy", &Shape::Word(&["verify", "at_most_once", "at_least_once"])),
            Member::optional("account", &WORD),
            Member::optional("limits", &WINDOWS),
            Member::optional("send_at", &MOMENT),
            Member::optional("expires_at", &MOMENT),
            Member::optional("sending_window", &SENDING_WINDOW),
        ],
        &["template", "content"],
    );
}

impl Body for Retry {
    const SHAPE: Shape = Shape::Object(&[Member::optional("code", &WORD)]);
}

impl Body for NewMessage {
    const SHAPE: Shape = Shape::Object(&[
        Member::required("template", &Shape::Parsed(parsed::<TemplateId>)),
        Member::required("to", &ADDRESS),
        Member::required("source", &Shape::Parsed(parsed::<SourceId>)),
        Member::optional("purpose", &PURPOSE),
        Member::optional("variables", &VARIABLES),
    ]);
}

impl Body for Windows {
    const SHAPE: Shape = WINDOWS;
}

#[cfg(test)]
mod tests {
    use dispatch_schemas::states::{Channel, LegalBasis, Purpose, SourceKind, StopReason, UnknownPolicy, Weekday};
    use serde_json::{Value, json};

    use super::{super::shape::check, *};

    fn words<T: Copy>(all: &[T], word: impl Fn(T) -> &'static str) -> Vec<&'static str> {
        all.iter().map(|value| word(*value)).collect()
    }

    /// Every member of every body, by the shape; reads into the type and back without losing one.
    fn reads_whole<T: Body + serde::Serialize>(body: &Value) {
        assert_eq!(check(&T::SHAPE, body), [], "{body}");
        let read: T = serde_json::from_value(body.clone()).unwrap();
        assert_eq!(&serde_json::to_value(&read).unwrap(), body);
    }

    #[test]
    fn every_shape_has_the_members_of_its_type() {
        let email = json!({
            "channel": "email", "from": {"address": "a@b.eu", "name": "n"}, "reply_to": {"address": "a@b.eu"},
            "subject": "s", "html": "h", "text": "t", "defaults": {"a": "b"},
        });
        let sms = json!({"channel": "sms", "sender": "s", "text": "t", "defaults": {"a": "b"}});
        let windows = json!({"per_second": 1, "per_minute": 2, "per_hour": 3, "per_day": 4});
        let (template, source, list) = (TemplateId(1), SourceId(1), ListId(1));
        reads_whole::<NewSource>(
            &json!({"name": "n", "kind": "customer_list", "legal_basis": "consent", "reference": "r"}),
        );
        reads_whole::<NewList>(&json!({"name": "n", "source": source}));
        reads_whole::<Mapping>(&json!({
            "email": "e", "phone": "p", "first_name": "f", "last_name": "l", "name": "n", "locale": "l",
            "fields": {"city": "c"}, "default_country": "FR",
        }));
        reads_whole::<Suppress>(&json!({"addresses": ["a"], "channel": "email", "reason": "complained"}));
        reads_whole::<Erase>(&json!({"email": "e", "phone": "p"}));
        reads_whole::<TemplateSource>(&email);
        reads_whole::<TemplateSource>(&sms);
        for content in [&email, &sms] {
            let mut named = content.clone();
            named["name"] = json!("n");
            reads_whole::<NewTemplate>(&named);
        }
        reads_whole::<PreviewRequest>(&json!({"variables": {"a": "b"}}));
        let mut campaign = json!({
            "name": "n", "lists": [list], "template": template, "purpose": "marketing",
            "unknown_policy": "verify", "account": "a", "limits": windows,
            "send_at": "2027-03-01T08:00:00.000Z", "expires_at": "2027-03-02T08:00:00.000Z",
            "sending_window": {
                "start": "08:00", "end": "20:00", "days": words(Weekday::ALL, Weekday::as_str), "time_zone": "Europe/Paris",
            },
        });
        reads_whole::<NewCampaign>(&campaign);
        campaign.as_object_mut().unwrap().remove("template");
        campaign["content"] = email;
        reads_whole::<NewCampaign>(&campaign);
        reads_whole::<Retry>(&json!({"code": "c"}));
        reads_whole::<NewMessage>(&json!({
            "template": template, "to": "t", "source": source, "purpose": "service", "variables": {"a": "b"},
        }));
        reads_whole::<Windows>(&windows);
    }

    #[test]
    fn the_words_of_the_shapes_are_those_of_the_types() {
        fn member<'a>(shape: &'a Shape, name: &str) -> &'a Shape {
            let (Shape::Object(members) | Shape::Either(members, _)) = shape else { panic!("not an object") };
            members.iter().find_map(|member| member.shape_of(name)).unwrap()
        }
        fn taken<'a>(shape: &'a Shape, name: &str) -> &'a [&'static str] {
            let Shape::Word(words) = member(shape, name) else { panic!("{name} is not a word") };
            words
        }
        assert_eq!(taken(&NewSource::SHAPE, "kind"), words(SourceKind::ALL, SourceKind::as_str));
        assert_eq!(taken(&NewSource::SHAPE, "legal_basis"), words(LegalBasis::ALL, LegalBasis::as_str));
        assert_eq!(taken(&Suppress::SHAPE, "channel"), words(Channel::ALL, Channel::as_str));
        assert_eq!(taken(&NewCampaign::SHAPE, "purpose"), words(Purpose::ALL, Purpose::as_str));
        assert_eq!(taken(&NewCampaign::SHAPE, "unknown_policy"), words(UnknownPolicy::ALL, UnknownPolicy::as_str));
        let mut reasons = words(StopReason::ALL, StopReason::as_str);
        reasons.retain(|reason| !matches!(*reason, "erased" | "cancelled"));
        assert_eq!(taken(&Suppress::SHAPE, "reason"), reasons);
    }

    #[test]
    fn a_campaign_has_a_template_or_content_and_not_both() {
        let base = json!({"name": "n", "lists": [ListId(1)], "purpose": "marketing"});
        let errors = check(&NewCampaign::SHAPE, &base);
        assert_eq!(errors.len(), 1);
        assert!(errors[0].detail.contains("exactly one of `template` and `content`"), "{errors:?}");
    }
}
