//! A proxy that speaks TLS and lets in who brings the token, as one stands before a server in production.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

/// A proxy with a certificate for `localhost` that a certificate authority of its own has signed.
/// It ends each connection after one answer.
pub struct TlsProxy {
    address: SocketAddr,
    folder: TempDir,
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
        let folder = tempfile::tempdir().expect("a temporary directory can be made");
        let authority = {
            let mut params = CertificateParams::new([]).expect("no name is wrong");
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate().expect("keys can be made");
            CertifiedIssuer::self_signed(params, key).expect("it signs itself")
        };
        std::fs::write(folder.path().join("ca.pem"), authority.pem()).expect("the folder can be written");
        let key = KeyPair::generate().expect("keys can be made");
        let params = CertificateParams::new(["localhost".to_owned()]).expect("the name is a name");
        let certificate = params.signed_by(&key, &authority).expect("the authority signs");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("it is a key");
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has what TLS needs")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("certificate and key belong together");
        let config = Arc::new(config);

        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let proxy = TlsProxy {
            address: listener.local_addr().expect("it is bound"),
            folder,
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
        self.folder.path().join("ca.pem")
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
