//! A TCP proxy that cuts connections after so many bytes.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pba_wire::checksum;

/// Where and how one connection is cut.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// Bytes of the server's answer, head included, that still pass.
    pub after: u64,
    /// With a reset, as when a host dies; otherwise in good order, as when a process ends.
    pub reset: bool,
}

/// Forwards each request, with one part of its first line replaced by another, as a proxy with a wrong
/// rule does. Ends with the test process.
///
/// # Panics
/// When no port is free.
pub fn rewriting(server: SocketAddr, part: &str, other: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let (part, other) = (part.to_owned(), other.to_owned());
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (Ok(mut client), Ok(mut server)) = (client, TcpStream::connect(server)) else { continue };
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                let Ok(1) = client.read(&mut byte) else { break };
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head).replacen(&part, &other, 1);
            if server.write_all(head.as_bytes()).is_ok() {
                forward(client, server, None, &AtomicBool::new(false));
            }
        }
    });
    url
}

/// A complete answer that is no stream, as a server would sign it if this was its answer to a request.
pub fn signed(request: &[u8], answer: &[u8]) -> Vec<u8> {
    let request = String::from_utf8_lossy(request);
    let mut words = request.split(' ');
    let asked = checksum::of_request(words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let Some(end) = answer.windows(4).position(|end| end == b"\r\n\r\n") else { return answer.to_owned() };
    let (head, body) = answer.split_at(end);
    let sum = checksum::of_body(&body[4..], asked);
    let sums = format!("\r\n{}: {asked}\r\n{}: {sum}", checksum::REQUEST_HEADER, checksum::BODY_HEADER);
    [head, sums.as_bytes(), body].concat()
}

/// Forwards all connections that a listener accepts. Ends with the test process.
pub fn forwarding(listener: TcpListener, server: SocketAddr) {
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (Ok(client), Ok(server)) = (client, TcpStream::connect(server)) else { continue };
            std::thread::spawn(move || forward(client, server, None, &AtomicBool::new(false)));
        }
    });
}

/// Forwards all connections, and flips a bit of the answer to each of the first ones: bit `n % 8` of byte
/// `n / 8`, head included. Ends with the test process.
///
/// # Panics
/// When no port is free.
pub fn flipping(server: SocketAddr, bits: impl IntoIterator<Item = u64>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let mut bits: VecDeque<u64> = bits.into_iter().collect();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (Ok(client), Ok(server)) = (client, TcpStream::connect(server)) else { continue };
            let bit = bits.pop_front();
            std::thread::spawn(move || flip(client, server, bit));
        }
    });
    url
}

fn flip(client: TcpStream, server: TcpStream, bit: Option<u64>) {
    let (Ok(mut from_client), Ok(mut to_server)) = (client.try_clone(), server.try_clone()) else { return };
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Write);
    });
    let (mut from_server, mut to_client) = (server, client);
    let (mut passed, mut bytes) = (0, [0; 16 << 10]);
    while let Ok(count @ 1..) = from_server.read(&mut bytes) {
        let place = bit.and_then(|bit| usize::try_from((bit / 8).checked_sub(passed)?).ok());
        if let (Some(byte), Some(bit)) = (place.and_then(|place| bytes[..count].get_mut(place)), bit) {
            *byte ^= 1 << (bit % 8);
        }
        passed += count as u64;
        if to_client.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to_client.shutdown(Shutdown::Both);
    let _ = from_server.shutdown(Shutdown::Both);
}

/// Forwards each request, and alters the first 8 KiB of the answer. Ends with the test process.
///
/// # Panics
/// When no port is free.
pub fn answering_otherwise(server: SocketAddr, alter: impl Fn(&mut [u8]) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (Ok(mut client), Ok(mut server)) = (client, TcpStream::connect(server)) else { continue };
            let mut head = [0; 8 << 10];
            let Ok(count) = client.read(&mut head) else { continue };
            if server.write_all(&head[..count]).is_err() {
                continue;
            }
            let mut beginning = Vec::new();
            // What comes after an error is told by what comes next.
            let _ = (&server).take(8 << 10).read_to_end(&mut beginning);
            alter(&mut beginning);
            if client.write_all(&beginning).is_ok() {
                forward(client, server, None, &AtomicBool::new(false));
            }
        }
    });
    url
}

/// Stands before a server. The first connections are cut as planned, all later ones pass.
pub struct CuttingProxy {
    address: SocketAddr,
    plan: Arc<Mutex<VecDeque<Cut>>>,
    connections: Arc<AtomicUsize>,
    hangs: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
}

impl CuttingProxy {
    /// Starts a proxy before a server.
    ///
    /// # Panics
    /// When no port is free.
    pub fn start(server: SocketAddr) -> CuttingProxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let proxy = CuttingProxy {
            address: listener.local_addr().expect("it is bound"),
            plan: Arc::default(),
            connections: Arc::default(),
            hangs: Arc::default(),
            ended: Arc::default(),
        };
        let (plan, connections, ended) =
            (Arc::clone(&proxy.plan), Arc::clone(&proxy.connections), Arc::clone(&proxy.ended));
        let hangs = Arc::clone(&proxy.hangs);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    break;
                }
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(server)) else { continue };
                connections.fetch_add(1, Ordering::SeqCst);
                let cut = plan.lock().unwrap().pop_front();
                let hangs = Arc::clone(&hangs);
                std::thread::spawn(move || forward(client, server, cut, &hangs));
            }
        });
        proxy
    }

    /// Plans the cuts of the next connections.
    pub fn plan(&self, cuts: impl IntoIterator<Item = Cut>) {
        *self.plan.lock().unwrap() = cuts.into_iter().collect();
    }

    /// From now on, sends nothing more at a cut, instead of ending.
    pub fn hang(&self) {
        self.hangs.store(true, Ordering::SeqCst);
    }

    /// Sends what was held back at a cut, and cuts nothing more.
    pub fn go_on(&self) {
        self.hangs.store(false, Ordering::SeqCst);
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for CuttingProxy {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        self.hangs.store(false, Ordering::SeqCst);
        // Wakes the accepting thread; if even that fails, it ends with the test process.
        let _ = TcpStream::connect(self.address);
    }
}

fn forward(client: TcpStream, server: TcpStream, cut: Option<Cut>, hangs: &AtomicBool) {
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (Ok(mut from_client), Ok(mut to_server)) = (client.try_clone(), server.try_clone()) else { return };
    std::thread::spawn(move || {
        // Ends when either side closes.
        let _ = std::io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Write);
    });
    let (mut from_server, mut to_client) = (server, client);
    let mut left = cut.map_or(u64::MAX, |cut| cut.after);
    let mut bytes = [0; 16 << 10];
    while left > 0 {
        let Ok(count @ 1..) = from_server.read(&mut bytes) else { break };
        let count = count.min(usize::try_from(left).unwrap_or(usize::MAX));
        if to_client.write_all(&bytes[..count]).is_err() {
            break;
        }
        left -= count as u64;
    }
    if cut.is_some() && hangs.load(Ordering::SeqCst) {
        while hangs.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = std::io::copy(&mut from_server, &mut to_client);
    }
    let _ = from_server.shutdown(Shutdown::Both);
    if cut.is_some_and(|cut| cut.reset) {
        let _ = socket2::SockRef::from(&to_client).set_linger(Some(Duration::ZERO));
        // The reset is sent when the last handle closes, and the other one waits in a read.
        let _ = to_client.shutdown(Shutdown::Read);
    } else {
        let _ = to_client.shutdown(Shutdown::Both);
    }
}
