//! The keys in use: a secret that stays, or a JWKS from a file or the web that is read again from time to time and when a
//! token names a key that is not in it. The last good set is kept when that fails.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{info, warn};

use super::fetch::Fetcher;
use super::keyset::KeySet;
use crate::telemetry::Health;

/// The name of the part in `/health/ready`.
const PART: &str = "keys";
/// How often a set is read without a cause: a key that was withdrawn is good no longer than that.
const AGAIN: Duration = Duration::from_secs(300);
/// How often it is tried while there is no set at all.
const RETRY: Duration = Duration::from_secs(5);
/// How often tokens that name unknown keys may have it read: anyone can make such a token.
const LEAST: Duration = Duration::from_secs(10);
/// How long a request waits for that.
const PATIENCE: Duration = Duration::from_secs(6);

/// Where a JWKS is.
pub(super) enum Origin {
    /// A file.
    File(PathBuf),
    /// The web.
    Web(Fetcher),
}

/// The keys in use.
pub(super) struct Source {
    origin: Option<Origin>,
    /// What was read last, and how often it was tried: a request that waits for a try sees that it ended.
    state: watch::Sender<State>,
    /// Rung by a request that met an unknown key.
    bell: Notify,
}

#[derive(Clone, Default)]
struct State {
    keys: Option<Arc<KeySet>>,
    tries: u64,
    /// Before that, no request may have it read again.
    rested: Option<Instant>,
}

impl Source {
    /// Keys that stay.
    pub(super) fn fixed(keys: KeySet) -> Source {
        Source::with(None, Some(keys))
    }

    /// The keys of a file, which is read at once.
    pub(super) fn file(path: PathBuf) -> Result<Source, String> {
        let origin = Origin::File(path);
        let keys = origin.read()?;
        Ok(Source::with(Some(origin), Some(keys)))
    }

    /// The keys of an address, which is first read when [`Source::keep`] begins.
    pub(super) fn web(fetcher: Fetcher) -> Source {
        Source::with(Some(Origin::Web(fetcher)), None)
    }

    fn with(origin: Option<Origin>, keys: Option<KeySet>) -> Source {
        let state = State { keys: keys.map(Arc::new), ..State::default() };
        Source { origin, state: watch::Sender::new(state), bell: Notify::new() }
    }

    /// The keys for a token that names this key, if it names one: read anew if it is unknown and that may be. `None`
    /// when there are no keys yet.
    pub(super) async fn keys(&self, id: Option<&str>) -> Option<Arc<KeySet>> {
        let keys = self.state.borrow().keys.clone();
        let unknown = keys.as_ref().is_none_or(|keys| id.is_some_and(|id| !keys.knows(id)));
        if unknown { self.anew().await } else { keys }
    }

    /// The keys, read anew if that may be.
    pub(super) async fn anew(&self) -> Option<Arc<KeySet>> {
        let state = self.state.borrow().clone();
        if self.origin.is_none() || state.rested.is_some_and(|rested| Instant::now() < rested) {
            return state.keys;
        }
        let mut watched = self.state.subscribe();
        self.bell.notify_one();
        // Too late is as good as not at all: the set that there is answers.
        let _ = timeout(PATIENCE, watched.wait_for(|now| now.tries > state.tries)).await;
        self.state.borrow().keys.clone()
    }

    /// Keeps the set fresh, for ever.
    pub(super) async fn keep(self: Arc<Self>, health: Health) {
        if self.origin.is_none() {
            return std::future::pending().await;
        }
        if self.state.borrow().keys.is_some() {
            health.ok(PART);
            self.rest(AGAIN).await;
        } else {
            health.expect(PART);
        }
        loop {
            let source = self.clone();
            let reading = tokio::task::spawn_blocking(move || source.origin.as_ref().map(Origin::read));
            let read = reading.await.unwrap_or_else(|panic| Some(Err(format!("the keys were not read: {panic}"))));
            let there = self.state.borrow().keys.is_some();
            match &read {
                Some(Ok(_)) if !there => info!("keys: read"),
                Some(Err(line)) if there => warn!("{line}; the keys read before stay in use"),
                Some(Err(line)) => {
                    warn!("{line}; tokens cannot be checked until it is read");
                    health.fault(PART, line);
                }
                _ => {}
            }
            self.state.send_modify(|state| {
                if let Some(Ok(keys)) = read {
                    state.keys = Some(Arc::new(keys));
                }
                state.tries += 1;
                state.rested = Some(Instant::now() + if state.keys.is_some() { LEAST } else { RETRY });
            });
            // Whoever rang for what was just read needs no further try.
            let _ = self.bell.notified().now_or_never();
            if self.state.borrow().keys.is_some() {
                health.ok(PART);
                sleep(LEAST).await;
                self.rest(AGAIN).await;
            } else {
                sleep(RETRY).await;
            }
        }
    }

