//! One parallel region for all sequences of a batch.
//!
//! Operations on the states of sequences (attention, convolution, recurrence) have too little work per sequence when
//! each has one token to keep all threads busy, and a fork-join apiece would cost more than the work.

use crate::device::Cx;

/// Sequences in one region, so that a batch needs no memory but the stack.
const SEQUENCES_MAX: usize = 16;

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
