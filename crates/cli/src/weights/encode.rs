//! Making the bytes of a tensor: values computed and encoded in blocks of rows by several threads, written in
//! order. Beside what the sources hold, memory is bounded by a few blocks per thread, whatever the tensor's size.

use std::io::{self, Write};
use std::sync::mpsc::sync_channel;

use tangelo_core::DType;
use tangelo_ops::quant::encode_row;

use super::Elements;

/// Elements of a block, unless a row is longer.
const BLOCK_ELEMENTS: u64 = 1 << 18;
/// Encoded blocks that a thread may be ahead of the writer.
const BLOCKS_AHEAD: usize = 2;

/// What happens to a value before it is stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Transform {
    /// Nothing.
    Same,
    /// -exp(x): how GGUF stores `A_log`.
    NegativeExp,
    /// x / scale: FP8 elements.
    DivideBy(f32),
}

impl Transform {
    fn apply(self, x: f32) -> f32 {
        match self {
            Transform::Same => x,
            // Through f64, so that the result is the nearest f32 and the same on every machine.
            Transform::NegativeExp => -f64::from(x).exp() as f32,
            Transform::DivideBy(scale) => x / scale,
        }
    }
}

/// A tensor to write: the elements of its sources one after the other, in one element type.
pub struct Job {
    /// The sources, all of the same size; several for stacked experts.
    pub sources: Vec<Box<dyn Elements>>,
    /// Rows of each source.
    pub rows: u64,
    /// Elements of a row, whole blocks of `dtype`.
    pub columns: u64,
    /// Stored type.
    pub dtype: DType,
    /// Applied to every value.
    pub transform: Transform,
}

impl Job {
    /// A tensor of `shape` (row-major) made of `sources`.
    pub fn new(sources: Vec<Box<dyn Elements>>, shape: &[usize], dtype: DType, transform: Transform) -> Job {
        let elements: u64 = shape.iter().map(|&d| d as u64).product();
        let columns = shape.last().map_or(1, |&d| d as u64);
        let rows = elements / columns.max(1) / (sources.len() as u64).max(1);
        Job { sources, rows, columns, dtype, transform }
    }

    fn rows_per_block(&self) -> u64 {
        (BLOCK_ELEMENTS / self.columns.max(1)).max(1)
    }

    fn blocks_per_source(&self) -> usize {
        self.rows.div_ceil(self.rows_per_block()) as usize
    }

    fn num_blocks(&self) -> usize {
        self.blocks_per_source() * self.sources.len()
    }

    /// The bytes of one block.
    fn block(&self, index: usize) -> io::Result<Vec<u8>> {
        let (source, part) = (index / self.blocks_per_source(), (index % self.blocks_per_source()) as u64);
        let first = part * self.rows_per_block();
        let last = (first + self.rows_per_block()).min(self.rows);
        let mut values = vec![0.0; ((last - first) * self.columns) as usize];
        self.sources[source].fill(first * self.columns..last * self.columns, &mut values);
        if self.transform != Transform::Same {
            values.iter_mut().for_each(|x| *x = self.transform.apply(*x));
        }
        let mut bytes = vec![0; self.dtype.row_bytes(values.len()).unwrap_or(0)];
        encode_row(self.dtype, &values, &mut bytes).map_err(io::Error::other)?;
        Ok(bytes)
    }

    /// Writes all bytes, calling `on_bytes` with the size of every piece written. The bytes do not depend on the
    /// number of threads.
    ///
    /// # Errors
    /// If `out` fails.
    pub fn write(
        &self,
        threads: usize,
        out: &mut dyn Write,
        on_bytes: &mut dyn FnMut(u64),
    ) -> io::Result<()> {
        let num_blocks = self.num_blocks();
        let threads = threads.min(num_blocks);
        let mut put = |bytes: Vec<u8>| -> io::Result<()> {
            out.write_all(&bytes)?;
            on_bytes(bytes.len() as u64);
            Ok(())
        };
        if threads <= 1 {
            return (0..num_blocks).try_for_each(|i| put(self.block(i)?));
        }
        // Thread t makes blocks t, t + threads, …; taking one from each in turn restores the order. When writing
        // fails the receivers are dropped, and the threads end at their next block.
        std::thread::scope(|scope| {
            let worker = |t: usize| {
                let (sender, receiver) = sync_channel(BLOCKS_AHEAD);
                scope.spawn(move || {
                    let blocks = (t..num_blocks).step_by(threads);
                    blocks.map(|i| self.block(i)).try_for_each(|block| sender.send(block)).ok();
                });
                receiver
            };
            let receivers: Vec<_> = (0..threads).map(worker).collect();
            (0..num_blocks)
                .try_for_each(|i| put(receivers[i % threads].recv().map_err(io::Error::other)??))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::synth::values::Values;

    fn values(stream: u64) -> Box<dyn Elements> {
        Box::new(Values { stream, centre: 0.0, half_width: 1.0, round_to_bf16: true })
    }

    fn bytes(job: &Job, threads: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut counted = 0;
        job.write(threads, &mut bytes, &mut |n| counted += n).expect("writing to memory");
        assert_eq!(counted, bytes.len() as u64);
        bytes
    }

    #[test]
    fn the_bytes_do_not_depend_on_blocks_and_threads() {
        // Five blocks and a bit per source.
        let columns = 512;
        let rows = 5 * BLOCK_ELEMENTS as usize / columns + 3;
        for dtype in [DType::Q8_0, DType::F32] {
            let job = Job::new(vec![values(1), values(2)], &[2, rows, columns], dtype, Transform::Same);
            let one = bytes(&job, 1);
            assert_eq!(one.len(), dtype.row_bytes(2 * rows * columns).expect("whole blocks"));
            assert!((2..5).all(|threads| bytes(&job, threads) == one));
            let mut expected = vec![0.0; rows * columns];
            values(2).fill(0..expected.len() as u64, &mut expected);
            let mut second = vec![0; one.len() / 2];
            encode_row(dtype, &expected, &mut second).expect("whole blocks");
            assert!(one[one.len() / 2..] == second, "the second source follows the first");
        }
    }

    #[test]
    fn a_stream_that_fails_stops_the_threads() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let job = Job::new(vec![values(1)], &[4096, 512], DType::F32, Transform::Same);
        let error = job.write(3, &mut Full, &mut |_| {}).expect_err("a full disk");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn transforms_come_before_encoding() {
        let job = |transform| Job::new(vec![values(1)], &[8], DType::F32, transform);
        let floats = |job: &Job| -> Vec<f32> {
            bytes(job, 1).as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
        };
        let plain = floats(&job(Transform::Same));
        for (x, y) in plain.iter().zip(floats(&job(Transform::NegativeExp))) {
            assert_eq!(y, -f64::from(*x).exp() as f32);
        }
        assert!(plain.iter().zip(floats(&job(Transform::DivideBy(0.5)))).all(|(x, y)| y == x * 2.0));
    }
}
