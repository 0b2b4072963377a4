//! An HTTP/1.1 client of a few lines, so that the tests see what is really sent.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Longest silence of a server that is at work.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// A response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    reader: BufReader<TcpStream>,
}

/// Sends a request.
pub fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Response {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(SILENCE_MAX)).expect("a time limit");
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    head += &format!("Content-Length: {}\r\n", body.len());
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all((head + "\r\n").as_bytes()).expect("the head is sent");
    // A body that is refused for its size need not be taken to its end.
    let _ = stream.write_all(body);
    let mut reader = BufReader::new(stream);
    let mut lines = std::iter::from_fn(|| {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a line of the head");
        Some(line.trim_end().to_owned()).filter(|line| !line.is_empty())
    });
    let first = lines.next().expect("a status line");
    let status = first.split(' ').nth(1).expect("a status").parse().expect("a number");
    let headers = lines.map(|line| {
        let (name, value) = line.split_once(':').expect("a header");
        (name.to_ascii_lowercase(), value.trim().to_owned())
    });
    let headers = headers.collect();
    Response { status, headers, reader }
}

impl Response {
    /// The value of a header; the name is in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The next piece of a body of unknown length; `None` at its end.
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        let mut line = String::new();
        self.reader.read_line(&mut line).expect("the length of a piece");
        let len = usize::from_str_radix(line.trim(), 16).expect("a length");
        let mut piece = vec![0; len + 2];
        self.reader.read_exact(&mut piece).expect("a piece");
        piece.truncate(len);
        Some(piece).filter(|piece| !piece.is_empty())
    }

    /// The body.
    pub fn bytes(mut self) -> Vec<u8> {
        let mut body = Vec::new();
        if self.header("transfer-encoding") == Some("chunked") {
            while let Some(piece) = self.chunk() {
                body.extend(piece);
            }
        } else {
            self.reader.read_to_end(&mut body).expect("the body");
        }
        body
    }

    /// The body as text.
    pub fn text(self) -> String {
        String::from_utf8(self.bytes()).expect("UTF-8")
    }

    /// The body as JSON, if the status is as expected.
    pub fn json(self, status: u16) -> Value {
        let found = self.status;
        let text = self.text();
        assert_eq!(found, status, "{text}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
    }
}
