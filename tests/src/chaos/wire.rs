//! A proxy before a server, on TCP or a Unix socket, that does to the first requests and answers what is planned.
//! It passes on descriptors, and so shared memory.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// Where a server, or a proxy, is.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Place {
    pub(crate) fn url(&self) -> String {
        match self {
            Place::Tcp(address) => format!("http://{address}"),
            Place::Unix(path) => format!("unix:{}", path.display()),
        }
    }
}

/// What happens to one connection, after so many bytes of the answer, or of the request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trouble {
    pub(crate) after: u64,
    pub(crate) kind: TroubleKind,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum TroubleKind {
    /// It ends in good order.
    Cut,
    /// It ends with a reset, where there are resets.
    Reset,
    /// Nothing comes for so long, then the rest.
    Delay(Duration),
    /// So many bytes come one by one, each after a pause; then the rest.
    Drip(u64, Duration),
    /// Nothing comes any more, and it stays open.
    Silence,
    /// One bit of the next byte is another.
    Flip(u8),
    /// One bit of the next byte of the request is another.
    FlipAsked(u8),
}

/// The proxy. It ends when it is dropped.
pub(crate) struct Wire {
    place: Place,
    shared: Arc<Shared>,
}

struct Shared {
    server: Mutex<Place>,
    plan: Mutex<VecDeque<Trouble>>,
    done: AtomicUsize,
    ended: AtomicBool,
}

impl Wire {
    /// A proxy that listens on TCP, or on a Unix socket at a path, before a server.
    pub(crate) fn start(at: Option<PathBuf>, server: Place) -> Wire {
        let shared = Arc::new(Shared {
            server: Mutex::new(server),
            plan: Mutex::default(),
            done: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
        });
        let place = match at {
            None => {
                let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
                let place = Place::Tcp(listener.local_addr().expect("it is bound"));
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || accept(&shared, || listener.accept().map(|(s, _)| Link::Tcp(s))));
                place
            }
            Some(path) => {
                let listener = UnixListener::bind(&path).expect("a socket can be made");
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || accept(&shared, || listener.accept().map(|(s, _)| Link::Unix(s))));
                Place::Unix(path)
            }
        };
        Wire { place, shared }
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    pub(crate) fn url(&self) -> String {
        self.place.url()
    }

    /// Plans what happens to the next connections; all later ones pass.
    pub(crate) fn plan(&self, troubles: impl IntoIterator<Item = Trouble>) {
        *self.shared.plan.lock().unwrap() = troubles.into_iter().collect();
    }

    /// Troubles that took place.
    pub(crate) fn done(&self) -> usize {
        self.shared.done.load(Ordering::SeqCst)
    }

    /// From now on, another server stands behind it.
    pub(crate) fn lead_to(&self, server: Place) {
        *self.shared.server.lock().unwrap() = server;
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts; if even that fails, it ends with the process.
        let _ = Link::connect(&self.place);
    }
}

fn accept(shared: &Arc<Shared>, accept: impl Fn() -> io::Result<Link>) {
    loop {
        let accepted = accept();
        if shared.ended.load(Ordering::SeqCst) {
            return;
        }
        let Ok(client) = accepted else { continue };
        let server = shared.server.lock().unwrap().clone();
        // The client sees a connection that ends at once, as behind any proxy whose server is away.
        let Ok(server) = Link::connect(&server) else { continue };
        let (shared, trouble) = (Arc::clone(shared), shared.plan.lock().unwrap().pop_front());
        std::thread::spawn(move || forward(&shared, client, server, trouble));
    }
}

/// A connected socket.
enum Link {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Link {
    fn connect(place: &Place) -> io::Result<Link> {
        Ok(match place {
            Place::Tcp(address) => {
                let socket = TcpStream::connect(address)?;
                socket.set_nodelay(true)?;
                Link::Tcp(socket)
            }
            Place::Unix(path) => Link::Unix(UnixStream::connect(path)?),
        })
    }

    fn another(&self) -> io::Result<Link> {
        Ok(match self {
            Link::Tcp(socket) => Link::Tcp(socket.try_clone()?),
            Link::Unix(socket) => Link::Unix(socket.try_clone()?),
        })
    }

