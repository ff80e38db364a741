//! Tokens: who asks, and which rows there are for them (`domain.md section 8`).

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Header, Validation};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::answer::Refused;
use super::fetch::Fetcher;
use super::keys::Source;
use super::keyset::KeySet;
use crate::config::WebUrl;
use crate::telemetry::Health;

/// The scope that the query asks for.
const SCOPE: &str = "balances:read";
/// What is said of a claim that is not what it must be.
const SHAPE: &str = "token: a claim is of another shape than it must have";
/// How far clocks may be apart, in seconds.
const LEEWAY: u64 = 30;

/// What tokens are held against. Clones share their keys.
#[derive(Clone)]
pub struct Keys {
    source: Arc<Source>,
    validation: Validation,
}

impl Keys {
    /// Tokens signed by HS256 with this secret; `aud` and `iss` are held against what is configured.
    pub fn hs256(secret: &str, audience: Option<&str>, issuer: Option<&str>) -> Keys {
        Keys::of(Source::fixed(KeySet::hs256(secret)), audience, issuer)
    }

    /// Tokens signed with a key of a JWKS in a file, which must be good now. The error is one line.
    pub fn jwks_file(path: &str, audience: Option<&str>, issuer: Option<&str>) -> Result<Keys, String> {
        Ok(Keys::of(Source::file(path.into())?, audience, issuer))
    }

    /// Tokens signed with a key of a JWKS on the web, which is fetched once they are [kept](Keys::keep).
    pub fn jwks_url(url: &WebUrl, audience: Option<&str>, issuer: Option<&str>) -> Keys {
        Keys::of(Source::web(Fetcher::new(url.expose(), url.to_string())), audience, issuer)
    }

    fn of(source: Source, audience: Option<&str>, issuer: Option<&str>) -> Keys {
        // The algorithm is each token's own, once a key of that algorithm is found.
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = LEEWAY;
        validation.validate_aud = audience.is_some();
        let mut required = vec!["exp"];
        if let Some(audience) = audience {
            validation.set_audience(&[audience]);
            required.push("aud");
        }
        if let Some(issuer) = issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        Keys { source: Arc::new(source), validation }
    }

    /// Keeps a JWKS fresh, for ever; how that goes is a part of the health.
    pub(super) async fn keep(self, health: Health) {
        self.source.keep(health).await;
    }

    /// What the bearer of an `Authorization` header may see.
    pub(super) async fn judge(&self, header: Option<&[u8]>) -> Result<Grant, Refused> {
        let header = header.ok_or_else(|| unauthorized("Authorization: is missing; send \"Bearer <token>\""))?;
        let header = std::str::from_utf8(header).map_err(|_| unauthorized("Authorization: is no text"))?;
        let token = header
            .split_once(' ')
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim_matches(' '))
            .ok_or_else(|| unauthorized("Authorization: is not of the form \"Bearer <token>\""))?;
        let claims = self.claims(token).await?;
        if claims.nbf.as_ref().and_then(serde_json::Number::as_f64).is_some_and(is_later) {
            return Err(unauthorized(fault(&ErrorKind::ImmatureSignature)));
        }
        if !claims.scope.split(' ').any(|scope| scope == SCOPE) {
            return Err(Refused::Forbidden(format!("scope: the token lacks {SCOPE}")));
        }
        Ok(Grant {
            customers: claims.customer_ids.map(|ids| ids.0),
            contract_owners: claims.contract_owner_ids.map(|ids| ids.0),
        })
    }

    /// The claims of a token that is signed with one of the keys, by that key's own algorithm.
    async fn claims(&self, token: &str) -> Result<Claims, Refused> {
        let header = jsonwebtoken::decode_header(token).map_err(|error| unauthorized(fault(error.kind())))?;
        if header.crit.is_some() {
            return Err(unauthorized("token: has extensions that are not known here (crit)"));
        }
        let away = || Refused::Unavailable("the keys that check tokens cannot be read now; ask again");
        let keys = self.source.keys(header.kid.as_deref()).await.ok_or_else(away)?;
        match self.claims_by(&keys, token, &header) {
            Ok(claims) => return Ok(claims),
            Err((refused, signed)) if signed || keys.names(header.kid.as_deref()) => return Err(refused),
            Err(_) => {}
        }
        // Any key without an id might have been it, so only now it shows that the token's own may be a new one.
        let anew = self.source.anew().await.ok_or_else(away)?;
        self.claims_by(&anew, token, &header).map_err(|(refused, _)| refused)
    }

    /// The claims, as these keys judge the token. The error comes with whether it is signed with one of them all the same.
    fn claims_by(&self, keys: &KeySet, token: &str, header: &Header) -> Result<Claims, (Refused, bool)> {
        let mut validation = self.validation.clone();
        validation.algorithms = vec![header.alg];
        let mut worst = unauthorized("token: is signed with no key and algorithm that is good here (kid, alg)");
        for key in keys.fitting(header) {
            match jsonwebtoken::decode::<Body>(token, key, &validation) {
                // One of several issuers would pass the validation.
                Ok(token) if validation.iss.is_some() && !token.claims.0.iss.as_ref().is_some_and(Value::is_string) => {
                    return Err((unauthorized(SHAPE), true));
                }
                Ok(token) => return Ok(token.claims.0),
                Err(error) if is_of_the_key(error.kind()) => worst = unauthorized(fault(error.kind())),
                Err(error) => return Err((unauthorized(fault(error.kind())), true)),
            }
        }
        Err((worst, false))
    }
}

