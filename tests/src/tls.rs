//! TLS: an authority that signs certificates, servers that have one, and a proxy that speaks TLS and lets in who brings
//! the token, as one stands before a server in production.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

use crate::metrics::Metrics;
use crate::server::{Process, Server, data_folder};
use crate::{Download, http, wait_for};

/// An authority that no client knows unless it is told.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

/// A certificate and its key, in PEM.
pub struct Pair {
    /// The certificate.
    pub cert: String,
    /// The key, as PKCS#8.
    pub key: String,
}

impl Authority {
    /// A new one.
    ///
    /// # Panics
    /// When no key can be made, or no file.
    pub fn new() -> Authority {
        let folder = tempfile::tempdir().expect("a temporary directory can be made");
        let mut params = CertificateParams::new([]).expect("no name is wrong");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("keys can be made");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("it signs itself");
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).expect("the folder can be written");
        Authority { issuer, folder }
    }

    /// The file of its own certificate.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A certificate for names and addresses, until the year 4096.
    pub fn sign(&self, names: &[&str]) -> Pair {
        self.sign_until(names, 4096)
    }

    /// The same until the beginning of a year.
    ///
    /// # Panics
    /// When a name is none.
    pub fn sign_until(&self, names: &[&str], year: i32) -> Pair {
        let key = KeyPair::generate().expect("keys can be made");
        let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mut params = CertificateParams::new(names).expect("the names are names");
        params.not_after = date_time_ymd(year, 1, 1);
        let cert = params.signed_by(&key, &self.issuer).expect("the authority signs");
        Pair { cert: cert.pem(), key: key.serialize_pem() }
    }
}

impl Default for Authority {
    fn default() -> Authority {
        Authority::new()
    }
}

impl Pair {
    /// Writes the files `tls.crt` and `tls.key` into a folder.
    ///
    /// # Panics
    /// When they cannot be written.
    pub fn write(&self, folder: &Path) {
        std::fs::write(folder.join("tls.crt"), &self.cert).expect("the folder can be written");
        std::fs::write(folder.join("tls.key"), &self.key).expect("the folder can be written");
    }

    /// The certificate as it is sent.
    ///
    /// # Panics
    /// When it is none.
    pub fn sent(&self) -> Vec<u8> {
        CertificateDer::from_pem_slice(self.cert.as_bytes()).expect("a certificate").to_vec()
    }
}

/// A running server whose port speaks TLS, and whose metrics are at a port of their own.
pub struct TlsServer {
    /// The process.
    pub process: Process,
    /// Who has signed its certificate.
    pub authority: Authority,
    address: SocketAddr,
    metrics: SocketAddr,
    folder: TempDir,
    _data: Arc<TempDir>,
}

impl TlsServer {
    /// Starts a server that is `localhost` and 127.0.0.1, with further flags.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    pub fn start(flags: &[&str]) -> TlsServer {
        let authority = Authority::new();
        let pair = authority.sign(&["localhost", "127.0.0.1"]);
        TlsServer::start_as(authority, &pair, flags)
    }

    /// Starts a server with a certificate, and with further flags.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    pub fn start_as(authority: Authority, pair: &Pair, flags: &[&str]) -> TlsServer {
        let folder = tempfile::tempdir().expect("a temporary directory can be made");
        pair.write(folder.path());
        let [cert, key] = ["tls.crt", "tls.key"].map(|name| folder.path().join(name).display().to_string());
        let fixed = ["--tls-cert", &cert, "--tls-key", &key, "--metrics-listen", "127.0.0.1:0"];
        let data = data_folder();
        let process = Server::spawn(data.path(), &[&fixed, flags].concat());
        let line = || process.line().unwrap_or_else(|| panic!("the server ended: {}", process.stderr()));
        let address = |line: &str, before: &str, after: &str| {
            let address = line.strip_prefix(before).and_then(|rest| rest.strip_suffix(after)?.parse().ok());
            address.unwrap_or_else(|| panic!("not the promised line: {line:?}"))
        };
        let listens = address(&line(), "listening on https://", "");
        let metrics = address(&line(), "metrics on http://", "/metrics");
        let server = TlsServer { process, authority, address: listens, metrics, folder, _data: data };
        wait_for("the datasets to be imported", || (server.probe("/readyz").status == 200).then_some(()));
        server
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its metrics are.
    pub fn metrics_address(&self) -> SocketAddr {
        self.metrics
    }

    /// Its URL, with a name that its certificate is for.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// The folder with `tls.crt` and `tls.key`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A connection whose handshake is done.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn connect(&self) -> StreamOwned<ClientConnection, TcpStream> {
        let mut roots = RootCertStore::empty();
        let authority = std::fs::read(self.authority.path()).expect("it is there");
        let authority = CertificateDer::from_pem_slice(&authority).expect("it is a certificate");
        roots.add(authority).expect("it is one of an authority");
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has what TLS needs")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").expect("it is a name");
        let session = ClientConnection::new(Arc::new(config), name).expect("the settings are sound");
        let socket = http::connect(self.address).expect("the server accepts");
        let mut stream = StreamOwned::new(session, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).expect("the server shakes hands");
        }
        stream
    }

    /// The certificate that new connections are shown.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn shows(&self) -> Vec<u8> {
        self.connect().conn.peer_certificates().expect("there is one")[0].to_vec()
    }

    /// Begins to get a page.
    ///
    /// # Panics
    /// When the server does not answer.
    #[track_caller]
    pub fn download(&self, target: &str) -> Download {
        Download::over(Box::new(self.connect()), "GET", target, &[], b"").expect("the server answers")
    }

    /// Gets a page of the port for metrics.
    ///
    /// # Panics
    /// When the server does not answer.
    #[track_caller]
    pub fn probe(&self, target: &str) -> http::Answer {
        Download::open(self.metrics, "GET", target, &[], b"").expect("the server answers").finish()
    }

    /// One series, by the port for metrics; 0 when there is none.
    #[track_caller]
    pub fn metric(&self, series: &str) -> f64 {
        Metrics::parse(&self.probe("/metrics").text()).get(series)
    }
}