    /// Some bytes, with the descriptors that came with them; no bytes at the end.
    fn receive(&mut self, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        let socket = match self {
            Link::Tcp(socket) => return Ok((socket.read(bytes)?, Vec::new())),
            Link::Unix(socket) => socket,
        };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = recvmsg(socket.as_fd(), &mut [IoSliceMut::new(bytes)], &mut ancillary, flags)?;
        let descriptors = ancillary.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        });
        Ok((received.bytes, descriptors.flatten().collect()))
    }

    fn pass_on(&mut self, mut bytes: &[u8], descriptors: &[OwnedFd]) -> io::Result<()> {
        let socket = match self {
            Link::Tcp(socket) => return socket.write_all(bytes),
            Link::Unix(socket) => socket,
        };
        if !descriptors.is_empty() {
            let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
            let sent = sendmsg(socket.as_fd(), &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
            bytes = &bytes[sent..];
        }
        socket.write_all(bytes)
    }

    fn shutdown(&self, how: Shutdown) {
        // It may be closed already.
        let _ = match self {
            Link::Tcp(socket) => socket.shutdown(how),
            Link::Unix(socket) => socket.shutdown(how),
        };
    }

    /// Makes the end a reset. A Unix socket has none.
    fn reset(&self) {
        let Link::Tcp(socket) = self else { return self.shutdown(Shutdown::Both) };
        let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
        // The reset is sent when the last handle closes, and the other one waits in a read.
        let _ = socket.shutdown(Shutdown::Read);
    }
}

fn forward(shared: &Arc<Shared>, client: Link, server: Link, trouble: Option<Trouble>) {
    let (Ok(mut from_client), Ok(mut to_server)) = (client.another(), server.another()) else { return };
    if let Link::Tcp(socket) = &client {
        let _ = socket.set_nodelay(true);
    }
    let client_left = Arc::new(AtomicBool::new(false));
    let leaves = Arc::clone(&client_left);
    let (asked, trouble) = match trouble {
        Some(Trouble { after, kind: TroubleKind::FlipAsked(bit) }) => (Some((after, bit)), None),
        trouble => (None, trouble),
    };
    let asking = Arc::clone(shared);
    std::thread::spawn(move || {
        // Ends when either side closes.
        if let Some((after, bit)) = asked
            && pass(&mut from_client, &mut to_server, after)
        {
            flip(&asking, &mut from_client, &mut to_server, bit);
        }
        pass(&mut from_client, &mut to_server, u64::MAX);
        leaves.store(true, Ordering::SeqCst);
        to_server.shutdown(Shutdown::Write);
    });
    let (mut from_server, mut to_client) = (server, client);
    let mut is_reset = false;
    let passed = pass(&mut from_server, &mut to_client, trouble.map_or(u64::MAX, |trouble| trouble.after));
    if let Some(trouble) = trouble.filter(|_| passed) {
        match trouble.kind {
            TroubleKind::Cut => {}
            TroubleKind::Reset => is_reset = true,
            TroubleKind::Delay(pause) => std::thread::sleep(pause),
            TroubleKind::Drip(count, pause) => {
                for _ in 0..count {
                    std::thread::sleep(pause);
                    if !pass(&mut from_server, &mut to_client, 1) {
                        break;
                    }
                }
            }
            TroubleKind::Silence => {
                shared.done.fetch_add(1, Ordering::SeqCst);
                while !shared.ended.load(Ordering::SeqCst) && !client_left.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
            TroubleKind::Flip(bit) => flip(shared, &mut from_server, &mut to_client, bit),
            TroubleKind::FlipAsked(_) => unreachable!("it was taken out above"),
        }
        match trouble.kind {
            TroubleKind::Cut | TroubleKind::Reset | TroubleKind::Delay(_) | TroubleKind::Drip(..) => {
                shared.done.fetch_add(1, Ordering::SeqCst);
            }
            TroubleKind::Silence | TroubleKind::Flip(_) | TroubleKind::FlipAsked(_) => {}
        }
        if !matches!(trouble.kind, TroubleKind::Cut | TroubleKind::Reset | TroubleKind::Silence) {
            pass(&mut from_server, &mut to_client, u64::MAX);
        }
    }
    from_server.shutdown(Shutdown::Both);
    if is_reset {
        to_client.reset();
    } else {
        to_client.shutdown(Shutdown::Both);
    }
}

/// Passes on a byte with another bit, if one comes.
fn flip(shared: &Shared, from: &mut Link, to: &mut Link, bit: u8) {
    let mut byte = [0];
    if let Ok((1, descriptors)) = from.receive(&mut byte) {
        shared.done.fetch_add(1, Ordering::SeqCst);
        let _ = to.pass_on(&[byte[0] ^ (1 << bit)], &descriptors);
    }
}

/// Passes on so many bytes; whether they came and were taken.
fn pass(from: &mut Link, to: &mut Link, mut left: u64) -> bool {
    let mut bytes = [0; 16 << 10];
    while left > 0 {
        let room = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let Ok((count @ 1.., descriptors)) = from.receive(&mut bytes[..room]) else { return false };
        if to.pass_on(&bytes[..count], &descriptors).is_err() {
            return false;
        }
        left -= count as u64;
    }
    true
}
