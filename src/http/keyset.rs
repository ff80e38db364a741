//! Which keys are good for tokens, and for which algorithm each: a secret, or a JWKS (RFC 7517).

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Header};
use serde::Deserialize;
use serde_json::Value;

/// The most keys of a set: a token without `kid` is tried with each key of its algorithm.
const MOST_KEYS: usize = 100;
/// The shortest RSA modulus, in base64url characters: 2048 bits (RFC 7518, 3.3).
const SHORTEST_MODULUS: usize = 342;
/// A number of 32 bytes in base64url characters: a coordinate of P-256, a key of Ed25519 (RFC 7518, 6.2; RFC 8037, 2).
const NUMBER: usize = 43;

/// Keys that tokens may be signed with.
#[derive(Clone)]
pub(super) struct KeySet(Vec<Key>);

/// A key, with the one algorithm that it is for: a token cannot choose another for it.
#[derive(Clone)]
struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

/// A JWKS; what else stands beside `keys` is for others.
#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

impl KeySet {
    /// The one key of a secret.
    pub(super) fn hs256(secret: &str) -> KeySet {
        KeySet(vec![Key { id: None, algorithm: Algorithm::HS256, key: DecodingKey::from_secret(secret.as_bytes()) }])
    }

    /// The keys of a JWKS that can check a signature here. Others are passed over, as RFC 7517 wants: a set may be used
    /// by many. The error is a sentence without the thing's name.
    pub(super) fn read(text: &[u8]) -> Result<KeySet, String> {
        let document: Document = serde_json::from_slice(text).map_err(|error| format!("is no JWKS: {error}"))?;
        let given = document.keys.len();
        if given > MOST_KEYS {
            return Err(format!("has {given} keys; {MOST_KEYS} are the most"));
        }
        let keys: Vec<Key> = document.keys.into_iter().filter_map(usable).collect();
        if keys.is_empty() {
            return Err(format!("has no key for signatures by RS256, PS256, ES256 or EdDSA among its {given}"));
        }
        Ok(KeySet(keys))
    }

    /// Whether a token's `kid` is one of these; a set of keys without ids knows them all.
    pub(super) fn knows(&self, id: &str) -> bool {
        let nameless = self.0.iter().all(|key| key.id.is_none());
        nameless || self.0.iter().any(|key| key.id.as_deref() == Some(id))
    }

    /// Whether a token's `kid` is the very one of a key here, so that no key read anew would do better.
    pub(super) fn names(&self, id: Option<&str>) -> bool {
        id.is_some() && self.0.iter().any(|key| key.id.as_deref() == id)
    }

    /// The keys that a token can be signed with: those of its algorithm, and of its `kid` where both have one.
    pub(super) fn fitting<'a>(&'a self, header: &'a Header) -> impl Iterator<Item = &'a DecodingKey> {
        let same = |own: Option<&str>, wanted: Option<&str>| own.zip(wanted).is_none_or(|(own, wanted)| own == wanted);
        let fits = move |key: &&Key| key.algorithm == header.alg && same(key.id.as_deref(), header.kid.as_deref());
        self.0.iter().filter(fits).map(|key| &key.key)
    }
}

/// A key of a JWKS, if it is for signatures by an algorithm that is taken here.
fn usable(value: Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    let common = &jwk.common;
    let signs = common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature)
        && common.key_operations.as_ref().is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    let algorithm = own_algorithm(&jwk)?;
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    signs.then_some(Key { id: jwk.common.key_id, algorithm, key })
}