/// Whether another key can judge otherwise: the signature is looked at before the claims.
fn is_of_the_key(kind: &ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::InvalidSignature
            | ErrorKind::InvalidEcdsaKey
            | ErrorKind::InvalidEddsaKey
            | ErrorKind::InvalidRsaKey(_)
            | ErrorKind::InvalidKeyFormat
    )
}

/// Whether an instant, in seconds since the Unix epoch, is yet to come, the leeway aside.
fn is_later(seconds: f64) -> bool {
    let now = jsonwebtoken::get_current_timestamp() + LEEWAY;
    Duration::try_from_secs_f64(seconds).map_or(seconds > 0.0, |at| at > Duration::from_secs(now))
}

fn unauthorized(message: &str) -> Refused {
    Refused::Unauthorized(message.to_owned())
}

/// What is wrong with a token, without a word of it.
fn fault(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::ExpiredSignature => "token: has expired (exp)",
        ErrorKind::ImmatureSignature => "token: is not good yet (nbf)",
        kind if is_of_the_key(kind) => "token: is signed with another key",
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => "token: is signed by another algorithm (alg)",
        ErrorKind::InvalidAudience => "token: is for another audience (aud)",
        ErrorKind::InvalidIssuer => "token: is of another issuer (iss)",
        ErrorKind::MissingRequiredClaim(_) => {
            "token: lacks a claim that it must have, or has it in no form that can be: exp, or aud or iss where configured"
        }
        ErrorKind::Json(_) | ErrorKind::InvalidClaimFormat(_) => SHAPE,
        _ => "token: is no JSON Web Token",
    }
}

/// Which rows a token opens: those within both lists, and all where there is none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Grant {
    /// Sorted.
    pub(super) customers: Option<Vec<i64>>,
    /// Sorted.
    pub(super) contract_owners: Option<Vec<i64>>,
}

impl Grant {
    pub(super) fn allows_customer(&self, customer: i64) -> bool {
        self.customers.as_ref().is_none_or(|ids| ids.binary_search(&customer).is_ok())
    }
}

/// A token's body: an object (RFC 7519, 4), and not the list that serde takes for one.
#[derive(Debug)]
struct Body(Claims);

impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Body, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Body;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Body, A::Error> {
                Claims::deserialize(MapAccessDeserializer::new(map)).map(Body)
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// The claims that are looked at. `exp` and `iss` are here for their shapes; their values are judged by the validation. `nbf` is judged
/// here, since the validation takes null for a fault, not for an absent claim.
#[derive(Debug, Deserialize)]
struct Claims {
    #[serde(rename = "exp")]
    _exp: serde_json::Number,
    #[serde(default)]
    iss: Option<Value>,
    #[serde(default)]
    nbf: Option<serde_json::Number>,
    #[serde(default, deserialize_with = "text_or_null")]
    scope: String,
    #[serde(default)]
    customer_ids: Option<Ids>,
    #[serde(default)]
    contract_owner_ids: Option<Ids>,
}

fn text_or_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.unwrap_or_default())
}

/// A list of ids, each a JSON integer or a text of digits; sorted.
#[derive(Debug)]
struct Ids(Vec<i64>);

impl<'de> Deserialize<'de> for Ids {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Ids, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Ids;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of ids")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Ids, A::Error> {
                let mut ids = Vec::new();
                while let Some(Id(id)) = sequence.next_element()? {
                    ids.push(id);
                }
                ids.sort_unstable();
                Ok(Ids(ids))
            }
        }
        deserializer.deserialize_seq(List)
    }
}

