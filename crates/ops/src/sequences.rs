//! One parallel region, or one launch, for all sequences of a batch.
//!
//! Operations on the states of sequences (attention, convolution, recurrence) have too little work per sequence when
//! each has one token to keep all threads busy, and a fork-join or a launch apiece would cost more than the work.

use crate::device::{Cx, Vector};
use std::ops::Range;

/// Sequences in one region, so that a batch needs no memory but the stack; and in one launch, so that a kernel is given
/// them by value.
pub(crate) const SEQUENCES_MAX: usize = 16;
/// 64-bit words of a `Sequence` of `mamba.cuh`.
const SEQUENCE_WORDS: usize = 3;

/// A sequence as the kernels of a Mamba-2 mixer are given it.
#[derive(Clone, Debug)]
pub(crate) struct DeviceSequence {
    /// Its rows.
    pub rows: Range<usize>,
    /// Address of the state of the convolution, or 0.
    pub conv: u64,
    /// Address of the recurrent state, or 0.
    pub ssm: u64,
}

impl DeviceSequence {
    /// `Sequences` of `mamba.cuh`, for at most [`SEQUENCES_MAX`] sequences. What is not used is zero, so that equal
    /// batches make equal arguments.
    pub(crate) fn words(sequences: &[DeviceSequence]) -> [u64; SEQUENCES_MAX * SEQUENCE_WORDS] {
        let mut words = [0; SEQUENCES_MAX * SEQUENCE_WORDS];
        for (words, sequence) in words.chunks_exact_mut(SEQUENCE_WORDS).zip(sequences) {
            let Range { start, end } = sequence.rows;
            words.copy_from_slice(&[pair(start, end - start), sequence.conv, sequence.ssm]);
        }
        words
    }

    /// Most rows of one of them.
    pub(crate) fn longest(sequences: &[DeviceSequence]) -> usize {
        sequences.iter().map(|sequence| sequence.rows.len()).max().unwrap_or(0)
    }
}

/// Two 32-bit members of a structure, the first one at the lower address.
pub(crate) fn pair(first: usize, second: usize) -> u64 {
    let half = |value| u64::from(u32::try_from(value).expect("sizes of matrices are below 2^32"));
    half(first) | half(second) << 32
}

/// [`pair`] of floats.
pub(crate) fn pair_of_floats(first: f32, second: f32) -> u64 {
    u64::from(first.to_bits()) | u64::from(second.to_bits()) << 32
}

/// Sequences whose results are written by several threads must not share a row.
///
/// # Panics
/// If they do, or if one ends behind the `l` rows that there are.
pub(crate) fn assert_apart(sequences: &[Range<usize>], l: usize) {
    let is_apart = sequences.windows(2).all(|pair| pair[0].end <= pair[1].start);
    assert!(is_apart && sequences.iter().all(|rows| rows.end <= l), "sequences {sequences:?} of {l} rows");
}

/// Where a part of a state is on the device.
///
/// # Panics
/// If it is not.
pub(crate) fn address(state: &Vector) -> u64 {
    state.buffer().expect("a state lies where what is done with it is computed").address()
}

/// Runs `work(sequence, part)` for every part below `num_parts(sequence)` of every sequence, on all threads.
pub(crate) fn run_sequences<S: Sync>(
    cx: &Cx,
    sequences: impl Iterator<Item = S>,
    num_parts: impl Fn(&S) -> usize,
    work: impl Fn(&S, usize) + Sync,
) {
    let mut sequences = sequences.fuse();
    loop {
        let region: [Option<S>; SEQUENCES_MAX] = std::array::from_fn(|_| sequences.next());
        // ends[i]: number of parts of the sequences up to the i-th.
        let mut ends = [0; SEQUENCES_MAX];
        let mut count = 0;
        for sequence in region.iter().flatten() {
            let before = if count == 0 { 0 } else { ends[count - 1] };
            ends[count] = before + num_parts(sequence);
            count += 1;
        }
        if count == 0 {
            return;
        }
        cx.run(ends[count - 1], &|part| {
            let at = ends[..count].partition_point(|&end| end <= part);
            let first = if at == 0 { 0 } else { ends[at - 1] };
            if let Some(sequence) = &region[at] {
                work(sequence, part - first);
            }
        });
        if count < SEQUENCES_MAX {
            return;
        }
    }
}
