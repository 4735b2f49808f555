//! Knowing callers.

use std::net::{IpAddr, Ipv4Addr};

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::header::{HeaderName, HeaderValue};

use super::{super::*, VENDOR_BODY};
use crate::providers::entry;

/// The vendor's own vector: `sendgrid-go`, `helpers/eventwebhook/eventwebhook_test.go` (MIT).
const VENDOR_KEY: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GRqe62gw+2fNNRaINXvVpiglSI8eNEc6wEA3F+g==";
const VENDOR_SIGNATURE: &str =
    "MEUCIGHQVtGj+Y3LkG9fLcxf3qfI10QysgDWmMOVmxG0u6ZUAiEAyBiXDWzM+uOe5W0JuG+luQAbPIqHh89M15TluLtEZtM=";
const VENDOR_TIME: &str = "1600112502";
const SIGNATURE: &str = "x-twilio-email-event-webhook-signature";
const TIME: &str = "x-twilio-email-event-webhook-timestamp";
const ANYWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
const SECRET: &str = "a secret of thirty-two characters";

fn verifier(kind: &str, credentials: &Credentials) -> Result<Box<dyn Verifier>, AccountError> {
    (entry(kind).unwrap().callbacks.unwrap().verifier)(credentials)
}

fn keys(keys: &[&str]) -> Credentials {
    Credentials { public_keys: keys.iter().map(|key| (*key).to_owned()).collect(), ..Credentials::default() }
}

fn secrets(secrets: &[&str]) -> Credentials {
    Credentials {
        secrets: secrets.iter().map(|secret| SecretString::from(*secret)).collect(),
        signature_header: Some("X-Signature".to_owned()),
        ..Credentials::default()
    }
}

/// Verifies a call at the vendor's moment.
fn verify(
    verifier: &dyn Verifier,
    headers: &[(&str, &str)],
    body: &[u8],
    now_s: i64,
    source: IpAddr,
) -> Result<(), Rejection> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
    }
    verifier.verify(&Call { headers: &map, body, source, now_ms: now_s * 1_000 })
}

fn vendors(verifier: &dyn Verifier, signature: &str, time: &str, body: &[u8]) -> Result<(), Rejection> {
    verify(verifier, &[(SIGNATURE, signature), (TIME, time)], body, 1_600_112_600, ANYWHERE)
}

#[test]
fn the_vendors_published_signature_verifies_and_one_flipped_bit_does_not() {
    let verifier = verifier("sendgrid", &keys(&[VENDOR_KEY])).unwrap();
    let body = VENDOR_BODY.as_bytes();
    assert_eq!(vendors(verifier.as_ref(), VENDOR_SIGNATURE, VENDOR_TIME, body), Ok(()));
    for bit in 0..body.len() * 8 {
        let mut changed = body.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        let verdict = vendors(verifier.as_ref(), VENDOR_SIGNATURE, VENDOR_TIME, &changed);
        assert_eq!(verdict, Err(Rejection::Forged), "bit {bit}");
    }
    let signature = STANDARD.decode(VENDOR_SIGNATURE).unwrap();
    for bit in 0..signature.len() * 8 {
        let mut changed = signature.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let verdict = vendors(verifier.as_ref(), &STANDARD.encode(changed), VENDOR_TIME, body);
        assert_eq!(verdict, Err(Rejection::Forged), "bit {bit} of the signature");
    }
    for (signature, time, body) in [
        (VENDOR_SIGNATURE, VENDOR_TIME, &body[..body.len() - 2]),
        (VENDOR_SIGNATURE, "1600112503", body),
        ("not base64", VENDOR_TIME, body),
        ("", VENDOR_TIME, body),
    ] {
        assert_eq!(vendors(verifier.as_ref(), signature, time, body), Err(Rejection::Forged));
    }
}

#[test]
fn a_signature_header_that_is_missing_or_there_twice_is_none() {
    let verifier = verifier("sendgrid", &keys(&[VENDOR_KEY])).unwrap();
    let (signature, time) = ((SIGNATURE, VENDOR_SIGNATURE), (TIME, VENDOR_TIME));
    for headers in [vec![], vec![signature], vec![time], vec![signature, signature, time], vec![signature, time, time]]
    {
        let verdict = verify(verifier.as_ref(), &headers, VENDOR_BODY.as_bytes(), 1_600_112_600, ANYWHERE);
        assert_eq!(verdict, Err(Rejection::Unsigned), "{headers:?}");
    }
}

/// Signs as the vendor does.
struct Signer(EcdsaKeyPair);

impl Signer {
    fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap())
    }

    fn public_key(&self) -> String {
        let head = STANDARD.decode(VENDOR_KEY).unwrap()[..26].to_vec();
        STANDARD.encode([head.as_slice(), self.0.public_key().as_ref()].concat())
    }

    fn sign(&self, time: &str, body: &[u8]) -> String {
        let signed = [time.as_bytes(), body].concat();
        STANDARD.encode(self.0.sign(&SystemRandom::new(), &signed).unwrap())
    }
}

#[test]
fn while_a_key_takes_anothers_place_both_are_taken() {
    let (old, new, other) = (Signer::new(), Signer::new(), Signer::new());
    let verifier = verifier("sendgrid", &keys(&[&old.public_key(), &new.public_key()])).unwrap();
    let verdict = |signer: &Signer| vendors(verifier.as_ref(), &signer.sign(VENDOR_TIME, b"[]"), VENDOR_TIME, b"[]");
    assert_eq!((verdict(&old), verdict(&new)), (Ok(()), Ok(())));
    assert_eq!(verdict(&other), Err(Rejection::Forged));
}

