//! HTTP/1.1 as it is on the wire, one request per connection.
//!
//! Libraries hide where an answer broke off. This client tells, and reads no faster than asked.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use pba_wire::Problem;
use socket2::{Domain, Socket, Type};

use crate::PATIENCE;

/// A whole answer, or as much of it as came.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Headers in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body without its chunks' frames.
    pub body: Vec<u8>,
    /// Whether the body came whole: all of its length, or the last chunk.
    pub complete: bool,
}

impl Answer {
    /// A header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{} is not JSON: {error}: {}", self.status, self.text()))
    }

    /// The error in the body, whose status must be that of the answer.
    ///
    /// # Panics
    /// When it is no `application/problem+json`.
    #[track_caller]
    pub fn problem(&self) -> Problem {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.text());
        let problem: Problem = serde_json::from_slice(&self.body).expect("a problem");
        assert_eq!(problem.status, self.status);
        assert!(!problem.title.is_empty() && !problem.detail.is_empty(), "{problem:?}");
        problem
    }
}

/// An answer whose body is still on its way.
pub struct Download {
    /// The status.
    pub status: u16,
    /// Headers in order, names in lower case.
    pub headers: Vec<(String, String)>,
    socket: BufReader<Box<dyn Wire>>,
    /// The same without TLS, if it is without.
    tcp: Option<TcpStream>,
    left: Left,
}

/// What HTTP is spoken over: a socket, or TLS.
pub trait Wire: Read + Write + Send {}

impl<W: Read + Write + Send> Wire for W {}

/// What is still to come of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// So many bytes.
    Bytes(u64),
    /// So many bytes of a chunk, then more chunks.
    Chunk(u64),
    /// Everything until the connection closes.
    UntilClosed,
    /// Nothing.
    Nothing,
}

impl Download {
    /// Sends a request and reads the answer's head.
    ///
    /// # Errors
    /// When the connection breaks, or what comes is not HTTP.
    pub fn open(
        address: SocketAddr,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Download> {
        Download::request(connect(address)?, method, target, headers, body)
    }

    /// As [`Download::open`], from a client whose receive buffer is as small as the kernel lets it
    /// be, so that what it does not read piles up at the server.
    ///
    /// # Errors
    /// As [`Download::open`].
    pub fn open_narrow(address: SocketAddr, target: &str) -> io::Result<Download> {
        Download::open_narrow_with(address, target, &[])
    }

    /// As [`Download::open_narrow`], with headers.
    ///
    /// # Errors
    /// As [`Download::open`].
    pub fn open_narrow_with(
        address: SocketAddr,
        target: &str,
        headers: &[(&str, &str)],
    ) -> io::Result<Download> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_recv_buffer_size(4096)?;
        socket.connect(&address.into())?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Download::request(socket.into(), "GET", target, headers, b"")
    }

