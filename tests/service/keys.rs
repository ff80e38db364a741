//! The keys of tokens over https: an authority of a company's own is trusted where all programs look for it, and one that
//! is not known is told of in one line.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;

use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};

use crate::certificates::{Authority, Signed};
use crate::deployment::{Deployment, until};

/// Answers each request with this, over TLS, and gives its address.
fn answering(signed: &Signed, body: String) -> String {
    let certificate = CertificateDer::from_pem_slice(signed.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(signed.key.as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = rustls::ServerConnection::new(config.clone()).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, stream.unwrap());
            // Who does not trust us hangs up.
            if stream.read(&mut [0; 4096]).is_ok() {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                let _ = stream.write_all((head + &body).as_bytes()).and_then(|()| stream.flush());
            }
        }
    });
    format!("https://localhost:{port}/jwks.json")
}

#[test]
fn keys_come_over_https_from_an_authority_of_ones_own() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, stranger) = (Authority::new(folder.path(), "authority"), Authority::new(folder.path(), "stranger"));
    let signing = EncodingKey::from_ec_der(&rcgen::KeyPair::generate().unwrap().serialize_der());
    let jwk = Jwk::from_encoding_key(&signing, Algorithm::ES256).unwrap();
    let url = answering(&authority.sign(), serde_json::to_string(&JwkSet { keys: vec![jwk] }).unwrap());
    let claims = json!({"exp": jsonwebtoken::get_current_timestamp() + 3600, "scope": "balances:read"});
    let token = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &signing).unwrap();

    let mut deployment = Deployment::new();
    deployment.environment.remove("HEADROOM_AUTH__HS256_SECRET");
    deployment.environment.insert("HEADROOM_AUTH__JWKS_URL".to_owned(), url.clone());
    let get = |url: String| {
        let request = ureq::get(url).header("Authorization", format!("Bearer {token}"));
        let mut answer = request.config().http_status_as_error(false).build().call().ok()?;
        Some((answer.status().as_u16(), answer.body_mut().read_to_string().unwrap()))
    };
    let query = || get(format!("http://{}/inclusive-usage-balances?page=1&pageSize=10", deployment.query));
    let keys = || -> Option<Value> {
        let (_, body) = get(format!("http://{}/health/ready", deployment.admin))?;
        serde_json::from_str::<Value>(&body).ok()?.pointer("/parts/keys").cloned()
    };
    for (trusted, status) in [(&stranger, 503), (&authority, 200)] {
        let mut reader = deployment.command(&["run", "--role", "reader"]);
        let mut running = reader.env("SSL_CERT_FILE", &trusted.file).spawn().map(crate::deployment::Running).unwrap();
        until("the keys were asked for", || keys().is_some_and(|keys| keys["message"] != "starting"));
        let told = keys().unwrap();
        if status == 503 {
            let line = told["message"].as_str().unwrap();
            assert!(line.starts_with(&format!("auth.jwks_url: {url}: ")) && line.contains("UnknownIssuer"), "{line}");
        } else {
            assert_eq!(told["status"], "ok");
        }
        assert_eq!(query().map(|(status, _)| status), Some(status));
        running.0.kill().unwrap();
        running.0.wait().unwrap();
    }
}
