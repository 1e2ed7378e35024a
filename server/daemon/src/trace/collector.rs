//! Where spans are exported to.

/// The variables that name a collector, by OpenTelemetry's specification; the second is for traces alone, and wins.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];

/// The variable that names a collector, if one does.
pub(super) fn endpoint() -> Option<&'static str> {
    let is_set = |name: &&&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    ENDPOINTS.iter().rev().find(is_set).copied()
}
