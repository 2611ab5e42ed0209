//! The client of the SDK: connections, credentials, retries and timeouts.

use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_config::environment::region::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{
    Builder, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation, RuntimeComponents,
    SharedHttpClient, StalledStreamProtectionConfig,
};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder as HttpBuilder, Connector};

use super::super::ObjectError;
use super::config::S3Config;

/// What a server of one's own is told that asks for no region.
const REGION: &str = "us-east-1";

/// How long a connection is kept that nobody uses: less than the servers and balancers that close them.
const IDLE: Duration = Duration::from_secs(20);

/// First and longest wait before a request is sent again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));

/// A client, and a name of the server for messages.
pub(super) async fn connect(config: &S3Config) -> Result<(Client, String), ObjectError> {
    config.check()?;
    let http = http_client()?;
    let endpoint = config.endpoint_url.clone().or_else(|| {
        ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"].iter().find_map(|name| std::env::var(name).ok())
    });
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .region(regions(config, endpoint.is_some()))
        .retry_config(
            RetryConfig::standard()
                .with_max_attempts(config.attempts)
                .with_initial_backoff(BACKOFF.0)
                .with_max_backoff(BACKOFF.1),
        )
        .timeout_config(TimeoutConfig::builder().connect_timeout(config.connect_timeout).build())
        // Every call has a deadline, which also ends a stream that stands still.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        // What is stored proves itself; and checksums in trailers are what other servers stumble over.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    if let Some(profile) = &config.profile {
        loader = loader.profile_name(profile);
    }
    if config.anonymous {
        loader = loader.no_credentials();
    }
    if let Some(keys) = &config.credentials {
        let token = keys.session_token.clone();
        loader = loader.credentials_provider(Credentials::new(
            &keys.access_key_id,
            &keys.secret,
            token,
            None,
            "given",
        ));
    }
    let shared = loader.load().await;
    let endpoint = endpoint.or_else(|| shared.endpoint_url().map(str::to_owned));
    let path_style = config.path_style.unwrap_or(endpoint.is_some());
    let mut builder = Builder::from(&shared).force_path_style(path_style);
    if let Some(url) = &endpoint {
        builder = builder.endpoint_url(url);
    }
    let region = shared.region().map_or(REGION, Region::as_ref);
    let server = endpoint.unwrap_or_else(|| format!("S3 in {region}"));
    Ok((Client::from_conf(builder.build()), server))
}

/// The region: the one that was named, the environment's, the profile's, and only on AWS the instance's, since asking
/// for that takes seconds where there is none.
fn regions(config: &S3Config, has_endpoint: bool) -> RegionProviderChain {
    let named = RegionProviderChain::first_try(config.region.clone().map(Region::new));
    if !has_endpoint && config.profile.is_none() {
        return named.or_default_provider().or_else(Region::new(REGION));
    }
    let mut profile = ProfileFileRegionProvider::builder();
    if let Some(name) = &config.profile {
        profile = profile.profile_name(name);
    }
    named
        .or_else(EnvironmentVariableRegionProvider::new())
        .or_else(profile.build())
        .or_else(Region::new(REGION))
}

/// Connections with the system's certificates, and with those of `AWS_CA_BUNDLE`.
fn http_client() -> Result<SharedHttpClient, ObjectError> {
    let mut trusted = TrustStore::default();
    if let Some(path) = std::env::var_os("AWS_CA_BUNDLE").filter(|path| !path.is_empty()) {
        let pem = std::fs::read(&path).map_err(|error| ObjectError::Invalid {
            detail: format!("cannot read AWS_CA_BUNDLE={}: {error}", path.display()),
        })?;
        trusted.add_pem_certificate(pem);
    }
    let tls = TlsContext::builder()
        .with_trust_store(trusted)
        .build()
        .map_err(|error| ObjectError::Invalid { detail: format!("cannot set up TLS: {error}") })?;
    let client = HttpBuilder::new().build_with_connector_fn(move |settings, components| {
        let mut connector =
            Connector::builder().pool_idle_timeout(IDLE).proxy_config(ProxyConfig::from_env());
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
        connector.tls_provider(Provider::Rustls(CryptoMode::Ring)).tls_context(tls.clone()).build()
    });
    Ok(client)
}
