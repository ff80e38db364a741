//! One small document from the web, within bounds of time and size.

use std::sync::Arc;
use std::time::Duration;

use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};

/// How long a whole fetch may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The most bytes of the document.
const MOST_BYTES: u64 = 1024 * 1024;
/// How often it may be elsewhere.
const REDIRECTS: u32 = 3;

/// Fetches from one address.
pub(super) struct Fetcher {
    url: String,
    shown: String,
    agent: Agent,
}

impl Fetcher {
    /// For an address, and how it may be shown: without its password.
    pub(super) fn new(url: &str, shown: String) -> Fetcher {
        // The machine's own authorities, so that a company's own one is added where all programs look for it.
        let roots = rustls_native_certs::load_native_certs().certs;
        let roots = roots.iter().map(|root| Certificate::from_der(root.as_ref()).to_owned());
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .root_certs(RootCerts::from(roots))
            .build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            // A redirect must not leave TLS.
            .https_only(url.starts_with("https://"))
            .max_redirects(REDIRECTS)
            .timeout_global(Some(TIMEOUT))
            .user_agent(concat!("headroom/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Fetcher { url: url.to_owned(), shown, agent }
    }

    /// The address as it may be shown.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// Fetches it, on a thread that may wait.
    pub(super) fn fetch(&self) -> Result<Vec<u8>, String> {
        let mut answer = self.agent.get(&self.url).call().map_err(|error| told(&error))?;
        answer.body_mut().with_config().limit(MOST_BYTES).read_to_vec().map_err(|error| told(&error))
    }
}

/// What went wrong, without the address, which may hold a password.
fn told(error: &ureq::Error) -> String {
    match error {
        ureq::Error::StatusCode(code) => format!("answers with status {code}"),
        ureq::Error::BadUri(_) => "is no address that can be fetched".to_owned(),
        ureq::Error::BodyExceedsLimit(_) => format!("has more than {MOST_BYTES} bytes"),
        ureq::Error::RequireHttpsOnly(_) => "leads from https:// to http://".to_owned(),
        ureq::Error::Timeout(_) => format!("does not answer within {TIMEOUT:?}"),
        other => format!("cannot be fetched: {other}"),
    }
}
