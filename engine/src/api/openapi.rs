//! The description of the API, made from the routes.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use dispatch_schemas::api::imports::Mapping;
use utoipa::{
    Modify, OpenApi,
    openapi::{
        RefOr, Schema,
        security::{Http, HttpAuthScheme, SecurityScheme},
    },
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Context,
    routes::{
        campaigns, erasures, imports, limits, lists, messages, recipients, sources, suppressions, system, templates,
    },
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Dispatch",
        description = "Campaigns by e-mail and text message: contact lists in, one message per recipient out, and \
                       who got what. Times are RFC 3339. Errors are problem documents (RFC 9457) whose `type` can be \
                       opened. What is sent in must not have members that are not described here; what comes out \
                       may grow new ones.",
        license(name = "MIT OR Apache-2.0"),
    ),
    tags(
        (name = "lists", description = "Where contacts come from, the lists they are in, and uploads"),
        (name = "people", description = "Who must not be written to"),
        (name = "templates", description = "What messages say"),
        (name = "campaigns", description = "One message to many"),
        (name = "messages", description = "One message to one person"),
        (name = "limits", description = "How fast a tenant sends"),
        (name = "system", description = "For machines that watch the engine; without a key"),
    ),
    components(schemas(Mapping)),
    modifiers(&ApiKeys),
)]
struct Description;

/// The one way to authenticate.
struct ApiKeys;

impl Modify for ApiKeys {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let scheme = Http::builder()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("dsp_live_…")
            .description(Some(
                "A key made by `dispatch keys create`. Each call names the permission the key must have: read, write, \
                 send or erase.",
            ))
            .build();
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("api_key", SecurityScheme::Http(scheme));
    }
}

/// All routes with their description.
pub(super) fn described() -> OpenApiRouter<Arc<Context>> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(sources::create, sources::list))
        .routes(routes!(lists::create, lists::list))
        .routes(routes!(lists::get))
        .routes(routes!(imports::create))
        .routes(routes!(imports::get))
        .routes(routes!(suppressions::create, suppressions::delete, suppressions::list))
        .routes(routes!(erasures::create))
        .routes(routes!(templates::create, templates::list))
        .routes(routes!(templates::validate))
        .routes(routes!(templates::get))
        .routes(routes!(templates::preview))
        .routes(routes!(campaigns::create, campaigns::list))
        .routes(routes!(campaigns::get))
        .routes(routes!(campaigns::launch))
        .routes(routes!(campaigns::pause))
        .routes(routes!(campaigns::resume))
        .routes(routes!(campaigns::cancel))
        .routes(routes!(campaigns::retry))
        .routes(routes!(campaigns::progress))
        .routes(routes!(recipients::list))
        .routes(routes!(messages::create))
        .routes(routes!(messages::get))
        .routes(routes!(limits::get, limits::put))
        .routes(routes!(limits::put_of_campaign))
        .routes(routes!(system::healthz))
        .routes(routes!(system::readyz))
        .routes(routes!(system::metrics))
        .routes(routes!(system::description))
}

/// The description of the API (OpenAPI 3.1).
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    let mut described = described().into_openapi();
    if let Some(components) = &mut described.components {
        open_parts(&mut components.schemas);
    }
    described
}

/// A schema that is a part of another (`allOf`) must let the other's members through: closed against all but its own,
/// nothing would fit both. The API itself refuses members it does not know wherever they stand.
fn open_parts(schemas: &mut BTreeMap<String, RefOr<Schema>>) {
    let parts_of = |schema: &RefOr<Schema>| match schema {
        RefOr::T(Schema::AllOf(whole)) => whole.items.clone(),
        _ => Vec::new(),
    };
    let parts: Vec<RefOr<Schema>> = schemas.values().flat_map(parts_of).collect();
    for part in parts {
        let RefOr::Ref(part) = part else { continue };
        let name = part.ref_location.rsplit('/').next().unwrap_or_default();
        if let Some(RefOr::T(Schema::Object(object))) = schemas.get_mut(name) {
            object.additional_properties = None;
        }
    }
}

/// The description as JSON, as it is served and checked in.
pub(super) fn text() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    // A description of strings and maps always serializes.
    TEXT.get_or_init(|| openapi().to_pretty_json().map(|text| text + "\n").unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHECKED_IN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas/openapi.json");

    #[test]
    fn the_description_checked_in_is_the_one_served() {
        if std::env::var_os("DISPATCH_WRITE_OPENAPI").is_some() {
            std::fs::write(CHECKED_IN, text()).unwrap();
        }
        let checked_in = std::fs::read_to_string(CHECKED_IN).unwrap_or_default();
        assert!(
            checked_in == text(),
            "schemas/openapi.json is not what the routes say; write it anew with \
             DISPATCH_WRITE_OPENAPI=1 cargo test -p dispatch-engine --lib api::openapi, and look at the difference"
        );
    }

    #[test]
    fn the_description_is_whole_and_can_be_met() {
        let described: serde_json::Value = serde_json::from_str(text()).unwrap();
        let schemas = described["components"]["schemas"].as_object().unwrap();
        for reference in text().split("\"#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(schemas.contains_key(name), "{name} is not described");
        }
        for (name, schema) in schemas {
            for part in schema["allOf"].as_array().into_iter().flatten() {
                let part = part["$ref"].as_str().unwrap_or_default().rsplit('/').next().unwrap();
                assert!(schemas.get(part).is_none_or(|part| part["additionalProperties"].is_null()), "{name}: {part}");
            }
        }
    }

    #[test]
    fn the_words_described_are_those_that_are_sent() {
        use dispatch_schemas::states::{CampaignState, StallReason, StopReason, UnknownPolicy, Weekday};
        let described: serde_json::Value = serde_json::from_str(text()).unwrap();
        let words = |name: &str| described["components"]["schemas"][name]["enum"].clone();
        assert_eq!(words("CampaignState"), serde_json::json!(CampaignState::ALL));
        assert_eq!(words("StallReason"), serde_json::json!(StallReason::ALL));
        assert_eq!(words("StopReason"), serde_json::json!(StopReason::ALL));
        assert_eq!(words("UnknownPolicy"), serde_json::json!(UnknownPolicy::ALL));
        assert_eq!(words("Weekday"), serde_json::json!(Weekday::ALL));
    }

    #[test]
    fn every_path_says_which_one_permission_it_needs() {
        let described: serde_json::Value = serde_json::from_str(text()).unwrap();
        let mut operations = 0;
        for (path, methods) in described["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                operations += 1;
                let security = operation["security"].as_array().unwrap();
                if path.starts_with("/v1/") {
                    let scopes = security[0]["api_key"].as_array().unwrap();
                    assert!(scopes.len() == 1 && security.len() == 1, "{method} {path}");
                } else {
                    assert_eq!(security, &[serde_json::json!({})], "{method} {path}");
                }
            }
        }
        assert!(operations > 30, "{operations}");
    }
}
