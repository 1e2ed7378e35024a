//! The export of spans to an OpenTelemetry collector, over OTLP with protobuf over HTTP.
//!
//! OpenTelemetry's own variables configure it, and its SDK reads them: `OTEL_EXPORTER_OTLP_ENDPOINT` (without it, nothing is
//! exported), `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER`,
//! `OTEL_BSP_*` and others. A thread of its own sends, and requests never wait for it: what does not fit its queue is lost,
//! and the log says so, as it does of a collector that does not answer.

use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use anyhow::{Context, bail};
use axum::http::{HeaderMap, Method};
use opentelemetry::KeyValue;
pub(crate) use opentelemetry::Value;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{Span as _, SpanKind, Status, Tracer, TracerProvider};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_otlp::{SpanExporter, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use pba_client::ClientOptions;

use crate::sync::lock;
use crate::trace::collector::endpoint;

/// The one protocol that is spoken.
const PROTOCOL: &str = "http/protobuf";

static EXPORT: OnceLock<Export> = OnceLock::new();

struct Export {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// A span that has begun.
pub(super) struct Span(Mutex<opentelemetry_sdk::trace::Span>);

/// Starts to export, if the environment names a collector. Call it once, on a thread that may block.
///
/// # Errors
/// When the environment asks for what is not there, or a file of authorities cannot be read.
pub(crate) fn start() -> anyhow::Result<()> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let is_off = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
        || variable("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
    let Some(endpoint) = endpoint().filter(|_| !is_off) else { return Ok(()) };
    for name in ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] {
        if let Some(value) = variable(name).filter(|value| value != PROTOCOL) {
            bail!("{name}: {value:?} is not spoken; allowed is {PROTOCOL}");
        }
    }
    let ca = ["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"];
    let ca = ca.into_iter().find_map(variable).map(PathBuf::from);
    let trust = ClientOptions { ca, ..ClientOptions::default() }.trust(true)?;
    let client = reqwest::blocking::Client::builder().tls_backend_preconfigured(trust).build();
    let exporter = SpanExporter::builder().with_http().with_http_client(client?).build();
    let exporter = exporter.with_context(|| format!("the collector that {endpoint} names"))?;
    let resource =
        Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    let is_named = variable("OTEL_SERVICE_NAME").is_some()
        || variable("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|value| value.contains("service.name="));
    let resource = if is_named { resource } else { resource.with_service_name("pba") };
    let provider =
        SdkTracerProvider::builder().with_resource(resource.build()).with_batch_exporter(exporter).build();
    let tracer = provider.tracer("pba");
    let _ = EXPORT.set(Export { provider, tracer });
    tracing::info!(by = endpoint, "spans are exported");
    Ok(())
}

/// Exports what is not exported yet, and nothing after that.
pub(super) fn flush(timeout: Duration) {
    let Some(export) = EXPORT.get() else { return };
    if let Err(error) = export.provider.shutdown_with_timeout(timeout) {
        tracing::warn!(%error, "the last spans may be lost");
    }
}

impl Span {
    /// Begins the span of a request, and tells the id of its trace; none, if nothing is exported.
    pub(super) fn begin(headers: &HeaderMap, method: &Method, route: &str) -> Option<(Span, String)> {
        let Export { tracer, .. } = EXPORT.get()?;
        let parent = TraceContextPropagator::new().extract(&HeaderExtractor(headers));
        let span = tracer
            .span_builder(format!("{method} {route}"))
            .with_kind(SpanKind::Server)
            .with_attributes([
                KeyValue::new("http.request.method", method.to_string()),
                KeyValue::new("http.route", route.to_owned()),
            ])
            .start_with_context(tracer, &parent);
        let id = span.span_context().trace_id().to_string();
        Some((Span(Mutex::new(span)), id))
    }

    pub(super) fn set(&self, key: &'static str, value: Value) {
        lock(&self.0).set_attribute(KeyValue::new(key, value));
    }

    pub(super) fn fail(&self, reason: String) {
        lock(&self.0).set_status(Status::error(reason));
    }
}