/// The algorithm of a key. An RSA key that names none is for RS256, as those who leave it out mean it. A symmetric key
/// in a JWKS is never taken: who may read the set could sign with it.
fn own_algorithm(jwk: &Jwk) -> Option<Algorithm> {
    let named = jwk.common.key_algorithm;
    match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) if rsa.n.len() >= SHORTEST_MODULUS => match named {
            None | Some(KeyAlgorithm::RS256) => Some(Algorithm::RS256),
            Some(KeyAlgorithm::PS256) => Some(Algorithm::PS256),
            Some(_) => None,
        },
        // A shorter number makes the library panic when it checks a signature.
        AlgorithmParameters::EllipticCurve(ec)
            if ec.curve == EllipticCurve::P256 && [&ec.x, &ec.y].iter().all(|number| number.len() == NUMBER) =>
        {
            named.is_none_or(|named| named == KeyAlgorithm::ES256).then_some(Algorithm::ES256)
        }
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 && pair.x.len() == NUMBER => {
            named.is_none_or(|named| named == KeyAlgorithm::EdDSA).then_some(Algorithm::EdDSA)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rsa(more: &Value) -> Value {
        let mut key = json!({"kty": "RSA", "n": format!("{}w", "z".repeat(341)), "e": "AQAB"});
        for (name, value) in more.as_object().expect("an object") {
            key[name] = value.clone();
        }
        key
    }

    fn algorithms(keys: &Value) -> Vec<Algorithm> {
        let set = KeySet::read(json!({"keys": keys, "more": 1}).to_string().as_bytes());
        set.map(|set| set.0.iter().map(|key| key.algorithm).collect()).unwrap_or_default()
    }

    #[test]
    fn a_key_has_one_algorithm_or_is_passed_over() {
        let point = "A".repeat(43);
        let ec = |more: Value| {
            let mut key = json!({"kty": "EC", "crv": "P-256", "x": point, "y": point});
            for (name, value) in more.as_object().expect("an object") {
                key[name] = value.clone();
            }
            key
        };
        for (key, algorithm) in [
            (rsa(&json!({})), Some(Algorithm::RS256)),
            (rsa(&json!({"alg": "RS256", "use": "sig"})), Some(Algorithm::RS256)),
            (rsa(&json!({"alg": "PS256", "key_ops": ["verify"]})), Some(Algorithm::PS256)),
            (rsa(&json!({"alg": "RS384"})), None),
            (rsa(&json!({"alg": "HS256"})), None),
            (rsa(&json!({"alg": "RSA-OAEP"})), None),
            (rsa(&json!({"use": "enc"})), None),
            (rsa(&json!({"use": 1})), None),
            (rsa(&json!({"key_ops": ["encrypt"]})), None),
            (rsa(&json!({"n": "z".repeat(171)})), None),
            (rsa(&json!({"n": "!".repeat(342)})), None),
            (ec(json!({})), Some(Algorithm::ES256)),
            (ec(json!({"alg": "ES256"})), Some(Algorithm::ES256)),
            (ec(json!({"alg": "ES384"})), None),
            (ec(json!({"crv": "P-384"})), None),
            (json!({"kty": "OKP", "crv": "Ed25519", "x": point}), Some(Algorithm::EdDSA)),
            (ec(json!({"x": "AAAA"})), None),
            (json!({"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}), None),
            (json!({"kty": "OKP", "crv": "P-256", "x": point}), None),
            (json!({"kty": "OKP", "crv": "X25519", "x": point}), None),
            (json!({"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}), None),
            (json!({"kty": "AKP"}), None),
            (json!("key"), None),
        ] {
            let beside = json!([key, rsa(&json!({"kid": "beside"}))]);
            let expected: Vec<Algorithm> = algorithm.into_iter().chain([Algorithm::RS256]).collect();
            assert_eq!(algorithms(&beside), expected, "{key}");
        }
    }

    #[test]
    fn a_key_without_an_id_beside_others_hides_no_new_one() {
        let set = |keys: Value| KeySet::read(json!({"keys": keys}).to_string().as_bytes()).expect("a set");
        assert!(set(json!([rsa(&json!({}))])).knows("b"));
        let mixed = set(json!([rsa(&json!({})), rsa(&json!({"kid": "a"}))]));
        assert!(mixed.knows("a") && !mixed.knows("b"));
    }

    #[test]
    fn what_is_no_set_is_told() {
        let many = json!({"keys": vec![rsa(&json!({})); 101]}).to_string();
        for (text, told) in [
            ("", "is no JWKS: EOF"),
            ("[]", "is no JWKS: "),
            ("{\"keys\": 1}", "is no JWKS: "),
            ("{}", "is no JWKS: missing field `keys`"),
            ("{\"keys\": []}", "has no key for signatures by RS256, PS256, ES256 or EdDSA among its 0"),
            (many.as_str(), "has 101 keys; 100 are the most"),
        ] {
            let error = KeySet::read(text.as_bytes()).err().unwrap_or_default();
            assert!(error.starts_with(told), "{text}: {error}");
        }
    }
}