struct Id(i64);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Id, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = Id;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an id")
            }

            fn visit_u64<E: de::Error>(self, id: u64) -> Result<Id, E> {
                i64::try_from(id).map(Id).map_err(|_| E::custom("is no id"))
            }

            fn visit_i64<E: de::Error>(self, _: i64) -> Result<Id, E> {
                Err(E::custom("is no id"))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Id, E> {
                let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                digits.then(|| text.parse().ok()).flatten().map(Id).ok_or_else(|| E::custom("is no id"))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonwebtoken::{EncodingKey, Header};
    use serde_json::json;

    const SECRET: &str = "a-secret-of-some-thirty-two-bytes";

    fn token(claims: &Value, algorithm: Algorithm, secret: &str) -> String {
        let key = EncodingKey::from_secret(secret.as_bytes());
        jsonwebtoken::encode(&Header::new(algorithm), claims, &key).expect("plain claims")
    }

    /// Judging with keys that stay waits for nothing.
    fn judge(keys: &Keys, header: Option<&[u8]>) -> Result<Grant, Refused> {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(keys.judge(header))
    }

    fn judged(claims: &Value) -> Result<Grant, Refused> {
        let keys = Keys::hs256(SECRET, None, None);
        judge(&keys, Some(format!("Bearer {}", token(claims, Algorithm::HS256, SECRET)).as_bytes()))
    }

    fn now() -> i64 {
        i64::try_from(jsonwebtoken::get_current_timestamp()).expect("not before 1970")
    }

    fn claims(more: &Value) -> Value {
        let mut claims = json!({"exp": now() + 3600, "scope": "a balances:read b"});
        for (name, value) in more.as_object().expect("an object") {
            claims[name] = value.clone();
        }
        claims
    }

    #[test]
    fn good_tokens_say_which_rows_there_are() {
        for (more, customers, owners) in [
            (json!({}), None, None),
            (json!({"aud": "any"}), None, None),
            (json!({"customer_ids": null, "contract_owner_ids": null, "nbf": null}), None, None),
            (json!({"customer_ids": [17, "4", 9]}), Some(vec![4, 9, 17]), None),
            (json!({"customer_ids": [], "contract_owner_ids": ["1"]}), Some(vec![]), Some(vec![1])),
            (json!({"exp": now() - 20, "nbf": now() + 20}), None, None),
        ] {
            let grant = Grant { customers, contract_owners: owners };
            assert_eq!(judged(&claims(&more)), Ok(grant), "{more}");
        }
    }

    #[test]
    fn bad_tokens_are_told_apart() {
        for (more, message) in [
            (json!({"exp": now() - 40}), "token: has expired (exp)"),
            (json!({"nbf": now() + 40}), "token: is not good yet (nbf)"),
            (json!({"exp": null}), "token: a claim is of another shape than it must have"),
            (json!({"exp": "soon"}), "token: a claim is of another shape than it must have"),
            (json!({"nbf": "soon"}), "token: a claim is of another shape than it must have"),
            (json!({"scope": ["balances:read"]}), "token: a claim is of another shape than it must have"),
            (json!({"customer_ids": 17}), "token: a claim is of another shape than it must have"),
            (json!({"customer_ids": "17"}), "token: a claim is of another shape than it must have"),
            (json!({"customer_ids": [1.5]}), "token: a claim is of another shape than it must have"),
            (json!({"customer_ids": [-1]}), "token: a claim is of another shape than it must have"),
            (json!({"customer_ids": ["x"]}), "token: a claim is of another shape than it must have"),
            (json!({"customer_ids": [null]}), "token: a claim is of another shape than it must have"),
        ] {
            let refused = judged(&claims(&more)).expect_err("bad");
            assert_eq!(refused, Refused::Unauthorized(message.to_owned()), "{more}");
        }
        let list = judged(&json!([now() + 3600, null, null, "balances:read", null, null])).expect_err("bad");
        assert_eq!(list, Refused::Unauthorized("token: a claim is of another shape than it must have".to_owned()));
        for scope in [json!(null), json!(""), json!("balances:readx"), json!("BALANCES:READ")] {
            let refused = judged(&claims(&json!({"scope": scope}))).expect_err("bad");
            assert!(matches!(refused, Refused::Forbidden(_)), "{scope}: {refused:?}");
        }
    }

    #[test]
    fn another_key_algorithm_audience_or_issuer_is_bad() {
        let keys = Keys::hs256(SECRET, Some("portal"), Some("idp"));
        let judge = |claims: &Value, algorithm, secret: &str| {
            judge(&keys, Some(format!("Bearer {}", token(claims, algorithm, secret)).as_bytes()))
        };
        let good = claims(&json!({"aud": ["portal", "x"], "iss": "idp"}));
        assert_eq!(judge(&good, Algorithm::HS256, SECRET), Ok(Grant::default()));
        assert!(judge(&good, Algorithm::HS384, SECRET).is_err());
        assert!(judge(&good, Algorithm::HS256, "another").is_err());
        for bad in [
            json!({"aud": "x", "iss": "idp"}),
            json!({"aud": "portal", "iss": "x"}),
            json!({"aud": "portal", "iss": ["idp", "x"]}),
            json!({}),
        ] {
            assert!(judge(&claims(&bad), Algorithm::HS256, SECRET).is_err(), "{bad}");
        }
    }

    #[test]
    fn no_algorithm_and_no_token_are_bad() {
        let keys = Keys::hs256(SECRET, None, None);
        // {"alg":"none","typ":"JWT"} . {"exp":99999999999,"scope":"balances:read"} .
        let none =
            "Bearer eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJleHAiOjk5OTk5OTk5OTk5LCJzY29wZSI6ImJhbGFuY2VzOnJlYWQifQ.";
        for header in
            [None, Some(none), Some(""), Some("Bearer"), Some("Bearer "), Some("Basic x"), Some("Bearer a.b.c")]
        {
            let refused = judge(&keys, header.map(str::as_bytes)).expect_err("bad");
            assert!(matches!(refused, Refused::Unauthorized(_)), "{header:?}");
        }
        assert!(judge(&keys, Some(b"Bearer \xff")).is_err());
    }
}
