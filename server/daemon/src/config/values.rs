//! Values of settings, read and checked.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// Where a server listens unless it is told otherwise.
pub(super) const DEFAULT_ADDRESS: &str = "127.0.0.1:8080";
/// What stands in place of an address where there is to be none.
pub(super) const NO_ADDRESS: &str = "none";

/// The path of a dataset for every process, whatever its working directory: a trainer finds what is packed by it.
pub(super) fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("{path:?} is not a path"))
}

/// The value of a setting, or its default.
pub(super) fn within<T: PartialOrd + fmt::Display>(
    name: &str,
    value: Option<T>,
    default: T,
    range: RangeInclusive<T>,
) -> anyhow::Result<T> {
    let value = value.unwrap_or(default);
    let (min, max) = (range.start(), range.end());
    anyhow::ensure!(range.contains(&value), "{name}: {value} is out of range; allowed are {min}..={max}");
    Ok(value)
}

/// Reads an address to listen on, or that there is to be none.
pub(super) fn address(text: &str) -> anyhow::Result<Option<SocketAddr>> {
    if text == NO_ADDRESS {
        return Ok(None);
    }
    let address = text.parse().with_context(|| {
        format!(
            "listen: {text:?} is not an address; expected IP:PORT, such as {DEFAULT_ADDRESS}, or {NO_ADDRESS} beside a \
             socket"
        )
    });
    address.map(Some)
}

/// Checks that there is a key to a certificate, and a port for them.
pub(super) fn check_tls(
    tls_cert: Option<&Path>,
    tls_key: Option<&Path>,
    listen: Option<SocketAddr>,
) -> anyhow::Result<()> {
    let (given, missing) = match (tls_cert, tls_key) {
        (None, None) => return Ok(()),
        (Some(_), Some(_)) => {
            anyhow::ensure!(
                listen.is_some(),
                "tls_cert: with listen = {NO_ADDRESS:?} there is no port to speak TLS at; give it an address, such as \
                 {DEFAULT_ADDRESS}, or no certificate"
            );
            return Ok(());
        }
        (Some(cert), None) => (format!("tls_cert: {}", cert.display()), "tls_key"),
        (None, Some(key)) => (format!("tls_key: {}", key.display()), "tls_cert"),
    };
    let flag = missing.replace('_', "-");
    bail!("{given} is given without {missing}; TLS needs a certificate and its key: add --{flag} FILE")
}

/// Reads the further address for metrics.
pub(super) fn metrics_address(text: &str, listen: Option<SocketAddr>) -> anyhow::Result<SocketAddr> {
    let address: SocketAddr = text.parse().with_context(|| {
        format!("metrics_listen: {text:?} is not an address; expected IP:PORT, such as 127.0.0.1:9090")
    })?;
    anyhow::ensure!(
        address.port() == 0 || Some(address) != listen,
        "metrics_listen: {address} is the address of listen as well; choose another port"
    );
    Ok(address)
}

pub(super) fn address_or_none<S: serde::Serializer>(
    address: &Option<SocketAddr>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match address {
        Some(address) => serializer.collect_str(address),
        None => serializer.serialize_str(NO_ADDRESS),
    }
}

/// Reads the mode of a socket, whose permission to write is that to connect.
pub(super) fn socket_mode(text: &str) -> anyhow::Result<u32> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777 && !text.starts_with('+'));
    mode.with_context(|| {
        format!(
            "socket_mode: {text:?} is not a mode; expected octal digits up to 777, as 600, or 660 for a group"
        )
    })
}

pub(super) fn octal<S: serde::Serializer>(mode: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{mode:o}"))
}

/// The folder with libtorch's libraries in a folder that a user names: it, or `lib` in it, or `torch/lib`.
pub(super) fn libtorch_folder(named: &Path) -> anyhow::Result<PathBuf> {
    let named = std::path::absolute(named).with_context(|| format!("libtorch: {named:?} is not a folder"))?;
    // The dynamic linker takes a list of folders, with colons between them.
    anyhow::ensure!(
        !named.as_os_str().as_encoded_bytes().contains(&b':'),
        "libtorch: {} has a colon in its name, so the dynamic linker cannot look there; expected a folder without",
        named.display()
    );
    let places = [named.clone(), named.join("lib"), named.join("torch/lib")];
    places.into_iter().find(|place| place.join("libtorch_cpu.so").is_file()).with_context(|| {
        let named = named.display();
        format!("libtorch: there is no libtorch_cpu.so in {named}, nor in its lib or torch/lib; expected the lib folder of a PyTorch")
    })
}
