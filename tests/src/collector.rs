//! An OpenTelemetry collector that keeps what it is sent, as far as tests need one.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

/// It listens until the test ends.
pub struct Collector {
    url: String,
    received: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
}

impl Collector {
    /// Starts one at a free port of this machine.
    ///
    /// # Panics
    /// When there is none.
    pub fn start() -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let received = Arc::default();
        let keep = Arc::clone(&received);
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let keep = Arc::clone(&keep);
                std::thread::spawn(move || answer(&connection, &keep));
            }
        });
        Collector { url, received }
    }

    /// Where it listens, as `OTEL_EXPORTER_OTLP_ENDPOINT` names it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The spans that it was sent until now.
    pub fn spans(&self) -> Vec<Span> {
        let received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        let resources = received.iter().flat_map(|request| &request.resource_spans);
        resources.flat_map(|of| &of.scope_spans).flat_map(|scope| scope.spans.clone()).collect()
    }

    /// An attribute of the server that sent them.
    pub fn resource(&self, key: &str) -> Option<String> {
        let received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        let resource = received.first()?.resource_spans.first()?.resource.clone()?;
        attribute(&resource.attributes, key)
    }
}

/// An attribute as text.
pub fn attribute(attributes: &[KeyValue], key: &str) -> Option<String> {
    let value = attributes.iter().find(|attribute| attribute.key == key)?.value.clone()?.value?;
    Some(match value {
        any_value::Value::StringValue(text) => text,
        any_value::Value::IntValue(number) => number.to_string(),
        any_value::Value::DoubleValue(number) => number.to_string(),
        other => format!("{other:?}"),
    })
}

/// Reads requests, one after another, and keeps what is in them.
fn answer(mut connection: &TcpStream, keep: &Mutex<Vec<ExportTraceServiceRequest>>) {
    let mut from = BufReader::new(connection);
    loop {
        let (mut line, mut length) = (String::new(), 0);
        if from.read_line(&mut line).is_err() || !line.starts_with("POST /v1/traces ") {
            return;
        }
        while line != "\r\n" {
            line.clear();
            if from.read_line(&mut line).is_err() || line.is_empty() {
                return;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        let mut body = vec![0; length];
        if from.read_exact(&mut body).is_err() {
            return;
        }
        let request =
            ExportTraceServiceRequest::decode(body.as_slice()).expect("it is what the protocol says");
        keep.lock().unwrap_or_else(PoisonError::into_inner).push(request);
        let answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
        if connection.write_all(answer).is_err() {
            return;
        }
    }
}