#[test]
fn a_signature_is_good_for_a_day_and_an_hour_and_for_clocks_five_minutes_ahead() {
    let signer = Signer::new();
    let verifier = verifier("sendgrid", &keys(&[&signer.public_key()])).unwrap();
    let now_s = 1_900_000_000;
    for (age_s, verdict) in [
        (0, Ok(())),
        (25 * 3_600, Ok(())),
        (25 * 3_600 + 1, Err(Rejection::Stale)),
        (-300, Ok(())),
        (-301, Err(Rejection::Stale)),
    ] {
        let time = (now_s - age_s).to_string();
        let signature = signer.sign(&time, b"[]");
        let headers = [(SIGNATURE, signature.as_str()), (TIME, time.as_str())];
        assert_eq!(verify(verifier.as_ref(), &headers, b"[]", now_s, ANYWHERE), verdict, "{age_s} s old");
    }
    for time in ["", "soon", "-1", "99999999999999999999"] {
        let signature = signer.sign(time, b"[]");
        let headers = [(SIGNATURE, signature.as_str()), (TIME, time)];
        assert_eq!(verify(verifier.as_ref(), &headers, b"[]", now_s, ANYWHERE), Err(Rejection::Stale), "{time}");
    }
}

#[test]
fn a_bearer_token_is_known_and_the_network_is_a_second_check() {
    let networks = Some("1.179.112.0/20, 2001:db8::/32".to_owned());
    for kind in ["brevo", "brevo_sms"] {
        let credentials =
            Credentials { networks: networks.clone(), ..secrets(&[SECRET, "another one, for the change of keys"]) };
        let verifier = verifier(kind, &credentials).unwrap();
        let call = |value: &str, source: &str| {
            verify(verifier.as_ref(), &[("authorization", value)], b"{}", 0, source.parse().unwrap())
        };
        let (right, inside) = (format!("Bearer {SECRET}"), "1.179.120.9");
        assert_eq!(call(&right, inside), Ok(()));
        assert_eq!(call(&right, "::ffff:1.179.120.9"), Ok(()), "the same address as IPv6 has it");
        assert_eq!(call("bearer another one, for the change of keys", "2001:db8::7"), Ok(()));
        assert_eq!(call(&right, "1.179.128.1"), Err(Rejection::Elsewhere));
        assert_eq!(call(&format!("{right}."), inside), Err(Rejection::Forged));
        assert_eq!(call(&right[..right.len() - 1], inside), Err(Rejection::Forged));
        assert_eq!(call("Bearer ", inside), Err(Rejection::Forged));
        for value in ["", "Basic YTpi", SECRET] {
            assert_eq!(call(value, inside), Err(Rejection::Unsigned), "{value}");
        }
    }
}

#[test]
fn a_body_signed_with_sha_256_is_known_and_none_signed_with_less() {
    let verifier = verifier("infobip", &secrets(&[SECRET])).unwrap();
    let body = br#"{"results":[]}"#;
    let tag = |algorithm| hmac::sign(&hmac::Key::new(algorithm, SECRET.as_bytes()), body).as_ref().to_vec();
    let hex = |tag: &[u8]| tag.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let call = |value: &str, body: &[u8]| verify(verifier.as_ref(), &[("x-signature", value)], body, 0, ANYWHERE);
    let right = tag(hmac::HMAC_SHA256);
    for value in [hex(&right), hex(&right).to_uppercase(), format!("sha256={}", hex(&right)), STANDARD.encode(&right)] {
        assert_eq!(call(&value, body), Ok(()), "{value}");
        assert_eq!(call(&value, b"{}"), Err(Rejection::Forged));
    }
    for weak in [hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, hmac::HMAC_SHA512] {
        assert_eq!(call(&hex(&tag(weak)), body), Err(Rejection::Forged));
        assert_eq!(call(&STANDARD.encode(tag(weak)), body), Err(Rejection::Forged));
    }
    assert_eq!(call(&hex(&right[..16]), body), Err(Rejection::Forged), "as long as an MD5");
    assert_eq!(call("", body), Err(Rejection::Forged));
    assert_eq!(verify(verifier.as_ref(), &[], body, 0, ANYWHERE), Err(Rejection::Unsigned));
}

#[test]
fn an_account_that_could_not_tell_its_provider_from_anybody_is_refused() {
    let refused = |kind: &str, credentials: &Credentials| match verifier(kind, credentials) {
        Ok(_) => panic!("{kind} is taken"),
        Err(error) => error.to_string(),
    };
    for kind in ["sendgrid", "brevo", "brevo_sms", "infobip"] {
        assert!(refused(kind, &Credentials::default()).contains("told from anybody's"), "{kind}");
    }
    for key in ["", "MFkw", "bm90IGEga2V5"] {
        assert!(refused("sendgrid", &keys(&[VENDOR_KEY, key])).contains("ECDSA on P-256"));
    }
    for kind in ["brevo", "infobip"] {
        assert!(refused(kind, &secrets(&["short"])).contains("too short"), "{kind}");
    }
    let unnamed = Credentials { signature_header: None, ..secrets(&[SECRET]) };
    assert!(refused("infobip", &unnamed).contains("`signature_header`"));
    let nowhere = Credentials { networks: Some("1.2.3.4/40".to_owned()), ..secrets(&[SECRET]) };
    assert!(refused("brevo", &nowhere).contains("is no network"));
}