/// A proxy with a certificate for `localhost` that a certificate authority of its own has signed.
/// It ends each connection after one answer.
pub struct TlsProxy {
    address: SocketAddr,
    authority: Authority,
    /// Bytes of the server's answer, head included, that the next connections still pass.
    cuts: Arc<Mutex<VecDeque<usize>>>,
    ended: Arc<AtomicBool>,
}

impl TlsProxy {
    /// Starts a proxy before a server; requests without `token` are answered `401`.
    ///
    /// # Panics
    /// When no port is free.
    pub fn start(server: SocketAddr, token: &str) -> TlsProxy {
        let authority = Authority::new();
        let pair = authority.sign(&["localhost"]);
        let certificate = CertificateDer::from_pem_slice(pair.cert.as_bytes()).expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("a key");
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has what TLS needs")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("certificate and key belong together");
        let config = Arc::new(config);

        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let proxy = TlsProxy {
            address: listener.local_addr().expect("it is bound"),
            authority,
            cuts: Arc::default(),
            ended: Arc::default(),
        };
        let (cuts, ended) = (Arc::clone(&proxy.cuts), Arc::clone(&proxy.ended));
        let expected = format!("authorization: bearer {token}").to_lowercase();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(client) = client else { continue };
                let connection = ServerConnection::new(Arc::clone(&config)).expect("the settings are sound");
                let client = StreamOwned::new(connection, client);
                let (cuts, expected) = (Arc::clone(&cuts), expected.clone());
                // A client that goes away, or does not trust the certificate, ends the connection.
                std::thread::spawn(move || forward(client, server, &expected, &cuts));
            }
        });
        proxy
    }

    /// Plans the cuts of the next connections.
    pub fn plan(&self, cuts: impl IntoIterator<Item = usize>) {
        *self.cuts.lock().unwrap() = cuts.into_iter().collect();
    }

    /// Its URL, with the name that its certificate is for.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// The certificate of the authority that signed its own.
    pub fn authority(&self) -> PathBuf {
        self.authority.path()
    }
}

impl Drop for TlsProxy {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes the accepting thread; if even that fails, it ends with the test process.
        let _ = TcpStream::connect(self.address);
    }
}

fn forward(
    mut client: StreamOwned<ServerConnection, TcpStream>,
    server: SocketAddr,
    expected: &str,
    cuts: &Mutex<VecDeque<usize>>,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    if !head.lines().any(|line| line.to_lowercase() == expected) {
        let body =
            r#"{"type":"about:blank","title":"unauthorized","status":401,"detail":"a token is needed"}"#;
        write!(
            client,
            "HTTP/1.1 401 Unauthorized\r\ncontent-type: application/problem+json\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )?;
    } else {
        let mut server = TcpStream::connect(server)?;
        server.write_all(head.replacen("\r\n", "\r\nconnection: close\r\n", 1).as_bytes())?;
        let mut left = cuts.lock().unwrap().pop_front().unwrap_or(usize::MAX);
        let mut bytes = [0; 16 << 10];
        while left > 0 {
            let most = bytes.len().min(left);
            let count = server.read(&mut bytes[..most])?;
            if count == 0 {
                break;
            }
            client.write_all(&bytes[..count])?;
            left -= count;
        }
    }
    client.conn.send_close_notify();
    client.flush()
}
