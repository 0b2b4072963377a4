//! Writing a file whose header announces the size of every tensor before the first byte of data.

use std::io::{self, Write};

use crate::error::{Error, Result};

/// Lets exactly the announced number of bytes of one tensor through.
struct Exactly<'a, W> {
    out: &'a mut W,
    left: u64,
}

impl<W: Write> Write for Exactly<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "more bytes than the header announces"));
        }
        let n = self.out.write(bytes)?;
        self.left -= n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Calls `fill` with a stream that accepts exactly `num_bytes` bytes for tensor `name`.
pub(crate) fn write_exactly<W: Write>(
    out: &mut W,
    name: &str,
    num_bytes: u64,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<()> {
    let mut exactly = Exactly { out, left: num_bytes };
    fill(&mut exactly).map_err(|cause| Error::Write { what: format!("tensor `{name}`"), cause })?;
    if exactly.left > 0 {
        let problem = format!("{} of its {num_bytes} bytes were not written", exactly.left);
        return Err(Error::WrongTensorWritten { name: name.to_string(), problem });
    }
    Ok(())
}