    /// As [`Download::open_narrow`], from an address of this machine: 127.0.0.2, say, is another client.
    ///
    /// # Errors
    /// As [`Download::open`].
    pub fn open_narrow_from(source: IpAddr, address: SocketAddr, target: &str) -> io::Result<Download> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
        socket.set_recv_buffer_size(4096)?;
        socket.connect(&address.into())?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Download::request(socket.into(), "GET", target, &[], b"")
    }

    fn request(
        socket: TcpStream,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Download> {
        let tcp = Some(socket.try_clone()?);
        Ok(Download { tcp, ..Download::over(Box::new(socket), method, target, headers, body)? })
    }

    /// As [`Download::open`], over what is open already.
    ///
    /// # Errors
    /// As [`Download::open`].
    pub fn over(
        mut socket: Box<dyn Wire>,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Download> {
        let mut head = format!("{method} {target} HTTP/1.1\r\nconnection: close\r\n");
        // What is posted is JSON nearly everywhere, and has to be called so.
        let usual = [("host", "localhost"), ("content-type", "application/json")];
        let usual = usual.iter().filter(|(name, _)| *name == "host" || method == "POST");
        let is_given = |name: &str| headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name));
        for (name, value) in usual.filter(|(name, _)| !is_given(name)).chain(headers) {
            head += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() || method == "PUT" || method == "POST" {
            head += &format!("content-length: {}\r\n", body.len());
        }
        head += "\r\n";
        socket.write_all(head.as_bytes())?;
        // A server that refuses a large body may close before it has read it all.
        let _ = socket.write_all(body);
        let mut socket = BufReader::new(socket);
        let status_line = line(&mut socket)?;
        let status = status_line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        let status = status.ok_or_else(|| wrong(format!("not a status line: {status_line:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = line(&mut socket)?;
            if line.is_empty() {
                break;
            }
            let (name, value) =
                line.split_once(':').ok_or_else(|| wrong(format!("not a header: {line:?}")))?;
            headers.push((name.to_lowercase(), value.trim().to_owned()));
        }
        let left = match (header(&headers, "transfer-encoding"), header(&headers, "content-length")) {
            _ if method == "HEAD" || status == 204 => Left::Nothing,
            (Some("chunked"), _) => Left::Chunk(0),
            (_, Some(length)) => match length.parse().map_err(|_| wrong(format!("length {length:?}")))? {
                0 => Left::Nothing,
                bytes => Left::Bytes(bytes),
            },
            _ => Left::UntilClosed,
        };
        Ok(Download { status, headers, socket, tcp: None, left })
    }

    /// Reads exactly so many bytes of the body.
    ///
    /// # Panics
    /// When they do not come.
    #[track_caller]
    pub fn sip(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.read_exact(&mut bytes).expect("the body goes on");
        bytes
    }

    /// Reads the rest, as far as it comes.
    pub fn finish(mut self) -> Answer {
        let mut body = Vec::new();
        let complete = self.read_to_end(&mut body).is_ok();
        Answer { status: self.status, headers: self.headers, body, complete }
    }

    /// Goes away with a reset, as a killed process does while bytes are under way.
    pub fn reset(self) {
        if let Some(tcp) = &self.tcp {
            // Without it the connection ends in good order, which the test does not depend on.
            let _ = socket2::SockRef::from(tcp).set_linger(Some(Duration::ZERO));
        }
    }
}

impl Read for Download {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if let Left::Chunk(0) = self.left {
            let size = line(&mut self.socket)?;
            let size = u64::from_str_radix(&size, 16).map_err(|_| wrong(format!("chunk size {size:?}")))?;
            if size == 0 {
                if !line(&mut self.socket)?.is_empty() {
                    return Err(wrong("no empty line after the last chunk".to_owned()));
                }
                self.left = Left::Nothing;
            } else {
                self.left = Left::Chunk(size);
            }
        }
        let (Left::Bytes(left) | Left::Chunk(left)) = self.left else {
            return if self.left == Left::Nothing { Ok(0) } else { self.socket.read(bytes) };
        };
        let room = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let count = self.socket.read(&mut bytes[..room])?;
        if count == 0 && room > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let left = left - count as u64;
        self.left = match self.left {
            Left::Chunk(_) => {
                if left == 0 && !line(&mut self.socket)?.is_empty() {
                    return Err(wrong("no empty line after a chunk".to_owned()));
                }
                Left::Chunk(left)
            }
            _ if left == 0 => Left::Nothing,
            _ => Left::Bytes(left),
        };
        Ok(count)
    }
}

/// Sends raw bytes in pieces, and reads what comes back until the server closes.
///
/// # Panics
/// When no connection can be made, or it breaks.
#[track_caller]
pub fn raw_open(address: SocketAddr, pieces: &[&[u8]]) -> Vec<u8> {
    let mut socket = connect(address).expect("the server accepts");
    for piece in pieces {
        socket.write_all(piece).expect("the server reads");
    }
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).expect("the server answers");
    answer
}

/// Sends raw bytes and nothing more ever, and reads what comes back until the server closes.
///
/// # Panics
/// When no connection can be made.
#[track_caller]
pub fn raw(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut socket = connect(address).expect("the server accepts");
    // It may refuse after the first bytes, and close.
    let _ = socket.write_all(bytes);
    let _ = socket.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    answer
}

/// A connection on which nothing takes for ever.
///
/// # Errors
/// When the server does not accept it.
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    patient(TcpStream::connect(address)?)
}

/// The same from an address of this machine: 127.0.0.2, say, is another client.
///
/// # Errors
/// As [`connect`].
pub fn connect_from(source: IpAddr, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    socket.connect(&address.into())?;
    patient(socket.into())
}

fn patient(socket: TcpStream) -> io::Result<TcpStream> {
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

fn line(socket: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    socket.read_line(&mut line)?;
    match line.strip_suffix("\r\n") {
        Some(line) => Ok(line.to_owned()),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn wrong(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