    /// Waits for its time, or for a request that met an unknown key.
    async fn rest(&self, time: Duration) {
        tokio::select! {
            () = sleep_until(Instant::now() + time) => {}
            () = self.bell.notified() => {}
        }
    }
}

impl Origin {
    /// Reads the set, on a thread that may wait. The error is one line.
    fn read(&self) -> Result<KeySet, String> {
        match self {
            Origin::File(path) => {
                let text = std::fs::read(path).map_err(|error| format!("auth.jwks_file: {}: {error}", path.display()));
                KeySet::read(&text?).map_err(|why| format!("auth.jwks_file: {} {why}", path.display()))
            }
            Origin::Web(fetcher) => {
                let text = fetcher.fetch().map_err(|why| format!("auth.jwks_url: {}: {why}", fetcher.shown()))?;
                KeySet::read(&text).map_err(|why| format!("auth.jwks_url: {} {why}", fetcher.shown()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{LazyLock, Mutex};

    use jsonwebtoken::jwk::Jwk;
    use jsonwebtoken::{Algorithm, EncodingKey, Header};
    use serde_json::{Value, json};

    use super::*;
    use crate::config::WebUrl;
    use crate::http::answer::Refused;
    use crate::http::auth::Keys;

    /// A key pair of each kind, made once: (algorithm, the key that signs).
    static PAIRS: LazyLock<Vec<(Algorithm, EncodingKey)>> = LazyLock::new(|| {
        use p256::pkcs8::EncodePrivateKey as _;
        use rsa::pkcs1::EncodeRsaPrivateKey as _;
        let mut random = rand_core::OsRng;
        let rsa = rsa::RsaPrivateKey::new(&mut random, 2048).expect("a key").to_pkcs1_der().expect("DER");
        let rsa = EncodingKey::from_rsa_der(rsa.as_bytes());
        let ec = p256::SecretKey::random(&mut random).to_pkcs8_der().expect("DER");
        let secret_key = ed25519_dalek::SigningKey::generate(&mut random).to_bytes();
        let ed = ed25519_dalek::pkcs8::KeypairBytes { secret_key, public_key: None }.to_pkcs8_der().expect("DER");
        vec![
            (Algorithm::RS256, rsa.clone()),
            (Algorithm::PS256, rsa),
            (Algorithm::ES256, EncodingKey::from_ec_der(ec.as_bytes())),
            (Algorithm::EdDSA, EncodingKey::from_ed_der(ed.as_bytes())),
        ]
    });

    fn signing(algorithm: Algorithm) -> &'static EncodingKey {
        &PAIRS.iter().find(|(of, _)| *of == algorithm).expect("a pair").1
    }

    fn public(algorithm: Algorithm, more: &Value) -> Value {
        let jwk = Jwk::from_encoding_key(signing(algorithm), algorithm).expect("a public key");
        let mut jwk = serde_json::to_value(jwk).expect("JSON");
        for (name, value) in more.as_object().expect("an object") {
            jwk[name] = value.clone();
        }
        jwk
    }

    fn set(keys: &[Value]) -> String {
        json!({"keys": keys}).to_string()
    }

    fn bearer(header: &Header, key: &EncodingKey) -> String {
        let claims = json!({"exp": jsonwebtoken::get_current_timestamp() + 600, "scope": "balances:read"});
        format!("Bearer {}", jsonwebtoken::encode(header, &claims, key).expect("plain claims"))
    }

    fn signed(algorithm: Algorithm, id: Option<&str>) -> String {
        bearer(&Header { kid: id.map(str::to_owned), ..Header::new(algorithm) }, signing(algorithm))
    }

    async fn is_good(keys: &Keys, token: &str) -> bool {
        match keys.judge(Some(token.as_bytes())).await {
            Ok(_) => true,
            Err(Refused::Unauthorized(_)) => false,
            Err(other) => panic!("{other:?}"),
        }
    }

    fn of_file(text: &str) -> (Keys, tempfile::NamedTempFile) {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("written");
        (Keys::jwks_file(file.path().to_str().expect("text"), None, None).expect("a good set"), file)
    }

    // Paused: a request waits for keys to be read anew, and nobody does that here.
    #[tokio::test(start_paused = true)]
    async fn each_algorithm_is_good_with_its_own_key_only() {
        let all: Vec<Value> =
            PAIRS.iter().map(|(algorithm, _)| public(*algorithm, &json!({"kid": format!("{algorithm:?}")}))).collect();
        let (together, _file) = of_file(&set(&all));
        for (algorithm, key) in PAIRS.iter() {
            let id = format!("{algorithm:?}");
            assert!(is_good(&together, &signed(*algorithm, Some(&id))).await, "{id}");
            assert!(is_good(&together, &signed(*algorithm, None)).await, "{id} without kid");
            assert!(!is_good(&together, &signed(*algorithm, Some("another"))).await, "{id} with another kid");
            let mut changed = signed(*algorithm, Some(&id));
            let end = changed.split_off(changed.len() - 20);
            changed.push_str(&end.chars().rev().collect::<String>());
            assert!(!is_good(&together, &changed).await, "{id} with another signature");
            let critical = Header { crit: Some(vec!["x".to_owned()]), ..Header::new(*algorithm) };
            assert!(!is_good(&together, &bearer(&critical, key)).await, "{id} with crit");

            let (alone, _file) = of_file(&set(&[public(*algorithm, &json!({"kid": "k"}))]));
            for (other, _) in PAIRS.iter() {
                let same = other == algorithm;
                assert_eq!(is_good(&alone, &signed(*other, Some("k"))).await, same, "{other:?} for {algorithm:?}");
                assert_eq!(is_good(&alone, &signed(*other, None)).await, same, "{other:?} for {algorithm:?}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_public_key_is_no_secret() {
        let key = public(Algorithm::RS256, &json!({"kid": "k"}));
        let (keys, _file) =
            of_file(&set(&[key.clone(), json!({"kty": "oct", "alg": "HS256", "kid": "s", "k": "c2VjcmV0"})]));
        let modulus = key["n"].as_str().expect("text");
        for (id, secret) in
            [(Some("k"), modulus.as_bytes()), (None, modulus.as_bytes()), (Some("s"), b"secret"), (None, b"secret")]
        {
            let header = Header { kid: id.map(str::to_owned), ..Header::new(Algorithm::HS256) };
            assert!(!is_good(&keys, &bearer(&header, &EncodingKey::from_secret(secret))).await, "{id:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_broken_key_beside_a_good_one_does_no_harm() {
        let broken = |more| public(Algorithm::ES256, &more);
        let (keys, _file) = of_file(&set(&[
            broken(json!({"x": "AAAA"})),
            broken(json!({"x": "_".repeat(43)})),
            json!({"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}),
            json!({"kty": "RSA", "n": "A".repeat(342), "e": "AA"}),
            public(Algorithm::ES256, &json!({})),
            public(Algorithm::EdDSA, &json!({})),
            public(Algorithm::RS256, &json!({})),
        ]));
        for algorithm in [Algorithm::ES256, Algorithm::EdDSA, Algorithm::RS256] {
            assert!(is_good(&keys, &signed(algorithm, None)).await, "{algorithm:?}");
        }
    }

    #[test]
    fn a_bad_file_is_one_line() {
        let missing = Keys::jwks_file("/nowhere/jwks.json", None, None).err().unwrap_or_default();
        assert_eq!(missing, "auth.jwks_file: /nowhere/jwks.json: No such file or directory (os error 2)");
    }

    /// What an address answers with, how often it was asked, and the address.
    struct Web {
        answer: Arc<Mutex<(u16, String)>>,
        asked: Arc<AtomicUsize>,
        url: String,
    }

    impl Web {
        fn open(status: u16, text: String) -> Web {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
            let url = format!("http://user:s3cret@{}/jwks.json", listener.local_addr().expect("an address"));
            let web = Web { answer: Arc::new(Mutex::new((status, text))), asked: Arc::default(), url };
            let (answer, asked) = (web.answer.clone(), web.asked.clone());
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let mut stream = stream.expect("a connection");
                    let lines = BufReader::new(stream.try_clone().expect("a handle")).lines();
                    for line in lines {
                        if line.expect("text").is_empty() {
                            break;
                        }
                    }
                    asked.fetch_add(1, Ordering::SeqCst);
                    let (status, text) = answer.lock().expect("whole").clone();
                    let head =
                        format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", text.len());
                    // A client that has read enough may be gone.
                    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(text.as_bytes()));
                }
            });
            web
        }

        fn answer(&self, status: u16, text: String) {
            *self.answer.lock().expect("whole") = (status, text);
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::SeqCst)
        }

        fn keys(&self) -> (Keys, Health) {
            let keys = Keys::jwks_url(&WebUrl::try_from(self.url.clone()).expect("an address"), None, None);
            let health = Health::new();
            tokio::spawn(keys.clone().keep(health.clone()));
            (keys, health)
        }
    }

    fn of(id: &str) -> String {
        set(&[public(Algorithm::ES256, &json!({"kid": id}))])
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_key_is_fetched_when_it_shows_up_but_not_at_will() {
        let web = Web::open(200, of("one"));
        let (keys, health) = web.keys();
        assert!(is_good(&keys, &signed(Algorithm::ES256, Some("one"))).await);
        assert_eq!((web.asked(), health.is_ready()), (1, true));

        web.answer(200, of("two"));
        assert!(!is_good(&keys, &signed(Algorithm::ES256, Some("two"))).await, "too soon after the last time");
        assert_eq!(web.asked(), 1);
        tokio::time::sleep(LEAST * 2).await;
        assert_eq!(web.asked(), 1, "nobody asks without a cause");
        assert!(is_good(&keys, &signed(Algorithm::ES256, Some("two"))).await);
        assert!(!is_good(&keys, &signed(Algorithm::ES256, Some("one"))).await, "the withdrawn key");
        for made_up in 0..100 {
            assert!(!is_good(&keys, &signed(Algorithm::ES256, Some(&made_up.to_string()))).await);
        }
        assert_eq!(web.asked(), 2);
        tokio::time::sleep(AGAIN * 2).await;
        assert!(web.asked() > 2, "a set is read again without a cause too");
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_key_shows_up_beside_keys_without_ids_too() {
        let web = Web::open(200, set(&[public(Algorithm::EdDSA, &json!({}))]));
        let (keys, _health) = web.keys();
        assert!(is_good(&keys, &signed(Algorithm::EdDSA, Some("any"))).await);
        tokio::time::sleep(LEAST * 2).await;
        web.answer(200, of("new"));
        assert!(is_good(&keys, &signed(Algorithm::ES256, Some("new"))).await);
        assert!(!is_good(&keys, &signed(Algorithm::EdDSA, None)).await, "the withdrawn key");
        assert_eq!(web.asked(), 2, "one try served both");

        tokio::time::sleep(LEAST * 2).await;
        web.answer(200, set(&[public(Algorithm::EdDSA, &json!({}))]));
        assert!(is_good(&keys, &signed(Algorithm::EdDSA, None)).await, "a token without an id has it read too");
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_good_set_is_kept() {
        let web = Web::open(200, of("one"));
        let (keys, health) = web.keys();
        assert!(is_good(&keys, &signed(Algorithm::ES256, Some("one"))).await);
        for (status, text) in [(500, of("two")), (200, "[]".to_owned()), (200, " ".repeat(2 * 1024 * 1024))] {
            web.answer(status, text);
            let before = web.asked();
            tokio::time::sleep(LEAST * 2).await;
            assert!(!is_good(&keys, &signed(Algorithm::ES256, Some("two"))).await);
            assert!(web.asked() > before);
            assert!(is_good(&keys, &signed(Algorithm::ES256, Some("one"))).await);
            assert!(health.is_ready());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_any_set_it_says_so_until_there_is_one() {
        let web = Web::open(404, String::new());
        let (keys, health) = web.keys();
        let token = signed(Algorithm::ES256, Some("one"));
        let refused = keys.judge(Some(token.as_bytes())).await.expect_err("no keys");
        assert!(matches!(refused, Refused::Unavailable(_)), "{refused:?}");
        let fault = health.parts()[PART].clone().unwrap_or_default();
        assert!(fault.starts_with("auth.jwks_url: http://user:[redacted]@127.0.0.1:"), "{fault}");
        assert!(fault.ends_with("/jwks.json: answers with status 404"), "{fault}");
        assert!(matches!(keys.judge(None).await, Err(Refused::Unauthorized(_))), "no token is told first");

        web.answer(200, of("one"));
        tokio::time::sleep(RETRY * 2).await;
        assert!(is_good(&keys, &token).await);
        assert!(health.is_ready());
    }
}
