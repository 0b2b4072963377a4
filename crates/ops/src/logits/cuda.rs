//! On a device.

use super::{CHUNK, Change};
use crate::cuda::{Buffer, Grid, launch};
use crate::device::Mat;

/// A warp per chunk.
const CHUNKS_PER_BLOCK: usize = 8;

pub(super) fn change(logits: &Buffer, len: usize, changes: &[Change]) -> Mat {
    let gpu = logits.gpu();
    let out = Mat::on_device(gpu, 1, len);
    let words = |c: &Change| [c.token, c.repetition.to_bits(), c.penalty.to_bits(), c.bias.to_bits()];
    let words: Vec<u32> = changes.iter().flat_map(words).collect();
    let list = gpu.buffer(size_of_val(&words[..]));
    list.write(0, &words);
    launch!(gpu, "logits_copy", Grid::new(len.div_ceil(1024), 256), logits, &out, len);
    launch!(
        gpu,
        "logits_change",
        Grid::new(changes.len().div_ceil(256), 256),
        &out,
        len,
        &list,
        changes.len()
    );
    out
}

pub(super) fn maxima(logits: &Buffer, len: usize) -> Vec<f32> {
    let (gpu, count) = (logits.gpu(), len.div_ceil(CHUNK));
    let out = gpu.buffer(count * size_of::<f32>());
    launch!(gpu, "logits_maxima", Grid::new(count.div_ceil(CHUNKS_PER_BLOCK), 256), logits, len, &out, count);
    let mut maxima = vec![f32::NAN; count];
    out.read(0, &mut maxima);
    maxima
}

/// The chunks in `which` one after the other; what a last, shorter one lacks is unspecified.
pub(super) fn chunks(logits: &Buffer, len: usize, which: &[u32]) -> Vec<f32> {
    let gpu = logits.gpu();
    let list = gpu.buffer(size_of_val(which));
    list.write(0, which);
    let out = gpu.buffer(which.len() * CHUNK * size_of::<f32>());
    launch!(gpu, "logits_chunks", Grid::new(which.len(), CHUNK as u32), logits, len, &list, &out);
    let mut values = vec![0.0; which.len() * CHUNK];
    out.read(0, &mut values);
    values
}
